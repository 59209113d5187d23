//! The page `docs/telemetry.md` against what is really written.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use ::metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder,
    SharedString, Unit,
};
use ::tracing::field::{Field, Visit};
use ::tracing::{Event, Subscriber, span};

use super::*;

/// Tells an observer one of everything, and every failure.
fn tell_everything(observer: &dyn Observer) {
    let (key, mode, reason) = (Arc::from("k"), Mode::Shared, Arc::from("gone"));
    let (wait, hold) = (Duration::from_millis(1500), Duration::from_secs(3));
    observer.on_wait(&Wait {
        locker: 1,
        request: 1,
        key: Arc::clone(&key),
        mode,
        local: true,
    });
    observer.on_acquire(&Acquired {
        locker: 1,
        request: 1,
        key: Arc::clone(&key),
        mode,
        wait,
    });
    for failure in [
        Failure::Busy,
        Failure::Unavailable,
        Failure::Refused,
        Failure::TooManyHeld,
        Failure::Cancelled,
        Failure::ShutDown,
    ] {
        observer.on_fail(&Failed {
            locker: 1,
            request: 2,
            key: Arc::clone(&key),
            mode,
            wait,
            failure,
        });
    }
    observer.on_release(&Released {
        locker: 1,
        request: 1,
        key: Arc::clone(&key),
        mode,
        hold,
    });
    observer.on_lost(&Loss {
        locker: 1,
        request: 3,
        key: Arc::clone(&key),
        mode,
        hold,
        reason: Arc::clone(&reason),
    });
    observer.on_unavailable(&Outage {
        locker: 1,
        request: 3,
        key,
        mode,
        wait,
        reason,
    });
    for (locker, holds, waiters, dropped) in
        [(1, 5, 2, 3), (2, 1, 0, 0), (1, 2, 2, 4), (2, 0, 0, 0)]
    {
        observer.on_counts(&Counts {
            locker,
            holds,
            waiters,
            keeper_connections: usize::from(holds > 0),
            waiter_connections: waiters,
            dropped,
        });
    }
}

fn page() -> String {
    let repository = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the workspace");
    std::fs::read_to_string(repository.join("docs/telemetry.md")).expect("docs/telemetry.md")
}

/// The rows of the tables whose first column is a name that begins so, each cut after the columns that are compared.
fn rows(prefix: &str, columns: usize) -> BTreeSet<String> {
    let begin = format!("| `{prefix}");
    let cut = |row: &str| {
        row.split('|')
            .take(columns + 1)
            .collect::<Vec<_>>()
            .join("|")
    };
    let page = page();
    let rows = page.lines().filter(|line| line.starts_with(&begin));
    rows.map(|row| cut(row).trim_end().to_owned()).collect()
}

#[derive(Clone, Default)]
struct Written(Arc<Mutex<BTreeSet<String>>>);

impl Written {
    fn note(&self, line: String) {
        self.0.lock().expect("the lines").insert(line);
    }

    fn lines(&self) -> BTreeSet<String> {
        self.0.lock().expect("the lines").clone()
    }
}

struct Fields {
    names: Vec<String>,
    outcome: String,
    milliseconds: Vec<f64>,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "outcome" {
            self.outcome = format!("{value:?}").replace('"', "`");
        }
        if field.name() != "message" {
            self.names.push(format!("`{}`", field.name()));
        }
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.milliseconds.push(value);
        self.record_debug(field, &value);
    }
}

