//! Tries and releases that gather while the connection is busy.

use std::future::pending;
use std::sync::atomic::Ordering;

use tokio::sync::Semaphore;

use super::*;
use crate::backend::session::driver::DriverError;

/// Tries that are answered when the test says so, or end with the connection where it closes the gate.
fn gate(script: &Arc<Script>) -> Arc<Semaphore> {
    let gate = Arc::new(Semaphore::new(0));
    let inside = gate.clone();
    Script::set(&script.try_lock, move || {
        let gate = inside.clone();
        async move {
            match gate.acquire().await {
                Ok(permit) => permit.forget(),
                Err(_) => {
                    return Err(DriverError::Gone {
                        reason: "the connection broke".into(),
                        source: None,
                    });
                }
            }
            Ok(true)
        }
    });
    gate
}

#[test]
fn what_gathers_while_the_connection_is_busy_is_one_statement() {
    run(async {
        let script = Script::new();
        let gate = gate(&script);
        let locks = locks(&script, LIMITS).await;
        let takes: Vec<_> = (1..=6)
            .map(|key| tokio::spawn(locks.clone().take(errand_for(key, None))))
            .collect();
        settle().await;
        gate.add_permits(6);
        let mut holds = Vec::new();
        for taking in takes {
            holds.push(held(taking.await.expect("no panic")));
        }
        assert_eq!(*script.batches.lock().unwrap(), [5]);
        let back: Vec<_> = holds
            .into_iter()
            .map(|hold| tokio::spawn(give_back(hold)))
            .collect();
        for back in back {
            assert_eq!(back.await.expect("no panic"), Ok(()));
        }
    });
}

#[test]
fn a_batch_whose_connection_breaks_half_way_is_asked_anew_on_another() {
    run(async {
        let script = Script::new();
        let gate = gate(&script);
        let locks = locks(&script, LIMITS).await;
        let takes: Vec<_> = (1..=4)
            .map(|key| tokio::spawn(locks.clone().take(errand_for(key, None))))
            .collect();
        settle().await;
        // The first by itself, and one of the batch; then the connection breaks.
        gate.add_permits(2);
        settle().await;
        Script::set(&script.try_lock, async || Ok(true));
        gate.close();
        settle().await;
        let mut lost = 0;
        for taking in takes {
            let hold = held(taking.await.expect("no panic"));
            lost += usize::from(hold.vitality.lost().is_some());
            drop(give_back(hold).await);
        }
        // The first was granted on the old connection, and is told; the batch's others are held on the new one.
        assert_eq!(lost, 1);
        assert_eq!(script.opened.load(Ordering::Relaxed), 3);
    });
}

#[test]
fn s4_a_lock_of_a_batch_that_nobody_hears_of_ends_the_session() {
    run(async {
        let script = Script::new();
        let gate = gate(&script);
        let locks = locks(&script, LIMITS).await;
        let first = tokio::spawn(locks.clone().take(errand_for(1, None)));
        settle().await;
        let second = tokio::spawn(locks.clone().take(errand_for(2, None)));
        let third = tokio::spawn(locks.clone().take(errand_for(3, None)));
        settle().await;
        // It has gathered, and was not sent: nothing is in doubt.
        third.abort();
        settle().await;
        gate.add_permits(1);
        let hold = held(first.await.expect("no panic"));
        settle().await;
        assert_eq!(hold.vitality.lost(), None);
        assert_eq!(*script.batches.lock().unwrap(), [1]);
        // It is on its way, and the answer would say that it is held.
        second.abort();
        settle().await;
        gate.add_permits(1);
        settle().await;
        assert!(
            hold.vitality.lost().is_some(),
            "a lock that nobody knows of"
        );
    });
}

#[test]
fn a_server_that_owes_answers_and_gives_none_has_stopped_answering() {
    run(async {
        let script = Script::new();
        let limits = Limits {
            limit: Duration::from_millis(900),
            heartbeat: Duration::from_secs(60),
            ..LIMITS
        };
        let locks = locks(&script, limits).await;
        let hold = held(locks.clone().take(errand_for(1, None)).await);
        Script::set(&script.try_lock, pending);
        let silent = tokio::spawn(locks.clone().take(errand_for(2, None)));
        let reason = tokio::time::timeout(Duration::from_secs(5), hold.vitality.ended())
            .await
            .expect("the silence is seen");
        assert!(reason.contains("stopped answering"), "{reason}");
        silent.abort();
    });
}
