//! Waits for a named lock: how they end, and what they leave behind.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::{Either, join, join3, select};
use mysql_async::prelude::Queryable;

use super::{LONG, Server, assert_gone, fresh_key, is_waiting, on_both, state, until_waiting};
use crate::backend::session::driver::{DriverError, Session, Wait};
use crate::backend::session::mysql::settings::Flavor;
use crate::backend::session::mysql::{errors, name};
use crate::key::Mode;

#[test]
fn a_wait_is_granted_when_the_holder_gives_back() {
    on_both(|server| async move {
        let (a, b, key) = (server.session().await, server.session().await, fresh_key());
        assert!(a.try_lock(&key, Mode::Exclusive).await.unwrap());
        let release = async {
            until_waiting(&a, b.facts.id).await;
            assert!(a.unlock(&key, Mode::Exclusive).await.unwrap());
        };
        let (granted, ()) = join(b.wait_lock(&key, Mode::Exclusive, LONG), release).await;
        assert_eq!(granted.unwrap(), Wait::Granted);
        assert!(!a.try_lock(&key, Mode::Exclusive).await.unwrap());
        assert!(b.unlock(&key, Mode::Exclusive).await.unwrap());
    });
}

/// MySQL waits for whole seconds, and would round 1.2 down; MariaDB takes fractions.
#[test]
fn a_wait_is_never_shorter_than_asked_for() {
    on_both(|server| async move {
        let (a, b, key) = (server.session().await, server.session().await, fresh_key());
        assert!(a.try_lock(&key, Mode::Exclusive).await.unwrap());
        for milliseconds in [200, 1200] {
            let at_most = Duration::from_millis(milliseconds);
            let expected = match server.flavor {
                Flavor::MySql => Duration::from_secs(milliseconds.div_ceil(1000)),
                Flavor::MariaDb => at_most,
            };
            let start = Instant::now();
            let wait = b.wait_lock(&key, Mode::Exclusive, at_most).await.unwrap();
            let waited = start.elapsed();
            assert_eq!(wait, Wait::TimedOut);
            // A server's clock may be a little faster than ours.
            assert!(
                waited + Duration::from_millis(20) >= expected,
                "{server:?} {waited:?}"
            );
            assert!(
                waited < expected + Duration::from_millis(700),
                "{server:?} {waited:?}"
            );
        }
    });
}

#[test]
fn the_longest_wait_is_a_wait() {
    on_both(|server| async move {
        let (a, b, key) = (server.session().await, server.session().await, fresh_key());
        assert!(a.try_lock(&key, Mode::Exclusive).await.unwrap());
        let interrupt = async {
            until_waiting(&a, b.facts.id).await;
            b.interrupt(&a).await.unwrap();
        };
        let wait = b.wait_lock(&key, Mode::Exclusive, Duration::MAX);
        assert_eq!(join(wait, interrupt).await.0.unwrap(), Wait::Interrupted);
    });
}

#[test]
fn an_interrupted_wait_leaves_nothing_on_the_server() {
    on_both(|server| async move {
        let (a, b, key) = (server.session().await, server.session().await, fresh_key());
        assert!(a.try_lock(&key, Mode::Exclusive).await.unwrap());
        let interrupt = async {
            until_waiting(&a, b.facts.id).await;
            b.interrupt(&a).await.unwrap();
        };
        let (wait, ()) = join(b.wait_lock(&key, Mode::Exclusive, LONG), interrupt).await;
        assert_eq!(wait.unwrap(), Wait::Interrupted);
        assert!(!is_waiting(&a, b.facts.id).await);
        assert!(a.unlock(&key, Mode::Exclusive).await.unwrap());
        assert!(b.try_lock(&key, Mode::Exclusive).await.unwrap());
    });
}

/// Where every attempt was hit, the error says so, and the lock is as it was.
async fn insist<F: Future<Output = Result<bool, DriverError>>>(statement: impl Fn() -> F) -> bool {
    loop {
        match statement().await {
            Err(error) if errors::is_interruption(&error) => {}
            answer => return answer.unwrap(),
        }
    }
}

