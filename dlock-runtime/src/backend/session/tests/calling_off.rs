//! The end of an errand that nobody wants any more.

use std::future::pending;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::backend::session::driver::DriverError;

fn gone() -> DriverError {
    DriverError::Gone {
        reason: "the server crashed".into(),
        source: None,
    }
}

#[test]
fn a_wait_that_fails_while_it_is_called_off_is_not_awaited_again() {
    run(async {
        let script = Script::new();
        Script::set(&script.try_lock, async || Ok(false));
        let ended = Arc::new(tokio::sync::Notify::new());
        let ending = ended.clone();
        Script::set(&script.wait_lock, move || {
            let ending = ending.clone();
            async move {
                ending.notified().await;
                Err(gone())
            }
        });
        let locks = locks(&script, LIMITS).await;
        // The server would end this wait within the next milliseconds.
        let errand = errand(Some(Duration::ZERO));
        let taking = tokio::spawn(locks.take(errand.clone()));
        settle().await;
        errand.call_off();
        settle().await;
        ended.notify_one();
        let taken = taking.await.expect("no panic");
        assert!(matches!(taken, Taken::CalledOff));
    });
}

#[test]
fn a_try_at_a_busy_lock_does_not_wait_on_an_idle_connection() {
    run(async {
        let script = Script::new();
        let locks = locks(&script, LIMITS).await;
        Script::set(&script.try_lock, async || Ok(false));
        let waited = Arc::new(AtomicBool::new(false));
        let waits = waited.clone();
        Script::set(&script.wait_lock, move || {
            waits.store(true, Ordering::Relaxed);
            pending()
        });
        let errand = errand(Some(Duration::from_secs(10)));
        let mut taking = locks.take(errand.clone());
        // As the queue does for a caller who came for one try.
        let taken = loop {
            tokio::select! {
                biased;
                taken = &mut taking => break taken,
                () = errand.news() => errand.call_off(),
            }
        };
        assert!(matches!(taken, Taken::CalledOff));
        assert!(!waited.load(Ordering::Relaxed));
    });
}

#[test]
fn an_interruption_that_stalls_does_not_close_the_connection_that_holds() {
    run(async {
        let script = Script::new();
        let locks = locks(&script, LIMITS).await;
        let hold = held(locks.clone().take(errand_for(1, None)).await);
        Script::set(&script.try_lock, async || Ok(false));
        Script::set(&script.interrupt, async || {
            tokio::time::sleep(Duration::from_secs(3)).await;
            Ok(())
        });
        let unwanted = errand_for(2, None);
        let taking = tokio::spawn(locks.clone().take(unwanted.clone()));
        settle().await;
        unwanted.call_off();
        assert!(matches!(taking.await, Ok(Taken::CalledOff)));
        settle().await;
        assert_eq!(hold.vitality.lost(), None);
    });
}

#[test]
fn a_question_for_the_holder_that_is_given_up_does_not_close_the_connection_that_holds() {
    run(async {
        let script = Script::new();
        let locks = locks(&script, LIMITS).await;
        let hold = held(locks.clone().take(errand(None)).await);
        Script::set(&script.holder, pending);
        let key = ServerKey::Number(2);
        let asked = tokio::time::timeout(Duration::from_millis(10), locks.holder(&key)).await;
        assert!(asked.is_err());
        settle().await;
        assert_eq!(hold.vitality.lost(), None);
    });
}
