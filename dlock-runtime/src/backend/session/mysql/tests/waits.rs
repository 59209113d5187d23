//! Waits for a named lock: how they end, and what they leave behind.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::{Either, join, select};

use super::{LONG, Server, assert_gone, fresh_key, is_waiting, on_both, one, until_waiting};
use crate::backend::session::driver::{DriverError, Session, Wait};
use crate::backend::session::mysql::settings::Flavor;
use crate::key::Mode;

#[test]
fn a_wait_is_granted_when_the_holder_gives_back() {
    on_both(|server| async move {
        let (a, b, key) = (server.session().await, server.session().await, fresh_key());
        assert!(a.try_lock(&key, Mode::Exclusive).await.unwrap());
        let release = async {
            until_waiting(&a, b.facts.id).await;
            assert!(a.unlock(&key, Mode::Exclusive).await.unwrap());
        };
        let (granted, ()) = join(b.wait_lock(&key, Mode::Exclusive, LONG), release).await;
        assert_eq!(granted.unwrap(), Wait::Granted);
        assert!(!a.try_lock(&key, Mode::Exclusive).await.unwrap());
        assert!(b.unlock(&key, Mode::Exclusive).await.unwrap());
    });
}

/// MySQL waits for whole seconds, and would round 1.2 down; MariaDB takes fractions.
#[test]
fn a_wait_is_never_shorter_than_asked_for() {
    on_both(|server| async move {
        let (a, b, key) = (server.session().await, server.session().await, fresh_key());
        assert!(a.try_lock(&key, Mode::Exclusive).await.unwrap());
        for milliseconds in [200, 1200] {
            let at_most = Duration::from_millis(milliseconds);
            let expected = match server.flavor {
                Flavor::MySql => Duration::from_secs(milliseconds.div_ceil(1000)),
                Flavor::MariaDb => at_most,
            };
            let start = Instant::now();
            let wait = b.wait_lock(&key, Mode::Exclusive, at_most).await.unwrap();
            let waited = start.elapsed();
            assert_eq!(wait, Wait::TimedOut);
            // A server's clock may be a little faster than ours.
            assert!(
                waited + Duration::from_millis(20) >= expected,
                "{server:?} {waited:?}"
            );
            assert!(
                waited < expected + Duration::from_millis(700),
                "{server:?} {waited:?}"
            );
        }
    });
}

#[test]
fn the_longest_wait_is_a_wait() {
    on_both(|server| async move {
        let (a, b, key) = (server.session().await, server.session().await, fresh_key());
        assert!(a.try_lock(&key, Mode::Exclusive).await.unwrap());
        let interrupt = async {
            until_waiting(&a, b.facts.id).await;
            b.interrupt(&a).await.unwrap();
        };
        let wait = b.wait_lock(&key, Mode::Exclusive, Duration::MAX);
        assert_eq!(join(wait, interrupt).await.0.unwrap(), Wait::Interrupted);
    });
}

#[test]
fn an_interrupted_wait_leaves_nothing_on_the_server() {
    on_both(|server| async move {
        let (a, b, key) = (server.session().await, server.session().await, fresh_key());
        assert!(a.try_lock(&key, Mode::Exclusive).await.unwrap());
        let interrupt = async {
            until_waiting(&a, b.facts.id).await;
            b.interrupt(&a).await.unwrap();
        };
        let (wait, ()) = join(b.wait_lock(&key, Mode::Exclusive, LONG), interrupt).await;
        assert_eq!(wait.unwrap(), Wait::Interrupted);
        assert!(!is_waiting(&a, b.facts.id).await);
        assert!(a.unlock(&key, Mode::Exclusive).await.unwrap());
        assert!(b.try_lock(&key, Mode::Exclusive).await.unwrap());
    });
}

/// KILL QUERY that comes too late ends the next statement in its place.
#[test]
fn s4_late_kills_make_no_operation_lie() {
    on_both(|server| async move {
        let (a, b, key) = (server.session().await, server.session().await, fresh_key());
        let kills = (0..600).map(|_| async { a.interrupt(&b).await.unwrap() });
        let kills = futures_util::stream::iter(kills).buffer_unordered(2);
        let mut kills = std::pin::pin!(kills.count());
        loop {
            let pair = async {
                assert!(a.try_lock(&key, Mode::Exclusive).await.unwrap());
                assert!(a.unlock(&key, Mode::Exclusive).await.unwrap());
            };
            let mut pair = std::pin::pin!(pair);
            if let Either::Left(_) = select(&mut kills, &mut pair).await {
                pair.await;
                break;
            }
        }
    });
}

