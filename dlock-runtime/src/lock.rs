//! A lock that may be taken.

use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use crate::body::{Outcome, Run};
use crate::error::Error;
use crate::guard::Guard;
use crate::key::{Key, Mode};
use crate::locker::Locker;
use crate::park::block_on;
use crate::queue::{Admission, Patience, Request};
use crate::timeout::Timeout;

/// A key of a [`Locker`], and how to take it. Made by [`Locker::lock`].
///
/// Nothing happens until one of the acquiring methods is called; a `Lock` can be used again.
#[derive(Clone, Debug)]
#[must_use = "a lock does nothing until it is acquired"]
pub struct Lock {
    locker: Locker,
    key: Arc<str>,
    mode: Mode,
    timeout: Option<Timeout>,
}

impl Lock {
    pub(crate) fn new(locker: Locker, key: Arc<str>) -> Lock {
        Lock {
            locker,
            key,
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
    /// Requests of one process are served in the order in which this method was first polled.
    ///
    /// # Errors
    ///
    /// - [`Error::Busy`]: others kept the lock until the time-out; says who, where the server can tell.
    /// - [`Error::Unavailable`]: the server could not be reached or did not answer until the time-out.
    /// - [`Error::Refused`]: the server was reached and refused.
    /// - [`Error::InvalidKey`], [`Error::Unsupported`], [`Error::ShutDown`], [`Error::RuntimeStopped`],
    ///   [`Error::Forked`]: at once.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves nothing: the wait is ended on the server, and a lock that was granted in the same
    /// moment is released. Both are done before the next request of this process for the key is served.
    pub async fn acquire(&self) -> Result<Guard, Error> {
        self.settle(self.join(self.patience(), true)?).await
    }

    /// As [`acquire`](Self::acquire), for callers that are not async: parks the thread. On a worker of a
    /// multi-threaded tokio runtime the worker's other tasks go on elsewhere; in a `LocalSet` tokio panics.
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire).
    pub fn acquire_blocking(&self) -> Result<Guard, Error> {
        self.settle_blocking(self.join(self.patience(), true)?)
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
        unless_busy(self.settle(self.join(self.one_try(), false)?).await)
    }

    /// As [`try_acquire`](Self::try_acquire), for callers that are not async.
    ///
    /// # Errors
    ///
    /// As [`try_acquire`](Self::try_acquire).
    pub fn try_acquire_blocking(&self) -> Result<Option<Guard>, Error> {
        unless_busy(self.settle_blocking(self.join(self.one_try(), false)?))
    }

    /// Runs a future under the lock: takes it, polls the future, drops the future, releases.
    ///
    /// When the lock is lost the future is stopped: it is dropped before it is polled again, and also when it waits
    /// for something else at that time.
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
        match Run::new(self.begin(), body).await {
            Outcome::Ran(output) => Ok(output),
            Outcome::Lost(_, error) | Outcome::NotRun(error) => Err(error),
        }
    }

    /// Runs a closure under the lock. It can learn of a loss only through the guard that it is given.
    ///
    /// # Errors
    ///
    /// Those of [`acquire`](Self::acquire), and the closure has not run; or [`Error::Lost`], and its result, if it
    /// ran at all, does not count because the lock was not held to the end.
    pub fn run_blocking<R>(&self, body: impl FnOnce(&Guard) -> R) -> Result<R, Error> {
        let guard = self.acquire_blocking()?;
        guard.check()?;
        let output = body(&guard);
        guard.release_blocking()?;
        Ok(output)
    }

    /// The key as it was given.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Joins the line, as [`acquire`](Self::acquire) does.
    pub(crate) fn begin(&self) -> Result<Begun, Error> {
        Ok(Begun {
            key: self.key.clone(),
            mode: self.mode,
            admission: self.join(self.patience(), true)?,
        })
    }

    fn join(&self, patience: Patience, name_holder: bool) -> Result<Admission, Error> {
        let request = Request {
            key: Key::new(self.key.clone())?,
            mode: self.mode,
            patience,
            name_holder,
        };
        self.locker.queue().join(&request)
    }

    async fn settle(&self, admission: Admission) -> Result<Guard, Error> {
        let (place, vitality) = match admission {
            Admission::Granted(place, vitality) => (place, vitality),
            Admission::Waiting(acquire) => acquire.await?,
        };
        Ok(Guard::new(self.key.clone(), self.mode, place, vitality))
    }

    fn settle_blocking(&self, admission: Admission) -> Result<Guard, Error> {
        let (place, vitality) = match admission {
            Admission::Granted(place, vitality) => (place, vitality),
            Admission::Waiting(acquire) => block_on(acquire)?,
        };
        Ok(Guard::new(self.key.clone(), self.mode, place, vitality))
    }

    fn patience(&self) -> Patience {
        let timeout = self.timeout.unwrap_or(self.locker.config().get_timeout());
        if timeout == Timeout::from(0) {
            return self.one_try();
        }
        timeout
            .deadline(Instant::now())
            .map_or(Patience::Forever, Patience::Until)
    }

    fn one_try(&self) -> Patience {
        Patience::OneTry {
            answer_by: Instant::now() + self.locker.config().get_connect_timeout(),
        }
    }
}

/// A request that stands in line, or has its lock already.
pub(crate) struct Begun {
    pub(crate) key: Arc<str>,
    pub(crate) mode: Mode,
    pub(crate) admission: Admission,
}

fn unless_busy(result: Result<Guard, Error>) -> Result<Option<Guard>, Error> {
    match result {
        Ok(guard) => Ok(Some(guard)),
        Err(Error::Busy(_)) => Ok(None),
        Err(error) => Err(error),
    }
}