/// KILL QUERY that comes too late ends the next statement in its place.
#[test]
fn s4_late_kills_make_no_operation_lie() {
    on_both(|server| async move {
        let (a, helper, key) = (server.session().await, server.session().await, fresh_key());
        let kills = async {
            loop {
                a.interrupt(&helper).await.unwrap();
            }
        };
        let pairs = async {
            for _ in 0..1500 {
                assert!(insist(|| a.try_lock(&key, Mode::Exclusive)).await);
                assert!(insist(|| a.unlock(&key, Mode::Exclusive)).await);
            }
            assert!(!insist(|| a.unlock(&key, Mode::Exclusive)).await);
        };
        let (kills, pairs) = (std::pin::pin!(kills), std::pin::pin!(pairs));
        let Either::Right(_) = select(kills, pairs).await;
    });
}

#[test]
fn s4_a_wait_tells_the_truth_when_release_and_kill_coincide() {
    on_both(|server| async move {
        let (a, b) = (server.session().await, server.session().await);
        let helper = server.session().await;
        for round in 0..300 {
            let key = fresh_key();
            assert!(a.try_lock(&key, Mode::Exclusive).await.unwrap());
            let race = async {
                until_waiting(&helper, b.facts.id).await;
                let kill = async {
                    // In steps around the moment at which the release arrives.
                    tokio::time::sleep(Duration::from_micros(round)).await;
                    b.interrupt(&helper).await.unwrap();
                };
                let release = a.unlock(&key, Mode::Exclusive);
                let (released, ()) = join(release, kill).await;
                assert!(released.unwrap());
            };
            let (wait, ()) = join(b.wait_lock(&key, Mode::Exclusive, LONG), race).await;
            let free = a.try_lock(&key, Mode::Exclusive).await.unwrap();
            match wait.unwrap() {
                Wait::Granted => assert!(!free, "{server:?} {round}: granted and free"),
                Wait::Interrupted => assert!(free, "{server:?} {round}: interrupted and held"),
                Wait::TimedOut => panic!("{server:?} {round}: the time was not over"),
            }
            let holder = if free { &a } else { &b };
            assert!(holder.unlock(&key, Mode::Exclusive).await.unwrap());
        }
    });
}

/// What ends a wait before its time.
#[derive(Clone, Copy, Debug)]
enum Cause {
    Kill,
    StatementLimit,
}

/// Another statement of the same session stands in line behind the wait, and so comes before the look: it gets the lock,
/// as the wait itself may in the moment of its end.
#[test]
fn s4_a_wait_that_ended_early_is_granted_when_the_session_holds_the_lock() {
    on_both(|server| async move {
        for cause in [Cause::Kill, Cause::StatementLimit] {
            assert_eq!(
                ended_early(server, cause, true).await,
                Wait::Granted,
                "{server:?} {cause:?}"
            );
            let nothing = match (cause, server.flavor) {
                (Cause::StatementLimit, Flavor::MySql) => Wait::TimedOut,
                // MariaDB ends a wait in the same way for both.
                _ => Wait::Interrupted,
            };
            assert_eq!(
                ended_early(server, cause, false).await,
                nothing,
                "{server:?} {cause:?}"
            );
        }
    });
}

/// How a wait ends that was ended early, when its session then has the lock or has not.
async fn ended_early(server: Server, cause: Cause, is_granted: bool) -> Wait {
    let (b, key) = (server.session().await, fresh_key());
    let a = Arc::new(server.session().await);
    assert!(a.try_lock(&key, Mode::Exclusive).await.unwrap());
    let limit = match server.flavor {
        Flavor::MySql => "SET SESSION max_execution_time = ",
        Flavor::MariaDb => "SET SESSION max_statement_time = 0.",
    };
    if let Cause::StatementLimit = cause {
        let limit = format!("{limit}300");
        b.slot
            .run(move |conn| conn.query_drop(limit))
            .await
            .unwrap();
    }
    let (holder, held, unlimited) = (Arc::clone(&a), key.clone(), format!("{limit}0"));
    let behind = b.slot.run(move |conn| {
        let statements = async move {
            conn.query_drop(unlimited).await?;
            if is_granted {
                assert!(holder.unlock(&held, Mode::Exclusive).await.unwrap());
                let name = name(&held, Mode::Exclusive).unwrap();
                let granted: Option<i64> =
                    conn.exec_first("SELECT GET_LOCK(?, 0)", (name,)).await?;
                assert_eq!(granted, Some(1));
            }
            Ok(())
        };
        statements.boxed()
    });
    let end = async {
        if let Cause::Kill = cause {
            until_waiting(&a, b.facts.id).await;
            b.interrupt(&a).await.unwrap();
        }
    };
    let wait = b.wait_lock(&key, Mode::Exclusive, LONG);
    // In this order: the wait has its turn when the statement behind it asks for one.
    let (wait, behind, ()) = join3(wait, behind, end).await;
    behind.unwrap();
    wait.unwrap()
}

