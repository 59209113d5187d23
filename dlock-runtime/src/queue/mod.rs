//! The line before each lock, inside this process.
//!
//! A server session is re-entrant: it would be granted the same lock twice. So every request of the process lines
//! up here first, under the lock's name as the *server* compares it, and at most one errand for a name goes to the
//! server at a time. The errand belongs to the line, not to a caller: when the first caller gives up, the wait goes
//! on for the next.

mod asking;
mod deadlines;
mod deadlock;
mod line;
mod place;
mod questions;
mod refusal;
mod release;
#[cfg(test)]
mod tests;
mod watching;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::time;

use crate::backend::{Backend, Errand, GivenBack, Grant, Hold, Taken, Want};
use crate::error::{Error, Lost, Refused, TooManyHeld};
use crate::hold::Vitality;
use crate::hold::frame::Frame;
use crate::io::Io;
use crate::key::{Key, Mode, ServerKey};
use crate::observer::Watch;
use crate::scheme::KeyScheme;
use deadlines::Deadlines;
use deadlock::NestedWait;
pub(crate) use deadlock::Origin;
use line::{Caller, Entry, Share, State, Stretch, Waiting};
pub(crate) use place::{Acquire, Admission, LeaveError, Leaving, Place};
use questions::Questions;

/// How long a caller waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// One try; the server has until the moment given to answer it.
    OneTry { answer_by: Instant },
    /// Until a moment; the time counts from when the caller asked.
    Until { asked: Instant, deadline: Instant },
    /// Without limit.
    Forever,
}

impl Patience {
    fn deadline(self) -> Option<Instant> {
        match self {
            Patience::OneTry { answer_by } => Some(answer_by),
            Patience::Until { deadline, .. } => Some(deadline),
            Patience::Forever => None,
        }
    }
}

/// What a caller asks for.
pub(crate) struct Request<'a> {
    pub(crate) key: &'a Key,
    /// The lock's name on the server, or the turn under an enclosing body's hold.
    pub(crate) name: &'a ServerKey,
    pub(crate) want: Want,
    pub(crate) patience: Patience,
    /// Whether a refusal has to name the holder, at the price of one more query.
    pub(crate) name_holder: bool,
    /// For a turn: what vouches for the enclosing body's hold.
    pub(crate) turn: Option<&'a Arc<Vitality>>,
    /// The body that is to run, if it is one.
    pub(crate) body: Option<u64>,
    /// The body that the caller belongs to.
    pub(crate) within: Option<&'a Arc<Frame>>,
    /// Whether the body that is to run holds other locks already.
    pub(crate) partial: bool,
    /// Where the caller runs.
    pub(crate) origin: Origin,
    /// Whether the caller parks its thread.
    pub(crate) parks: bool,
}

/// How long a lock may go from caller to caller inside this process before the others get their turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HandOver {
    pub(crate) times: u32,
    pub(crate) time: Duration,
}

/// The lines of one locker.
pub(crate) struct Queue {
    backend: Arc<dyn Backend>,
    io: Arc<Io>,
    /// For the observers, where there are some.
    watch: Option<Arc<Watch>>,
    /// Locks of this process alone: a forked child has its own.
    local: bool,
    hand_over: HandOver,
    questions: Questions,
    deadlines: Arc<Deadlines>,
    table: Mutex<Table>,
    drained: Notify,
}

struct Table {
    /// A name without requests and without a hold has no entry.
    entries: HashMap<ServerKey, Entry>,
    next_id: u64,
    closed: Option<Error>,
    /// Who waits while a body that it belongs to holds other locks.
    nested: Vec<NestedWait>,
}

impl Queue {
    pub(crate) fn new(
        backend: Arc<dyn Backend>,
        io: Arc<Io>,
        hand_over: HandOver,
        watch: Option<Arc<Watch>>,
    ) -> Arc<Queue> {
        if let Some(watch) = &watch {
            watch.count_connections_of(&backend);
        }
        Arc::new(Queue {
            local: backend.is_local(),
            hand_over,
            backend,
            io,
            watch,
            questions: Questions::new(),
            deadlines: Deadlines::new(),
            table: Mutex::new(Table {
                entries: HashMap::new(),
                next_id: 0,
                closed: None,
                nested: Vec::new(),
            }),
            drained: Notify::new(),
        })
    }

    pub(crate) fn io(&self) -> &Io {
        &self.io
    }

    pub(crate) fn watch(&self) -> Option<&Arc<Watch>> {
        self.watch.as_ref()
    }

    /// An error in a process that was forked after the locker connected.
    fn check(&self) -> Result<(), Error> {
        // Asking for the process's number is a system call: dear beside a lock in memory.
        if self.local { Ok(()) } else { self.io.check() }
    }

