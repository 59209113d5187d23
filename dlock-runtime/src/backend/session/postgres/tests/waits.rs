//! Waits in the server's queue: how they end, and what they leave behind.

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::{Either, join, select};

use super::{LONG, assert_gone, fresh_key, run, session, text, until_queued, waiters};
use crate::backend::session::driver::{Session, Wait};
use crate::key::{Mode, ServerKey};

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

/// How many forced coincidences of grant and time-out, over so many pairs of sessions at once.
const COINCIDENCES: (usize, usize) = (1000, 8);

/// The server reports a time-out for many locks that it has granted in the same moment.
///
/// The server itself keeps the time of the release, to the microsecond, and each round moves it towards the edge: later
/// when the lock was granted without an error, earlier when the wait had timed out before.
#[test]
fn s4_a_wait_tells_the_truth_when_release_and_time_out_coincide() {
    run(async {
        let pairs = (0..COINCIDENCES.1).map(|_| coincide(COINCIDENCES.0 / COINCIDENCES.1));
        let met = futures_util::future::join_all(pairs).await;
        let (granted, timed_out, held_after_error) = met
            .into_iter()
            .reduce(|(a, b, c), (d, e, f)| (a + d, b + e, c + f))
            .unwrap();
        println!("{granted} granted, {held_after_error} of them with 55P03; {timed_out} timed out");
        assert_eq!(granted + timed_out, COINCIDENCES.0);
        assert!(
            granted > 0 && timed_out > 0,
            "{granted} granted, {timed_out} timed out: no race"
        );
        assert!(held_after_error > 0, "the case was never met");
    });
}

/// How many were granted, how many timed out, and how many of the first came with an error.
async fn coincide(rounds: usize) -> (usize, usize, usize) {
    let (a, b, key) = (session().await, session().await, fresh_key());
    let (mut granted, mut timed_out) = (0, 0);
    let (mut release_after, mut step) = (5_000_i32, 400_i32);
    let ServerKey::Number(number) = &key else {
        panic!("advisory locks have numbers")
    };
    let sql = "SELECT pg_advisory_unlock($1) FROM pg_sleep($2::int4 / 1e6)";
    let release = a.client.prepare(sql).await.unwrap();
    for round in 0..rounds {
        assert!(a.try_lock(&key, Mode::Exclusive).await.unwrap(), "{round}");
        let before = b.held_after_error.load(Ordering::Relaxed);
        let at_most = Duration::from_millis(5);
        let params: [&(dyn tokio_postgres::types::ToSql + Sync); 2] = [number, &release_after];
        let releasing = a.client.query_one(&release, &params);
        let wait = b.wait_lock(&key, Mode::Exclusive, at_most);
        let (wait, released) = join(wait, releasing).await;
        assert!(released.unwrap().get::<_, bool>(0), "{round}");
        let free = a.try_lock(&key, Mode::Exclusive).await.unwrap();
        let (holder, later) = match wait.unwrap() {
            Wait::Granted => {
                granted += 1;
                assert!(!free, "round {round}: granted and free");
                let on_the_edge = b.held_after_error.load(Ordering::Relaxed) > before;
                (&b, i32::from(!on_the_edge))
            }
            Wait::TimedOut => {
                timed_out += 1;
                assert!(free, "round {round}: timed out and held");
                (&a, -1)
            }
            Wait::Interrupted => panic!("round {round}: nobody interrupted"),
        };
        assert!(holder.unlock(&key, Mode::Exclusive).await.unwrap());
        release_after = (release_after + later * step).clamp(0, 20_000);
        step = (step * 9 / 10).max(20);
    }
    assert_eq!(waiters(&a, &key).await, 0);
    assert!(
        a.try_lock(&key, Mode::Exclusive).await.unwrap(),
        "left behind"
    );
    (
        granted,
        timed_out,
        b.held_after_error.load(Ordering::Relaxed),
    )
}

/// The cancel request arrives while the lock is granted. It may be late: such a session is closed, as the strategy does.
#[test]
fn s4_a_wait_tells_the_truth_when_release_and_cancel_coincide() {
    run(async {
        let (a, key) = (session().await, fresh_key());
        let mut b = session().await;
        let (mut granted, mut interrupted) = (0, 0);
        for round in 0..200_u32 {
            assert!(a.try_lock(&key, Mode::Exclusive).await.unwrap(), "{round}");
            let race = async {
                until_queued(&a, &key).await;
                let release = async {
                    for _ in 0..round % 40 {
                        tokio::task::yield_now().await;
                    }
                    assert!(a.unlock(&key, Mode::Exclusive).await.unwrap());
                };
                let (cancelled, ()) = join(b.interrupt(&a), release).await;
                cancelled.unwrap();
            };
            let (wait, ()) = join(b.wait_lock(&key, Mode::Exclusive, LONG), race).await;
            let free = a.try_lock(&key, Mode::Exclusive).await.unwrap();
            match wait.unwrap() {
                Wait::Granted => {
                    granted += 1;
                    assert!(!free, "round {round}: granted and free");
                    assert!(b.unlock(&key, Mode::Exclusive).await.unwrap());
                    b = session().await;
                }
                Wait::Interrupted => {
                    interrupted += 1;
                    assert!(free, "round {round}: interrupted and held");
                    assert!(a.unlock(&key, Mode::Exclusive).await.unwrap());
                }
                Wait::TimedOut => panic!("round {round}: the time was not over"),
            }
        }
        println!("{granted} granted, {interrupted} interrupted");
        assert_eq!(waiters(&a, &key).await, 0);
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
