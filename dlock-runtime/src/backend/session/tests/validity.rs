//! What a session is vouched for, and until when.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::*;
use crate::backend::session::driver::Wait;

#[test]
fn a_panic_of_the_heartbeat_ends_the_session() {
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
fn a_waiter_that_is_granted_late_is_confirmed_before_its_validity_runs_out() {
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
