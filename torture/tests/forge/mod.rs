//! Makes histories up. Moments are milliseconds since the beginning.

#![allow(dead_code, reason = "each test program needs a part of it")]

use torture::checker::{Property, Verdict, check};
use torture::clock::MILLISECOND;
use torture::fault::Fault;
use torture::history::{Event, Failure, FailureKind, History, Mode, Process, Record, Setting};

/// A second, in the moments of this file.
pub(crate) const SECOND: u64 = 1000;

/// How long each look vouches for a hold: as long as it can.
pub(crate) const VALIDITY: u64 = 2700;

/// Every clock begins somewhere.
const START: u64 = 1_000_000 * MILLISECOND;

/// A history that is being made up.
#[derive(Clone, Debug)]
pub(crate) struct Forge {
    history: History,
}

pub(crate) fn failure(kind: FailureKind) -> Failure {
    Failure {
        kind,
        text: "made up".to_owned(),
    }
}

fn acquired(op: u64, held: bool, token: Option<u64>) -> Event {
    let validity = held.then_some(VALIDITY);
    Event::Acquired {
        op,
        held,
        validity,
        token,
    }
}

impl Forge {
    pub(crate) fn new(keys: u16) -> Forge {
        let mut forge = Forge {
            history: History::default(),
        };
        forge.nemesis(
            0,
            Event::Began(Setting {
                server: "a server".to_owned(),
                strategy: "session".to_owned(),
                seed: 0,
                keys,
                limit: 3 * SECOND * MILLISECOND,
                heartbeat: 500 * MILLISECOND,
                connect: 2 * SECOND * MILLISECOND,
                command: String::new(),
            }),
        );
        forge
    }

    /// The locks are leases.
    pub(crate) fn of_leases(mut self) -> Forge {
        for record in &mut self.history.nemesis {
            if let Event::Began(setting) = &mut record.event {
                "lease".clone_into(&mut setting.strategy);
            }
        }
        self
    }

    fn nemesis(&mut self, at: u64, event: Event) {
        let at = START + at * MILLISECOND;
        self.history.nemesis.push(Record { at, event });
    }

    /// Process `slot` writes something.
    fn write(&mut self, slot: usize, at: u64, event: Event) {
        let at = START + at * MILLISECOND;
        let process = Process { slot, life: 0 };
        let workers = &mut self.history.workers;
        let position = workers.iter().position(|(known, _)| *known == process);
        let position = position.unwrap_or_else(|| {
            workers.push((process, Vec::new()));
            workers.len() - 1
        });
        workers[position].1.push(Record { at, event });
    }

    pub(crate) fn asked(
        &mut self,
        slot: usize,
        op: u64,
        key: u16,
        mode: Mode,
        at: u64,
        wait: Option<u64>,
    ) {
        let keys = vec![key];
        self.asked_all(slot, op, keys, mode, at, wait);
    }

    pub(crate) fn asked_all(
        &mut self,
        slot: usize,
        op: u64,
        keys: Vec<u16>,
        mode: Mode,
        at: u64,
        wait: Option<u64>,
    ) {
        let way = "Forged".to_owned();
        let asked = Event::Asked {
            op,
            keys,
            mode,
            way,
            wait,
        };
        self.write(slot, at, asked);
    }

    pub(crate) fn granted(&mut self, slot: usize, op: u64, at: u64) {
        self.write(slot, at, acquired(op, true, None));
    }

    pub(crate) fn acquired(&mut self, slot: usize, op: u64, key: u16, mode: Mode, at: u64) {
        self.asked(slot, op, key, mode, at - 1, None);
        self.granted(slot, op, at);
    }

    /// Granted, and lost at the first look.
    pub(crate) fn granted_dead(&mut self, slot: usize, op: u64, key: u16, at: u64) {
        self.asked(slot, op, key, Mode::Exclusive, 30, None);
        self.write(slot, at, acquired(op, false, None));
        self.spoiled(slot, op, at + 1);
    }

    pub(crate) fn step(&mut self, slot: usize, op: u64, at: u64, held: bool) {
        let validity = held.then_some(VALIDITY);
        self.write(slot, at, Event::Step { op, held, validity });
    }