/// The first kill ends the wait, the second comes while the session asks whether it holds the lock.
#[test]
fn s4_a_second_kill_does_not_silence_the_look() {
    on_both(|server| async move {
        let (a, b, key) = (server.session().await, server.session().await, fresh_key());
        let helper = server.session().await;
        assert!(a.try_lock(&key, Mode::Exclusive).await.unwrap());
        for round in 0..300 {
            let kills = async {
                until_waiting(&a, b.facts.id).await;
                let second = async {
                    tokio::time::sleep(Duration::from_micros(round)).await;
                    b.interrupt(&helper).await.unwrap();
                };
                join(b.interrupt(&a), second).await.0.unwrap();
            };
            let (wait, ()) = join(b.wait_lock(&key, Mode::Exclusive, LONG), kills).await;
            assert_eq!(wait.unwrap(), Wait::Interrupted, "{server:?} {round}");
        }
    });
}

#[test]
fn a_deadlock_is_the_servers_word_and_the_victim_keeps_its_other_lock() {
    on_both(|server| async move {
        let (a, b) = (server.session().await, server.session().await);
        let (first, second) = (fresh_key(), fresh_key());
        assert!(a.try_lock(&first, Mode::Exclusive).await.unwrap());
        assert!(b.try_lock(&second, Mode::Exclusive).await.unwrap());
        let one = async {
            let wait = a.wait_lock(&second, Mode::Exclusive, LONG).await;
            assert!(a.unlock(&first, Mode::Exclusive).await.unwrap());
            wait
        };
        let two = async {
            let wait = b.wait_lock(&first, Mode::Exclusive, LONG).await;
            assert!(b.unlock(&second, Mode::Exclusive).await.unwrap());
            wait
        };
        let outcomes = <[_; 2]>::from(join(one, two).await);
        let granted = outcomes
            .iter()
            .filter(|wait| matches!(wait, Ok(Wait::Granted)))
            .count();
        let codes = ["3058", "1213"];
        let victims = outcomes.iter().filter(
            |wait| matches!(wait, Err(DriverError::Refused { code, .. }) if codes.contains(&&**code)),
        );
        // Usually one of them; both when the server looks at the two waits in the same moment.
        let victims = victims.count();
        assert!(victims >= 1, "{server:?} {outcomes:?}");
        assert_eq!(granted + victims, 2, "{server:?} {outcomes:?}");
    });
}

#[test]
fn a_session_that_is_closed_while_it_waits_leaves_the_server() {
    on_both(|server| async move {
        let (a, b, key) = (server.session().await, server.session().await, fresh_key());
        assert!(a.try_lock(&key, Mode::Exclusive).await.unwrap());
        let close = async {
            until_waiting(&a, b.facts.id).await;
            b.close();
        };
        let (wait, ()) = join(b.wait_lock(&key, Mode::Exclusive, LONG), close).await;
        assert_gone(&wait);
        until_away(server, b.facts.id).await;
    });
}

/// The answer of the dropped statement must not become the answer of the next one.
#[test]
fn a_wait_that_is_dropped_half_way_closes_the_session() {
    on_both(|server| async move {
        let (a, b, key) = (server.session().await, server.session().await, fresh_key());
        assert!(a.try_lock(&key, Mode::Exclusive).await.unwrap());
        {
            let wait = std::pin::pin!(b.wait_lock(&key, Mode::Exclusive, LONG));
            let queued = std::pin::pin!(until_waiting(&a, b.facts.id));
            assert!(matches!(select(wait, queued).await, Either::Right(_)));
        }
        assert_eq!(&*b.closed().await, "a statement was given up half-way");
        assert_gone(&b.try_lock(&fresh_key(), Mode::Exclusive).await);
        until_away(server, b.facts.id).await;
    });
}

async fn until_away(server: Server, id: u64) {
    let session = server.session().await;
    while state(&session, id).await.is_some() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