impl Subscriber for Written {
    fn enabled(&self, _: &::tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, attributes: &span::Attributes<'_>) -> span::Id {
        let metadata = attributes.metadata();
        let fields: Vec<_> = metadata
            .fields()
            .iter()
            .map(|field| format!("`{}`", field.name()))
            .collect();
        let level = metadata.level().as_str().to_lowercase();
        self.note(format!(
            "| `{}` | {level} span | {} |",
            metadata.name(),
            fields.join(", ")
        ));
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let metadata = event.metadata();
        assert_eq!(metadata.target(), "dlock");
        let mut fields = Fields {
            names: Vec::new(),
            outcome: String::new(),
            milliseconds: Vec::new(),
        };
        event.record(&mut fields);
        let known = |ms: &f64| (ms - 1500.0).abs() < 0.1 || (ms - 3000.0).abs() < 0.1;
        assert!(
            fields.milliseconds.iter().all(known),
            "{:?}",
            fields.milliseconds
        );
        self.note(
            format!(
                "| `{}` | {} | {} | {}",
                metadata.name(),
                metadata.level().as_str().to_lowercase(),
                fields.names.join(", "),
                fields.outcome,
            )
            .trim_end()
            .to_owned(),
        );
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

#[test]
fn the_page_lists_every_event_of_tracing() {
    let written = Written::default();
    ::tracing::subscriber::with_default(written.clone(), || tell_everything(&Tracing::new()));
    assert_eq!(written.lines(), rows("dlock.", 4));
}

/// Writes down the life of each span.
#[derive(Clone, Default)]
struct Lives(Arc<Mutex<(Vec<&'static str>, Vec<String>)>>);

impl Lives {
    fn note(&self, id: &span::Id, what: &str) {
        let (names, lines) = &mut *self.0.lock().expect("the lines");
        let index = usize::try_from(id.into_u64()).expect("a small number") - 1;
        lines.push(format!("{} {what}", names[index]));
    }
}

impl Subscriber for Lives {
    fn enabled(&self, metadata: &::tracing::Metadata<'_>) -> bool {
        metadata.is_span()
    }

    fn new_span(&self, attributes: &span::Attributes<'_>) -> span::Id {
        assert!(attributes.is_root(), "the caller's span is elsewhere");
        let mut lives = self.0.lock().expect("the lines");
        lives.0.push(attributes.metadata().name());
        let id = span::Id::from_u64(lives.0.len() as u64);
        drop(lives);
        self.note(&id, "opened");
        id
    }

    fn record(&self, id: &span::Id, record: &span::Record<'_>) {
        let mut fields = Fields {
            names: Vec::new(),
            outcome: String::new(),
            milliseconds: Vec::new(),
        };
        record.record(&mut fields);
        let named = fields.names.concat();
        self.note(
            id,
            if fields.outcome.is_empty() {
                &named
            } else {
                &fields.outcome
            },
        );
    }

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, _: &Event<'_>) {}

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}

    fn try_close(&self, id: span::Id) -> bool {
        self.note(&id, "closed");
        true
    }
}

#[test]
fn spans_last_from_the_wait_and_from_the_grant_to_their_ends() {
    let lives = Lives::default();
    ::tracing::subscriber::with_default(lives.clone(), || {
        let tracing = Tracing::new();
        tell_everything(&tracing);
        let acquired = Acquired {
            locker: 1,
            request: 7,
            key: Arc::from("k"),
            mode: Mode::Exclusive,
            wait: Duration::ZERO,
        };
        tracing.on_acquire(&acquired);
        let counts = |dropped| Counts {
            locker: 1,
            holds: 1,
            dropped,
            ..Counts::default()
        };
        tracing.on_counts(&counts(4));
        assert!(
            lives
                .0
                .lock()
                .expect("the lines")
                .1
                .ends_with(&["dlock.hold opened".to_owned()])
        );
        // The release may be among what was dropped.
        tracing.on_counts(&counts(5));
    });
    let expected = [
        "dlock.wait opened",
        "dlock.wait `wait_ms`",
        "dlock.wait `acquired`",
        "dlock.wait closed",
        "dlock.hold opened",
        "dlock.hold `hold_ms`",
        "dlock.hold `released`",
        "dlock.hold closed",
        "dlock.hold opened",
        "dlock.hold `unknown`",
        "dlock.hold closed",
    ];
    assert_eq!(lives.0.lock().expect("the lines").1, expected);
}

impl Written {
    fn register(&self, kind: &str, key: &Key) {
        let labels: Vec<_> = key
            .labels()
            .map(|label| format!("`{}`", label.key()))
            .collect();
        let line = format!("| `{}` | {kind} | {}", key.name(), labels.join(", "));
        self.note(line.trim_end().to_owned());
    }
}

impl Recorder for Written {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        self.register("counter", key);
        Counter::noop()
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        self.register("gauge", key);
        Gauge::noop()
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        self.register("histogram", key);
        Histogram::noop()
    }
}

#[test]
fn the_page_lists_every_metric() {
    let written = Written::default();
    ::metrics::with_local_recorder(&written, || tell_everything(&Metrics::new()));
    assert_eq!(written.lines(), rows("dlock_", 3));
}

/// The sum of what was recorded under a name.
#[derive(Default)]
struct Sums(Mutex<std::collections::BTreeMap<String, Arc<Sum>>>);

#[derive(Default)]
struct Sum(Mutex<f64>);

impl Sum {
    fn add(&self, value: f64) {
        *self.0.lock().expect("the sum") += value;
    }
}

impl CounterFn for Sum {
    fn increment(&self, value: u64) {
        self.add(f64::from(u32::try_from(value).expect("a small count")));
    }

    fn absolute(&self, _: u64) {
        unreachable!("counters only count up")
    }
}

impl GaugeFn for Sum {
    fn increment(&self, value: f64) {
        self.add(value);
    }

    fn decrement(&self, value: f64) {
        self.add(-value);
    }

    fn set(&self, _: f64) {
        unreachable!("lockers add up")
    }
}

impl HistogramFn for Sum {
    fn record(&self, value: f64) {
        self.add(value);
    }
}

impl Sums {
    fn of(&self, key: &Key) -> Arc<Sum> {
        let mut sums = self.0.lock().expect("the sums");
        sums.entry(key.name().to_owned()).or_default().clone()
    }

    fn lines(&self) -> Vec<String> {
        let sums = self.0.lock().expect("the sums");
        let line = |(name, sum): (&String, &Arc<Sum>)| {
            format!("{name} {}", sum.0.lock().expect("the sum"))
        };
        sums.iter().map(line).collect()
    }
}

impl Recorder for Sums {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.of(key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.of(key))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.of(key))
    }
}

#[test]
fn metrics_add_up_over_lockers_and_are_in_seconds() {
    let sums = Sums::default();
    ::metrics::with_local_recorder(&sums, || tell_everything(&Metrics::new()));
    let expected = [
        "dlock_acquired_total 1",
        "dlock_connections 3",
        "dlock_dropped_events_total 4",
        "dlock_failed_total 6",
        "dlock_hold_seconds 6",
        "dlock_holds 2",
        "dlock_lost_total 1",
        "dlock_outage_reports_total 1",
        "dlock_released_total 1",
        "dlock_wait_seconds 10.5",
        "dlock_waiters 2",
    ];
    assert_eq!(sums.lines(), expected);
}
