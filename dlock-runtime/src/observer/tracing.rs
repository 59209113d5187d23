//! Observed locks as events and spans of `tracing`.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ::tracing::field::Empty;
use ::tracing::{Level, Span, event, span};

use super::{Acquired, Counts, Failed, Failure, Loss, Observer, Outage, Released, Wait, mode_name};

/// Writes an event of `tracing` for everything that happens to a lock, and a span for each wait and each hold. The feature
/// `tracing`.
///
/// The names, fields and levels stand in `docs/telemetry.md`. Events and spans come from the thread of the observers, outside
/// the spans of the callers. The keys are shown, unless [`Config::redact_keys`](crate::Config::redact_keys) hides them.
///
/// ```
/// use dlock_runtime::{Config, observer::Tracing};
///
/// let config = Config::from_dsn("memory:")?.observer(Tracing::new()).redact_keys(true);
/// # Ok::<(), dlock_runtime::InitError>(())
/// ```
#[derive(Debug, Default)]
pub struct Tracing {
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    /// The wait or the hold of each request, by locker and request.
    spans: HashMap<(u64, u64), Span>,
    /// How many events of each locker are known to be dropped, where there are any.
    dropped: HashMap<u64, u64>,
}

impl Tracing {
    /// The observer; one can serve several lockers.
    pub fn new() -> Tracing {
        Tracing::default()
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, locker: u64, request: u64, span: Span) {
        let before = self.open().spans.insert((locker, request), span);
        // Closing it runs the subscriber's code: not under the mutex.
        drop(before);
    }

    /// The span of a request, which closes when it is dropped. A disabled one for want of another.
    fn end(&self, locker: u64, request: u64) -> Span {
        let span = self.open().spans.remove(&(locker, request));
        span.unwrap_or_else(Span::none)
    }
}

impl Observer for Tracing {
    fn on_wait(&self, wait: &Wait) {
        let (key, mode, local) = (&*wait.key, mode_name(wait.mode), wait.local);
        let span = span!(target: "dlock", parent: None, Level::DEBUG, "dlock.wait", key, mode, local, wait_ms = Empty, outcome = Empty);
        event!(name: "dlock.wait", target: "dlock", parent: &span, Level::DEBUG, key, mode, local, "waiting for a lock");
        self.begin(wait.locker, wait.request, span);
    }

    fn on_acquire(&self, acquired: &Acquired) {
        let (key, mode) = (&*acquired.key, mode_name(acquired.mode));
        let wait_ms = milliseconds(acquired.wait);
        let waited = self.end(acquired.locker, acquired.request);
        waited.record("wait_ms", wait_ms);
        waited.record("outcome", "acquired");
        event!(name: "dlock.acquire", target: "dlock", parent: &waited, Level::DEBUG, key, mode, wait_ms, outcome = "acquired", "lock acquired");
        drop(waited);
        let span = span!(target: "dlock", parent: None, Level::DEBUG, "dlock.hold", key, mode, hold_ms = Empty, outcome = Empty);
        self.begin(acquired.locker, acquired.request, span);
    }

    fn on_fail(&self, failed: &Failed) {
        let (key, mode) = (&*failed.key, mode_name(failed.mode));
        let (wait_ms, outcome) = (milliseconds(failed.wait), failed.failure.as_str());
        let waited = self.end(failed.locker, failed.request);
        waited.record("wait_ms", wait_ms);
        waited.record("outcome", outcome);
        match failed.failure {
            Failure::Unavailable | Failure::Refused | Failure::TooManyHeld => {
                event!(name: "dlock.acquire", target: "dlock", parent: &waited, Level::WARN, key, mode, wait_ms, outcome, "lock not acquired");
            }
            Failure::Busy | Failure::Cancelled | Failure::ShutDown => {
                event!(name: "dlock.acquire", target: "dlock", parent: &waited, Level::DEBUG, key, mode, wait_ms, outcome, "lock not acquired");
            }
        }
    }

    fn on_release(&self, released: &Released) {
        let (key, mode) = (&*released.key, mode_name(released.mode));
        let hold_ms = milliseconds(released.hold);
        let held = self.end(released.locker, released.request);
        held.record("hold_ms", hold_ms);
        held.record("outcome", "released");
        event!(name: "dlock.release", target: "dlock", parent: &held, Level::DEBUG, key, mode, hold_ms, "lock released");
    }

    fn on_lost(&self, loss: &Loss) {
        let (key, mode) = (&*loss.key, mode_name(loss.mode));
        let (hold_ms, reason) = (milliseconds(loss.hold), &*loss.reason);
        let held = self.end(loss.locker, loss.request);
        held.record("hold_ms", hold_ms);
        held.record("outcome", "lost");
        event!(name: "dlock.lost", target: "dlock", parent: &held, Level::ERROR, key, mode, hold_ms, reason, "lock lost");
    }

    fn on_unavailable(&self, outage: &Outage) {
        let (key, mode) = (&*outage.key, mode_name(outage.mode));
        let (wait_ms, reason) = (milliseconds(outage.wait), &*outage.reason);
        event!(name: "dlock.unavailable", target: "dlock", parent: None, Level::WARN, key, mode, wait_ms, reason, "waiting for an unavailable server");
    }

    /// The end of any span may be among events that were dropped: none is left open for ever.
    fn on_counts(&self, counts: &Counts) {
        if counts.dropped == 0 {
            return;
        }
        let mut open = self.open();
        let known = open.dropped.insert(counts.locker, counts.dropped);
        if known == Some(counts.dropped) {
            return;
        }
        let of_locker = |(locker, _): &(u64, u64), _: &mut Span| *locker == counts.locker;
        let unknown: Vec<_> = open.spans.extract_if(of_locker).collect();
        drop(open);
        for (_, span) in unknown {
            span.record("outcome", "unknown");
        }
    }
}

/// With the microseconds behind the point.
fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
