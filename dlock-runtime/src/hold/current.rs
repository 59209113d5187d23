//! What a body can learn of its own lock.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use super::frame::{self, Frame, shortest};
use super::renewing::renew_all;
use crate::error::Error;
use crate::park::block_on;

/// The lock that the calling code runs under. Made by [`current`].
///
/// Can be kept, cloned and sent to other threads and tasks: there it still tells whether the body that it was made
/// in holds its lock. It does not make them run under the lock.
#[derive(Clone)]
pub struct Current {
    frame: Arc<Frame>,
}

/// The innermost locked body that the calling code belongs to: called by it or awaited in it.
///
/// `None` outside, and in what a body has started elsewhere: spawned tasks and other threads. Guards do not count.
pub fn current() -> Option<Current> {
    frame::current().map(|frame| Current { frame })
}

/// Whether the calling code may go on: every locked body that it belongs to still holds its lock.
///
/// Costs a look at the clock for each. A synchronous body calls it between two steps, and passes the error on.
///
/// # Errors
///
/// - [`Error::Lost`]: a lock can no longer be vouched for.
/// - [`Error::HoldExceeded`]: a body's `max_hold` has passed.
/// - [`Error::NotLocked`]: the calling code belongs to no locked body. Work that a body has started on another thread
///   or in another task takes a [`Current`] along.
pub fn check() -> Result<(), Error> {
    current().ok_or(Error::NotLocked)?.check_all()
}

impl Current {
    /// The key, as it was asked for; the first of several.
    pub fn key(&self) -> &str {
        self.frame.key()
    }

    /// All keys of the body, in the order in which they were taken.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.frame.locks.iter().map(|locked| &*locked.key)
    }

    /// Whether the body still holds its lock.
    pub fn is_held(&self) -> bool {
        self.frame.check().is_ok()
    }

    /// For how much longer the lock can be vouched for without another confirmation from the server, as
    /// [`Guard::validity`](crate::Guard::validity). Zero also when the body has ended, or its `max_hold` has passed.
    pub fn validity(&self) -> Option<Duration> {
        match self.check() {
            Ok(()) => shortest(&self.frame.locks),
            Err(_) => Some(Duration::ZERO),
        }
    }

    /// The fencing token, where the lock has one: leases have, and others where they were asked for it (`fencing`). A nested
    /// body under the same key has the token of the hold around it. Of several keys it is the first one's.
    pub fn token(&self) -> Option<u64> {
        self.frame.locks.first()?.vitality.token()
    }

    /// Renews the body's lease now: it lasts for `ttl` from now on, and the automatic renewals keep to that from here on. Of
    /// several keys all are renewed. From 1 s to 24 h.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`] when the lock is not held any more; [`Error::Unsupported`] when it is no lease, or for a `ttl` out of
    /// range.
    ///
    /// # Cancel safety
    ///
    /// Once called, the lease is renewed whether or not the future is polled; dropping the future only gives up the answer.
    pub fn renew(&self, ttl: Duration) -> impl Future<Output = Result<(), Error>> + Send + 'static {
        let checked = self.check();
        let renewing = checked
            .is_ok()
            .then(|| renew_all(self.frame.locks.iter(), ttl));
        async move {
            checked?;
            match renewing {
                Some(renewing) => renewing.await,
                None => Ok(()),
            }
        }
    }

    /// As [`renew`](Self::renew), for bodies that are not async.
    ///
    /// # Errors
    ///
    /// As [`renew`](Self::renew).
    pub fn renew_blocking(&self, ttl: Duration) -> Result<(), Error> {
        block_on(self.renew(ttl))
    }

    /// Whether the body still holds its lock.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`], also when the body has ended; [`Error::HoldExceeded`] when its `max_hold` has passed.
    pub fn check(&self) -> Result<(), Error> {
        self.frame.check()
    }

    fn check_all(&self) -> Result<(), Error> {
        self.frame.callers().try_for_each(|frame| frame.check())
    }
}

impl fmt::Debug for Current {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Current")
            .field("key", &self.key())
            .field("held", &self.is_held())
            .finish_non_exhaustive()
    }
}

/// The check behind `assert_locked!`.
///
/// # Panics
///
/// When the calling code does not run under the key, or its lock is lost.
#[track_caller]
pub fn assert_locked(key: fmt::Arguments<'_>) {
    let key = key.to_string();
    let under = frame::current().and_then(|innermost| {
        let mut frames = innermost.callers();
        let holds = |frame: &&Arc<Frame>| frame.locks.iter().any(|locked| *locked.key == *key);
        frames.find(holds).cloned()
    });
    match under.map(|frame| frame.check()) {
        Some(Ok(())) => {}
        Some(Err(error)) => panic!("{error}"),
        None => panic!("this code must run under the lock {key:?}, and does not"),
    }
}

/// Panics unless the calling code runs under the key: called by a `#[db_locked]` body, or awaited in one.
///
/// Takes what `format!` takes. For functions that rely on their caller's lock.
///
/// ```should_panic
/// fn book(account: u32) {
///     dlock_runtime::assert_locked!("settle/{account}");
///     // …
/// }
///
/// book(7); // nobody has taken the lock
/// ```
#[macro_export]
macro_rules! assert_locked {
    ($($key:tt)+) => {
        $crate::__private::assert_locked(::core::format_args!($($key)+))
    };
}
