//! The sessions of a locker, by the server's numbers: which of those in a list of locks are its own.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The sessions that a driver has opened and that are not closed.
#[derive(Clone, Default)]
pub(crate) struct Roll(Arc<Mutex<HashMap<i64, usize>>>);

/// One session of the roll, for as long as this lives.
pub(crate) struct Enrolled {
    roll: Roll,
    session: i64,
}

impl Roll {
    pub(crate) fn add(&self, session: i64) -> Enrolled {
        *self.sessions().entry(session).or_default() += 1;
        Enrolled {
            roll: self.clone(),
            session,
        }
    }

    pub(crate) fn contains(&self, session: i64) -> bool {
        self.sessions().contains_key(&session)
    }

    fn sessions(&self) -> MutexGuard<'_, HashMap<i64, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Enrolled {
    /// Whether a session is one of the same locker's.
    pub(crate) fn is_fellow(&self, session: i64) -> bool {
        self.roll.contains(session)
    }
}

impl Drop for Enrolled {
    fn drop(&mut self) {
        let mut sessions = self.roll.sessions();
        // After a restart of the server an old session and a new one can have one number.
        if let Some(count) = sessions.get_mut(&self.session) {
            *count -= 1;
            if *count == 0 {
                sessions.remove(&self.session);
            }
        }
    }
}
