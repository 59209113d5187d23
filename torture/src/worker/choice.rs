//! What to ask for next: everything comes from the seed.

use std::time::Duration;

use dlock::Timeout;

use super::Duty;
use crate::history::Mode;

/// Through which part of the public API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// A guard, released with an answer.
    Guard,
    /// A wait whose future is dropped.
    DroppedWait,
    /// A guard that is dropped.
    DroppedGuard,
    /// `Lock::run`.
    Run,
    /// `#[db_locked]`.
    Attribute,
}

/// One request.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) way: Way,
    pub(super) keys: Vec<u16>,
    pub(super) mode: Mode,
    /// In milliseconds; `None`: without limit.
    pub(super) wait: Option<u64>,
    /// The steps of the critical section, by the pause behind each.
    pub(super) steps: Vec<Duration>,
    /// Whether the holder keeps the lock during a fault, until it is told of the loss.
    pub(super) clings: bool,
    /// When the caller of a wait that is dropped goes away.
    pub(super) gone_after: Duration,
    /// How long the asker rests afterwards.
    pub(super) rest: Duration,
    pub(super) blocking: bool,
}

impl Plan {
    pub(super) fn timeout(&self) -> Timeout {
        self.wait.map(Duration::from_millis).into()
    }

    /// The way in words, for the history.
    pub(super) fn words(&self) -> String {
        let blocking = if self.blocking { " blocking" } else { "" };
        format!("{:?}{blocking}", self.way)
    }
}

/// The text of a key.
pub(crate) fn key(number: u16) -> String {
    format!("torture/{number}")
}

/// Makes the plans of one asker.
#[derive(Debug)]
pub(super) struct Choice {
    rng: fastrand::Rng,
    keys: u16,
    shared: bool,
}

impl Choice {
    pub(super) fn new(rng: fastrand::Rng, duty: &Duty) -> Choice {
        Choice {
            rng,
            keys: duty.keys,
            shared: duty.shared,
        }
    }

    pub(super) fn next(&mut self, blocking: bool) -> Plan {
        let rng = &mut self.rng;
        let way = match rng.u8(0..100) {
            0..30 => Way::Guard,
            30..42 => Way::DroppedWait,
            42..52 => Way::DroppedGuard,
            52..75 => Way::Run,
            _ => Way::Attribute,
        };
        let several = matches!(way, Way::Guard) && rng.u8(0..10) == 0;
        let first = rng.u16(0..self.keys);
        let keys = if several {
            // In any order: the library sorts.
            vec![first, (first + 1 + rng.u16(0..self.keys - 1)) % self.keys]
        } else {
            vec![first]
        };
        let mode = if self.shared && rng.u8(0..10) < 3 {
            Mode::Shared
        } else {
            Mode::Exclusive
        };
        let wait = match rng.u8(0..100) {
            0..10 => Some(0),
            10..40 => Some(rng.u64(1..80)),
            40..65 => Some(rng.u64(80..400)),
            65..85 => Some(rng.u64(400..4000)),
            _ => None,
        };
        let longest = if rng.u8(0..20) == 0 { 150 } else { 12 };
        let steps = (0..rng.usize(1..5)).map(|_| Duration::from_micros(rng.u64(0..longest * 1000)));
        Plan {
            way,
            keys,
            mode,
            wait,
            steps: steps.collect(),
            clings: rng.bool(),
            gone_after: Duration::from_micros(rng.u64(0..40_000)),
            rest: Duration::from_millis(rng.u64(1..80)),
            blocking,
        }
    }
}
