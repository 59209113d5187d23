//! A held lock.

use std::fmt;
use std::sync::Arc;

use crate::error::Error;
use crate::hold::Vitality;
use crate::key::Mode;
use crate::park::block_on;
use crate::queue::{LeaveError, Leaving, Place, lost};

/// A held lock.
///
/// Dropping it releases the lock with one message to the I/O thread, without waiting; from then on the next
/// request of this process for the same key waits for that release. [`release`](Self::release) waits, and says
/// whether the lock was held to the end.
///
/// A guard may be moved between threads and tasks.
#[must_use = "the lock is released when the guard is dropped"]
pub struct Guard {
    key: Arc<str>,
    mode: Mode,
    vitality: Arc<Vitality>,
    place: Place,
}

impl Guard {
    pub(crate) fn new(key: Arc<str>, mode: Mode, place: Place, vitality: Arc<Vitality>) -> Guard {
        Guard {
            key,
            mode,
            vitality,
            place,
        }
    }

    /// The key as it was asked for.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Whether others may hold the lock at the same time.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Whether the lock can be vouched for at this moment.
    ///
    /// Costs a look at the clock. Once `false`, it stays `false`: the connection was lost, the server denied the
    /// lock, or its last confirmation is older than the limit allows.
    pub fn is_held(&self) -> bool {
        self.vitality.stands()
    }

    /// Checks the lock as [`is_held`](Self::is_held) does.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`] with the reason.
    pub fn check(&self) -> Result<(), Error> {
        match self.vitality.lost() {
            None => Ok(()),
            Some(reason) => Err(lost(&self.key, &reason)),
        }
    }

    /// Completes when the lock is lost, with the [`Error::Lost`] that says why; never otherwise.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn lost(&self) -> Error {
        let reason = self.vitality.ended().await;
        lost(&self.key, &reason)
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
        let Guard { key, place, .. } = self;
        let leaving = place.leave();
        async move { leaving.await.map_err(|error| of_release(&key, error)) }
    }

    /// As [`release`](Self::release), for callers that are not async.
    ///
    /// # Errors
    ///
    /// As [`release`](Self::release).
    pub fn release_blocking(self) -> Result<(), Error> {
        block_on(self.release())
    }

    /// What the async body's hold is made of.
    pub(crate) fn vitality(&self) -> &Arc<Vitality> {
        &self.vitality
    }

    pub(crate) fn leave(self) -> (Arc<str>, Leaving) {
        (self.key, self.place.leave())
    }
}

pub(crate) fn of_release(key: &Arc<str>, error: LeaveError) -> Error {
    match error {
        LeaveError::Lost(reason) => lost(key, &reason),
        LeaveError::Other(error) => error,
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard")
            .field("key", &self.key)
            .field("mode", &self.mode)
            .field("held", &self.is_held())
            .finish_non_exhaustive()
    }
}
