//! How many locks a locker may hold: the server's lock table belongs to everybody.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The part of the server's capacity that one locker takes, unless it is told otherwise.
const SHARE: usize = 4;

/// The locks that a locker holds, or is about to.
pub(super) struct Held {
    most: usize,
    count: AtomicUsize,
}

/// Room for one lock.
pub(super) struct Room(Arc<Held>);

impl Held {
    /// `most`: what the user has set; else a share of the capacity, where the server has one.
    pub(super) fn new(most: Option<usize>, capacity: Option<usize>) -> Arc<Held> {
        let share = || capacity.map_or(usize::MAX, |capacity| (capacity / SHARE).max(1));
        Arc::new(Held {
            most: most.unwrap_or_else(share),
            count: AtomicUsize::new(0),
        })
    }

    /// Room for one more lock; the error is how many there may be.
    pub(super) fn room(self: &Arc<Self>) -> Result<Room, usize> {
        if self.count.fetch_add(1, Ordering::AcqRel) < self.most {
            return Ok(Room(self.clone()));
        }
        self.count.fetch_sub(1, Ordering::AcqRel);
        Err(self.most)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::AcqRel);
    }
}
