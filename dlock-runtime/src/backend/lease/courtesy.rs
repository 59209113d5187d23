//! Letting others have a turn.
//!
//! Nobody stands in line before a row: whoever tries first when it becomes free has it. A process that releases a lock and
//! wants it again at once would always be first, since those who wait have to be woken. So after some takes in a row of a
//! lock that others wait for, it holds back for a moment.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// So many takes in a row of a lock that others wait for.
const IN_A_ROW: u32 = 2;

/// A release that was longer ago says nothing of who waits.
const FORGOTTEN: Duration = Duration::from_secs(5);

/// So many names are remembered before old ones are looked for.
const MANY: usize = 64;

/// What was released while others waited.
#[derive(Default)]
pub(super) struct Courtesy {
    wanted: Mutex<HashMap<Arc<str>, Wanted>>,
}

struct Wanted {
    released: Instant,
    in_a_row: u32,
}

impl Courtesy {
    /// This process has released a lock. `is_wanted`: others wait for it.
    pub(super) fn released(&self, name: &Arc<str>, is_wanted: bool) {
        let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        if !is_wanted {
            // The usual case costs no allocation.
            if !wanted.is_empty() {
                wanted.remove(name);
            }
            return;
        }
        if wanted.len() > MANY {
            wanted.retain(|_, wanted| wanted.released.elapsed() < FORGOTTEN);
        }
        let entry = wanted.entry(name.clone()).or_insert(Wanted {
            released: Instant::now(),
            in_a_row: 0,
        });
        entry.released = Instant::now();
        entry.in_a_row += 1;
    }

    /// How long to hold back before a lock is tried again: `pause` from its release on, where it is the others' turn.
    pub(super) fn hold_back(&self, name: &Arc<str>, pause: Duration) -> Option<Duration> {
        let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = wanted.get_mut(name)?;
        if entry.in_a_row < IN_A_ROW {
            return None;
        }
        entry.in_a_row = 0;
        let rest = pause.saturating_sub(entry.released.elapsed());
        (!rest.is_zero()).then_some(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_secs(60);

    #[test]
    fn l7_others_have_their_turn_after_some_takes_in_a_row() {
        let (courtesy, name) = (Courtesy::default(), "key".into());
        courtesy.released(&name, true);
        assert_eq!(courtesy.hold_back(&name, PAUSE), None);
        courtesy.released(&name, true);
        assert!(courtesy.hold_back(&name, PAUSE).is_some());
        // It was their turn; whoever is still first may go on.
        assert_eq!(courtesy.hold_back(&name, PAUSE), None);
    }

    #[test]
    fn nobody_holds_back_for_nobody() {
        let (courtesy, name) = (Courtesy::default(), "key".into());
        for _ in 0..10 {
            courtesy.released(&name, false);
            assert_eq!(courtesy.hold_back(&name, PAUSE), None);
        }
        courtesy.released(&name, true);
        courtesy.released(&name, false);
        courtesy.released(&name, true);
        assert_eq!(courtesy.hold_back(&name, PAUSE), None);
    }
}
