//! What a program can watch of its locks: [`Observer`], and what it is told.
//!
//! ```
//! use std::sync::atomic::{AtomicUsize, Ordering};
//!
//! use dlock_runtime::observer::{Loss, Observer};
//! use dlock_runtime::{Config, Locker};
//!
//! /// Counts the locks that were lost.
//! #[derive(Default)]
//! struct Losses(AtomicUsize);
//!
//! impl Observer for Losses {
//!     fn on_lost(&self, loss: &Loss) {
//!         self.0.fetch_add(1, Ordering::Relaxed);
//!         eprintln!("lost {:?} after {:?}: {}", loss.key, loss.hold, loss.reason);
//!     }
//! }
//!
//! let locker = Locker::connect_blocking(Config::from_dsn("memory:")?.observer(Losses::default()))?;
//! # Ok::<(), dlock_runtime::InitError>(())
//! ```
//!
//! Observers run on a thread of their own, `dlock-observer`, one for each locker that has some. Events wait for it in a queue of
//! 1024; when an observer is so slow that the queue is full, events are dropped and counted ([`Counts::dropped`]). So a
//! slow observer delays the other observers of its locker, and nobody else, and a panic in one is caught: the
//! others hear the event, and the panicking one the next.
//!
//! What is reported are the locks that the *server* keeps for this process, for guards and bodies alike. A nested body that
//! runs under its caller's hold takes no lock, and is not reported. Each acquired lock ends in one
//! [`on_release`](Observer::on_release) or one [`on_lost`](Observer::on_lost), and each request that
//! [waited](Observer::on_wait) in one [`on_acquire`](Observer::on_acquire) or one [`on_fail`](Observer::on_fail). Requests that are
//! refused before anybody is asked (a bad key, a deadlock, a locker that was shut down) are not reported.
//!
//! The events of one lock come in their order. With [`Config::redact_keys`](crate::Config::redact_keys) observers see a
//! short hash in place of each key.

#[cfg(feature = "metrics")]
mod metrics;
mod post;
mod snapshot;
mod status;
#[cfg(all(test, feature = "tracing", feature = "metrics"))]
mod tests;
#[cfg(feature = "tracing")]
mod tracing;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use crate::error::Error;
use crate::key::Mode;

#[cfg(feature = "metrics")]
pub use self::metrics::Metrics;
#[cfg(feature = "tracing")]
pub use self::tracing::Tracing;
pub(crate) use watch::Watch;

/// Hears of a locker's locks. Given to [`Config::observer`](crate::Config::observer).
///
/// Every method does nothing unless it is written. See the [module](self) for what is promised.
///
/// An observer that takes locks of the locker that it observes hears of those too. One that keeps a
/// [`Locker`](crate::Locker) keeps its connections open.
pub trait Observer: Send + Sync + 'static {
    /// A request found its lock held, and waits. One try never waits.
    fn on_wait(&self, _wait: &Wait) {}

    /// A lock was granted.
    fn on_acquire(&self, _acquired: &Acquired) {}

    /// A request ended without the lock.
    fn on_fail(&self, _failed: &Failed) {}

    /// A lock was given back, and the server has confirmed it.
    fn on_release(&self, _released: &Released) {}

    /// A lock can no longer be vouched for, although nobody gave it back.
    fn on_lost(&self, _loss: &Loss) {}

    /// A request waits for a server that cannot be asked. Comes at the first failure, and then again at most every 5 s for
    /// each request: a wait without limit tells of itself.
    fn on_unavailable(&self, _outage: &Outage) {}

    /// How much there is at present. Comes when all events have been told, and after every 256.
    fn on_counts(&self, _counts: &Counts) {}
}

/// The event of [`Observer::on_wait`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Wait {
    /// The locker, by the number of [`Counts::locker`].
    pub locker: u64,
    /// The request, from its wait to its release: a number of its own within the locker.
    pub request: u64,
    /// The key that was asked for.
    pub key: Arc<str>,
    /// How it was asked for.
    pub mode: Mode,
    /// Whether this very process holds the lock or asked for it before; else another does.
    pub local: bool,
}

