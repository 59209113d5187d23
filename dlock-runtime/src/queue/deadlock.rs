//! Waits that would never end.
//!
//! A body holds its locks until it returns, and it does not return while something that it called waits. So a wait
//! is in vain when the lock is held by a body that, over any number of steps, waits for the one that waits now. The
//! waits of other processes are not seen: against these a nested wait has a deadline.

use std::sync::Arc;
use std::thread::{self, ThreadId};

use tokio::runtime::{self, Handle, RuntimeFlavor};
use tokio::task;

use super::line::{Caller, State};
use super::{Request, Table};
use crate::error::{Error, WouldDeadlock};
use crate::hold::frame::Frame;
use crate::key::ServerKey;

const CYCLE: &str = "its holder waits, directly or through others, for a lock that this call tree holds; take the \
     locks in the same order everywhere, or together with `keys = […]` or `lock_all`";

const PARKED: &str = "it is held, or waited for, by the task or in the single-threaded runtime that this synchronous call would \
     park; use the async form";

/// Where a caller runs.
#[derive(Clone, Copy, Default)]
pub(crate) struct Origin {
    /// The single-threaded runtime, and the thread: a runtime's blocking tasks are inside it too, on threads of their
    /// own, and may be parked.
    runtime: Option<(runtime::Id, ThreadId)>,
    task: Option<task::Id>,
}

impl Origin {
    pub(crate) fn here() -> Origin {
        let single_threaded =
            |runtime: &Handle| runtime.runtime_flavor() == RuntimeFlavor::CurrentThread;
        let runtime = Handle::try_current().ok().filter(single_threaded);
        Origin {
            runtime: runtime.map(|runtime| (runtime.id(), thread::current().id())),
            task: task::try_id(),
        }
    }
}

impl Caller {
    /// Whether this caller cannot go on while the thread is parked there. A guard may have been moved to another task.
    fn stops_with(&self, parked: &Origin) -> bool {
        let same_runtime = self.origin.runtime.is_some() && self.origin.runtime == parked.runtime;
        let same_task = self.origin.task.is_some() && self.origin.task == parked.task;
        same_runtime || (same_task && self.body.is_some())
    }
}

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
    #[cfg(test)]
    pub(super) fn id(&self) -> u64 {
        self.id
    }

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

    /// Whether what the caller would park has to run for the lock to become free.
    fn is_up_to(&self, request: &Request<'_>) -> bool {
        // Whoever has the turn is polled inside the same body as the caller.
        if request.turn.is_some() {
            return true;
        }
        let Some(entry) = self.entries.get(request.name) else {
            return false;
        };
        let waiting = entry.line.iter().map(|waiting| waiting.caller);
        let holding = match &entry.state {
            State::Held { holders, .. } => holders.as_slice(),
            State::Taking(_) | State::GivingBack => &[],
        };
        let mut callers = holding.iter().copied().chain(waiting);
        callers.any(|caller| caller.stops_with(&request.origin))
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
