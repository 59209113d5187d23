//! Waits in the server's queue: how they end, and what they leave behind.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::{Either, join, select};

use super::{LONG, assert_gone, fresh_key, run, session, text, until_queued, waiters};
use crate::backend::session::driver::{Session, Wait};
use crate::key::Mode;

const SHORT: Duration = Duration::from_millis(50);

#[test]
fn a_wait_is_granted_when_the_holder_gives_back() {
    run(async {
        let (a, b, key) = (session().await, session().await, fresh_key());
        assert!(a.try_lock(&key, Mode::Exclusive).await.unwrap());
        let release = async {
            until_queued(&a, &key).await;
            assert!(a.unlock(&key, Mode::Exclusive).await.unwrap());
        };
        let (granted, ()) = join(b.wait_lock(&key, Mode::Exclusive, LONG), release).await;
        assert_eq!(granted.unwrap(), Wait::Granted);
        assert!(!a.try_lock(&key, Mode::Exclusive).await.unwrap());
        assert!(b.unlock(&key, Mode::Exclusive).await.unwrap());
        assert!(!b.unlock(&key, Mode::Exclusive).await.unwrap());
    });
}

#[test]
fn a_wait_ends_when_its_time_has_passed_and_leaves_no_limit_behind() {
    run(async {
        let (a, b, key) = (session().await, session().await, fresh_key());
        assert!(a.try_lock(&key, Mode::Exclusive).await.unwrap());
        for mode in [Mode::Exclusive, Mode::Shared] {
            let start = std::time::Instant::now();
            assert_eq!(
                b.wait_lock(&key, mode, SHORT).await.unwrap(),
                Wait::TimedOut
            );
            assert!(start.elapsed() >= SHORT);
        }
        assert_eq!(
            b.wait_lock(&key, Mode::Exclusive, Duration::ZERO)
                .await
                .unwrap(),
            Wait::TimedOut
        );
        assert_eq!(waiters(&a, &key).await, 0);
        a.unlock(&key, Mode::Exclusive).await.unwrap();
        assert_eq!(
            b.wait_lock(&key, Mode::Exclusive, SHORT).await.unwrap(),
            Wait::Granted
        );
        assert_eq!(
            text(&b, "SELECT current_setting('lock_timeout')").await,
            "0"
        );
    });
}

/// The server reports a time-out for many locks that it has granted in the same moment.
#[test]
fn s4_a_wait_tells_the_truth_when_release_and_time_out_coincide() {
    run(async {
        let (a, b, key) = (session().await, session().await, fresh_key());
        let (mut granted, mut timed_out) = (0, 0);
        for round in 0..200 {
            assert!(
                a.try_lock(&key, Mode::Exclusive).await.unwrap(),
                "round {round}"
            );
            let at_most = Duration::from_millis(5);
            let release = async {
                // In steps around the moment at which the time-out fires.
                tokio::time::sleep(Duration::from_micros(3500 + 15 * round)).await;
                assert!(a.unlock(&key, Mode::Exclusive).await.unwrap());
            };
            let (wait, ()) = join(b.wait_lock(&key, Mode::Exclusive, at_most), release).await;
            let free = a.try_lock(&key, Mode::Exclusive).await.unwrap();
            match wait.unwrap() {
                Wait::Granted => {
                    granted += 1;
                    assert!(!free, "round {round}: granted and free");
                    assert!(b.unlock(&key, Mode::Exclusive).await.unwrap());
                }
                Wait::TimedOut => {
                    timed_out += 1;
                    assert!(free, "round {round}: timed out and held");
                    a.unlock(&key, Mode::Exclusive).await.unwrap();
                }
                Wait::Interrupted => panic!("round {round}: nobody interrupted"),
            }
        }
        assert!(
            granted > 0 && timed_out > 0,
            "{granted} granted, {timed_out} timed out: no race"
        );
    });
}

#[test]
fn an_interrupted_wait_leaves_nothing_in_the_queue() {
    run(async {
        let (a, b, key) = (session().await, session().await, fresh_key());
        assert!(a.try_lock(&key, Mode::Exclusive).await.unwrap());
        let interrupt = async {
            until_queued(&a, &key).await;
            b.interrupt(&a).await.unwrap();
        };
        let (wait, ()) = join(b.wait_lock(&key, Mode::Exclusive, LONG), interrupt).await;
        assert_eq!(wait.unwrap(), Wait::Interrupted);
        assert_eq!(waiters(&a, &key).await, 0);
        assert!(a.unlock(&key, Mode::Exclusive).await.unwrap());
        assert!(b.try_lock(&key, Mode::Exclusive).await.unwrap());
    });
}

/// A cancel request that comes too late ends the next statement in its place.
#[test]
fn s4_late_cancel_requests_make_no_operation_lie() {
    run(async {
        let (a, b, key) = (session().await, session().await, fresh_key());
        let requests = (0..600).map(|_| async { a.interrupt(&b).await.is_ok() });
        let requests = futures_util::stream::iter(requests).buffer_unordered(8);
        // A server may be too busy with requests to take yet another connection.
        let sent = requests.filter(|sent| std::future::ready(*sent));
        let mut requests = std::pin::pin!(sent.count());
        loop {
            let pair = async {
                assert!(a.try_lock(&key, Mode::Exclusive).await.unwrap());
                assert!(a.unlock(&key, Mode::Exclusive).await.unwrap());
            };
            let mut pair = std::pin::pin!(pair);
            if let Either::Left(_) = select(&mut requests, &mut pair).await {
                pair.await;
                break;
            }
        }
    });
}

/// Two waits that block each other: the server picks a victim.
#[test]
fn a_deadlock_is_the_servers_word_and_the_victim_keeps_its_other_lock() {
    run(async {
        let (a, b) = (session().await, session().await);
        let (first, second) = (fresh_key(), fresh_key());
        assert!(a.try_lock(&first, Mode::Exclusive).await.unwrap());
        assert!(b.try_lock(&second, Mode::Exclusive).await.unwrap());
        let victim = async {
            let wait = b.wait_lock(&first, Mode::Exclusive, LONG).await;
            let released = match &wait {
                // The other one was the victim: its lock is still there, so this wait goes on until `a` gives way.
                Ok(_) => true,
                Err(_) => b.unlock(&second, Mode::Exclusive).await.unwrap(),
            };
            (wait, released)
        };
        let other = async {
            let wait = a.wait_lock(&second, Mode::Exclusive, LONG).await;
            if wait.is_err() {
                assert!(a.unlock(&first, Mode::Exclusive).await.unwrap());
            }
            wait
        };
        let ((one, released), two) = join(victim, other).await;
        assert!(released);
        let outcomes = format!("{one:?} {two:?}");
        assert!(
            outcomes.contains("40P01") && outcomes.contains("Granted"),
            "{outcomes}"
        );
    });
}

#[test]
fn a_session_that_is_closed_while_it_waits_leaves_the_queue() {
    run(async {
        let (a, b, key) = (session().await, session().await, fresh_key());
        assert!(a.try_lock(&key, Mode::Exclusive).await.unwrap());
        let close = async {
            until_queued(&a, &key).await;
            b.close();
        };
        let (wait, ()) = join(b.wait_lock(&key, Mode::Exclusive, LONG), close).await;
        assert_gone(&wait);
        // Not at once: the server looks at the socket of a waiting session from time to time.
        while waiters(&a, &key).await != 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
}
