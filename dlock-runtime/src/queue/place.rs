//! A caller's place: in line first, at the lock later.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_channel::oneshot;

use super::Queue;
use crate::error::Error;
use crate::hold::Vitality;
use crate::key::ServerKey;

/// A place in the line for a lock, and, once it was granted, at the lock.
///
/// Dropping it leaves: the wait is called off, or the lock given back, whichever it is by then. There is no moment
/// in between, so a grant cannot fall between a caller who has gone and a server that does not know.
pub(crate) struct Place {
    queue: Arc<Queue>,
    key: ServerKey,
    id: u64,
    left: bool,
}

impl Place {
    pub(super) fn new(queue: &Arc<Queue>, key: &ServerKey, id: u64) -> Place {
        Place {
            queue: queue.clone(),
            key: key.clone(),
            id,
            left: false,
        }
    }

    /// Says that the lock stays held for a while although its holder has gone.
    pub(crate) fn keep(&self) {
        self.queue.keep(&self.key, self.id);
    }

    /// Leaves, and learns how it went: `Err` says why the lock was not held any more.
    pub(crate) fn leave(mut self) -> Leaving {
        self.left = true;
        match self.queue.check() {
            Ok(()) => self.queue.leave(&self.key, self.id, true),
            Err(error) => Leaving::Done(Some(Err(LeaveError::Other(error)))),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // A forked child has a copy of the place, and the parent still holds the lock.
        if !self.left && self.queue.check().is_ok() {
            drop(self.queue.leave(&self.key, self.id, false));
        }
    }
}

/// The answer to [`Place::leave`]. It needs no polling to come true.
pub(crate) enum Leaving {
    Done(Option<Result<(), LeaveError>>),
    Asked(oneshot::Receiver<Result<(), Arc<str>>>),
}

impl Leaving {
    pub(super) fn done(result: Result<(), Arc<str>>) -> Leaving {
        Leaving::Done(Some(result.map_err(LeaveError::Lost)))
    }
}

/// How a release failed: the lock was not held any more, or nobody is there to say.
pub(crate) enum LeaveError {
    Lost(Arc<str>),
    Other(Error),
}

impl Future for Leaving {
    type Output = Result<(), LeaveError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Leaving::Asked(answer) => Poll::Ready(match ready!(Pin::new(answer).poll(context)) {
                Ok(result) => result.map_err(LeaveError::Lost),
                Err(oneshot::Canceled) => Err(LeaveError::Other(Error::RuntimeStopped)),
            }),
            // A second poll, as of any future that is done, finds nothing.
            Leaving::Done(result) => result.take().map_or(Poll::Pending, Poll::Ready),
        }
    }
}

/// What [`Queue::join`] gives.
pub(crate) enum Admission {
    /// The lock, at once.
    Granted(Place, Arc<Vitality>),
    /// A place in line.
    Waiting(Acquire),
}

/// A wait for a lock; dropping it leaves the line.
pub(crate) struct Acquire {
    answer: oneshot::Receiver<Result<Arc<Vitality>, Error>>,
    place: Option<Place>,
}

impl Acquire {
    pub(super) fn new(
        place: Place,
        answer: oneshot::Receiver<Result<Arc<Vitality>, Error>>,
    ) -> Acquire {
        Acquire {
            answer,
            place: Some(place),
        }
    }
}

impl Future for Acquire {
    type Output = Result<(Place, Arc<Vitality>), Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = match ready!(Pin::new(&mut self.answer).poll(context)) {
            Ok(answer) => answer,
            Err(oneshot::Canceled) => Err(Error::RuntimeStopped),
        };
        // A second poll after the answer finds no place, as with any future that is done.
        let place = self.place.take().ok_or(Error::RuntimeStopped);
        Poll::Ready(answer.and_then(|vitality| Ok((place?, vitality))))
    }
}
