//! Observed locks as events of `tracing`.

use std::time::Duration;

use ::tracing::{Level, event};

use super::{Acquired, Failed, Failure, Loss, Observer, Outage, Released, Wait, mode_name};

/// Writes an event of `tracing` for everything that happens to a lock. The feature `tracing`.
///
/// The names, fields and levels stand in `docs/telemetry.md`. The events come from the thread of the observers, outside the
/// spans of the callers. The keys are shown, unless [`Config::redact_keys`](crate::Config::redact_keys) hides them.
///
/// ```
/// use dlock_runtime::{Config, observer::Tracing};
///
/// let config = Config::from_dsn("memory:")?.observer(Tracing::new()).redact_keys(true);
/// # Ok::<(), dlock_runtime::InitError>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Tracing {}

impl Tracing {
    /// The observer; there is nothing to set.
    pub fn new() -> Tracing {
        Tracing {}
    }
}

impl Observer for Tracing {
    fn on_wait(&self, wait: &Wait) {
        let (key, mode) = (&*wait.key, mode_name(wait.mode));
        event!(name: "dlock.wait", target: "dlock", Level::DEBUG, key, mode, local = wait.local, "waiting for a lock");
    }

    fn on_acquire(&self, acquired: &Acquired) {
        let (key, mode) = (&*acquired.key, mode_name(acquired.mode));
        let wait_ms = milliseconds(acquired.wait);
        event!(name: "dlock.acquire", target: "dlock", Level::DEBUG, key, mode, wait_ms, outcome = "acquired", "lock acquired");
    }

    fn on_fail(&self, failed: &Failed) {
        let (key, mode) = (&*failed.key, mode_name(failed.mode));
        let (wait_ms, outcome) = (milliseconds(failed.wait), failed.failure.as_str());
        match failed.failure {
            Failure::Unavailable | Failure::Refused | Failure::TooManyHeld => {
                event!(name: "dlock.acquire", target: "dlock", Level::WARN, key, mode, wait_ms, outcome, "lock not acquired");
            }
            Failure::Busy | Failure::Cancelled | Failure::ShutDown => {
                event!(name: "dlock.acquire", target: "dlock", Level::DEBUG, key, mode, wait_ms, outcome, "lock not acquired");
            }
        }
    }

    fn on_release(&self, released: &Released) {
        let (key, mode) = (&*released.key, mode_name(released.mode));
        let hold_ms = milliseconds(released.hold);
        event!(name: "dlock.release", target: "dlock", Level::DEBUG, key, mode, hold_ms, "lock released");
    }

    fn on_lost(&self, loss: &Loss) {
        let (key, mode) = (&*loss.key, mode_name(loss.mode));
        let (hold_ms, reason) = (milliseconds(loss.hold), &*loss.reason);
        event!(name: "dlock.lost", target: "dlock", Level::ERROR, key, mode, hold_ms, reason, "lock lost");
    }

    fn on_unavailable(&self, outage: &Outage) {
        let (key, mode) = (&*outage.key, mode_name(outage.mode));
        let (wait_ms, reason) = (milliseconds(outage.wait), &*outage.reason);
        event!(name: "dlock.unavailable", target: "dlock", Level::WARN, key, mode, wait_ms, reason, "waiting for an unavailable server");
    }
}

/// With the microseconds behind the point.
fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
