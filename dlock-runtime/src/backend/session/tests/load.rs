//! Many requests at once.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::backend::session::driver::DriverError;

#[test]
fn a_burst_of_requests_does_not_look_like_a_server_that_has_stopped_answering() {
    run(async {
        let script = Script::new();
        let limits = Limits {
            limit: Duration::from_secs(6),
            heartbeat: Duration::from_secs(1),
            ..LIMITS
        };
        let locks = locks(&script, limits).await;
        let first = held(locks.clone().take(errand_for(0, None)).await);
        // The connection carries one statement at a time: two and a half seconds of work, and an answer is
        // due in two.
        Script::set(&script.try_lock, async || {
            tokio::time::sleep(Duration::from_millis(5)).await;
            Ok(true)
        });
        let burst: Vec<_> = (1..=500)
            .map(|key| tokio::spawn(locks.clone().take(errand_for(key, None))))
            .collect();
        for taking in burst {
            let hold = held(taking.await.expect("no panic"));
            assert_eq!(hold.vitality.lost(), None);
            std::mem::forget(hold);
        }
        assert_eq!(first.vitality.lost(), None);
        assert_eq!(give_back(first).await, Ok(()));
    });
}

#[test]
fn waits_that_fail_at_once_are_not_repeated_without_a_pause() {
    run(async {
        let script = Script::new();
        Script::set(&script.try_lock, async || Ok(false));
        Script::set(&script.wait_lock, async || {
            Err(DriverError::Gone {
                reason: "something on the way closes connections that wait".into(),
                source: None,
            })
        });
        let locks = locks(&script, LIMITS).await;
        let errand = errand(None);
        let taking = tokio::spawn(locks.take(errand.clone()));
        tokio::time::sleep(Duration::from_millis(400)).await;
        errand.call_off();
        assert!(matches!(taking.await, Ok(Taken::CalledOff)));
        let opened = script.opened.load(Ordering::Relaxed);
        assert!((2..=10).contains(&opened), "{opened} connections");
    });
}

#[test]
fn a_connection_that_does_not_open_does_not_keep_the_lock_from_being_tried() {
    run(async {
        let script = Script::new();
        let locks = locks(&script, LIMITS).await;
        let first = locks.waiters.check_out().await.expect("the first waiter");
        script.deaf.store(true, Ordering::Relaxed);
        let tries = AtomicUsize::new(0);
        Script::set(&script.try_lock, move || {
            let free = tries.fetch_add(1, Ordering::Relaxed) > 0;
            async move { Ok(free) }
        });
        let taking = locks.take(errand(None));
        let taken = tokio::time::timeout(LIMITS.connect_timeout / 4, taking).await;
        assert!(matches!(taken, Ok(Taken::Held(_))));
        first.lose("the test is over");
    });
}
