//! Many requests at once.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::Either;

use super::*;
use crate::backend::session::driver::{DriverError, Wait};

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
        let taken = tokio::time::timeout(Duration::from_secs(3), taking).await;
        assert!(matches!(taken, Ok(Taken::Held(_))));
        first.lose("the test is over");
    });
}

#[test]
fn a_server_without_room_for_waiters_is_not_asked_for_one_at_each_try() {
    run(async {
        let script = Script::new();
        let locks = locks(&script, LIMITS).await;
        let first = locks.waiters.check_out().await.expect("the first waiter");
        script.room.store(0, Ordering::Relaxed);
        let tries = Arc::new(AtomicUsize::new(0));
        let counted = tries.clone();
        Script::set(&script.try_lock, move || {
            counted.fetch_add(1, Ordering::Relaxed);
            async { Ok(false) }
        });
        let errands: Vec<_> = (1..=8).map(|key| errand_for(key, None)).collect();
        let takes: Vec<_> = errands
            .iter()
            .map(|errand| tokio::spawn(locks.clone().take(errand.clone())))
            .collect();
        // Eight errands at ten tries a second.
        while tries.load(Ordering::Relaxed) < 120 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let opened = script.opened.load(Ordering::Relaxed);
        assert!(opened <= 40, "{opened} attempts");
        for errand in errands {
            errand.call_off();
        }
        for taking in takes {
            assert!(matches!(taking.await, Ok(Taken::CalledOff)));
        }
        first.lose("the test is over");
    });
}

#[test]
fn s6_a_locker_holds_no_more_locks_than_it_may_and_loses_none() {
    run(async {
        let script = Script::new();
        let limits = Limits {
            max_held: Some(2),
            ..LIMITS
        };
        let locks = locks(&script, limits).await;
        let first = held(locks.clone().take(errand_for(1, None)).await);
        // A try that fails takes no room.
        Script::set(&script.try_lock, async || Ok(false));
        Script::set(&script.wait_lock, async || Ok(Wait::Granted));
        let second = held(locks.clone().take(errand_for(2, None)).await);
        let third = locks.clone().take(errand_for(3, None)).await;
        assert!(matches!(third, Taken::TooMany { most: 2 }));
        for hold in [first, second] {
            assert_eq!(give_back(hold).await, Ok(()));
        }
        let third = held(locks.clone().take(errand_for(3, None)).await);
        assert_eq!(give_back(third).await, Ok(()));
    });
}

#[test]
fn s6_who_waits_for_a_busy_lock_is_not_told_of_too_many() {
    run(async {
        let script = Script::new();
        let limits = Limits {
            max_held: Some(1),
            ..LIMITS
        };
        let locks = locks(&script, limits).await;
        let tries = Arc::new(AtomicUsize::new(0));
        let counted = tries.clone();
        Script::set(&script.try_lock, move || {
            counted.fetch_add(1, Ordering::Relaxed);
            async { Ok(false) }
        });
        let grant = Arc::new(tokio::sync::Notify::new());
        let granted = grant.clone();
        Script::set(&script.wait_lock, move || {
            let granted = granted.clone();
            async move {
                granted.notified().await;
                Ok(Wait::Granted)
            }
        });
        let take = |key| tokio::spawn(locks.clone().take(errand_for(key, None)));
        // Both find the lock busy. One waits on the server, with the only room; the other for that.
        let (one, other) = (take(1), take(2));
        while tries.load(Ordering::Relaxed) < 2 {
            tokio::task::yield_now().await;
        }
        settle().await;
        // Nor is who comes now, since nothing is held yet.
        let third = take(3);
        settle().await;
        assert!(!one.is_finished() && !other.is_finished() && !third.is_finished());
        grant.notify_one();
        let (first, second) = match futures_util::future::select(one, other).await {
            Either::Left(ended) | Either::Right(ended) => ended,
        };
        let first = held(first.expect("no panic"));
        // Now it is: the third has heard nothing of its lock, the other has.
        assert!(matches!(third.await, Ok(Taken::TooMany { most: 1 })));
        // Longer than the pause after which it looks again.
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(!second.is_finished());
        assert_eq!(give_back(first).await, Ok(()));
        grant.notify_one();
        let second = held(second.await.expect("no panic"));
        assert_eq!(give_back(second).await, Ok(()));
    });
}

#[test]
fn s6_nobody_stands_behind_a_long_wait_for_another_lock() {
    run(async {
        let script = Script::new();
        let limits = Limits {
            max_held: Some(1),
            ..LIMITS
        };
        let locks = locks(&script, limits).await;
        Script::set(&script.try_lock, async || Ok(false));
        Script::set(&script.wait_lock, std::future::pending);
        let errand = errand_for(1, None);
        let waiting = tokio::spawn(locks.clone().take(errand.clone()));
        settle().await;
        let other = locks.clone().take(errand_for(2, None)).await;
        assert!(matches!(other, Taken::TooMany { most: 1 }));
        errand.call_off();
        assert!(matches!(waiting.await, Ok(Taken::CalledOff)));
    });
}
