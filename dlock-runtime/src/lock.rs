//! A lock that may be taken.

use std::future::Future;

use smallvec::{SmallVec, smallvec};

use crate::body::{self, Outcome, Run};
use crate::entry::Entry;
use crate::error::Error;
use crate::guard::Guard;
use crate::key::{KeyText, Mode};
use crate::locker::Locker;
use crate::queue::Patience;
use crate::taking::{Manner, Taking};
use crate::timeout::Timeout;

/// A key of a [`Locker`], and how to take it. Made by [`Locker::lock`], or by [`Locker::lock_all`] for several keys.
///
/// Nothing happens until one of the acquiring methods is called; a `Lock` can be used again.
#[derive(Clone, Debug)]
#[must_use = "a lock does nothing until it is acquired"]
pub struct Lock {
    locker: Locker,
    keys: SmallVec<[KeyText; 1]>,
    mode: Mode,
    timeout: Option<Timeout>,
}

impl Lock {
    pub(crate) fn new(locker: Locker, key: KeyText) -> Lock {
        Lock::all(locker, smallvec![key])
    }

    pub(crate) fn all(locker: Locker, keys: SmallVec<[KeyText; 1]>) -> Lock {
        Lock {
            locker,
            keys,
            mode: Mode::Exclusive,
            timeout: None,
        }
    }

    /// How long to wait: a `Duration` (kept to the millisecond), whole seconds, or [`Timeout::NONE`]. Zero means
    /// one try. The default is the configuration's, else to wait without limit.
    pub fn timeout(mut self, timeout: impl Into<Timeout>) -> Lock {
        self.timeout = Some(timeout.into());
        self
    }

    /// Takes the lock in shared mode: others may hold it at the same time, if they take it shared too. PostgreSQL
    /// and the memory backend have this mode; on MySQL and MariaDB acquiring is [`Error::Unsupported`].
    pub fn shared(mut self) -> Lock {
        self.mode = Mode::Shared;
        self
    }

    /// Takes the lock in exclusive mode, the default.
    pub fn exclusive(mut self) -> Lock {
        self.mode = Mode::Exclusive;
        self
    }

    /// Takes the lock, waiting up to the time-out.
    ///
    /// Requests of one process are served in the order in which this method was first polled. Several keys are taken
    /// one after the other, in an order that is the same for everybody; if one cannot be had, none is kept. Called
    /// inside a locked body, or for several keys, a wait without limit ends after 30 s: another process may wait the
    /// other way round, and no server sees both.
    ///
    /// # Errors
    ///
    /// - [`Error::Busy`]: others kept the lock until the time-out; says who, where the server can tell.
    /// - [`Error::Unavailable`]: the server could not be reached or did not answer until the time-out.
    /// - [`Error::Refused`]: the server was reached and refused.
    /// - [`Error::WouldDeadlock`]: a locked body that this call belongs to holds the key or waits for it over others, or
    ///   a synchronous call would park the task, or the single-threaded runtime, that has to release it.
    /// - [`Error::Lost`]: of several keys, one that was taken was lost while another was waited for.
    /// - [`Error::InvalidKey`], [`Error::Unsupported`], [`Error::ShutDown`], [`Error::RuntimeStopped`],
    ///   [`Error::Forked`]: at once.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves nothing: the wait is ended on the server, and a lock that was granted in the same
    /// moment is released. Both are done before the next request of this process for the key is served.
    pub async fn acquire(&self) -> Result<Guard, Error> {
        self.guard(self.manner(self.patience(), true)).await
    }

    /// As [`acquire`](Self::acquire), for callers that are not async: parks the thread. On a worker of a
    /// multi-threaded tokio runtime the worker's other tasks go on elsewhere; in a `LocalSet` tokio panics.
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire).
    pub fn acquire_blocking(&self) -> Result<Guard, Error> {
        self.guard_blocking(self.manner(self.patience(), true))
    }

    /// Tries once. `None`: somebody else holds the lock. The time-out does not count; the server has the connect
    /// time-out to answer.
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire), without [`Error::Busy`].
    ///
    /// # Cancel safety
    ///
    /// As [`acquire`](Self::acquire).
    pub async fn try_acquire(&self) -> Result<Option<Guard>, Error> {
        unless_busy(self.guard(self.manner(self.locker.one_try(), false)).await)
    }

    /// As [`try_acquire`](Self::try_acquire), for callers that are not async.
    ///
    /// # Errors
    ///
    /// As [`try_acquire`](Self::try_acquire).
    pub fn try_acquire_blocking(&self) -> Result<Option<Guard>, Error> {
        unless_busy(self.guard_blocking(self.manner(self.locker.one_try(), false)))
    }

    /// Runs a future under the lock: takes it, polls the future, drops the future, releases.
    ///
    /// When the lock is lost the future is stopped: it is dropped before it is polled again, and also when it waits
    /// for something else at that time. Inside, [`check`](crate::check) and [`current`](crate::current) know the
    /// lock, and locked functions called under the same key run under it.
    ///
    /// # Errors
    ///
    /// Those of [`acquire`](Self::acquire), and the future has not run; or [`Error::Lost`], and the future was
    /// stopped, or its result does not count because the lock was not held to the end.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the inner one and then releases the lock.
    pub async fn run<F: Future>(&self, body: F) -> Result<F::Output, Error> {
        Run::new(self.entry(), body).await.into_result()
    }

    /// Runs a closure under the lock. It learns of a loss from [`check`](crate::check).
    ///
    /// # Errors
    ///
    /// Those of [`acquire`](Self::acquire), and the closure has not run; or [`Error::Lost`], and its result, if it
    /// ran at all, does not count because the lock was not held to the end.
    pub fn run_blocking<R>(&self, body: impl FnOnce() -> R) -> Result<R, Error> {
        body::call(self.entry(), body).into_result()
    }

    /// The key as it was given; the first of several.
    pub fn key(&self) -> &str {
        self.keys.first().map_or("", |key| key)
    }

    fn entry(&self) -> Entry {
        let keys = self.keys.clone();
        Entry::of(self.locker.clone(), keys, self.mode, self.timeout)
    }

    fn manner(&self, patience: Patience, name_holder: bool) -> Manner {
        Manner {
            mode: self.mode,
            patience,
            name_holder,
            body: None,
            reentrant: false,
            parks: false,
        }
    }

    fn taking(&self, manner: Manner) -> Result<Taking, Error> {
        Taking::new(self.locker.queue(), self.keys.clone(), manner)
    }

    async fn guard(&self, manner: Manner) -> Result<Guard, Error> {
        Ok(Guard::new(self.mode, self.taking(manner)?.await?))
    }

    fn guard_blocking(&self, manner: Manner) -> Result<Guard, Error> {
        let manner = Manner {
            parks: true,
            ..manner
        };
        Ok(Guard::new(self.mode, self.taking(manner)?.wait()?))
    }

    fn patience(&self) -> Patience {
        self.locker.patience(self.timeout)
    }
}

impl<R> Outcome<R> {
    fn into_result(self) -> Result<R, Error> {
        match self {
            Outcome::Ran(output) => Ok(output),
            Outcome::Lost(_, error) | Outcome::NotRun(error) => Err(error),
        }
    }
}

fn unless_busy(result: Result<Guard, Error>) -> Result<Option<Guard>, Error> {
    match result {
        Ok(guard) => Ok(Some(guard)),
        Err(Error::Busy(_)) => Ok(None),
        Err(error) => Err(error),
    }
}
