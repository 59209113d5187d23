//! One request, from the asking to the end, as it is written down.

use std::sync::atomic::Ordering;
use std::time::Duration;

use dlock::Error;

use super::Shop;
use super::choice::Plan;
use crate::clock::{Moment, now};
use crate::history::{Event, Log};

/// How long the pause between two steps of a holder that clings is.
const CLINGING: Duration = Duration::from_millis(15);

/// What the library says of a hold.
#[derive(Debug)]
pub(super) struct Look {
    pub(super) held: bool,
    pub(super) validity: Option<Duration>,
}

/// One request of a worker.
#[derive(Debug)]
pub(super) struct Errand<'a> {
    pub(super) shop: &'a Shop,
    op: u64,
}

impl<'a> Errand<'a> {
    /// Writes down that a lock is about to be asked for.
    pub(super) fn begin(shop: &'a Shop, plan: &Plan) -> Errand<'a> {
        let op = shop.next_op.fetch_add(1, Ordering::Relaxed);
        shop.log.write(Event::Asked {
            op,
            keys: plan.keys.clone(),
            mode: plan.mode,
            way: plan.words(),
            wait: plan.wait,
        });
        Errand { shop, op }
    }

    fn log(&self) -> &Log {
        &self.shop.log
    }

    /// The lock was granted. Whether it is held.
    pub(super) fn acquired(&self, token: Option<u64>, look: impl FnOnce() -> Look) -> bool {
        let at = now();
        let Look { held, validity } = look();
        let acquired = Event::Acquired {
            op: self.op,
            held,
            validity: validity.map(milliseconds),
            token,
        };
        self.log().write_at(at, acquired);
        held
    }

    /// A step of the critical section begins. Whether the lock is held.
    pub(super) fn step(&self, look: impl FnOnce() -> Look) -> bool {
        let at = now();
        self.step_at(at, &look())
    }

    /// A step begins; the look came after this moment.
    pub(super) fn step_at(&self, at: Moment, look: &Look) -> bool {
        let step = Event::Step {
            op: self.op,
            held: look.held,
            validity: look.validity.map(milliseconds),
        };
        self.log().write_at(at, step);
        look.held
    }

    pub(super) fn told(&self) {
        self.log().write(Event::Told { op: self.op });
    }

    pub(super) fn releasing(&self) {
        self.log().write(Event::Releasing { op: self.op });
    }

    pub(super) fn released(&self, released: &Result<(), Error>) {
        let failed = released.as_ref().err().map(Into::into);
        let op = self.op;
        self.log().write(Event::Released { op, failed });
    }

    pub(super) fn failed(&self, error: &Error) {
        self.log().write(Event::Failed {
            op: self.op,
            failure: error.into(),
        });
    }

    pub(super) fn dropped(&self) {
        self.log().write(Event::Dropped { op: self.op });
    }

    /// The pauses between the steps: those of the plan, and on and on while a holder clings.
    pub(super) fn pauses<'p>(
        &self,
        plan: &'p Plan,
    ) -> impl Iterator<Item = Duration> + use<'p, 'a> {
        let shop = self.shop;
        let clinging = std::iter::from_fn(move || {
            (plan.clings && shop.cling.load(Ordering::SeqCst)).then_some(CLINGING)
        });
        plan.steps.iter().copied().chain(clinging)
    }
}

fn milliseconds(time: Duration) -> u64 {
    time.as_millis().try_into().unwrap_or(u64::MAX)
}
