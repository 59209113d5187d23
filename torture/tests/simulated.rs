//! Histories of a lock that is right, simulated with every delay and fault that a true run may have: the checker must accept
//! each of them, and reject it when one hold is made to reach into the next.

mod forge;

use std::collections::HashMap;

use forge::{Forge, VALIDITY, failure};
use proptest::prelude::*;
use torture::checker::Property;
use torture::fault::Fault;
use torture::history::{FailureKind, Mode};

/// What one holder does in its turn.
#[derive(Clone, Debug)]
struct Turn {
    slot: usize,
    shared: bool,
    /// From the asking to the free lock, from the grant to the caller's look, and so on.
    delays: [u64; 4],
    steps: Vec<u64>,
    fate: Fate,
}

#[derive(Clone, Debug)]
enum Fate {
    Released,
    Dropped,
    /// The network is silent: told at nine tenths of the limit.
    Silenced,
    /// Stopped in the middle of a step, and told when it wakes up.
    Paused,
    /// The server ended its session; told this much later.
    Ended(u64),
    /// Killed by the nemesis.
    Killed,
    /// Another one gives up meanwhile.
    OvertakenByBusy,
}

fn turn() -> impl Strategy<Value = Turn> {
    let fate = prop_oneof![
        6 => Just(Fate::Released),
        2 => Just(Fate::Dropped),
        1 => Just(Fate::Silenced),
        1 => Just(Fate::Paused),
        1 => (0_u64..1500).prop_map(Fate::Ended),
        1 => Just(Fate::Killed),
        2 => Just(Fate::OvertakenByBusy),
    ];
    let steps = prop::collection::vec(0_u64..40, 0..5);
    (
        0_usize..4,
        prop::bool::weighted(0.3),
        any::<[u8; 4]>(),
        steps,
        fate,
    )
        .prop_map(|(slot, shared, delays, steps, fate)| Turn {
            slot,
            shared,
            delays: delays.map(|delay| u64::from(delay) / 8),
            steps,
            fate,
        })
}

/// Plays the turns one after the other on a single key. Gives the history, and each exclusive hold that was released: who,
/// which request, and when the next one may begin at the earliest.
fn play(turns: &[Turn]) -> (Forge, Vec<(usize, u64, u64)>) {
    let mut forge = Forge::new(1);
    let mut held = Vec::new();
    // Whom a fault keeps from the server, and until when.
    let mut away: HashMap<usize, u64> = HashMap::new();
    // When the server has freed the lock.
    let mut free = 100;
    for (number, turn) in turns.iter().enumerate() {
        let op = number as u64;
        let is_there = |slot: &usize| away.get(slot).is_none_or(|until| *until < free);
        let slots = turn.slot..=turn.slot + turns.len();
        let slot = slots.into_iter().find(is_there).expect("one for each turn");
        let [ahead, seen, pause, answer] = turn.delays;
        let mode = if turn.shared {
            Mode::Shared
        } else {
            Mode::Exclusive
        };
        let acquired = free + 1 + seen;
        forge.asked(slot, op, 0, mode, free.saturating_sub(ahead), None);
        forge.granted(slot, op, acquired);
        let mut at = acquired;
        for step in &turn.steps {
            at += step;
            forge.step(slot, op, at, true);
        }
        let fault = |forge: &mut Forge, fault, from, to| {
            forge.fault(number, fault, Some(slot), from, to);
        };
        match turn.fate {
            Fate::Released | Fate::OvertakenByBusy => {
                at += pause;
                if matches!(turn.fate, Fate::OvertakenByBusy) {
                    let other = slot + 1000;
                    forge.asked(other, 1000 + op, 0, mode, acquired, Some(1));
                    forge.failed(other, 1000 + op, at, failure(FailureKind::Busy));
                }
                // The server frees it between the call and its answer.
                forge.released(slot, op, at, at + 1 + answer);
                free = at + 1;
                held.push((slot, op, free));
            }
            Fate::Dropped => {
                forge.dropped(slot, op, at, at + 2 + answer);
                free = at + 1;
            }
            Fate::Silenced => {
                fault(&mut forge, Fault::LongStall, at, at + 6000);
                away.insert(slot, at + 6000);
                forge.told(slot, op, at + VALIDITY);
                forge.spoiled(slot, op, at + 2701);
                free = at + 3000;
            }
            Fate::Paused => {
                fault(&mut forge, Fault::LongPause, at, at + 6000);
                away.insert(slot, at + 6100);
                free = at + 3000;
                forge.step(slot, op, at + 6001 + pause, false);
                forge.spoiled(slot, op, at + 6002 + pause);
            }
            Fate::Ended(later) => {
                fault(&mut forge, Fault::EndSession, at, at + 1);
                free = at + 1;
                forge.step(slot, op, at + later, true);
                forge.told(slot, op, at + later + 1);
                forge.spoiled(slot, op, at + later + 2);
            }
            Fate::Killed => {
                fault(&mut forge, Fault::Kill, at, at + 1);
                away.insert(slot, u64::MAX);
                free = at + 10;
            }
        }
    }
    (forge, held)
}

proptest! {
    #[test]
    fn a_right_lock_is_accepted(turns in prop::collection::vec(turn(), 1..25)) {
        let (forge, _) = play(&turns);
        let violations = forge.verdict().violations;
        prop_assert!(violations.is_empty(), "{violations:#?}");
    }

    #[test]
    fn one_hold_that_reaches_into_the_next_is_rejected(
        turns in prop::collection::vec(turn(), 2..25),
        which in any::<prop::sample::Index>(),
    ) {
        let quiet: Vec<Turn> = turns
            .into_iter()
            .map(|turn| Turn { fate: Fate::Released, shared: false, ..turn })
            .collect();
        let (mut forge, held) = play(&quiet);
        // Not the last one: nobody comes after it.
        let (slot, op, free) = held[which.index(held.len() - 1)];
        forge.step(slot, op, free + 1 + 40, true);
        forge.breaks(Property::Exclusion);
    }
}
