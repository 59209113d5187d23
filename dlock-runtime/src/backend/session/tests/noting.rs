//! The table of keys, and when it is written.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use super::*;
use crate::backend::session::driver::{ConnectError, DriverError, Noted};
use crate::key::KeyText;

fn script() -> Arc<Script> {
    let script = Script::new();
    script.key_table.store(true, Ordering::Relaxed);
    script
}

/// The texts of each statement.
fn notes(script: &Script) -> Vec<Vec<String>> {
    let notes = script.notes.lock().unwrap_or_else(PoisonError::into_inner);
    let texts = |keys: &Vec<Noted>| keys.iter().map(|key| key.text.to_string()).collect();
    notes.iter().map(texts).collect()
}

async fn until_noted(script: &Script, statements: usize) {
    while notes(script).len() < statements {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Much longer than keys gather in tests.
const LONG: Duration = Duration::from_millis(400);

fn grant(locks: &Arc<SessionLocks<scripted::Scripted>>, number: i64) {
    locks.granted(
        &ServerKey::Number(number),
        &KeyText::from(number.to_string()),
    );
}

#[test]
fn keys_are_written_together_a_moment_after_the_grants() {
    run(async {
        let script = script();
        let locks = locks(&script, LIMITS).await;
        assert_eq!(notes(&script), [[""; 0]], "the start asks whether it may");
        for number in [3, 1, 2, 1] {
            grant(&locks, number);
        }
        assert_eq!(notes(&script).len(), 1, "no grant waits for it");
        until_noted(&script, 2).await;
        assert_eq!(notes(&script)[1..], [["1", "2", "3"]], "sorted by name");
        for number in [1, 2] {
            grant(&locks, number);
        }
        grant(&locks, 4);
        until_noted(&script, 3).await;
        assert_eq!(notes(&script)[2..], [["4"]], "each once");
        locks.close("the end");
    });
}

#[test]
fn what_was_not_written_is_tried_again_after_a_pause() {
    run(async {
        let script = script();
        let locks = locks(&script, LIMITS).await;
        Script::set(&script.note, async || Ok(false));
        let start = std::time::Instant::now();
        grant(&locks, 1);
        until_noted(&script, 2).await;
        grant(&locks, 2);
        Script::set(&script.note, async || Ok(true));
        until_noted(&script, 3).await;
        assert!(start.elapsed() >= Duration::from_millis(500), "it rests");
        assert_eq!(notes(&script)[2..], [["1", "2"]]);
        locks.close("the end");
    });
}

/// With one waiter, whoever waits for a lock must not have to try for it meanwhile.
#[test]
fn a_note_takes_nobody_the_only_right_to_wait() {
    run(async {
        let script = script();
        let limits = Limits {
            max_waiters: 1,
            ..LIMITS
        };
        let locks = locks(&script, limits).await;
        Script::set(&script.note, std::future::pending);
        grant(&locks, 1);
        until_noted(&script, 2).await;
        assert!(locks.waiters.permit_now().is_some());
        locks.close("the end");
    });
}

/// The shortest `limit` ends a session that owes an answer for a second; the server says that the table is locked after one.
#[test]
fn a_table_that_is_locked_for_a_moment_fails_no_start() {
    run(async {
        let script = script();
        Script::set(&script.note, async || {
            tokio::time::sleep(SHORT.answer() * 5 / 4).await;
            Ok(false)
        });
        let locks = locks(&script, SHORT).await;
        locks.close("the end");
    });
}

#[test]
fn the_task_ends_with_the_locker() {
    run(async {
        let script = script();
        let locks = locks(&script, LIMITS).await;
        grant(&locks, 1);
        locks.close("the end");
        drop(locks);
        tokio::time::sleep(LONG).await;
        assert_eq!(notes(&script).len(), 1, "nothing is written any more");
        // The sweep of idle connections takes some seconds to end.
        let start = std::time::Instant::now();
        let tasks = || {
            let metrics = tokio::runtime::Handle::current().metrics();
            metrics.num_alive_tasks()
        };
        while tasks() > 0 {
            assert!(start.elapsed() < Duration::from_secs(20), "a task is left");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
}

#[test]
fn without_a_table_nothing_is_noted() {
    run(async {
        let script = Script::new();
        let locks = locks(&script, LIMITS).await;
        grant(&locks, 1);
        tokio::time::sleep(LONG).await;
        assert_eq!(notes(&script), [[""; 0]; 0]);
        locks.close("the end");
    });
}

#[test]
fn a_table_that_cannot_be_written_is_refused_at_the_start() {
    run(async {
        let script = script();
        Script::set(&script.note, async || {
            Err(DriverError::Refused {
                code: "42501".into(),
                message: "permission denied".into(),
                source: None,
            })
        });
        let driver = scripted::Scripted(script.clone());
        match SessionLocks::connect(driver, LIMITS, &Hazards::default()).await {
            Err(ConnectError::Unsafe { reason, remedy }) => {
                assert_eq!(
                    reason,
                    "the key_table keys cannot be written: permission denied (42501)"
                );
                assert_eq!(remedy, "mend the script");
            }
            Err(error) => panic!("{error:?}"),
            Ok(_) => panic!("connected"),
        }
    });
}
