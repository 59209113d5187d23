//! Why a caller does not get the lock, and how it hears of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time;

use super::Queue;
use super::line::{Entry, State, Waiting};
use crate::backend::{Errand, Progress, Trouble, Untold};
use crate::error::Holder;
use crate::key::ServerKey;

/// How long the server may take, once a deadline has passed, to answer a try that is under way or to say who holds
/// the lock. Longer, and it counts as unavailable.
pub(super) const ANSWERS_WITHIN: Duration = Duration::from_secs(1);

const NOT_COUNTED: &str = "the lock was granted, and given back since its fencing token was not counted in time: a transaction \
     that has checked a token keeps the counter, or the server waits before it commits";

/// Why a caller does not get the lock.
#[derive(Clone)]
pub(super) enum Refusal {
    HeldHere {
        since: Option<Instant>,
        /// Nothing vouches for it any more, and whoever had it has not let go of it.
        lost: bool,
        /// How many are in line.
        waiting: usize,
    },
    HeldElsewhere {
        /// The server said so just now, to this very request.
        asked_now: bool,
    },
    Trouble(Trouble),
}

impl Queue {
    /// The errand has news: those who came for one try have their answer.
    pub(super) fn heed(self: &Arc<Self>, errand: &Errand) {
        if errand.is_called_off() {
            // The news were for those who have gone; who came since is asked for anew.
            return;
        }
        let refusal = match errand.progress() {
            Progress::Asked | Progress::Counting { .. } => return,
            Progress::Busy => Refusal::HeldElsewhere { asked_now: true },
            Progress::Trouble(trouble) => Refusal::Trouble(trouble),
        };
        let mut table = self.table();
        let Some(entry) = table.entries.get_mut(&errand.key) else {
            return;
        };
        let refused = entry.remove_one_tries();
        if let Some(watch) = &self.watch {
            for waiting in &entry.line {
                match &refusal {
                    Refusal::Trouble(trouble) => {
                        watch.has_trouble(waiting.caller.id, &trouble.reason);
                    }
                    Refusal::HeldHere { .. } | Refusal::HeldElsewhere { .. } => {
                        watch.waits(waiting.caller.id, false);
                    }
                }
            }
        }
        for waiting in &refused {
            table.forget_wait(waiting.caller.id);
        }
        drop(table);
        for waiting in refused {
            self.refuse(&errand.key, waiting, refusal.clone());
        }
    }

    /// A caller's deadline has passed.
    pub(super) fn expire(self: &Arc<Self>, key: &ServerKey, id: u64) {
        let mut table = self.table();
        let Some(entry) = table.entries.get_mut(key) else {
            return;
        };
        if let Some(waiting) = entry.grant_an_answer(id) {
            let winding = self.deadlines.set_timer(waiting, key);
            drop(table);
            return self.wind(winding);
        }
        let is_first = (entry.line.front()).is_some_and(|first| first.caller.id == id);
        let Some(waiting) = entry.remove(id) else {
            return;
        };
        let saw_it_held = entry.saw_it_held(&waiting);
        let refusal = match &entry.state {
            State::Held { .. } => entry.held_here(),
            State::GivingBack => Refusal::HeldElsewhere { asked_now: false },
            State::Taking(errand) => match errand.progress() {
                // The server was asked a moment ago, after a release; it was not what kept the caller waiting.
                Progress::Asked if saw_it_held => Refusal::HeldElsewhere { asked_now: false },
                Progress::Asked => Refusal::Trouble(Trouble {
                    reason: "the server did not answer in time".into(),
                    source: None,
                }),
                Progress::Busy => Refusal::HeldElsewhere { asked_now: false },
                // It is as good as held, by the first in line.
                Progress::Counting { .. } if !is_first => entry.held_here(),
                // Nobody else holds it: it is not busy.
                Progress::Counting { .. } => Refusal::Trouble(Trouble {
                    reason: NOT_COUNTED.into(),
                    source: None,
                }),
                Progress::Trouble(trouble) => Refusal::Trouble(trouble),
            },
        };
        table.forget_wait(id);
        drop(table);
        self.refuse(key, waiting, refusal);
    }

    /// Tells those who came for one try that others of this process have the lock.
    pub(super) fn refuse_all(self: &Arc<Self>, key: &ServerKey, refused: Vec<Waiting>) {
        if refused.is_empty() {
            return;
        }
        let table = self.table();
        // Given back meanwhile: it was held, and nobody knows since when.
        let refusal = table.entries.get(key).map(Entry::held_here);
        drop(table);
        let refusal = refusal.unwrap_or(Refusal::HeldHere {
            since: None,
            lost: false,
            waiting: 0,
        });
        for waiting in refused {
            self.refuse(key, waiting, refusal.clone());
        }
    }

    /// Tells a caller, who stands in no line any more, why it does not get the lock.
    pub(super) fn refuse(self: &Arc<Self>, key: &ServerKey, waiting: Waiting, refusal: Refusal) {
        let (ask, asked_now) = match refusal {
            Refusal::HeldHere {
                since,
                lost,
                waiting: line,
            } => {
                let here = Holder {
                    this_process: true,
                    lost,
                    held_for: since.map(|since| since.elapsed()),
                    waiting: u64::try_from(line).ok(),
                    ..Holder::default()
                };
                return self.deny_busy(waiting, Some(here));
            }
            Refusal::Trouble(trouble) => return self.deny_unavailable(waiting, trouble),
            Refusal::HeldElsewhere { asked_now } => (waiting.name_holder || !asked_now, asked_now),
        };
        if !ask {
            return self.deny_busy(waiting, None);
        }
        // The query says who it is, and that the server is still there to ask: a wait that the network ate must
        // not be called busy.
        let queue = self.clone();
        let key = key.clone();
        self.spawn(async move {
            let asked = queue.questions.ask(&*queue.backend, &key);
            match time::timeout(ANSWERS_WITHIN, asked).await {
                Ok(Ok(holder)) => {
                    let holder = holder.map(|holder| queue.with_own_line(&key, holder));
                    queue.deny_busy(waiting, holder);
                }
                // The server has said that it is busy, to this request; only the name is missing.
                Ok(Err(_)) | Err(_) if asked_now => queue.deny_busy(waiting, None),
                Ok(Err(Untold::Trouble(trouble))) => queue.deny_unavailable(waiting, trouble),
                // It is there, and does not tell this account who.
                Ok(Err(_)) => queue.deny_busy(waiting, None),
                Err(_) => {
                    let trouble = Trouble {
                        reason: "the server stopped answering during the wait".into(),
                        source: None,
                    };
                    queue.deny_unavailable(waiting, trouble);
                }
            }
        });
    }

    /// The server's word on who waits, with the callers of this process in place of their one session.
    fn with_own_line(&self, key: &ServerKey, holder: Holder) -> Holder {
        let table = self.table();
        let line = table.entries.get(key).map_or(0, |entry| entry.line.len());
        let line = u64::try_from(line).unwrap_or(u64::MAX);
        Holder {
            waiting: holder.waiting.map(|others| others.saturating_add(line)),
            ..holder
        }
    }
}
