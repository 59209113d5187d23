//! Counts of fencing tokens that go wrong: the lock is not handed out, and not kept.

use std::future::pending;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::backend::Progress;
use crate::backend::session::driver::{Counted, DriverError};

fn refused() -> DriverError {
    DriverError::Refused {
        code: "42501".into(),
        message: "permission denied".into(),
        source: None,
    }
}

/// Counts the releases.
fn releases(script: &Script) -> Arc<AtomicUsize> {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    Script::set(&script.unlock, move || {
        counted.fetch_add(1, Ordering::Relaxed);
        async { Ok(true) }
    });
    count
}

#[test]
fn b3_a_lock_whose_count_is_refused_goes_back() {
    run(async {
        let script = Script::new();
        let locks = locks(&script, LIMITS).await;
        let released = releases(&script);
        Script::set(&script.count, async || Err(refused()));
        let taken = locks.clone().take(errand_of(1, true, None)).await;
        assert!(matches!(taken, Taken::Refused { .. }));
        assert_eq!(released.load(Ordering::Relaxed), 1);
        // The connection is as good as before.
        let open = script.opened.load(Ordering::Relaxed);
        Script::set(&script.count, async || Ok(Counted::Token(7)));
        let hold = held(locks.clone().take(errand_of(1, true, None)).await);
        assert_eq!(hold.vitality.token(), Some(7));
        assert_eq!(script.opened.load(Ordering::Relaxed), open);
        // What is left of a hold does not see the token of the next on the same connection.
        let old = hold.vitality.clone();
        give_back(hold).await.expect("held to the end");
        Script::set(&script.count, async || Ok(Counted::Token(8)));
        let next = held(locks.clone().take(errand_of(1, true, None)).await);
        assert_eq!((old.token(), next.vitality.token()), (Some(7), Some(8)));
        give_back(next).await.expect("held to the end");
    });
}

#[test]
fn b3_a_counter_that_somebody_keeps_is_trouble_and_the_lock_goes_back() {
    run(async {
        let script = Script::new();
        let locks = locks(&script, LIMITS).await;
        let released = releases(&script);
        Script::set(&script.count, async || {
            Ok(Counted::Kept {
                reason: "somebody keeps it".into(),
            })
        });
        let errand = errand_of(1, true, None);
        let taking = tokio::spawn(locks.clone().take(errand.clone()));
        while !matches!(errand.progress(), Progress::Trouble(_)) {
            tokio::task::yield_now().await;
        }
        assert_eq!(released.load(Ordering::Relaxed), 1);
        errand.call_off();
        assert!(matches!(taking.await.expect("no panic"), Taken::CalledOff));
        assert_eq!(released.load(Ordering::Relaxed), 1, "nothing more is held");
    });
}

#[test]
fn b3_a_count_without_an_answer_ends_with_its_connection() {
    run(async {
        let script = Script::new();
        let locks = locks(&script, LIMITS).await;
        Script::set(&script.count, pending);
        Script::set(&script.interrupt, pending);
        let closed = Arc::new(AtomicUsize::new(0));
        let closing = closed.clone();
        *script.closing.lock().expect("no panic") = Box::new(move || {
            closing.fetch_add(1, Ordering::Relaxed);
        });
        let errand = errand_of(1, true, None);
        let taking = tokio::spawn(locks.clone().take(errand.clone()));
        while !matches!(errand.progress(), Progress::Counting { .. }) {
            tokio::task::yield_now().await;
        }
        errand.call_off();
        assert!(matches!(taking.await.expect("no panic"), Taken::CalledOff));
        assert!(closed.load(Ordering::Relaxed) > 0);
        assert_eq!(locks.connections().waiters, 0);
    });
}

#[test]
fn b3_an_errand_that_is_called_off_before_the_count_gives_the_lock_back() {
    run(async {
        let script = Script::new();
        let locks = locks(&script, LIMITS).await;
        let released = releases(&script);
        let errand = errand_of(1, true, None);
        let called_off = errand.clone();
        Script::set(&script.try_lock, move || {
            called_off.call_off();
            async { Ok(true) }
        });
        Script::set(&script.count, || async { panic!("nobody wants it") });
        let taken = locks.clone().take(errand).await;
        assert!(matches!(taken, Taken::CalledOff));
        assert_eq!(released.load(Ordering::Relaxed), 1);
    });
}