#[test]
fn s4_a_wait_tells_the_truth_when_release_and_kill_coincide() {
    on_both(|server| async move {
        let (a, b) = (server.session().await, server.session().await);
        for round in 0..100 {
            // A killed session would be closed: here it goes on with a name that no late kill can concern.
            let key = fresh_key();
            assert!(a.try_lock(&key, Mode::Exclusive).await.unwrap());
            let helper = &a;
            let race = async {
                until_waiting(helper, b.facts.id).await;
                let kill = b.interrupt(helper);
                let release = a.unlock(&key, Mode::Exclusive);
                if round % 2 == 0 {
                    let (killed, released) = join(kill, release).await;
                    killed.unwrap();
                    assert!(released.unwrap());
                } else {
                    let (released, killed) = join(release, kill).await;
                    killed.unwrap();
                    assert!(released.unwrap());
                }
            };
            let (wait, ()) = join(b.wait_lock(&key, Mode::Exclusive, LONG), race).await;
            let free = a.try_lock(&key, Mode::Exclusive).await.unwrap();
            match wait.unwrap() {
                Wait::Granted => assert!(!free, "{server:?} {round}: granted and free"),
                Wait::Interrupted => assert!(free, "{server:?} {round}: interrupted and held"),
                Wait::TimedOut => panic!("{server:?} {round}: the time was not over"),
            }
            let holder = if free { &a } else { &b };
            assert!(holder.unlock(&key, Mode::Exclusive).await.unwrap());
        }
    });
}

#[test]
fn a_deadlock_is_the_servers_word_and_the_victim_keeps_its_other_lock() {
    on_both(|server| async move {
        let (a, b) = (server.session().await, server.session().await);
        let (first, second) = (fresh_key(), fresh_key());
        assert!(a.try_lock(&first, Mode::Exclusive).await.unwrap());
        assert!(b.try_lock(&second, Mode::Exclusive).await.unwrap());
        let one = async {
            let wait = a.wait_lock(&second, Mode::Exclusive, LONG).await;
            assert!(a.unlock(&first, Mode::Exclusive).await.unwrap());
            wait
        };
        let two = async {
            let wait = b.wait_lock(&first, Mode::Exclusive, LONG).await;
            assert!(b.unlock(&second, Mode::Exclusive).await.unwrap());
            wait
        };
        let outcomes = <[_; 2]>::from(join(one, two).await);
        let granted = outcomes
            .iter()
            .filter(|wait| matches!(wait, Ok(Wait::Granted)))
            .count();
        let codes = ["3058", "1213"];
        let victims = outcomes.iter().filter(
            |wait| matches!(wait, Err(DriverError::Refused { code, .. }) if codes.contains(&&**code)),
        );
        assert_eq!(
            (granted, victims.count()),
            (1, 1),
            "{server:?} {outcomes:?}"
        );
    });
}

#[test]
fn a_session_that_is_closed_while_it_waits_leaves_the_server() {
    on_both(|server| async move {
        let (a, b, key) = (server.session().await, server.session().await, fresh_key());
        assert!(a.try_lock(&key, Mode::Exclusive).await.unwrap());
        let close = async {
            until_waiting(&a, b.facts.id).await;
            b.close();
        };
        let (wait, ()) = join(b.wait_lock(&key, Mode::Exclusive, LONG), close).await;
        assert_gone(wait);
        until_away(server, b.facts.id).await;
    });
}

/// The answer of the dropped statement must not become the answer of the next one.
#[test]
fn a_wait_that_is_dropped_half_way_closes_the_session() {
    on_both(|server| async move {
        let (a, b, key) = (server.session().await, server.session().await, fresh_key());
        assert!(a.try_lock(&key, Mode::Exclusive).await.unwrap());
        {
            let wait = std::pin::pin!(b.wait_lock(&key, Mode::Exclusive, LONG));
            let queued = std::pin::pin!(until_waiting(&a, b.facts.id));
            assert!(matches!(select(wait, queued).await, Either::Right(_)));
        }
        assert_eq!(&*b.closed().await, "a statement was given up half-way");
        assert_gone(b.try_lock(&fresh_key(), Mode::Exclusive).await);
        until_away(server, b.facts.id).await;
    });
}

async fn until_away(server: Server, id: u64) {
    let session = server.session().await;
    let sql = format!("SELECT COUNT(*) FROM information_schema.processlist WHERE id = {id}");
    while one::<u64>(&session, &sql).await != 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