/// The event of [`Observer::on_acquire`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Acquired {
    /// The locker, by the number of [`Counts::locker`].
    pub locker: u64,
    /// The request, from its wait to its release: a number of its own within the locker.
    pub request: u64,
    /// The key that was asked for.
    pub key: Arc<str>,
    /// How it is held.
    pub mode: Mode,
    /// The time from the request to the grant, asking the server included. Zero when there was nobody to ask.
    pub wait: Duration,
}

/// The event of [`Observer::on_fail`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Failed {
    /// The locker, by the number of [`Counts::locker`].
    pub locker: u64,
    /// The request, from its wait to its release: a number of its own within the locker.
    pub request: u64,
    /// The key that was asked for.
    pub key: Arc<str>,
    /// How it was asked for.
    pub mode: Mode,
    /// The time from the request to its end.
    pub wait: Duration,
    /// Why there is no lock.
    pub failure: Failure,
}

/// Why a request ended without a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Failure {
    /// Others kept it: [`Error::Busy`].
    Busy,
    /// The server did not answer: [`Error::Unavailable`].
    Unavailable,
    /// The server refused: [`Error::Refused`].
    Refused,
    /// This process holds as many locks as it may: [`Error::TooManyHeld`].
    TooManyHeld,
    /// The caller gave up: its future was dropped.
    Cancelled,
    /// The locker was shut down, or its I/O thread has stopped.
    ShutDown,
}

/// The event of [`Observer::on_release`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Released {
    /// The locker, by the number of [`Counts::locker`].
    pub locker: u64,
    /// The request, from its wait to its release: a number of its own within the locker.
    pub request: u64,
    /// The key that was held.
    pub key: Arc<str>,
    /// How it was held.
    pub mode: Mode,
    /// The time from the grant to the release, without the server's answer.
    pub hold: Duration,
}

/// The event of [`Observer::on_lost`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Loss {
    /// The locker, by the number of [`Counts::locker`].
    pub locker: u64,
    /// The request, from its wait to its release: a number of its own within the locker.
    pub request: u64,
    /// The key that was held.
    pub key: Arc<str>,
    /// How it was held.
    pub mode: Mode,
    /// The time from the grant to the moment in which the loss was seen, or in which the holder let go.
    pub hold: Duration,
    /// What was seen, in words.
    pub reason: Arc<str>,
}

/// The event of [`Observer::on_unavailable`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Outage {
    /// The locker, by the number of [`Counts::locker`].
    pub locker: u64,
    /// The request, from its wait to its release: a number of its own within the locker.
    pub request: u64,
    /// The key that was asked for.
    pub key: Arc<str>,
    /// How it was asked for.
    pub mode: Mode,
    /// How long the request has waited so far.
    pub wait: Duration,
    /// What went wrong last, in words.
    pub reason: Arc<str>,
}

/// What [`Observer::on_counts`] is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// A number for the locker, unique in this process: a program can have several.
    pub locker: u64,
    /// How many locks are held: two readers of one key count twice.
    pub holds: usize,
    /// How many requests are under way: in line, or at the server.
    pub waiters: usize,
    /// How many connections keep locks that were to be had at once: one, or none while the server is out of reach.
    pub keeper_connections: usize,
    /// How many connections wait on the server, hold what they waited for, or are kept open for the next wait. Both are
    /// looked at with every other count, and every 5 s while nothing happens.
    pub waiter_connections: usize,
    /// How many events were dropped since the locker began.
    pub dropped: u64,
}

impl Failure {
    /// The name in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Failure::Busy => "busy",
            Failure::Unavailable => "unavailable",
            Failure::Refused => "refused",
            Failure::TooManyHeld => "too_many_held",
            Failure::Cancelled => "cancelled",
            Failure::ShutDown => "shut_down",
        }
    }

    fn of(error: &Error) -> Failure {
        match error {
            Error::Busy(_) => Failure::Busy,
            Error::Unavailable(_) => Failure::Unavailable,
            Error::Refused(_) => Failure::Refused,
            Error::TooManyHeld(_) => Failure::TooManyHeld,
            _ => Failure::ShutDown,
        }
    }
}

#[cfg(any(feature = "tracing", feature = "metrics"))]
fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Exclusive => "exclusive",
        Mode::Shared => "shared",
    }
}