    pub(crate) fn told(&mut self, slot: usize, op: u64, at: u64) {
        self.write(slot, at, Event::Told { op });
    }

    pub(crate) fn releasing(&mut self, slot: usize, op: u64, at: u64) {
        self.write(slot, at, Event::Releasing { op });
    }

    pub(crate) fn released(&mut self, slot: usize, op: u64, at: u64, answered: u64) {
        self.releasing(slot, op, at);
        self.write(slot, answered, Event::Released { op, failed: None });
    }

    pub(crate) fn dropped(&mut self, slot: usize, op: u64, at: u64, written: u64) {
        self.releasing(slot, op, at);
        self.write(slot, written, Event::Dropped { op });
    }

    pub(crate) fn spoiled(&mut self, slot: usize, op: u64, at: u64) {
        let failed = Some(failure(FailureKind::Lost));
        self.write(slot, at, Event::Released { op, failed });
    }

    pub(crate) fn failed(&mut self, slot: usize, op: u64, at: u64, failure: Failure) {
        self.write(slot, at, Event::Failed { op, failure });
    }

    pub(crate) fn hold(&mut self, slot: usize, op: u64, key: u16, mode: Mode, from: u64, to: u64) {
        self.hold_all(slot, op, &[key], mode, from, to);
    }

    pub(crate) fn hold_all(
        &mut self,
        slot: usize,
        op: u64,
        keys: &[u16],
        mode: Mode,
        from: u64,
        to: u64,
    ) {
        self.asked_all(slot, op, keys.to_vec(), mode, from - 1, None);
        self.granted(slot, op, from);
        self.released(slot, op, to, to + 1);
    }

    pub(crate) fn hold_with(
        &mut self,
        slot: usize,
        op: u64,
        key: u16,
        token: u64,
        from: u64,
        to: u64,
    ) {
        self.asked(slot, op, key, Mode::Exclusive, from - 1, None);
        self.write(slot, from, acquired(op, true, Some(token)));
        self.released(slot, op, to, to + 1);
    }

    pub(crate) fn fault(
        &mut self,
        number: usize,
        fault: Fault,
        target: Option<usize>,
        from: u64,
        to: u64,
    ) {
        let began = Event::FaultBegan {
            number,
            fault,
            target,
        };
        self.nemesis(from, began);
        self.nemesis(to, Event::FaultEnded { number });
    }

    pub(crate) fn left(&mut self, what: &str, count: usize) {
        let what = what.to_owned();
        self.nemesis(1000, Event::Left { what, count });
    }

    pub(crate) fn died(&mut self, slot: usize, at: u64, meant: bool) {
        let process = Process { slot, life: 0 };
        let how = "made up".to_owned();
        let died = Event::Died {
            process,
            meant,
            how,
        };
        self.nemesis(at, died);
    }

    pub(crate) fn panicked(&mut self, slot: usize, at: u64) {
        let message = "made up".to_owned();
        self.write(slot, at, Event::Panicked { message });
    }

    pub(crate) fn stops(&mut self, slot: usize, at: u64) {
        self.write(slot, at, Event::Stopping);
    }

    pub(crate) fn ended(&mut self, slot: usize, at: u64, cut: usize, threads: usize) {
        self.write(slot, at, Event::Ended { cut, threads });
    }

    /// The history goes on until then.
    pub(crate) fn ends(&mut self, at: u64) {
        let what = "nothing".to_owned();
        self.nemesis(at, Event::Left { what, count: 0 });
    }

    pub(crate) fn verdict(&self) -> Verdict {
        check(&self.history).expect("the history has a beginning")
    }

    pub(crate) fn is_accepted(&self) -> Verdict {
        let verdict = self.verdict();
        assert!(verdict.violations.is_empty(), "{:#?}", verdict.violations);
        verdict
    }

    /// The checker rejects the history, for this property and for no other.
    pub(crate) fn breaks(&self, property: Property) {
        let violations = self.verdict().violations;
        assert!(!violations.is_empty(), "accepted: {:#?}", self.history);
        for violation in violations {
            assert_eq!(violation.property, property, "{}", violation.what);
        }
    }
}
