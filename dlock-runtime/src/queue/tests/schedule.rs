//! The line under every order of events.
//!
//! Whatever happens to a line happens under one mutex, so its histories are sequences of steps: a caller comes, goes,
//! gives back or runs out of time; the server says busy, grants, refuses, loses, takes back. This scheduler plays
//! *every* sequence of each scenario, up to a depth: the tasks of the queue run when it says so, the server is a
//! script, and no time passes. After each step it looks at the invariants of `ARCHITECTURE.md`, and from each state it
//! lets everything run to the end: who came must have been answered, and nothing may be left.
//!
//! A failure prints the sequence, which is the whole recipe.

mod world;

use std::fmt;
use std::time::Instant;

use tokio::runtime::{Builder, Runtime};

use world::World;

/// What a caller asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Exclusive,
    Shared,
    /// Exclusive, one try.
    OneTry,
    /// Shared, one try.
    SharedTry,
    /// Exclusive, until a deadline, which passes when the scheduler says so.
    Timed,
    /// Exclusive, with a token of its own.
    Fenced,
}

const KINDS: [Kind; 4] = [Kind::Exclusive, Kind::Shared, Kind::OneTry, Kind::Timed];

/// One step. Callers are numbered in the order in which they come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Join(usize),
    /// The caller's future is dropped: in line, or granted and not told yet.
    Drop(usize),
    /// The caller hears of its grant, if it has not, and gives back.
    Leave(usize),
    Expire(usize),
    /// The errand reports, and the queue has not read it yet.
    Busy,
    Trouble,
    /// The queue reads it.
    Heed,
    Grant,
    Refuse,
    /// The errand comes home with nothing, as it was told.
    CalledOff,
    /// The session that holds the lock ends.
    Lose,
    /// The server has taken the lock back.
    Return,
    /// Nobody else wanted the lock that was given back: it was taken again.
    Keep,
    /// It is known whether more readers may come.
    Admit(bool),
    /// The locker is shut down.
    Close,
}

/// Who comes, and how often a lock may be handed over.
struct Scenario {
    callers: Vec<Kind>,
    hand_overs: u32,
    closes: bool,
    /// Whether readers who come beside others find that it is time to ask for writers.
    asks: bool,
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Scenario {
            callers,
            hand_overs,
            ..
        } = self;
        write!(f, "{callers:?}, handed over {hand_overs} times at most")
    }
}

/// `DLOCK_DEPTH=n` adds so many steps: each makes the run about four times as long.
fn deeper(depth: usize) -> usize {
    let more = std::env::var("DLOCK_DEPTH").ok();
    depth + more.map_or(0, |more| more.parse().expect("a number of steps"))
}

/// Plays every sequence of at most `depth` steps that begins like this, and tells how many there were.
fn play_all(scenario: &Scenario, begin: &[Step], depth: usize) -> usize {
    let runtime = Builder::new_current_thread().enable_time().build();
    let runtime = runtime.expect("a runtime for the schedule");
    let mut played = 0;
    go_on(scenario, depth, &runtime, &mut begin.to_vec(), &mut played);
    played
}

fn go_on(
    scenario: &Scenario,
    depth: usize,
    runtime: &Runtime,
    steps: &mut Vec<Step>,
    played: &mut usize,
) {
    let outcome = loop {
        let begun = Instant::now();
        let outcome = play(scenario, runtime, steps);
        // On a machine that stalls for so long, time does pass: what a timer did then is none of the steps.
        if begun.elapsed() < super::refusal::ANSWERS_WITHIN {
            break outcome;
        }
    };
    let next = outcome.unwrap_or_else(|problem: String| {
        panic!("{problem}\n  scenario: {scenario}\n  steps: {steps:?}")
    });
    *played += 1;
    if steps.len() < depth {
        for step in next {
            steps.push(step);
            go_on(scenario, depth, runtime, steps, played);
            steps.pop();
        }
    }
}

/// Plays one sequence to the end, and tells what could have come in place of the end.
fn play(scenario: &Scenario, runtime: &Runtime, steps: &[Step]) -> Result<Vec<Step>, String> {
    let mut world = World::new(scenario, runtime);
    for step in steps {
        world.play(*step)?;
    }
    let next = world.possible();
    world.run_to_the_end()?;
    Ok(next)
}

#[test]
fn no_order_of_three_callers_breaks_the_line() {
    let mut played = 0;
    for first in KINDS {
        for second in KINDS {
            for third in KINDS {
                let scenario = Scenario {
                    callers: vec![first, second, third],
                    hand_overs: 1,
                    closes: false,
                    asks: false,
                };
                played += play_all(&scenario, &[], deeper(5));
            }
        }
    }
    println!("{played} sequences");
    assert!(played > 10_000, "only {played} sequences");
}

#[test]
fn b3_no_order_of_events_gives_one_token_to_two_or_none_to_who_needs_it() {
    let kinds = [Kind::Exclusive, Kind::Shared, Kind::OneTry, Kind::Fenced];
    let mut played = 0;
    for first in kinds {
        for second in kinds {
            for third in kinds {
                let callers = vec![first, second, third];
                if !callers.contains(&Kind::Fenced) {
                    continue;
                }
                let scenario = Scenario {
                    callers,
                    hand_overs: 1,
                    closes: false,
                    asks: false,
                };
                played += play_all(&scenario, &[], deeper(5));
            }
        }
    }
    println!("{played} sequences");
    assert!(played > 10_000, "only {played} sequences");
}

#[test]
fn no_long_history_of_two_callers_breaks_the_line() {
    let mut played = 0;
    for first in KINDS {
        for second in KINDS {
            let scenario = Scenario {
                callers: vec![first, second],
                hand_overs: 1,
                closes: false,
                asks: false,
            };
            played += play_all(&scenario, &[], deeper(6));
        }
    }
    println!("{played} sequences");
    assert!(played > 10_000, "only {played} sequences");
}

#[test]
fn no_shutdown_in_between_leaves_anybody_behind() {
    let mut played = 0;
    for first in KINDS {
        for second in KINDS {
            let scenario = Scenario {
                callers: vec![first, second],
                hand_overs: 1,
                closes: true,
                asks: false,
            };
            played += play_all(&scenario, &[], deeper(5));
        }
    }
    println!("{played} sequences");
    assert!(played > 1_000, "only {played} sequences");
}

#[test]
fn no_answer_to_the_readers_question_comes_at_a_wrong_time() {
    let kinds = [Kind::Exclusive, Kind::Shared, Kind::SharedTry];
    let mut played = 0;
    for first in [Kind::Shared, Kind::SharedTry] {
        for second in kinds {
            for third in kinds {
                let scenario = Scenario {
                    callers: vec![first, second, third],
                    hand_overs: 1,
                    closes: true,
                    asks: true,
                };
                played += play_all(&scenario, &[Step::Join(0), Step::Grant], deeper(6));
            }
        }
    }
    println!("{played} sequences");
    assert!(played > 10_000, "only {played} sequences");
}
