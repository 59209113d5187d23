//! How many locks a locker may hold: the server's lock table belongs to everybody.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The part of the server's capacity that one locker takes, unless it is told otherwise.
const SHARE: usize = 4;

/// The room for locks that a locker has.
pub(super) struct Held {
    most: usize,
    room: Arc<Semaphore>,
    /// How many locks are held, without those that are only tried or waited for.
    count: AtomicUsize,
}

/// Room for one lock that may be granted.
pub(super) struct Room {
    held: Arc<Held>,
    permit: OwnedSemaphorePermit,
}

/// The room that a lock takes up while it is held.
pub(super) struct Taken {
    held: Arc<Held>,
    _permit: OwnedSemaphorePermit,
}

impl Held {
    /// `most`: what the user has set; else a share of the capacity, where the server has one.
    pub(super) fn new(most: Option<usize>, capacity: Option<usize>) -> Arc<Held> {
        let share = || capacity.map_or(usize::MAX, |capacity| (capacity / SHARE).max(1));
        let most = most.unwrap_or_else(share);
        Arc::new(Held {
            most,
            room: Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS))),
            count: AtomicUsize::new(0),
        })
    }

    /// How many locks there may be.
    pub(super) fn most(&self) -> usize {
        self.most
    }

    /// Whether that many are held. Those that are only tried or waited for do not count: what comes of them is not known yet.
    pub(super) fn is_full(&self) -> bool {
        self.count.load(Ordering::Acquire) >= self.most
    }

    /// Room for one more lock, if there is some now.
    pub(super) fn room_now(self: &Arc<Self>) -> Option<Room> {
        let permit = self.room.clone().try_acquire_owned().ok()?;
        Some(self.with(permit))
    }

    /// Room for one more lock, as soon as there is some, in the order of asking.
    pub(super) async fn room(self: &Arc<Self>) -> Room {
        match self.room.clone().acquire_owned().await {
            Ok(permit) => self.with(permit),
            // The semaphore is never closed.
            Err(_) => std::future::pending().await,
        }
    }

    fn with(self: &Arc<Self>, permit: OwnedSemaphorePermit) -> Room {
        Room {
            held: self.clone(),
            permit,
        }
    }
}

impl Room {
    /// The lock was granted.
    pub(super) fn take(self) -> Taken {
        self.held.count.fetch_add(1, Ordering::AcqRel);
        Taken {
            held: self.held,
            _permit: self.permit,
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.held.count.fetch_sub(1, Ordering::AcqRel);
    }
}
