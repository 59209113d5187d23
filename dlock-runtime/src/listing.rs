//! What is told of locks in use.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::capabilities::Strategy;
use crate::error::Holder;
use crate::key::{Mode, ServerKey};

/// A lock that somebody holds or waits for: see [`Locker::list`](crate::Locker::list).
///
/// What is `None` the server does not tell, or not to this account: `docs/grants.md` says what each server needs.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LockInfo {
    /// How the lock is kept.
    pub strategy: Strategy,
    /// The key, as a program wrote it. Rows of leases and memory know it. A server that keeps session locks knows a number,
    /// or a name: there it is known of the keys that this locker holds or waits for at the time, and with
    /// [`Config::key_table`](crate::Config::key_table) of those that programs with the same table have taken.
    pub key: Option<Arc<str>>,
    /// The lock's name on the server: the number of an advisory lock, two with a comma in between, the name of a named lock,
    /// or the key.
    pub name: Arc<str>,
    /// The mode in which it is held; of a lock that is only waited for, the mode of the first in line.
    pub mode: Mode,
    /// Who holds it: several in shared mode.
    pub holders: Vec<Party>,
    /// Who waits for it on the server, in order, as far as the server tells the order: PostgreSQL does from version 14 on, and
    /// leases do; MySQL tells who waits. One session, or one announcement, stands for all who wait in one process.
    pub waiters: Vec<Party>,
    /// How many callers of this locker wait for it, in this process.
    pub waiting_here: usize,
    /// The fencing token of the present holder, of leases; of readers the newest.
    pub token: Option<u64>,
    /// How long the lease lasts unless it is renewed. Session locks end with their session.
    pub expires_in: Option<Duration>,
    /// The last one that held it and does so no more, of leases: their rows stay. It is the only news of a lock that nobody
    /// holds or waits for, which [`Locker::inspect`](crate::Locker::inspect) tells and a list leaves out.
    pub last: Option<LastRun>,
    pub(crate) server_key: ServerKey,
}

/// A hold that has ended: part of [`LockInfo`]. Of readers who held the lock together it is the one that ended last.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LastRun {
    /// Whose it was: the program and the owner. `this_process` means the locker that was asked.
    pub who: Holder,
    /// The fencing token.
    pub token: u64,
    /// When the lock was taken, by the database's clock.
    pub acquired: SystemTime,
    /// When it was given back, by the database's clock. `None`: never; its lease ran out, since the holder died or lost the
    /// database, or it was kicked.
    pub released: Option<SystemTime>,
}

impl LastRun {
    /// How long the lock was held, where it was given back.
    pub fn held_for(&self) -> Option<Duration> {
        self.released?.duration_since(self.acquired).ok()
    }
}

/// Somebody who holds a lock, or waits for it: part of [`LockInfo`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Party {
    /// The session or the owner. `this_process` means the locker that was asked.
    pub who: Holder,
    /// Whether it holds the lock, or wants it, alone.
    pub mode: Mode,
    /// How long it has held the lock, or waited for it: leases tell it of an exclusive holder, PostgreSQL from version 14 on of
    /// those who wait, MySQL of those who wait in whole seconds.
    pub lasts: Option<Duration>,
}

impl Party {
    pub(crate) fn new(who: Holder, mode: Mode) -> Party {
        Party {
            who,
            mode,
            lasts: None,
        }
    }
}

impl LockInfo {
    /// A lock of which nothing but its name is known yet.
    pub(crate) fn new(strategy: Strategy, server_key: ServerKey) -> LockInfo {
        LockInfo {
            strategy,
            key: None,
            name: server_key.to_text(),
            mode: Mode::default(),
            holders: Vec::new(),
            waiters: Vec::new(),
            waiting_here: 0,
            token: None,
            expires_in: None,
            last: None,
            server_key,
        }
    }

    /// Whether somebody holds it or waits for it.
    pub(crate) fn is_in_use(&self) -> bool {
        !self.holders.is_empty() || !self.waiters.is_empty()
    }

    /// The lock once everybody is known who holds it or waits for it.
    pub(crate) fn complete(mut self) -> LockInfo {
        if let Some(first) = self.holders.first().or(self.waiters.first()) {
            self.mode = first.mode;
        }
        self
    }
}

/// Puts the parties of a list together that are about one lock. Everybody who waits comes in the order of the list.
pub(crate) fn gather(
    strategy: Strategy,
    parties: impl IntoIterator<Item = (ServerKey, bool, Party)>,
) -> Vec<LockInfo> {
    let mut locks: Vec<LockInfo> = Vec::new();
    let mut places = std::collections::HashMap::new();
    for (key, granted, party) in parties {
        let place = *places.entry(key).or_insert_with_key(|key| {
            locks.push(LockInfo::new(strategy, key.clone()));
            locks.len() - 1
        });
        if let Some(lock) = locks.get_mut(place) {
            let side = if granted {
                &mut lock.holders
            } else {
                &mut lock.waiters
            };
            side.push(party);
        }
    }
    locks.into_iter().map(LockInfo::complete).collect()
}

/// Shows the lock in one line: its key or name, who holds it and how many wait.
impl fmt::Display for LockInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lock {:?}", self.key.as_ref().unwrap_or(&self.name))?;
        if self.mode == Mode::Shared {
            f.write_str(" (shared)")?;
        }
        match self.holders.split_first() {
            None => f.write_str(", held by nobody")?,
            Some((first, [])) => write!(f, ", held by {}", first.who)?,
            Some((first, more)) => write!(f, ", held by {} and {} more", first.who, more.len())?,
        }
        if let (None, Some(last)) = (self.holders.first(), &self.last) {
            write!(f, ", last by {}", last.who)?;
        }
        let waiting = self.waiters.len();
        if waiting > 0 {
            write!(f, ", {waiting} waiting")?;
        }
        Ok(())
    }
}
