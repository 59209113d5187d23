//! What happened, as each process saw it: append-only files outside the lock's database.
//!
//! Each process has a file of its own and writes a record with one `write`, so that a record is whole or absent however the
//! process ends. The clock is the same for all of them. A record's moment is read *before* what it tells of is looked at
//! or begun, and *after* what it tells of has happened: see each [`Event`].

mod read;
mod write;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use read::Reader;
pub use write::Log;

use crate::clock::Moment;
use crate::fault::Fault;

/// One line of a history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// When.
    pub at: Moment,
    /// What.
    pub event: Event,
}

/// A worker process: the slot that it fills, and how many were in that slot before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Process {
    /// The slot.
    pub slot: usize,
    /// The number of its predecessors.
    pub life: usize,
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.slot, self.life)
    }
}

/// How a lock is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// Nobody else may hold it.
    Exclusive,
    /// Others may hold it, if they ask for it in this mode.
    Shared,
}

/// What the checker must know of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// The server, in words.
    pub server: String,
    /// `session` or `lease`.
    pub strategy: String,
    /// Every choice of the run comes from this.
    pub seed: u64,
    /// How many keys there are.
    pub keys: u16,
    /// How long the server keeps the locks of a holder that has fallen silent.
    pub limit: Moment,
    /// The time between two confirmations.
    pub heartbeat: Moment,
    /// How long connecting may take.
    pub connect: Moment,
    /// Repeats the run.
    pub command: String,
}

/// What is recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// A lock is about to be asked for. Read before.
    Asked {
        /// The number of the request in its process.
        op: u64,
        /// The keys, by number.
        keys: Vec<u16>,
        /// The mode.
        mode: Mode,
        /// Through which part of the public API.
        way: String,
        /// How many milliseconds the request may wait; `None`: without limit.
        wait: Option<u64>,
    },
    /// The lock was granted. Read after the grant, and before the look whether it is held.
    Acquired {
        /// The request.
        op: u64,
        /// What the look said.
        held: bool,
        /// For how many milliseconds from the look on it was vouched for without another confirmation.
        #[serde(default)]
        validity: Option<u64>,
        /// The fencing token, where there is one.
        token: Option<u64>,
    },
    /// A step of the critical section. Read before the look whether the lock is held.
    Step {
        /// The request.
        op: u64,
        /// What the look said.
        held: bool,
        /// For how many milliseconds from the look on it was vouched for without another confirmation.
        #[serde(default)]
        validity: Option<u64>,
    },
    /// The holder was told that it has lost the lock. Read after.
    Told {
        /// The request.
        op: u64,
    },
    /// The body has ended, and the lock is about to be released, or the guard to be dropped. Read before.
    Releasing {
        /// The request.
        op: u64,
    },
    /// The release was answered. Read after.
    Released {
        /// The request.
        op: u64,
        /// Why the hold does not count.
        failed: Option<Failure>,
    },
    /// The lock was not granted. Read after.
    Failed {
        /// The request.
        op: u64,
        /// Why.
        failure: Failure,
    },
    /// The caller has dropped the future of its wait, or its guard without waiting for an answer. Read after.
    Dropped {
        /// The request.
        op: u64,
    },
    /// Something panicked in this process.
    Panicked {
        /// With these words.
        message: String,
    },
    /// The process begins to end in good order: its locker refuses from now on.
    Stopping,
    /// The process has ended in good order.
    Ended {
        /// How many locks the shutdown had to cut off.
        cut: usize,
        /// How many threads of the library were still there.
        threads: usize,
    },
    /// The run begins.
    Began(Setting),
    /// A process was started.
    Started(Process),
    /// A process is no more.
    Died {
        /// Which one.
        process: Process,
        /// Whether that was meant.
        meant: bool,
        /// Its exit status, in words.
        how: String,
    },
    /// Something is about to be broken. Read before.
    FaultBegan {
        /// The fault's number in this run.
        number: usize,
        /// What.
        fault: Fault,
        /// The slot of the process it is aimed at; `None`: everybody.
        target: Option<usize>,
    },
    /// It is mended. Read after.
    FaultEnded {
        /// The fault's number.
        number: usize,
    },
    /// What the server still had when everybody had left.
    Left {
        /// Of this.
        what: String,
        /// So many.
        count: usize,
    },
}

/// Why a lock was not granted, or did not last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Which kind of error.
    pub kind: FailureKind,
    /// The error's own words.
    pub text: String,
}

/// The kinds of errors, as the library has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureKind {
    /// Others kept the lock.
    Busy,
    /// The server was out of reach.
    Unavailable,
    /// The hold was lost.
    Lost,
    /// The server refused the statement.
    Refused,
    /// The locker was shut down.
    ShutDown,
    /// Any other.
    Other,
}

impl From<&dlock::Error> for Failure {
    fn from(error: &dlock::Error) -> Failure {
        let kind = match error {
            dlock::Error::Busy(_) => FailureKind::Busy,
            dlock::Error::Unavailable(_) => FailureKind::Unavailable,
            dlock::Error::Lost(_) => FailureKind::Lost,
            dlock::Error::Refused(_) => FailureKind::Refused,
            dlock::Error::ShutDown => FailureKind::ShutDown,
            _ => FailureKind::Other,
        };
        Failure {
            kind,
            text: error.to_string(),
        }
    }
}

/// The records of one run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// What the nemesis wrote.
    pub nemesis: Vec<Record>,
    /// What each worker wrote.
    pub workers: Vec<(Process, Vec<Record>)>,
}

impl History {
    /// How the run was set.
    pub fn setting(&self) -> Option<&Setting> {
        self.nemesis.iter().find_map(|record| match &record.event {
            Event::Began(setting) => Some(setting),
            _ => None,
        })
    }
}
