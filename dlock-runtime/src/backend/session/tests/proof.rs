//! The proof of exclusion, answered otherwise than by a server that can be trusted.

use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::backend::session::driver::{AnotherSession, ConnectError, DriverError};
use crate::backend::session::tests::scripted::Scripted;
use crate::backend::{Progress, Trouble};
use crate::capabilities::{Reach, Strategy};
use crate::hazard::Hazard;

async fn connect(
    script: &Arc<Script>,
    allowed: &[Hazard],
) -> Result<Arc<SessionLocks<Scripted>>, ConnectError> {
    let mut hazards = Hazards::default();
    for hazard in allowed {
        hazards.insert(*hazard);
    }
    SessionLocks::connect(Scripted(script.clone()), SHORT, &hazards).await
}

async fn refusal(script: &Arc<Script>) -> (String, String) {
    match connect(script, &[]).await.map(|_| ()) {
        Err(ConnectError::Unsafe { reason, remedy }) => (reason, remedy),
        other => panic!("{other:?}"),
    }
}

/// A script that tells the truth but for one answer.
fn says(question: usize, answer: Result<bool, DriverError>) -> Arc<Script> {
    let script = Script::new();
    let mut proof = script.proof.lock().unwrap_or_else(PoisonError::into_inner);
    proof.insert(question, answer);
    drop(proof);
    script
}

fn be(script: &Script, server: &str) {
    *script
        .identity
        .lock()
        .unwrap_or_else(PoisonError::into_inner) = server.into();
}

fn another_session() -> DriverError {
    DriverError::Gone {
        reason: "prepared statement \"s0\" does not exist (26000)".into(),
        source: Some(AnotherSession::source(None)),
    }
}

#[test]
fn a_server_that_excludes_is_proven_with_two_connections() {
    run(async {
        let script = Script::new();
        let locks = connect(&script, &[]).await.expect("a good server");
        assert_eq!(script.opened.load(Ordering::Relaxed), 2);
        assert_eq!(script.asked.load(Ordering::Relaxed), 5);
        let capabilities = locks.capabilities();
        assert!(capabilities.proved);
        assert_eq!(capabilities.server, "Script 1.2");
        assert_eq!(capabilities.version.as_deref(), Some("1.2"));
        assert_eq!(capabilities.strategy, Strategy::Session);
        assert_eq!(capabilities.reach, Reach::Server);
        assert_eq!(capabilities.limit, Some(SHORT.limit));
        assert!(capabilities.allowed.is_empty() && capabilities.found.is_empty());
    });
}

#[test]
fn the_second_connection_is_the_first_waiter() {
    run(async {
        let script = Script::new();
        let locks = connect(&script, &[]).await.expect("a good server");
        Script::set(&script.try_lock, async || Ok(false));
        let errand = errand(None);
        let taking = tokio::spawn(locks.take(errand.clone()));
        settle().await;
        assert_eq!(script.opened.load(Ordering::Relaxed), 2);
        errand.call_off();
        assert!(matches!(taking.await, Ok(Taken::CalledOff)));
    });
}

#[test]
fn each_answer_that_no_good_server_gives_is_refused() {
    run(async {
        for (question, answer, words) in [
            (1, false, "was not granted"),
            (2, true, "two connections were granted the same lock"),
            (3, false, "then did not hold it"),
            (4, false, "stayed taken"),
            (5, false, "then did not hold it"),
        ] {
            let script = says(question, Ok(answer));
            let (reason, remedy) = refusal(&script).await;
            assert!(reason.contains(words), "answer {question}: {reason}");
            assert!(remedy.contains("session mode"), "{remedy}");
            assert!(remedy.contains("allow=no-exclusion"), "{remedy}");
        }
    });
}

