//! Tries and releases that gather while the connection is busy, sent as one statement.
//!
//! A session has room for a few statements at a time ([`Session::AT_ONCE`]). As long as there is room, a try or a release goes
//! out at once, by itself. What comes while there is none gathers, and the next statement that is answered makes
//! room for all of it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_channel::oneshot;
use tokio::runtime::Handle;

use super::driver::{Act, DriverError, Offer, Session};
use super::gone;
use super::live::Live;
use crate::key::{Mode, ServerKey};

/// What the session is asked for, and has no room for yet.
#[derive(Default)]
pub(super) struct Gathered {
    line: Mutex<Line>,
}

#[derive(Default)]
struct Line {
    under_way: usize,
    asked: VecDeque<Asked>,
}

impl Line {
    /// Takes room for one statement, if there is some and nobody waits for it.
    fn enter(&mut self, at_once: usize) -> bool {
        let enters = self.under_way < at_once && self.asked.is_empty();
        self.under_way += usize::from(enters);
        enters
    }
}

struct Asked {
    act: Act,
    mode: Mode,
    key: ServerKey,
    reply: oneshot::Sender<Result<bool, DriverError>>,
}

/// Room for one statement. Dropped while the statement is under way, it ends the session: an answer that nobody reads
/// could be a lock that nobody knows of.
struct Room<'a, S: Session> {
    live: &'a Arc<Live<S>>,
    answered: bool,
}

impl<S: Session> Drop for Room<'_, S> {
    fn drop(&mut self) {
        if !self.answered {
            self.live.lose("a statement was given up half-way");
        }
        let mut queue = self.live.gathered().line();
        if queue.asked.is_empty() {
            queue.under_way -= 1;
            return;
        }
        // Outside a runtime, at its end, nobody answers any more: whoever waits hears so.
        let Ok(runtime) = Handle::try_current() else {
            let left = std::mem::take(&mut queue.asked);
            queue.under_way -= 1;
            drop(queue);
            drop(left);
            return;
        };
        drop(queue);
        runtime.spawn(empty(self.live.clone()));
    }
}

impl Gathered {
    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tries or releases one lock, alone or with others.
pub(super) async fn ask<S: Session>(
    live: &Arc<Live<S>>,
    act: Act,
    key: &ServerKey,
    mode: Mode,
) -> Result<bool, DriverError> {
    let waits = {
        let mut queue = live.gathered().line();
        if queue.enter(S::AT_ONCE) {
            None
        } else {
            let (reply, answer) = oneshot::channel();
            queue.asked.push_back(Asked {
                act,
                mode,
                key: key.clone(),
                reply,
            });
            Some(answer)
        }
    };
    if let Some(answer) = waits {
        return answer
            .await
            .unwrap_or_else(|_| Err(gone("the statement was given up half-way")));
    }
    let mut room = Room {
        live,
        answered: false,
    };
    let answer = live
        .ask(async {
            match act {
                Act::Try => live.session().try_lock(key, mode).await,
                Act::Release => live.session().unlock(key, mode).await,
            }
        })
        .await;
    room.answered = true;
    answer
}

/// Gives one lock back and tries it again, if there is room for a statement of its own; else it is given back alone.
pub(super) async fn offer<S: Session>(
    live: &Arc<Live<S>>,
    key: &ServerKey,
    mode: Mode,
) -> Result<Offer, DriverError> {
    if !live.gathered().line().enter(S::AT_ONCE) {
        let held = ask(live, Act::Release, key, mode).await?;
        return Ok(if held { Offer::Given } else { Offer::NotHeld });
    }
    let mut room = Room {
        live,
        answered: false,
    };
    let answer = live.ask(live.session().offer(key, mode)).await;
    room.answered = true;
    answer
}

/// Sends what has gathered, until there is nothing more.
async fn empty<S: Session>(live: Arc<Live<S>>) {
    let mut room = Room {
        live: &live,
        answered: true,
    };
    loop {
        let asked = {
            let mut queue = live.gathered().line();
            queue.asked.retain(|asked| !asked.reply.is_canceled());
            next(&mut queue.asked, S::batch)
        };
        let Some(first) = asked.first() else {
            // More may gather until the room is given up, which looks again.
            return;
        };
        let (act, mode) = (first.act, first.mode);
        let (keys, replies): (Vec<ServerKey>, Vec<_>) = asked
            .into_iter()
            .map(|asked| (asked.key, asked.reply))
            .unzip();
        room.answered = false;
        let answers = live
            .ask(live.session().all(act, &keys, mode))
            .await
            .and_then(|answers| {
                if answers.len() == keys.len() {
                    Ok(answers)
                } else {
                    Err(gone("the server has answered another question"))
                }
            });
        room.answered = true;
        match answers {
            Ok(answers) => {
                for (reply, answer) in replies.into_iter().zip(answers) {
                    if let Err(DriverError::Gone { reason, .. }) = &answer {
                        live.lose(reason.as_str());
                    }
                    if reply.send(answer).is_err() {
                        live.lose("a statement was given up half-way");
                    }
                }
            }
            Err(error) => {
                // Nobody knows what the server has done: the session has ended, and with it whatever it had got.
                live.lose(error.to_string());
                for reply in replies {
                    let _ = reply.send(Err(gone(&error.to_string())));
                }
            }
        }
    }
}

/// Takes out what the first and others like it ask for, as many as make a statement. The order between different
/// locks is nobody's business, and of one lock only one thing is asked at a time.
fn next(asked: &mut VecDeque<Asked>, batch: fn(usize) -> usize) -> Vec<Asked> {
    let Some(first) = asked.front() else {
        return Vec::new();
    };
    let kind = (first.act, first.mode);
    let alike = |asked: &Asked| (asked.act, asked.mode) == kind;
    let count = batch(asked.iter().filter(|asked| alike(asked)).count()).max(1);
    let mut taken = Vec::with_capacity(count);
    let mut left = VecDeque::with_capacity(asked.len());
    for asked in asked.drain(..) {
        if taken.len() < count && alike(&asked) {
            taken.push(asked);
        } else {
            left.push_back(asked);
        }
    }
    *asked = left;
    taken
}
