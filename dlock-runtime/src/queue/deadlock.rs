//! Waits that would never end.
//!
//! A body holds its locks until it returns, and it does not return while something that it called waits. So a wait
//! is in vain when the lock is held by a body that, over any number of steps, waits for the one that waits now. The
//! waits of other processes are not seen: against these a nested wait has a deadline.

use std::sync::Arc;

use super::line::State;
use super::{Request, Table};
use crate::error::{Error, WouldDeadlock};
use crate::hold::frame::Frame;
use crate::key::ServerKey;

const CYCLE: &str = "its holder waits, directly or through others, for a lock that this call tree holds; take the \
     locks in the same order everywhere, or together with `keys = […]` or `lock_all`";

const PARKED: &str = "it is held, or waited for, in the single-threaded runtime whose thread this synchronous call would \
     park; use the async form";

/// A wait while other locks are held.
pub(super) struct NestedWait {
    id: u64,
    name: ServerKey,
    /// The body that the waiting code belongs to.
    within: Option<Arc<Frame>>,
    /// The body that is to run, and holds some of its locks already.
    body: Option<u64>,
}

impl NestedWait {
    /// Whether this body cannot end before the wait does.
    fn keeps(&self, body: u64) -> bool {
        self.body == Some(body) || is_within(self.within.as_ref(), body)
    }
}

impl Table {
    /// Refuses a wait that would never end.
    pub(super) fn refuse_deadlock(&self, request: &Request<'_>) -> Result<(), Error> {
        let reason = if request.parks && self.is_up_to(request) {
            PARKED
        } else if self.closes_cycle(request) {
            CYCLE
        } else {
            return Ok(());
        };
        Err(Error::WouldDeadlock(Arc::new(WouldDeadlock {
            key: request.key.text().to_shared(),
            reason,
        })))
    }

    /// Notes a wait that others may come to depend on.
    pub(super) fn note_wait(&mut self, id: u64, request: &Request<'_>) {
        if request.within.is_none() && !request.partial {
            return;
        }
        self.nested.push(NestedWait {
            id,
            name: request.name.clone(),
            within: request.within.cloned(),
            body: request.body.filter(|_| request.partial),
        });
    }

    pub(super) fn forget_wait(&mut self, id: u64) {
        if let Some(position) = self.nested.iter().position(|wait| wait.id == id) {
            self.nested.swap_remove(position);
        }
    }

    /// Whether the caller's own runtime has to run for the lock to become free.
    fn is_up_to(&self, request: &Request<'_>) -> bool {
        let Some(entry) = self.entries.get(request.name) else {
            return false;
        };
        let waiting = entry.line.iter().map(|waiting| waiting.caller);
        let holding = match &entry.state {
            State::Held { holders, .. } => holders.as_slice(),
            State::Taking(_) | State::GivingBack => &[],
        };
        let mut callers = holding.iter().copied().chain(waiting);
        callers.any(|caller| caller.runtime.is_some() && caller.runtime == request.runtime)
    }

    fn closes_cycle(&self, request: &Request<'_>) -> bool {
        if request.within.is_none() && !request.partial {
            return false;
        }
        let mine = |body| {
            (request.partial && request.body == Some(body)) || is_within(request.within, body)
        };
        let mut names = vec![request.name];
        let mut next = 0;
        while let Some(name) = names.get(next).copied() {
            next += 1;
            let Some(State::Held { holders, .. }) =
                self.entries.get(name).map(|entry| &entry.state)
            else {
                continue;
            };
            for body in holders.iter().filter_map(|holder| holder.body) {
                if mine(body) {
                    return true;
                }
                for wait in self.nested.iter().filter(|wait| wait.keeps(body)) {
                    if !names.contains(&&wait.name) {
                        names.push(&wait.name);
                    }
                }
            }
        }
        false
    }
}

fn is_within(innermost: Option<&Arc<Frame>>, body: u64) -> bool {
    innermost.is_some_and(|frame| frame.callers().any(|frame| frame.id == body))
}