#[test]
fn the_answer_of_another_session_is_a_pooler_and_a_closed_connection_is_not() {
    run(async {
        for question in 1..=5 {
            let script = says(question, Err(another_session()));
            let (reason, _) = refusal(&script).await;
            assert!(reason.contains("transaction pooler"), "{reason}");
            let closed = DriverError::Gone {
                reason: "the server crashed".into(),
                source: None,
            };
            let outcome = connect(&says(question, Err(closed)), &[]).await.err();
            assert!(
                matches!(outcome, Some(ConnectError::Unreachable { .. })),
                "{outcome:?}"
            );
        }
    });
}

#[test]
fn a_heartbeat_that_fails_behind_a_pooler_is_no_proof() {
    run(async {
        let script = Script::new();
        Script::set(&script.check, async || Err(another_session()));
        let (reason, _) = refusal(&script).await;
        assert!(reason.contains("transaction pooler"), "{reason}");
    });
}

/// The statement of the proof that comes next knows only that its connection was closed.
#[test]
fn a_heartbeat_that_fails_behind_a_pooler_while_the_proof_goes_on_is_no_outage() {
    run(async {
        let script = Script::new();
        let first = AtomicBool::new(true);
        Script::set(&script.prepare, move || {
            let is_first = first.swap(false, Ordering::Relaxed);
            async move {
                if !is_first {
                    tokio::time::sleep(SHORT.heartbeat * 3 / 2).await;
                }
                Ok(())
            }
        });
        Script::set(&script.check, async || Err(another_session()));
        let (reason, remedy) = refusal(&script).await;
        assert!(reason.contains("transaction pooler"), "{reason}");
        assert!(reason.contains("does not exist (26000)"), "{reason}");
        assert!(remedy.contains("session mode"), "{remedy}");
    });
}

#[test]
fn a_refused_proof_closes_both_connections() {
    run(async {
        let script = says(2, Ok(true));
        refusal(&script).await;
        settle().await;
        // The test, and nobody else: the sessions and their watches have ended.
        assert_eq!(Arc::strong_count(&script), 1);
    });
}

#[test]
fn a_start_that_is_given_up_during_the_proof_closes_both_connections() {
    run(async {
        let script = Script::new();
        Script::set(&script.check, std::future::pending);
        let connecting = tokio::time::timeout(Duration::from_millis(20), connect(&script, &[]));
        assert!(connecting.await.is_err());
        settle().await;
        assert_eq!(Arc::strong_count(&script), 1);
    });
}

#[test]
fn no_exclusion_is_allowed_by_name_only() {
    run(async {
        let others = [Hazard::Unproved, Hazard::Standby, Hazard::Galera];
        assert!(connect(&says(2, Ok(true)), &others).await.is_err());
        let locks = connect(&says(2, Ok(true)), &[Hazard::NoExclusion]).await;
        let locks = locks.expect("allowed");
        assert!(!locks.capabilities().proved);
        assert_eq!(locks.capabilities().found, [Hazard::NoExclusion]);
        drop(give_back(held(locks.take(errand(None)).await)).await);
    });
}

#[test]
fn a_server_without_a_second_connection_is_refused_unless_allowed() {
    run(async {
        let script = Script::new();
        script.room.store(1, Ordering::Relaxed);
        let (reason, remedy) = refusal(&script).await;
        assert!(reason.contains("too many connections"), "{reason}");
        assert!(remedy.contains("allow=unproved"), "{remedy}");
        let script = Script::new();
        script.room.store(1, Ordering::Relaxed);
        let locks = connect(&script, &[Hazard::Unproved])
            .await
            .expect("allowed");
        assert!(!locks.capabilities().proved);
        assert_eq!(locks.capabilities().found, [Hazard::Unproved]);
        drop(give_back(held(locks.take(errand(None)).await)).await);
    });
}

/// Ends the keeper's session as a lost connection does.
async fn lose_the_keeper(script: &Script, locks: &Arc<SessionLocks<Scripted>>) {
    Script::set(&script.unlock, async || {
        Err(DriverError::Gone {
            reason: "cut".into(),
            source: None,
        })
    });
    let hold = held(locks.clone().take(errand(None)).await);
    assert!(give_back(hold).await.is_err());
    Script::set(&script.unlock, async || Ok(true));
}

