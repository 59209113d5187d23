//! Observed locks as metrics of the crate `metrics`.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use ::metrics::{counter, gauge, histogram};

use super::{Acquired, Counts, Failed, Loss, Observer, Outage, Released, mode_name};

/// Counts and measures what happens to the locks, by way of the crate `metrics` and whatever recorder the program has
/// installed. The feature `metrics`.
///
/// The names, labels and units stand in `docs/telemetry.md`. Keys are no labels: there is no end to them.
///
/// ```
/// use dlock_runtime::{Config, observer::Metrics};
///
/// let config = Config::from_dsn("memory:")?.observer(Metrics::new());
/// # Ok::<(), dlock_runtime::InitError>(())
/// ```
#[derive(Debug, Default)]
pub struct Metrics {
    /// What each locker's part of the gauges is: lockers add up.
    counts: Mutex<HashMap<u64, Counts>>,
}

impl Metrics {
    /// The observer; one can serve several lockers.
    pub fn new() -> Metrics {
        Metrics::default()
    }
}

impl Observer for Metrics {
    fn on_acquire(&self, acquired: &Acquired) {
        let mode = mode_name(acquired.mode);
        counter!("dlock_acquired_total", "mode" => mode).increment(1);
        histogram!("dlock_wait_seconds", "mode" => mode, "outcome" => "acquired")
            .record(acquired.wait);
    }

    fn on_fail(&self, failed: &Failed) {
        let (mode, outcome) = (mode_name(failed.mode), failed.failure.as_str());
        counter!("dlock_failed_total", "mode" => mode, "outcome" => outcome).increment(1);
        histogram!("dlock_wait_seconds", "mode" => mode, "outcome" => outcome).record(failed.wait);
    }

    fn on_release(&self, released: &Released) {
        let mode = mode_name(released.mode);
        counter!("dlock_released_total", "mode" => mode).increment(1);
        histogram!("dlock_hold_seconds", "mode" => mode).record(released.hold);
    }

    fn on_lost(&self, loss: &Loss) {
        let mode = mode_name(loss.mode);
        counter!("dlock_lost_total", "mode" => mode).increment(1);
        histogram!("dlock_hold_seconds", "mode" => mode).record(loss.hold);
    }

    fn on_unavailable(&self, outage: &Outage) {
        counter!("dlock_outage_reports_total", "mode" => mode_name(outage.mode)).increment(1);
    }

    fn on_counts(&self, counts: &Counts) {
        let mut all = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let before = if *counts
            == (Counts {
                locker: counts.locker,
                ..Counts::default()
            }) {
            all.remove(&counts.locker)
        } else {
            all.insert(counts.locker, *counts)
        };
        drop(all);
        let before = before.unwrap_or_default();
        gauge!("dlock_holds").increment(difference(before.holds, counts.holds));
        gauge!("dlock_waiters").increment(difference(before.waiters, counts.waiters));
        for (role, before, now) in [
            (
                "keeper",
                before.keeper_connections,
                counts.keeper_connections,
            ),
            (
                "waiter",
                before.waiter_connections,
                counts.waiter_connections,
            ),
        ] {
            gauge!("dlock_connections", "role" => role).increment(difference(before, now));
        }
        counter!("dlock_dropped_events_total")
            .increment(counts.dropped.saturating_sub(before.dropped));
    }
}

#[allow(clippy::cast_precision_loss, reason = "exact up to 2^53")]
fn difference(before: usize, after: usize) -> f64 {
    after as f64 - before as f64
}
