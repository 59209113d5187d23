//! A lock that may be taken.

use std::future::Future;
use std::time::Duration;

use smallvec::{SmallVec, smallvec};

use crate::body::{self, Outcome, Run};
use crate::entry::Entry;
use crate::error::{Error, unsupported};
use crate::guard::Guard;
use crate::key::{Key, KeyText, Mode};
use crate::locker::Locker;
use crate::park::block_on;
use crate::queue::Patience;
use crate::scheme::KeyScheme;
use crate::taking::{Manner, Taking};
use crate::tenure::Terms;
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
    scheme: Option<KeyScheme>,
    fencing: Option<bool>,
    /// Of bodies alone.
    terms: Terms,
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
            scheme: None,
            fencing: None,
            terms: Terms::default(),
        }
    }

    /// How long to wait: a `Duration` (kept to the millisecond), whole seconds, or [`Timeout::NONE`]. Zero means
    /// one try. The default is the configuration's, else to wait without limit.
    pub fn timeout(mut self, timeout: impl Into<Timeout>) -> Lock {
        self.timeout = Some(timeout.into());
        self
    }

    /// By which scheme the key becomes the name of a lock on the server. The default is the configuration's.
    pub fn key_scheme(mut self, scheme: KeyScheme) -> Lock {
        self.scheme = Some(scheme);
        self
    }

    /// Takes the lock in shared mode: others may hold it at the same time, if they take it shared too. PostgreSQL,
    /// leases and the memory backend have this mode; with named locks of MySQL and MariaDB acquiring is [`Error::Unsupported`].
    pub fn shared(mut self) -> Lock {
        self.mode = Mode::Shared;
        self
    }

    /// Whether the lock comes with a [fencing token](crate::Guard::fencing_token). Default: as the configuration says
    /// ([`Config::fencing`](crate::Config::fencing)), else `false`. A session lock with a token has a connection of its own,
    /// and costs a round trip more; its token is counted in a table of the database (`docs/fencing.md`). Leases have a
    /// token anyway.
    pub fn fencing(mut self, on: bool) -> Lock {
        self.fencing = Some(on);
        self
    }

    /// Keeps the lock at least this long, counted from when it was taken, for a body of [`run`](Self::run) or
    /// [`run_blocking`](Self::run_blocking) that ends sooner: the call returns when its body has ended, and others get the lock
    /// when the time is over. For jobs that several machines start at about the same time. Default: no longer than the body; more
    /// than 365 days are [`Error::Unsupported`].
    ///
    /// A session lock is kept by this process: it is free when the process ends, and a shutdown waits for it. A lease is kept
    /// in its row, whatever becomes of the process (`docs/leases.md`). A guard is kept by whoever has it: acquiring one is
    /// [`Error::Unsupported`] then.
    ///
    /// ```
    /// # fn report() {}
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let config = dlock_runtime::Config::from_dsn("memory:")?;
    /// # let locker = dlock_runtime::Locker::connect_blocking(config)?;
    /// use std::time::Duration;
    ///
    /// // Once, although the clocks of the machines that start it differ by some milliseconds.
    /// let once = locker.lock("report").timeout(0).min_hold(Duration::from_millis(50));
    /// once.run_blocking(report)?;
    /// assert!(once.run_blocking(report).unwrap_err().is_busy());
    /// # Ok(())
    /// # }
    /// ```
    pub fn min_hold(mut self, min_hold: Duration) -> Lock {
        self.terms.min_hold = (!min_hold.is_zero()).then_some(min_hold);
        self
    }

    /// Takes the lock away from a body of [`run`](Self::run) or [`run_blocking`](Self::run_blocking) that lasts longer than
    /// this, counted from when the lock was taken: a future is stopped, a closure learns of it from [`check`](crate::check), and
    /// the call is [`Error::HoldExceeded`]. Default, and what zero means: no limit. With a guard, acquiring is
    /// [`Error::Unsupported`]: nobody could stop whoever has it.
    pub fn max_hold(mut self, max_hold: Duration) -> Lock {
        self.terms.max_hold = (!max_hold.is_zero()).then_some(max_hold);
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
    /// - [`Error::Refused`]: the server was reached and refused; with [`fencing`](Self::fencing) also when the token could not
    ///   be counted.
    /// - [`Error::WouldDeadlock`]: a locked body that this call belongs to holds the key or waits for it over others, or
    ///   a synchronous call would park the task, or the single-threaded runtime, that has to release it.
    /// - [`Error::Lost`]: of several keys, one that was taken was lost while another was waited for.
    /// - [`Error::Unsupported`]: the server has no such locks; or the lock has a [`min_hold`](Self::min_hold) or
    ///   [`max_hold`](Self::max_hold), which bodies have and guards have not.
    /// - [`Error::InvalidKey`], [`Error::ShutDown`], [`Error::RuntimeStopped`], [`Error::Forked`]: at once.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves nothing: the wait is ended on the server, and a lock that was granted in the same
    /// moment is released. Both are done before the next request of this process for the key is served.
    pub async fn acquire(&self) -> Result<Guard, Error> {
        self.guard(self.manner(self.patience(), true)?).await
    }

    /// As [`acquire`](Self::acquire), for callers that are not async: parks the thread. On a worker of a
    /// multi-threaded tokio runtime the worker's other tasks go on elsewhere; in a `LocalSet` tokio panics.
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire).
    pub fn acquire_blocking(&self) -> Result<Guard, Error> {
        self.guard_blocking(self.manner(self.patience(), true)?)
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
        unless_busy(self.guard(self.manner(self.locker.one_try(), false)?).await)
    }

    /// As [`try_acquire`](Self::try_acquire), for callers that are not async.
    ///
    /// # Errors
    ///
    /// As [`try_acquire`](Self::try_acquire).
    pub fn try_acquire_blocking(&self) -> Result<Option<Guard>, Error> {
        unless_busy(self.guard_blocking(self.manner(self.locker.one_try(), false)?))
    }

    /// Whether anybody holds the lock, in whatever mode, in this process or elsewhere; of several keys: any of them. Asks the
    /// server without taking the lock. The answer is of the past when it arrives: to act only if nobody holds it, use
    /// [`try_acquire`](Self::try_acquire). The time-out does not count.
    ///
    /// # Errors
    ///
    /// - [`Error::Unavailable`]: the server could not be reached or did not answer within the connect time-out.
    /// - [`Error::Refused`]: the server does not tell this account.
    /// - [`Error::InvalidKey`], [`Error::ShutDown`], [`Error::RuntimeStopped`], [`Error::Forked`]: at once.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn locked(&self) -> Result<bool, Error> {
        let (queue, scheme) = (self.locker.queue(), self.scheme());
        for key in &self.keys {
            let key = Key(key.clone());
            let name = queue.name_of(&key, scheme)?;
            let within = self.locker.connect_timeout();
            let about = key.text().to_shared();
            let held = if let Some(held) = queue.is_held(&name, about, within).await? {
                held
            } else {
                // The connection was lost: a try opens it anew.
                let one = Lock {
                    keys: smallvec![key.0],
                    ..self.plain()
                };
                match one.exclusive().try_acquire().await? {
                    Some(guard) => guard.release().await.is_err(),
                    None => true,
                }
            };
            if held {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// As [`locked`](Self::locked), for callers that are not async.
    ///
    /// # Errors
    ///
    /// As [`locked`](Self::locked).
    pub fn locked_blocking(&self) -> Result<bool, Error> {
        block_on(self.locked())
    }

    /// Waits until the lock is free, up to the time-out, and holds nothing afterwards: it takes its turn in the line and gives
    /// it up at once. To do something while nobody else does, acquire the lock.
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire).
    ///
    /// # Cancel safety
    ///
    /// As [`acquire`](Self::acquire).
    pub async fn wait_free(&self) -> Result<(), Error> {
        self.plain().acquire().await?.release().await
    }

    /// As [`wait_free`](Self::wait_free), for callers that are not async.
    ///
    /// # Errors
    ///
    /// As [`wait_free`](Self::wait_free).
    pub fn wait_free_blocking(&self) -> Result<(), Error> {
        self.plain().acquire_blocking()?.release_blocking()
    }

    /// Runs a future under the lock: takes it, polls the future, drops the future, releases.
    ///
    /// When the lock is lost the future is stopped: it is dropped before it is polled again, and also when it waits
    /// for something else at that time. Inside, [`check`](crate::check) and [`current`](crate::current) know the
    /// lock, and locked functions called under the same key run under it.
    ///
    /// # Errors
    ///
    /// Those of [`acquire`](Self::acquire), and the future has not run; or [`Error::Lost`], or
    /// [`Error::HoldExceeded`] after [`max_hold`](Self::max_hold), and the future was stopped, or its result does not count
    /// because the lock was not held to the end.
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
    /// Those of [`acquire`](Self::acquire), and the closure has not run; or [`Error::Lost`], or
    /// [`Error::HoldExceeded`] after [`max_hold`](Self::max_hold), and its result, if it ran at all, does not count because
    /// the lock was not held to the end.
    pub fn run_blocking<R>(&self, body: impl FnOnce() -> R) -> Result<R, Error> {
        body::call(self.entry(), body).into_result()
    }

    /// The key as it was given; the first of several.
    pub fn key(&self) -> &str {
        self.keys.first().map_or("", |key| key)
    }

    fn entry(&self) -> Entry {
        let keys = self.keys.clone();
        Entry::of(
            self.locker.clone(),
            keys,
            self.mode,
            self.timeout,
            self.scheme.clone(),
            self.fencing,
            self.terms,
        )
    }

    /// To be taken without running anything under it, only to give it back.
    fn plain(&self) -> Lock {
        Lock {
            fencing: Some(false),
            terms: Terms::default(),
            ..self.clone()
        }
    }

    /// How to take the lock for a guard.
    fn manner(&self, patience: Patience, name_holder: bool) -> Result<Manner, Error> {
        self.check_guard()?;
        Ok(Manner {
            want: self.locker.want(self.mode, self.fencing)?,
            patience,
            name_holder,
            body: None,
            reentrant: false,
            parks: false,
            ttl: None,
            min_hold: None,
        })
    }

    /// Refuses what only bodies have: a guard would come without it, and nobody would notice.
    fn check_guard(&self) -> Result<(), Error> {
        let Terms {
            min_hold, max_hold, ..
        } = self.terms;
        let what = match (min_hold, max_hold) {
            (Some(min_hold), _) => format!("min_hold({min_hold:?}) with a guard"),
            (_, Some(max_hold)) => format!("max_hold({max_hold:?}) with a guard"),
            (None, None) => return Ok(()),
        };
        Err(unsupported(
            what,
            "leave it out: a guard lasts until it is released; or give the body to `run` or `run_blocking`",
        ))
    }

    fn taking(&self, manner: Manner) -> Result<Taking, Error> {
        let keys = self.keys.clone();
        Taking::new(self.locker.queue(), keys, self.scheme(), manner)
    }

    fn scheme(&self) -> &KeyScheme {
        let of_locker = || self.locker.key_scheme();
        self.scheme.as_ref().unwrap_or_else(of_locker)
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
