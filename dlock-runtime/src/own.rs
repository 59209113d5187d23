//! Locks on a connection that the program already has.
//!
//! A [`Locker`] keeps connections of its own. Sometimes the lock belongs on the connection that does the work: a
//! pool is small, a lock should end with a transaction, or the code comes from a library that does it so. A lock that is taken
//! here is the same lock as a `Locker`'s of the same key, scheme and namespace.
//!
//! # What is not promised here
//!
//! **These locks have no limit and no heartbeat.** The connection is the program's: nobody confirms it while the body runs, nobody
//! stops the body when it is lost, and after a cut network or a pause the server may keep the lock, or have freed it, for as
//! long as its own settings say. A loss shows at the release ([`Error::Lost`]), or in the next statement.
//! [`check`](crate::check) and [`current`](crate::current) do not know these locks.
//!
//! # Nothing is left behind
//!
//! A guard borrows the connection until [`release`](postgres::Guard::release) has been awaited. Dropped without it (an early
//! return, a panic, a cancelled future), the guard **closes the connection**, and with it the server frees the lock: a
//! pool throws such a connection away. So does a wait whose future is dropped; PostgreSQL notices that only when a wait of at
//! most 5 seconds ends, and until then the dead waiter keeps its place in the server's queue. A connection that goes back into its pool with
//! a lock on it would be worse. `run` releases on every path on which the body returns, so an error in the body costs no
//! connection.
//!
//! # Pools
//!
//! Pools are no obstacle: `&mut object` is what to pass for an object of deadpool-postgres or bb8-postgres, and `&mut *object` where a
//! function is generic, as those for MySQL are. A transaction of such an object is passed as `&transaction`. The pools open another
//! connection in place of one that a guard has closed.
//!
//! # Connections of sqlx
//!
//! Locks are not taken on `PgConnection`, `MySqlConnection` or their transactions (as of sqlx 0.9). A guard has to close the connection from its
//! `drop`, where nothing can be awaited, and while it only borrows it. In sqlx `Connection::close` consumes the connection and is
//! async, the socket is private, and so is the queue by which sqlx's own `PgAdvisoryLockGuard` leaves its release to the connection's
//! next use. `PoolConnection::close_on_drop` exists for objects of a pool alone, and closes them only when the program lets go of them: until
//! then the lock stays, on a connection that still works. So a forgotten guard could not keep the promise above. Instead:
//!
//! - Take the lock through a [`Locker`], and do the work on sqlx's connections in its body. One connection holds all locks of the
//!   process, and these locks have the limit and the heartbeat that own ones lack.
//! - With [`KeyScheme::Sqlx`] that is the same lock as the `PgAdvisoryLock` of the same text, integer or pair in a program of sqlx's.
//! - A lock that has to end with a transaction of sqlx is one statement there, `SELECT pg_advisory_xact_lock($1)` with an integer, and the
//!   same lock as that integer's by [`KeyScheme::Raw`]. Nothing can be forgotten there. The time-out is the transaction's
//!   `lock_timeout`.
//! - Or open a connection of tokio-postgres or `mysql_async` for the work that belongs under the lock.

#[cfg(feature = "mysql")]
pub mod mysql;
#[cfg(feature = "postgres")]
pub mod postgres;

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::backend::session::driver::DriverError;
use crate::error::{AlreadyHeld, Busy, Error, Holder, Refused, Unavailable, WouldDeadlock};
use crate::hold::frame::{self, Frame};
use crate::key::{Key, Mode, ServerKey};
use crate::locker::Locker;
use crate::queue::lost;
use crate::scheme::KeyScheme;
use crate::timeout::Timeout;

/// The longest wait that is asked of the server at once. An endless one would outlive a program that has died, and pin
/// PostgreSQL's oldest transaction.
const SLICE: Duration = Duration::from_secs(5);

const IN_BODY: &str = "a locked body that this call belongs to holds it on a connection of its `Locker`; take it here before, or \
     work under the body's lock";

/// What is asked for, on whatever connection.
#[derive(Clone, Debug)]
struct Wish {
    key: Key,
    mode: Mode,
    timeout: Timeout,
    scheme: KeyScheme,
    namespace: Option<Arc<str>>,
    reentrant: bool,
}

impl Wish {
    fn new(key: Key) -> Wish {
        Wish {
            key,
            mode: Mode::Exclusive,
            timeout: Timeout::NONE,
            scheme: KeyScheme::Native,
            namespace: None,
            reentrant: false,
        }
    }

    fn of(locker: &Locker, key: Key) -> Wish {
        Wish {
            timeout: locker.timeout(),
            scheme: locker.key_scheme().clone(),
            namespace: Some(locker.namespace().into()),
            ..Wish::new(key)
        }
    }