    /// As [`check`](Self::check), of what was not looked at there: a forked child has no I/O thread to wait for.
    fn check_to_wait(&self) -> Result<(), Error> {
        if self.local { self.io.check() } else { Ok(()) }
    }

    /// The lock's name as the server compares it.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidKey`] with the rule of the scheme, or of the server, that the key breaks.
    pub(crate) fn name_of(&self, key: &Key, scheme: &KeyScheme) -> Result<ServerKey, Error> {
        let name = match (scheme, key.broken_rule()) {
            (KeyScheme::Native, None) => Ok(self.backend.server_key(key)),
            (KeyScheme::Native, Some(rule)) => Err(rule),
            _ => self.backend.foreign_key(key, scheme),
        };
        name.map_err(|rule| key.invalid(rule))
    }

    /// Joins the line for a lock, or takes it on the spot.
    pub(crate) fn join(self: &Arc<Self>, request: &Request<'_>) -> Result<Admission, Error> {
        self.check()?;
        if request.want.mode == Mode::Shared {
            self.backend
                .shared_mode()
                .map_err(|why| Error::Unsupported(Arc::new(why)))?;
        }
        let key = request.name;
        // Declared before the table, and so dropped after it: nobody is woken under the mutex.
        let mut question = Question {
            queue: self,
            key,
            stretch: None,
        };
        let mut table = self.table();
        // A turn needs nothing new: the body that it belongs to is being waited for.
        if let (Some(closed), None) = (&table.closed, request.turn) {
            return Err(closed.clone());
        }
        table.next_id += 1;
        let id = table.next_id;
        let caller = Caller {
            id,
            body: request.body,
            origin: request.origin,
        };
        let Some(entry) = table.entries.get_mut(key) else {
            return self.join_free(table, caller, request);
        };
        // The turns of nested bodies are nobody else's business.
        let bound = request.turn.is_none().then_some(self.hand_over.time);
        match entry.share(caller, request.want, bound) {
            Share::Granted(vitality) => {
                drop(table);
                self.watch_grant(id, request, &vitality);
                return Ok(Admission::Granted(Place::new(self, key, id), vitality));
            }
            // Asked also when this request is refused: others may line up behind the question.
            Share::Ask(stretch) => question.stretch = Some(stretch),
            Share::No => {}
        }
        if !matches!(request.patience, Patience::OneTry { .. }) {
            table.refuse_deadlock(request)?;
        }
        self.check_to_wait()?;
        let (mut waiting, answer) = Waiting::new(caller, request);
        let Some(entry) = table.entries.get_mut(key) else {
            return Err(Error::RuntimeStopped);
        };
        self.watch_request(id, request);
        if let Some(refusal) = entry.refusal_of(&waiting) {
            drop(table);
            self.refuse(key, waiting, refusal);
        } else {
            if let (Some(watch), true) = (&self.watch, waiting.timed) {
                watch.waits(id, true);
            }
            let winding = self.deadlines.set_timer(&mut waiting, key);
            entry.push(waiting);
            table.note_wait(id, request);
            drop(table);
            self.wind(winding);
        }
        let place = Place::new(self, key, id);
        Ok(Admission::Waiting(Acquire::new(place, answer)))
    }

    /// Finds out whether more readers may come beside those who hold a lock.
    fn ask_for_readers(self: &Arc<Self>, key: &ServerKey, stretch: Stretch) {
        let (queue, key) = (self.clone(), key.clone());
        self.spawn(async move {
            let admits = queue.backend.admits_reader(&key);
            let admits = time::timeout(refusal::ANSWERS_WITHIN, admits).await;
            queue.admit(&key, stretch, admits.unwrap_or(false));
        });
    }

    fn admit(self: &Arc<Self>, key: &ServerKey, stretch: Stretch, admits: bool) {
        let mut table = self.table();
        let entry = table.entries.get_mut(key);
        let Some((vitality, granted, refused)) =
            entry.and_then(|entry| entry.admit(stretch, admits))
        else {
            return;
        };
        for waiting in granted.iter().chain(&refused) {
            table.forget_wait(waiting.caller.id);
        }
        if let Some(watch) = &self.watch {
            for waiting in &granted {
                // Somebody waits for the end of what vouches for it since the first grant.
                let _ = watch.is_granted(waiting.caller.id, &vitality);
            }
        }
        drop(table);
        for waiting in granted {
            let _ = waiting.reply.send(Ok(vitality.clone()));
        }
        self.refuse_all(key, refused);
    }