#[test]
fn the_same_server_is_not_proven_again() {
    run(async {
        let script = Script::new();
        let locks = connect(&script, &[]).await.expect("a good server");
        lose_the_keeper(&script, &locks).await;
        drop(give_back(held(locks.take(errand(None)).await)).await);
        assert_eq!(script.opened.load(Ordering::Relaxed), 3);
        assert_eq!(script.asked.load(Ordering::Relaxed), 5);
    });
}

#[test]
fn another_server_behind_the_name_is_proven_and_the_waiters_of_the_old_one_go() {
    run(async {
        let script = Script::new();
        let locks = connect(&script, &[]).await.expect("a good server");
        lose_the_keeper(&script, &locks).await;
        be(&script, "two");
        let hold = held(locks.clone().take(errand(None)).await);
        assert_eq!(script.asked.load(Ordering::Relaxed), 10);
        drop(give_back(hold).await);
        // Keeper and first waiter on each of the two servers.
        assert_eq!(script.opened.load(Ordering::Relaxed), 4);
        let waiter = locks.waiters.check_out().await.expect("the new one");
        assert_eq!(super::super::Session::identity(waiter.session()), "two");
        assert_eq!(script.opened.load(Ordering::Relaxed), 4);
        locks.waiters.put_back(waiter);
    });
}

#[test]
fn a_server_behind_the_name_that_fails_the_proof_is_trouble_and_grants_nothing() {
    run(async {
        let script = Script::new();
        let locks = connect(&script, &[]).await.expect("a good server");
        lose_the_keeper(&script, &locks).await;
        be(&script, "two");
        // Each attempt asks twice before it is refused.
        for question in 6..100 {
            let mut proof = script.proof.lock().unwrap_or_else(PoisonError::into_inner);
            proof.insert(question, Ok(true));
        }
        let errand = errand(None);
        let taking = tokio::spawn(locks.clone().take(errand.clone()));
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(!taking.is_finished());
        let Progress::Trouble(Trouble { reason, .. }) = errand.progress() else {
            panic!("no trouble")
        };
        assert!(
            reason.contains("two connections were granted the same lock"),
            "{reason}"
        );
        errand.call_off();
        assert!(matches!(taking.await, Ok(Taken::CalledOff)));
    });
}

#[test]
fn a_waiter_on_another_server_is_not_used() {
    run(async {
        let script = Script::new();
        let locks = connect(&script, &[]).await.expect("a good server");
        let first = locks.waiters.check_out().await.expect("the first waiter");
        be(&script, "two");
        let second = locks.waiters.check_out().await;
        assert!(
            matches!(second.map(|_| ()), Err(ConnectError::Unreachable { reason, .. }) if reason.contains("another server"))
        );
        locks.waiters.put_back(first);
    });
}

#[test]
fn a_name_that_leads_to_two_servers_is_refused() {
    run(async {
        let script = Script::new();
        let locks = connect(&script, &[]).await.expect("a good server");
        let (one, two) = (locks.keeper.present(), {
            be(&script, "two");
            let driver = Scripted(script.clone());
            super::super::keeper::open(&driver, LIMITS).await
        });
        let (one, two) = (one.expect("present"), two.expect("opened"));
        be(&script, "one");
        let driver = Scripted(script.clone());
        let allowed = Hazards::default();
        let proof = super::super::proof::prove(&driver, LIMITS, &allowed, &two).await;
        let Err(ConnectError::Unsafe { reason, remedy }) = proof.map(|_| ()) else {
            panic!("not refused")
        };
        assert!(reason.contains("two different servers"), "{reason}");
        assert!(remedy.contains("one server"), "{remedy}");
        one.lose("the test is over");
        two.lose("the test is over");
    });
}
