//! Owners whose take may still be on its way.
//!
//! A statement whose answer never came may have been carried out, may be carried out later (what a stalled proxy kept back
//! arrives when it goes on), or never. That nobody ends up with a lock that nobody vouches for rests on this:
//!
//! 1. An owner has one statement under way at a time, and is given up with the first whose answer does not come. So of a
//!    given-up owner at most one statement can still arrive.
//! 2. A take changes a free row, or one whose lease is over; none has a branch for "mine already". So one that comes late
//!    neither outdates nor shortens what anybody holds, this locker included.
//! 3. If it takes the row, the row bears the given-up owner, whom nobody vouches for and who is unique. Whoever finds it
//!    there releases it by owner and token, which can hit nobody else's lease, and after that it cannot come again.
//!
//! So it is looked for in the row: at once, and then as long as a lease lasts, also while this locker holds the lock under
//! another owner and after it has released it. What comes later than that keeps the lock for one ttl.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time;

use super::shared;
use super::store::{Answer, Released, Store, StoreError};
use crate::clock::Moment;

/// The first pause and the longest between two looks.
const FIRST_LOOK: Duration = Duration::from_millis(50);
const LAST_LOOK: Duration = Duration::from_secs(2);

/// Who was given up, by the lock's name; there is a task for each name.
#[derive(Clone, Default)]
pub(super) struct Doubts {
    names: Arc<Mutex<HashMap<Arc<str>, Vec<Doubt>>>>,
}

struct Doubt {
    owner: Arc<str>,
    until: Moment,
}

impl Doubts {
    /// Looks for a given-up owner from now on, for as long as a lease lasts.
    pub(super) fn watch<S: Store>(
        &self,
        runtime: &Handle,
        store: &Arc<S>,
        name: &Arc<str>,
        owner: &Arc<str>,
        ttl: Duration,
    ) {
        let doubt = Doubt {
            owner: owner.clone(),
            until: Moment::now().plus(ttl),
        };
        match self.lock().entry(name.clone()) {
            Entry::Occupied(mut watched) => watched.get_mut().push(doubt),
            Entry::Vacant(place) => {
                place.insert(vec![doubt]);
                let looking = self.clone().look(store.clone(), name.clone());
                runtime.spawn(looking);
            }
        }
    }

    async fn look<S: Store>(self, store: Arc<S>, name: Arc<str>) {
        let mut pause = FIRST_LOOK;
        loop {
            let owners = self.owners(&name);
            for owner in &owners {
                match free(&*store, &name, owner).await {
                    Ok(freed) => {
                        if freed.is_wanted {
                            store.wake(&name).await;
                        }
                        if freed.was_held {
                            self.forget(&name, owner);
                        }
                    }
                    // For good: nobody could free it.
                    Err(StoreError::Refused { .. }) => self.forget(&name, owner),
                    Err(_) => store.pause().await,
                }
            }
            time::sleep(pause).await;
            pause = (2 * pause).min(LAST_LOOK);
            if self.is_over(&name) {
                return;
            }
        }
    }

    fn owners(&self, name: &str) -> Vec<Arc<str>> {
        let names = self.lock();
        let doubts = names.get(name).into_iter().flatten();
        doubts.map(|doubt| doubt.owner.clone()).collect()
    }

    fn forget(&self, name: &str, owner: &str) {
        if let Some(doubts) = self.lock().get_mut(name) {
            doubts.retain(|doubt| &*doubt.owner != owner);
        }
    }

    /// Whether nobody is left to be looked for. The task ends with that.
    fn is_over(&self, name: &str) -> bool {
        let (mut names, now) = (self.lock(), Moment::now());
        let Some(doubts) = names.get_mut(name) else {
            return true;
        };
        doubts.retain(|doubt| doubt.until > now);
        let is_over = doubts.is_empty();
        if is_over {
            names.remove(name);
        }
        is_over
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Vec<Doubt>>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Releases what an owner has taken, and takes back what it announced.
pub(super) async fn free<S: Store>(store: &S, name: &str, owner: &str) -> Answer<Released> {
    let mut freed = Released {
        was_held: false,
        is_wanted: false,
    };
    let Some(row) = store.read(name).await? else {
        return Ok(freed);
    };
    if row.waiters.contains_key(owner) {
        freed.is_wanted = store.retract(name, owner).await?;
    }
    let released = if row.owner == owner {
        store.release(name, owner, row.token, None).await?
    } else if let Some(reader) = row.readers.get(owner) {
        shared::release_as(store, name, owner, reader.0, shared::End::default()).await?
    } else {
        return Ok(freed);
    };
    freed.was_held = released.was_held;
    freed.is_wanted |= released.is_wanted;
    Ok(freed)
}
