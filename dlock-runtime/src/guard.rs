//! A held lock.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use futures_util::future::select_all;
use smallvec::SmallVec;

use crate::error::Error;
use crate::hold::frame::{Locked, shortest};
use crate::hold::renew_all;
use crate::key::Mode;
use crate::park::block_on;
use crate::queue::{LeaveError, Leaving, Place, lost};
use crate::taking::Held;

/// A held lock, or several that were taken together.
///
/// Dropping it releases the lock with one message to the I/O thread, without waiting; from then on the next
/// request of this process for the same key waits for that release. [`release`](Self::release) waits, and says
/// whether the lock was held to the end.
///
/// A guard may be moved between threads and tasks.
#[must_use = "the lock is released when the guard is dropped"]
pub struct Guard {
    mode: Mode,
    held: SmallVec<[Held; 1]>,
}

impl Guard {
    pub(crate) fn new(mode: Mode, held: SmallVec<[Held; 1]>) -> Guard {
        Guard { mode, held }
    }

    /// The key as it was asked for; the first of several.
    pub fn key(&self) -> &str {
        self.keys().next().unwrap_or_default()
    }

    /// All keys, in the order in which they were taken.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.locks().map(|locked| &*locked.key)
    }

    /// Whether others may hold the lock at the same time.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Whether the lock can be vouched for at this moment; of several: all of them.
    ///
    /// Costs a look at the clock. Once `false`, it stays `false`: the connection was lost, the server denied the
    /// lock, or its last confirmation is older than the limit allows.
    pub fn is_held(&self) -> bool {
        self.locks().all(|locked| locked.vitality.stands())
    }

    /// Checks the lock as [`is_held`](Self::is_held) does.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`] with the reason.
    pub fn check(&self) -> Result<(), Error> {
        for locked in self.locks() {
            if let Some(reason) = locked.vitality.lost() {
                return Err(lost(&locked.key, &reason));
            }
        }
        Ok(())
    }

    /// For how much longer the lock can be vouched for without another confirmation from the server; of several locks the
    /// shortest time. Zero when it is lost, `None` without limit (the memory backend).
    ///
    /// Confirmations come by themselves and lengthen it: heartbeats up to the `limit`, renewals of a lease up to its `ttl`.
    /// Whoever is about to do what takes a known time and must not outlast the lock, asks here first. It is counted from the
    /// sending of the last confirming statement, on a clock that goes on while the machine sleeps. Costs a look at the clock.
    pub fn validity(&self) -> Option<Duration> {
        shortest(self.locks())
    }

    /// Completes when the lock is lost, with the [`Error::Lost`] that says why; never otherwise. Of several locks the
    /// first that is lost counts.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn lost(&self) -> Error {
        if let [one] = self.held.as_slice() {
            let reason = one.locked.vitality.ended().await;
            return lost(&one.locked.key, &reason);
        }
        let endings = self.locks().map(|locked| {
            Box::pin(async move {
                let reason = locked.vitality.ended().await;
                lost(&locked.key, &reason)
            })
        });
        select_all(endings).await.0
    }

    /// The fencing token: a number that grows with each holder of the key. Write it beside what the lock protects, and
    /// refuse a smaller one there, or check it in the transaction that writes (see [`lease`](crate::lease) and `fencing`).
    /// Leases have one; others where they were asked for it ([`Lock::fencing`](crate::Lock::fencing),
    /// [`Config::fencing`](crate::Config::fencing)). Of several keys it is the first one's.
    pub fn fencing_token(&self) -> Option<u64> {
        self.locks().next()?.vitality.token()
    }

    /// Renews a lease now: it lasts for `ttl` from now on, and the automatic renewals keep to that from here on. Of several
    /// keys all are renewed. From 1 s to 24 h. A shorter `ttl` than before counts for this holder at once; on a server
    /// the others wait until the end that was promised before. Readers of one process share a lease: for them a shorter `ttl`
    /// changes nothing.
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
        renew_all(self.locks(), ttl)
    }

    /// As [`renew`](Self::renew), for callers that are not async.
    ///
    /// # Errors
    ///
    /// As [`renew`](Self::renew).
    pub fn renew_blocking(&self, ttl: Duration) -> Result<(), Error> {
        block_on(self.renew(ttl))
    }

    /// Releases the lock and waits for the server's answer.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`] when the server says that the lock was not held any more, or when it could not be asked.
    ///
    /// # Cancel safety
    ///
    /// Once called, the lock is released whether or not the future is polled; dropping the future only gives up
    /// the answer.
    pub fn release(self) -> impl Future<Output = Result<(), Error>> + Send + 'static {
        let leaving: SmallVec<[_; 1]> = self
            .held
            .into_iter()
            .map(|Held { locked, place }| (locked, place.leave()))
            .collect();
        async move {
            let mut result = Ok(());
            for (locked, leaving) in leaving {
                let left = leaving
                    .await
                    .map_err(|error| of_release(&locked.key, error));
                result = result.and(left);
            }
            result
        }
    }

    /// As [`release`](Self::release), for callers that are not async.
    ///
    /// # Errors
    ///
    /// As [`release`](Self::release).
    pub fn release_blocking(self) -> Result<(), Error> {
        block_on(self.release())
    }

    fn locks(&self) -> impl Iterator<Item = &Locked> {
        self.held.iter().map(|held| &held.locked)
    }
}

/// Leaves several places at once.
pub(crate) fn leave_all(places: impl IntoIterator<Item = Place>) -> SmallVec<[Leaving; 1]> {
    places.into_iter().map(Place::leave).collect()
}

pub(crate) fn of_release(key: &str, error: LeaveError) -> Error {
    match error {
        LeaveError::Lost(reason) => lost(key, &reason),
        LeaveError::Other(error) => error,
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard")
            .field("keys", &self.keys().collect::<Vec<_>>())
            .field("mode", &self.mode)
            .field("held", &self.is_held())
            .finish_non_exhaustive()
    }
}