    /// The first request for a name that nobody in this process holds or waits for.
    fn join_free(
        self: &Arc<Self>,
        mut table: MutexGuard<'_, Table>,
        caller: Caller,
        request: &Request<'_>,
    ) -> Result<Admission, Error> {
        let (key, want, id) = (request.name, request.want, caller.id);
        if let Some(hold) = self.take_now(key, want, request.turn) {
            let vitality = hold.vitality.clone();
            let entry = Entry::held(request.key.text().clone(), hold, want.mode, caller);
            table.entries.insert(key.clone(), entry);
            drop(table);
            self.watch_grant(id, request, &vitality);
            return Ok(Admission::Granted(Place::new(self, key, id), vitality));
        }
        self.check_to_wait()?;
        let (waiting, answer) = Waiting::new(caller, request);
        let deadline = waiting.patience.deadline();
        let errand = Errand::new(key.clone(), want, deadline);
        self.watch_request(id, request);
        table
            .entries
            .insert(key.clone(), Entry::taking(errand.clone(), waiting));
        table.note_wait(id, request);
        drop(table);
        self.send(errand, deadline.map(|deadline| (id, deadline)));
        let place = Place::new(self, key, id);
        Ok(Admission::Waiting(Acquire::new(place, answer)))
    }

    /// Takes a lock on the spot, where that needs no I/O: a turn is nobody's but this process's.
    fn take_now(&self, key: &ServerKey, want: Want, turn: Option<&Arc<Vitality>>) -> Option<Hold> {
        match turn {
            Some(vitality) => Some(Hold {
                vitality: vitality.clone(),
                grant: Box::new(Turn),
            }),
            None => self.backend.take_now(key, want),
        }
    }

    /// Sends an errand to the server, and watches the deadline of the caller that it was made for.
    fn send(self: &Arc<Self>, errand: Arc<Errand>, mut first: Option<(u64, Instant)>) {
        let queue = self.clone();
        self.spawn(async move {
            let mut taking = queue.backend.clone().take(errand.clone());
            let taken = loop {
                tokio::select! {
                    biased;
                    taken = &mut taking => break taken,
                    () = errand.news() => queue.heed(&errand),
                    id = passed(first) => {
                        first = None;
                        queue.expire(&errand.key, id);
                    }
                }
            };
            queue.taken(&errand, taken);
        });
    }

    /// Hands out what an errand brought home.
    fn taken(self: &Arc<Self>, errand: &Errand, taken: Taken) {
        let table = self.table();
        let Some(entry) = table.entries.get(&errand.key) else {
            return;
        };
        match taken {
            Taken::Held(hold) => {
                let text = entry.text.clone();
                self.hand_out(table, &errand.key, errand.want, hold, Stretch::begin());
                // Behind the callers, who wait for nothing that is only told.
                self.backend.granted(&errand.key, &text);
            }
            Taken::CalledOff => self.advance(table, &errand.key),
            Taken::Refused {
                code,
                message,
                source,
            } => self.reject(table, errand, |key| {
                Error::Refused(Arc::new(Refused {
                    key,
                    code,
                    message,
                    source,
                }))
            }),
            Taken::TooMany { most } => self.reject(table, errand, |key| {
                Error::TooManyHeld(Arc::new(TooManyHeld { key, most }))
            }),
        }
    }

    /// The caller whom an errand was for does not get the lock; the next in line is asked for anew.
    fn reject(
        self: &Arc<Self>,
        mut table: MutexGuard<'_, Table>,
        errand: &Errand,
        error: impl FnOnce(Arc<str>) -> Error,
    ) {
        let entry = table.entries.get_mut(&errand.key);
        let rejected = entry.and_then(|entry| entry.pop(errand.want));
        if let Some(waiting) = &rejected {
            table.forget_wait(waiting.caller.id);
        }
        self.advance(table, &errand.key);
        if let Some(waiting) = rejected {
            let error = error(waiting.key.to_shared());
            self.deny(waiting, error);
        }
    }

    /// Gives a lock to the first in line, and back if there is nobody.
    fn hand_out(
        self: &Arc<Self>,
        mut table: MutexGuard<'_, Table>,
        key: &ServerKey,
        want: Want,
        hold: Hold,
        stretch: Stretch,
    ) {
        let Some(entry) = table.entries.get_mut(key) else {
            return;
        };
        let vitality = hold.vitality.clone();
        match entry.grant(hold, want, stretch) {
            Ok((granted, refused)) => {
                for waiting in granted.iter().chain(&refused) {
                    table.forget_wait(waiting.caller.id);
                }
                // Under the mutex: the release, which may come at once, is reported behind the grant.
                let unguarded = self.watch.as_ref().is_some_and(|watch| {
                    let ids = granted.iter().map(|waiting| waiting.caller.id);
                    ids.fold(false, |any, id| any | watch.is_granted(id, &vitality))
                });
                drop(table);
                if unguarded {
                    self.guard(&vitality);
                }
                for waiting in granted {
                    // Whoever is gone meanwhile still has its place, and leaving the place gives back.
                    let _ = waiting.reply.send(Ok(vitality.clone()));
                }
                self.refuse_all(key, refused);
            }
            Err(nobody) => {
                drop(table);
                self.give_back(key, nobody, None, false, None);
            }
        }
    }