    /// The key by the native scheme, if it is one.
    fn native(&self) -> Result<Option<&str>, Error> {
        if !self.scheme.is_native() {
            return Ok(None);
        }
        match self.key.broken_rule() {
            Some(rule) => Err(self.key.invalid(rule)),
            None => Ok(Some(self.key.text())),
        }
    }

    /// Refuses a wait for a lock that a body holds which waits for this call. The server is asked which one it is only where
    /// a body holds a lock of this name: elsewhere, or in another database, that is another lock.
    async fn refuse_deadlock(
        &self,
        name: &ServerKey,
        identity: impl Future<Output = Result<Option<String>, DriverError>>,
    ) -> Result<(), Error> {
        let places = places_of_callers(name);
        if places.is_empty() {
            return Ok(());
        }
        let here = identity.await.map_err(|error| self.failed(error))?;
        if here.is_some_and(|here| places.contains(&here)) {
            return Err(Error::WouldDeadlock(Arc::new(WouldDeadlock {
                key: self.text(),
                reason: IN_BODY,
            })));
        }
        Ok(())
    }

    fn text(&self) -> Arc<str> {
        self.key.text().to_shared()
    }

    fn already_held(&self) -> Error {
        Error::AlreadyHeld(Arc::new(AlreadyHeld { key: self.text() }))
    }

    fn busy(&self, since: Instant, holder: Option<Holder>) -> Error {
        Error::Busy(Arc::new(Busy {
            key: self.text(),
            waited: if self.timeout == Timeout::from(0) {
                Duration::ZERO
            } else {
                since.elapsed()
            },
            holder,
        }))
    }

    /// A statement has failed before the lock was held.
    fn failed(&self, error: DriverError) -> Error {
        match error {
            DriverError::Gone { reason, source } => Error::Unavailable(Arc::new(Unavailable {
                key: self.text(),
                waited: Duration::ZERO,
                reason,
                source,
            })),
            DriverError::Refused {
                code,
                message,
                source,
            } => Error::Refused(Arc::new(Refused {
                key: self.text(),
                code,
                message,
                source,
            })),
        }
    }

    /// The release has failed.
    fn lost(&self, reason: &str) -> Error {
        lost(self.key.text(), reason)
    }
}

/// Where the bodies that this call belongs to hold session locks of this name.
fn places_of_callers(name: &ServerKey) -> Vec<String> {
    let innermost = frame::current();
    let frames = innermost.iter().flat_map(Frame::callers);
    let locks = frames.flat_map(|frame| &frame.locks);
    locks
        .filter(|locked| locked.name == *name)
        .filter_map(|locked| locked.vitality.place().map(str::to_owned))
        .collect()
}

const NOT_HELD: &str = "the server says that this connection did not hold it";

/// The error that leaves the connection in doubt: it is closed.
fn doubt(error: DriverError) -> DriverError {
    match error {
        DriverError::Refused {
            code,
            message,
            source,
        } => DriverError::Gone {
            reason: format!(
                "it is not known whether the connection holds the lock: {message} ({code})"
            ),
            source,
        },
        gone @ DriverError::Gone { .. } => gone,
    }
}

/// Whether the connection is known not to hold the lock after this error.
fn is_certain(error: &Error) -> bool {
    !matches!(error, Error::Unavailable(_))
}

/// How long is left, at most a slice; `None`: the deadline has passed.
fn left(deadline: Option<Instant>) -> Option<Duration> {
    let Some(deadline) = deadline else {
        return Some(SLICE);
    };
    let left = deadline.saturating_duration_since(Instant::now());
    (!left.is_zero()).then(|| left.min(SLICE))
}

/// The setters that both kinds of lock have.
macro_rules! wishes {
    () => {
        /// The lock of a key, by the native scheme and in the default namespace, waited for without limit.
        pub fn new(key: impl Into<Key>) -> Lock {
            Lock {
                wish: Wish::new(key.into()),
            }
        }

        /// The same lock as `locker.lock(key)`: with its scheme and namespace, and its time-out.
        pub fn of(locker: &Locker, key: impl Into<Key>) -> Lock {
            Lock {
                wish: Wish::of(locker, key.into()),
            }
        }

        /// How long to wait: a `Duration` (kept to the millisecond), whole seconds, or [`Timeout::NONE`]. Zero means one try.
        /// Default: without limit.
        pub fn timeout(mut self, timeout: impl Into<Timeout>) -> Lock {
            self.wish.timeout = timeout.into();
            self
        }

        /// By which scheme the key becomes the name of a lock on the server. Default: the native one.
        pub fn key_scheme(mut self, scheme: KeyScheme) -> Lock {
            self.wish.scheme = scheme;
            self
        }

        /// Allows to take a key that this connection holds already: the server counts, and frees the lock with the last
        /// release. Without it that is [`Error::AlreadyHeld`], since it is more often a mistake.
        pub fn reentrant(mut self) -> Lock {
            self.wish.reentrant = true;
            self
        }
    };
}
use wishes;
