//! What a session is vouched for, and until when.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::*;
use crate::backend::session::driver::{DriverError, Wait};

#[test]
fn s7_a_panic_of_the_heartbeat_ends_the_session() {
    run(async {
        let script = Script::new();
        let limits = Limits {
            heartbeat: Duration::from_millis(10),
            ..LIMITS
        };
        let locks = locks(&script, limits).await;
        let hold = held(locks.take(errand(None)).await);
        Script::set(&script.check, async || panic!("in the driver"));
        let ended = tokio::time::timeout(Duration::from_secs(5), hold.vitality.ended()).await;
        assert!(ended.is_ok(), "nobody was told");
    });
}

#[test]
fn s3_a_waiter_that_is_granted_late_is_confirmed_before_its_validity_runs_out() {
    run(async {
        let script = Script::new();
        let limits = Limits {
            limit: Duration::from_millis(900),
            heartbeat: Duration::from_millis(440),
            ..LIMITS
        };
        Script::set(&script.try_lock, async || Ok(false));
        Script::set(&script.wait_lock, async || {
            tokio::time::sleep(Duration::from_millis(500)).await;
            Ok(Wait::Granted)
        });
        let checked = Arc::new(AtomicBool::new(false));
        let check = checked.clone();
        Script::set(&script.check, move || {
            check.store(true, Ordering::Relaxed);
            async { Ok(()) }
        });
        let locks = locks(&script, limits).await;
        checked.store(false, Ordering::Relaxed);
        let hold = held(locks.take(errand(None)).await);
        assert!(hold.vitality.remaining() > Duration::from_millis(500));
        drop(give_back(hold).await);
    });
}

#[test]
fn a_grant_whose_session_ran_out_meanwhile_is_not_handed_out() {
    run(async {
        let script = Script::new();
        let limits = Limits {
            limit: Duration::from_millis(300),
            ..LIMITS
        };
        let tries = AtomicUsize::new(0);
        Script::set(&script.try_lock, move || {
            // The whole process stands still between the answer and the look at it.
            if tries.fetch_add(1, Ordering::Relaxed) == 0 {
                std::thread::sleep(Duration::from_millis(400));
            }
            async { Ok(true) }
        });
        let locks = locks(&script, limits).await;
        let hold = held(locks.take(errand(None)).await);
        assert_eq!(hold.vitality.lost(), None);
        // The two of the start, and another keeper.
        assert_eq!(script.opened.load(Ordering::Relaxed), 3);
    });
}

/// One of many locks is not there any more: the session may have been reset, and has none of them.
#[test]
fn s5_an_unlock_that_answers_no_ends_every_hold_of_the_session() {
    run(async {
        let script = Script::new();
        let locks = locks(&script, LIMITS).await;
        let first = held(locks.clone().take(errand_for(1, None)).await);
        let second = held(locks.take(errand_for(2, None)).await);
        let vitality = second.vitality.clone();
        Script::set(&script.unlock, async || Ok(false));
        assert!(give_back(first).await.is_err());
        assert!(vitality.lost().is_some(), "the other hold is vouched for");
        assert!(give_back(second).await.is_err());
    });
}

/// A release that the server refuses leaves the lock in doubt: with the connection it ends for certain.
#[test]
fn s5_a_refused_unlock_ends_the_session() {
    run(async {
        let script = Script::new();
        let locks = locks(&script, LIMITS).await;
        let hold = held(locks.take(errand(None)).await);
        Script::set(&script.unlock, async || {
            Err(DriverError::Refused {
                code: "57014".into(),
                message: "cancelled".into(),
                source: None,
            })
        });
        let closed = Arc::new(AtomicBool::new(false));
        let flag = closed.clone();
        *script.closing.lock().unwrap() = Box::new(move || flag.store(true, Ordering::Relaxed));
        assert!(give_back(hold).await.is_err());
        assert!(closed.load(Ordering::Relaxed), "the connection is kept");
    });
}

/// The server may let others in as soon as the socket is closed.
#[test]
fn s7_the_holds_of_keeper_and_waiters_end_before_their_sockets() {
    run(async {
        let script = Script::new();
        let locks = locks(&script, LIMITS).await;
        let kept = held(locks.clone().take(errand_for(1, None)).await);
        Script::set(&script.try_lock, async || Ok(false));
        Script::set(&script.wait_lock, async || Ok(Wait::Granted));
        let waited = held(locks.clone().take(errand_for(2, None)).await);
        let vitalities = [kept.vitality.clone(), waited.vitality.clone()];
        let (closed, too_early) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (count, early) = (closed.clone(), too_early.clone());
        *script.closing.lock().unwrap() = Box::new(move || {
            // The keeper's is the first.
            let nth = count.fetch_add(1, Ordering::Relaxed);
            let ended = &vitalities[nth.min(1)];
            early.fetch_add(usize::from(ended.stands()), Ordering::Relaxed);
        });
        locks.close("the I/O thread of dlock panicked");
        assert!(closed.load(Ordering::Relaxed) >= 2);
        assert_eq!(
            too_early.load(Ordering::Relaxed),
            0,
            "closed, and vouched for"
        );
        assert!(give_back(kept).await.is_err() && give_back(waited).await.is_err());
    });
}
