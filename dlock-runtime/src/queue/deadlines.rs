//! The deadlines of all who stand in line, kept by one clock: a wait costs no task and no timer of its own.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use tokio::sync::Notify;
use tokio::time;

use super::Queue;
use super::line::Waiting;
use crate::key::ServerKey;

/// Whose waits end when.
pub(super) struct Deadlines {
    pending: Mutex<Pending>,
    /// An earlier deadline has come than the one that the clock sleeps to.
    earlier: Notify,
}

struct Pending {
    /// With the caller's number: deadlines need not differ.
    by_time: BTreeMap<(Instant, u64), ServerKey>,
    /// What the clock sleeps to. It is not woken when that deadline is withdrawn: it finds out. `None`: no clock runs.
    alarm: Option<Instant>,
}

/// A caller's deadline; dropping it withdraws it.
pub(super) struct Timer {
    deadlines: Arc<Deadlines>,
    at: (Instant, u64),
}

/// What the clock needs after a deadline was added.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Winding {
    Nothing,
    Earlier,
    Start,
}

impl Deadlines {
    pub(super) fn new() -> Arc<Deadlines> {
        Arc::new(Deadlines {
            pending: Mutex::new(Pending {
                by_time: BTreeMap::new(),
                alarm: None,
            }),
            earlier: Notify::new(),
        })
    }

    /// Lets a caller who is about to stand in a line, or stands there, have its deadline. Wakes nobody: that is for
    /// [`Queue::wind`], outside of every mutex.
    pub(super) fn set_timer(self: &Arc<Self>, waiting: &mut Waiting, key: &ServerKey) -> Winding {
        let Some(deadline) = waiting.patience.deadline() else {
            return Winding::Nothing;
        };
        let mut pending = self.pending();
        let winding = match pending.alarm {
            None => Winding::Start,
            Some(alarm) if deadline < alarm => Winding::Earlier,
            Some(_) => Winding::Nothing,
        };
        if winding != Winding::Nothing {
            pending.alarm = Some(deadline);
        }
        let at = (deadline, waiting.caller.id);
        pending.by_time.insert(at, key.clone());
        drop(pending);
        let deadlines = self.clone();
        waiting.timer = Some(Timer { deadlines, at });
        winding
    }

    /// Withdraws those that have passed. Then the clock sleeps to the next one; `None` ends it.
    fn passed(&self) -> (Vec<(u64, ServerKey)>, Option<Instant>) {
        let mut pending = self.pending();
        let mut passed = Vec::new();
        while let Some(first) = pending.by_time.first_entry() {
            // The clock that the sleep goes by.
            if time::Instant::from_std(first.key().0) > time::Instant::now() {
                break;
            }
            let ((_, id), key) = first.remove_entry();
            passed.push((id, key));
        }
        pending.alarm = pending.by_time.first_key_value().map(|(at, _)| at.0);
        (passed, pending.alarm)
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.pending().by_time.len()
    }

    #[cfg(test)]
    pub(super) fn is_running(&self) -> bool {
        self.pending().alarm.is_some()
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.deadlines.pending().by_time.remove(&self.at);
    }
}

impl Queue {
    /// Lets the clock know of a deadline that was added.
    pub(super) fn wind(self: &Arc<Self>, winding: Winding) {
        match winding {
            Winding::Nothing => {}
            Winding::Earlier => self.deadlines.earlier.notify_one(),
            Winding::Start => {
                let clock = run(self.deadlines.clone(), Arc::downgrade(self));
                self.spawn(clock);
            }
        }
    }
}

/// Ends the waits whose deadlines pass, until none is left.
async fn run(deadlines: Arc<Deadlines>, queue: Weak<Queue>) {
    loop {
        let (passed, alarm) = deadlines.passed();
        if !passed.is_empty() {
            let Some(queue) = queue.upgrade() else { return };
            for (id, key) in passed {
                queue.expire(&key, id);
            }
        }
        let Some(alarm) = alarm else { return };
        tokio::select! {
            () = time::sleep_until(alarm.into()) => {}
            () = deadlines.earlier.notified() => {}
        }
    }
}
