//! The table of keys: what the names of locks mean, for people who read lists.
//!
//! Off the way of every lock: a grant leaves a note in memory, and a moment later a task writes what has gathered, on a
//! connection of the waiters'. What cannot be written is tried again; nobody waits for it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::time;

use super::driver::{ConnectError, Driver, DriverError, KeyTable, Noted, Session};
use super::live::Live;
use super::waiters::Waiters;
use super::{gone, to_its_end};
use crate::key::{KeyText, ServerKey};
use crate::listing::LockInfo;

/// How many keys are known to be noted, and how many may gather.
const MOST: usize = 10_000;

/// A key that is longer is not noted; the native scheme has none that is.
const LONGEST: usize = 2048;

/// How many rows one statement writes, and how many names one asks for.
const ROWS: usize = 256;
const NAMES: usize = 1000;

/// How long keys gather before they are written. The unit tests have no clock but this.
const GATHERS: Duration = Duration::from_millis(if cfg!(test) { 100 } else { 1000 });

/// The pause between two statements while more have gathered than one takes.
const BETWEEN: Duration = Duration::from_millis(50);

/// The pause after a failure.
const REST: Duration = Duration::from_millis(if cfg!(test) { 500 } else { 10_000 });

/// A server that has not answered by then has lost the connection: its own limit for a locked table is shorter.
const ANSWERS_WITHIN: Duration = Duration::from_secs(2);

const STOPPED: &str = "the table of keys has stopped answering";

/// How long a list waits for the texts at most.
const LIST_WAITS: Duration = Duration::from_secs(1);

/// The table of keys, as one locker writes and reads it.
pub(super) struct Names<D: Driver> {
    waiters: Arc<Waiters<D>>,
    list_waits: Duration,
    notes: Mutex<Notes>,
}

/// What is to be written, and what was.
#[derive(Default)]
struct Notes {
    /// Written, or about to be. Forgotten as a whole when it grows too large: who asks for a lock again writes it again.
    known: HashSet<ServerKey>,
    fresh: VecDeque<(ServerKey, Arc<str>)>,
    /// Whether a task is about to write.
    writing: bool,
    closed: bool,
}

impl Notes {
    /// A lock was granted. `true`: somebody has to write.
    fn add(&mut self, key: &ServerKey, text: &KeyText) -> bool {
        let fits = text.len() <= LONGEST && !text.contains('\0');
        if self.closed || !fits || self.fresh.len() >= MOST || self.known.contains(key) {
            return false;
        }
        if self.known.len() >= MOST {
            self.known.clear();
        }
        self.known.insert(key.clone());
        self.fresh.push_back((key.clone(), text.to_shared()));
        !std::mem::replace(&mut self.writing, true)
    }

    /// What the next statement writes; nothing: nobody writes any more.
    fn take(&mut self) -> Vec<(ServerKey, Arc<str>)> {
        let rows = self.fresh.len().min(ROWS);
        self.writing = rows > 0;
        self.fresh.drain(..rows).collect()
    }

    /// What could not be written, behind what has gathered meanwhile.
    fn give_back(&mut self, keys: Vec<(ServerKey, Arc<str>)>) {
        for (key, text) in keys {
            if self.closed || self.fresh.len() >= MOST {
                self.known.remove(&key);
            } else {
                self.fresh.push_back((key, text));
            }
        }
    }

    fn close(&mut self) {
        self.closed = true;
        self.fresh.clear();
    }
}

/// Finds out whether the table can be written, and makes it where it is missing. One that somebody has locked may be.
pub(super) async fn prove<S: Session>(
    live: &Live<S>,
    table: &KeyTable,
) -> Result<(), ConnectError> {
    // Past the watch over answers: where `limit` is shortest, it ends a session that stands behind a locked table at the very
    // moment in which the server says so.
    let asked = time::timeout(ANSWERS_WITHIN, live.session().note_keys(&[]));
    match asked.await.unwrap_or_else(|_| Err(gone(STOPPED))) {
        Ok(_) => Ok(()),
        Err(DriverError::Gone { reason, source }) => {
            Err(ConnectError::Unreachable { reason, source })
        }
        Err(refused @ DriverError::Refused { .. }) => Err(ConnectError::Unsafe {
            reason: format!("the key_table {} cannot be written: {refused}", table.name),
            remedy: table.remedy.clone(),
        }),
    }
}

impl<D: Driver> Names<D> {
    pub(super) fn new(waiters: Arc<Waiters<D>>, connect_timeout: Duration) -> Arc<Names<D>> {
        Arc::new(Names {
            waiters,
            // The whole list has as long as a connection has to be opened.
            list_waits: LIST_WAITS.min(connect_timeout / 2),
            notes: Mutex::default(),
        })
    }

    /// A lock was granted to this process. Runs on the I/O thread.
    pub(super) fn note(self: &Arc<Self>, key: &ServerKey, text: &KeyText) {
        if self.notes().add(key, text) {
            tokio::spawn(write(Arc::downgrade(self)));
        }
    }

    /// Fills in the keys of locks, as far as the table is there and answers soon.
    pub(super) async fn tell(&self, locks: &mut [LockInfo]) {
        let names: Vec<Arc<str>> = locks
            .iter()
            .filter(|lock| lock.key.is_none())
            .map(|lock| lock.name.clone())
            .collect();
        if names.is_empty() {
            return;
        }
        let waiters = self.waiters.clone();
        let asked = to_its_end(async move { aside(&waiters, |live| look_up(live, names)).await });
        let Ok(Some(noted)) = time::timeout(self.list_waits, asked).await else {
            return;
        };
        let texts: HashMap<Arc<str>, Arc<str>> = noted
            .into_iter()
            .map(|noted| (noted.name, noted.text))
            .collect();
        for lock in locks.iter_mut().filter(|lock| lock.key.is_none()) {
            lock.key = texts.get(&lock.name).cloned();
        }
    }