    /// After a release, or an errand that came home with nothing: the next in line, or no line at all.
    fn advance(self: &Arc<Self>, mut table: MutexGuard<'_, Table>, key: &ServerKey) {
        let Some(entry) = table.entries.get_mut(key) else {
            return;
        };
        if let Some(first) = entry.line.front() {
            let want = first.want;
            if let Some(hold) = self.take_now(key, want, first.turn.as_ref()) {
                return self.hand_out(table, key, want, hold, Stretch::begin());
            }
            let errand = Errand::new(key.clone(), want, entry.patience());
            entry.state = State::Taking(errand.clone());
            drop(table);
            self.send(errand, None);
        } else {
            table.entries.remove(key);
            let drained = table.closed.is_some() && table.entries.is_empty();
            drop(table);
            if drained {
                self.drained.notify_waiters();
            }
        }
    }

    /// Refuses all who wait and all who come, with this error. Holds stay until they are released.
    pub(crate) fn close(&self, error: &Error) {
        let mut table = self.table();
        if table.closed.is_none() {
            table.closed = Some(error.clone());
        }
        let refused: Vec<Waiting> = table.entries.values_mut().flat_map(Entry::clear).collect();
        table.nested.clear();
        drop(table);
        for waiting in refused {
            self.deny(waiting, error.clone());
        }
    }

    /// Completes when nothing is held and nothing is on its way; for a closed queue.
    pub(crate) async fn drained(&self) {
        loop {
            let mut drained = std::pin::pin!(self.drained.notified());
            drained.as_mut().enable();
            if self.table().entries.is_empty() {
                return;
            }
            drained.await;
        }
    }

    /// How many keys this process holds.
    pub(crate) fn held(&self) -> usize {
        let table = self.table();
        let held = |(key, entry): &(&ServerKey, &Entry)| {
            matches!(entry.state, State::Held { .. }) && !matches!(key, ServerKey::Turn(..))
        };
        table.entries.iter().filter(held).count()
    }

    /// Ends every hold and closes every connection.
    pub(crate) fn cut(&self, reason: &str) {
        self.backend.close(reason);
        if let Some(watch) = &self.watch {
            watch.is_cut();
        }
    }

    /// Does something on the I/O thread after a while.
    pub(crate) fn later(
        self: &Arc<Self>,
        after: Duration,
        then: impl FnOnce() + Send + 'static,
    ) -> tokio::task::AbortHandle {
        self.spawn(async move {
            time::sleep(after).await;
            then();
        })
    }

    /// A task of this queue. Its panic leaves the state of some lock unknown, so it ends them all: first the holds
    /// are invalidated, then the sockets are closed.
    fn spawn(
        self: &Arc<Self>,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> tokio::task::AbortHandle {
        let queue = Arc::downgrade(self);
        self.io.spawn(task, move |_| {
            if let Some(queue) = queue.upgrade() {
                queue.cut("the I/O thread of dlock panicked");
                queue.close(&Error::RuntimeStopped);
            }
        })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        if self.check().is_err() {
            // A forked child: closing a connection would say goodbye to the server on the parent's socket.
            std::mem::forget(std::mem::take(&mut self.table().entries));
            // The thread of the observers may have had the channel in its hands when the process was forked.
            std::mem::forget(self.watch.take());
            return;
        }
        // Nobody has a place any more, so nothing is held; the connections go with the last locker.
        self.backend.close("the locker was dropped");
    }
}

/// Whether more readers may come, to be asked when it is dropped.
struct Question<'a> {
    queue: &'a Arc<Queue>,
    key: &'a ServerKey,
    stretch: Option<Stretch>,
}

impl Drop for Question<'_> {
    fn drop(&mut self) {
        // A forked child has no I/O thread to ask on.
        if let Some(stretch) = self.stretch
            && self.queue.io.check().is_ok()
        {
            self.queue.ask_for_readers(self.key, stretch);
        }
    }
}

/// A turn under an enclosing body's hold: the hold stays, so there is nothing to give back.
struct Turn;

impl Grant for Turn {
    fn give_back(self: Box<Self>) -> GivenBack {
        GivenBack::Now(Ok(()))
    }
}

pub(crate) fn lost(key: &str, reason: &str) -> Error {
    Error::Lost(Arc::new(Lost {
        key: key.into(),
        reason: reason.to_owned(),
    }))
}

/// Completes with the id when its deadline passes; never without one.
async fn passed(first: Option<(u64, Instant)>) -> u64 {
    match first {
        Some((id, deadline)) => {
            time::sleep_until(deadline.into()).await;
            id
        }
        None => std::future::pending().await,
    }
}