    /// Nothing is written any more.
    pub(super) fn close(&self) {
        self.notes().close();
    }

    /// Writes a part of what has gathered, and says when to go on; `None`: there is nothing.
    async fn write_some(&self) -> Option<Duration> {
        let keys = self.notes().take();
        if keys.is_empty() {
            return None;
        }
        let mut rows: Vec<Noted> = keys
            .iter()
            .map(|(key, text)| Noted {
                name: key.to_text(),
                text: text.clone(),
            })
            .collect();
        // Two who write the same rows in different orders would wait for each other.
        rows.sort();
        let writing = aside(&self.waiters, |live| {
            async move { live.session().note_keys(&rows).await }.boxed()
        });
        let written = writing.await == Some(true);
        let mut notes = self.notes();
        if !written {
            notes.give_back(keys);
            return Some(REST);
        }
        Some(if notes.fresh.is_empty() {
            GATHERS
        } else {
            BETWEEN
        })
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes until nothing is left to write. Ends with the locker.
async fn write<D: Driver>(names: Weak<Names<D>>) {
    let mut pause = GATHERS;
    loop {
        time::sleep(pause).await;
        let Some(names) = names.upgrade() else {
            return;
        };
        match names.write_some().await {
            Some(next) => pause = next,
            None => return,
        }
    }
}

fn look_up<S: Session>(
    live: &Live<S>,
    names: Vec<Arc<str>>,
) -> BoxFuture<'_, Result<Vec<Noted>, DriverError>> {
    async move {
        let mut noted = Vec::new();
        for names in names.chunks(NAMES) {
            noted.extend(live.session().noted_keys(names).await?);
        }
        Ok(noted)
    }
    .boxed()
}

/// Asks on a waiter's connection, if one is to be had at once: never on the keeper, which must not stand behind somebody who
/// has locked the table.
async fn aside<D: Driver, T>(
    waiters: &Arc<Waiters<D>>,
    question: impl for<'l> FnOnce(&'l Live<D::Session>) -> BoxFuture<'l, Result<T, DriverError>>,
) -> Option<T> {
    let _permit = waiters.permit_aside()?;
    let waiter = waiters.check_out().await.ok()?;
    // Past the watch over answers, as in the proof.
    let asked = time::timeout(ANSWERS_WITHIN, question(&waiter));
    match asked.await {
        Ok(Ok(answer)) => {
            waiters.put_back(waiter);
            Some(answer)
        }
        // It holds nothing, and is as it was.
        Ok(Err(DriverError::Refused { .. })) => {
            waiters.put_back(waiter);
            None
        }
        Ok(Err(DriverError::Gone { reason, .. })) => {
            waiter.lose(reason);
            None
        }
        Err(_) => {
            waiter.lose(STOPPED);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(notes: &mut Notes, number: usize) -> bool {
        let key = ServerKey::Number(i64::try_from(number).expect("a small number"));
        notes.add(&key, &KeyText::from(number.to_string()))
    }

    #[test]
    fn a_key_is_noted_once_and_one_task_writes() {
        let mut notes = Notes::default();
        assert!(note(&mut notes, 1), "the first has it written");
        assert!(!note(&mut notes, 2) && !note(&mut notes, 1));
        assert_eq!(notes.take().len(), 2);
        assert!(!note(&mut notes, 2), "it is on its way");
        assert!(!note(&mut notes, 3), "the task looks again");
        assert_eq!(notes.take().len(), 1);
        assert!(notes.take().is_empty());
        assert!(note(&mut notes, 4), "the task has ended");
    }

    #[test]
    fn keys_that_cannot_be_written_do_not_grow_without_bound() {
        let mut notes = Notes::default();
        for number in 0..2 * MOST {
            note(&mut notes, number);
        }
        assert_eq!((notes.fresh.len(), notes.known.len()), (MOST, MOST));
        let taken = notes.take();
        for number in 2 * MOST..3 * MOST {
            note(&mut notes, number);
        }
        assert_eq!(notes.fresh.len(), MOST, "there was room for a few");
        notes.give_back(taken);
        assert_eq!(notes.fresh.len(), MOST);
        // What was dropped is noted when it comes again.
        notes.take();
        note(&mut notes, 0);
        assert_eq!(notes.fresh.len(), MOST - ROWS + 1);
    }

    #[test]
    fn what_was_written_is_forgotten_in_the_end_and_written_again() {
        let mut notes = Notes::default();
        for number in 0..=MOST {
            note(&mut notes, number);
            notes.take();
        }
        assert_eq!(notes.known.len(), 1, "it begins anew");
        note(&mut notes, 0);
        assert_eq!(notes.take().len(), 1);
    }

    #[test]
    fn what_a_server_may_not_take_is_left_out() {
        let mut notes = Notes::default();
        let long = "x".repeat(LONGEST + 1);
        for text in ["a\0b", &long] {
            assert!(!notes.add(&ServerKey::Number(1), &KeyText::from(text.to_owned())));
        }
        let longest = KeyText::from("x".repeat(LONGEST));
        assert!(notes.add(&ServerKey::Number(1), &longest));
        notes.close();
        assert!(!note(&mut notes, 2), "closed");
        notes.give_back(vec![(ServerKey::Number(1), "a".into())]);
        assert!(notes.take().is_empty());
    }
}
