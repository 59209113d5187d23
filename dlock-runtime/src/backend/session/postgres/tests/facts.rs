//! What the heartbeat notices, and the facts about the server that the locks rely on.

use super::{LIMIT, assert_gone, fresh_key, run, session, text};
use crate::backend::session::driver::{Driver, Session};
use crate::key::{Mode, ServerKey};
use crate::scheme::AdvisoryKey;

#[test]
fn the_heartbeat_is_content_with_its_own_session_and_leaves_the_sentinel_as_it_was() {
    run(async {
        let session = session().await;
        for _ in 0..5 {
            session.check().await.unwrap();
        }
        let (class, object) = session.facts.sentinel;
        let unlock = format!("SELECT pg_advisory_unlock({class}, {object})::text");
        for held in ["true", "true", "false"] {
            assert_eq!(text(&session, &unlock).await, held);
        }
    });
}

#[test]
fn s2_the_heartbeat_notices_that_all_locks_were_released() {
    run(async {
        let session = session().await;
        session.check().await.unwrap();
        text(&session, "SELECT pg_advisory_unlock_all()::text").await;
        assert_gone(&session.check().await);
    });
}

#[test]
fn s2_the_heartbeat_notices_a_poolers_reset() {
    run(async {
        let session = session().await;
        session.check().await.unwrap();
        session.client.batch_execute("DISCARD ALL").await.unwrap();
        assert_gone(&session.check().await);
    });
}

#[test]
fn s2_the_heartbeat_notices_another_session_or_server() {
    run(async {
        let mut other_process = session().await;
        other_process.facts.pid += 1;
        assert_gone(&other_process.check().await);
        let mut restarted = session().await;
        restarted.facts.started += 1;
        assert_gone(&restarted.check().await);
    });
}

#[test]
fn s1_the_settings_are_on_the_session() {
    run(async {
        let session = session().await;
        let milliseconds = LIMIT.as_millis().to_string();
        let of = "SELECT setting FROM pg_settings WHERE name =";
        for (name, value) in [
            ("idle_session_timeout", &*milliseconds),
            ("statement_timeout", "0"),
            ("lock_timeout", "0"),
            ("idle_in_transaction_session_timeout", "0"),
            ("client_connection_check_interval", "2000"),
        ] {
            assert_eq!(
                text(&session, &format!("{of} '{name}'")).await,
                value,
                "{name}"
            );
        }
        if text(&session, "SELECT (inet_server_addr() IS NULL)::text").await == "false" {
            assert_eq!(
                text(&session, &format!("{of} 'tcp_user_timeout'")).await,
                milliseconds
            );
            let sum = "SELECT (current_setting('tcp_keepalives_idle')::int + 3 *
                current_setting('tcp_keepalives_interval')::int)::text";
            assert_eq!(text(&session, sum).await, LIMIT.as_secs().to_string());
        }
    });
}

/// A paused client is this: a session that says nothing.
#[test]
fn s1_a_silent_session_is_ended_by_the_server() {
    run(async {
        let limit = std::time::Duration::from_secs(1);
        let settings = super::SessionSettings {
            limit,
            ..super::settings()
        };
        let driver = super::PostgresDriver::new(super::endpoint(), settings);
        let silent = driver.connect().await.unwrap();
        let (other, key) = (session().await, fresh_key());
        assert!(silent.try_lock(&key, Mode::Exclusive).await.unwrap());
        let wait = other
            .wait_lock(&key, Mode::Exclusive, super::LONG)
            .await
            .unwrap();
        assert_eq!(wait, super::super::Wait::Granted);
        let reason = silent.closed().await;
        assert!(reason.contains("57P05"), "{reason}");
    });
}

#[test]
fn locks_are_counted_by_the_server() {
    run(async {
        let (a, b, key) = (session().await, session().await, fresh_key());
        assert!(a.try_lock(&key, Mode::Exclusive).await.unwrap());
        assert!(a.try_lock(&key, Mode::Exclusive).await.unwrap());
        assert!(a.unlock(&key, Mode::Exclusive).await.unwrap());
        assert!(!b.try_lock(&key, Mode::Exclusive).await.unwrap());
        assert!(a.unlock(&key, Mode::Exclusive).await.unwrap());
        assert!(!a.unlock(&key, Mode::Exclusive).await.unwrap());
        assert!(b.try_lock(&key, Mode::Exclusive).await.unwrap());
    });
}

#[test]
fn every_number_is_found_again_in_the_servers_list_of_locks() {
    run(async {
        let (a, b) = (session().await, session().await);
        for number in [i64::MIN, -1, 0, 1, i64::from(u32::MAX), 1 << 32, i64::MAX] {
            let (key, number) = (ServerKey::Number(number), AdvisoryKey::Number(number));
            // Fixed numbers may be in use by another run of this test.
            a.wait_lock(&key, Mode::Exclusive, super::LONG)
                .await
                .unwrap();
            assert!(
                a.holds(&number, Mode::Exclusive).await.unwrap(),
                "{number:?}"
            );
            assert!(!a.holds(&number, Mode::Shared).await.unwrap(), "{number:?}");
            assert!(
                !b.holds(&number, Mode::Exclusive).await.unwrap(),
                "{number:?}"
            );
            assert!(b.holder(&key, &[]).await.unwrap().is_some(), "{number:?}");
            assert!(a.unlock(&key, Mode::Exclusive).await.unwrap());
            assert!(
                !a.holds(&number, Mode::Exclusive).await.unwrap(),
                "{number:?}"
            );
        }
    });
}

/// Two spaces: a pair is never the number that has the same bits.
#[test]
fn every_pair_is_found_again_and_is_no_number() {
    run(async {
        let (a, b) = (session().await, session().await);
        let numbers = [i32::MIN, -1, 0, 1, i32::MAX];
        for (first, second) in numbers.iter().flat_map(|a| numbers.map(|b| (*a, b))) {
            let pair = AdvisoryKey::Pair(first, second);
            let key = ServerKey::Pair(first, second);
            let bits = i64::from(first) << 32 | i64::from(second.cast_unsigned());
            let (number, same_bits) = (AdvisoryKey::Number(bits), ServerKey::Number(bits));
            // Fixed numbers may be in use by another run of this test.
            for mode in [Mode::Shared, Mode::Exclusive] {
                let wait = a.wait_lock(&key, mode, super::LONG).await.unwrap();
                assert_eq!(wait, super::super::Wait::Granted);
                assert!(a.holds(&pair, mode).await.unwrap(), "{pair:?}");
                assert!(!a.holds(&number, mode).await.unwrap(), "{pair:?}");
                assert!(!b.holds(&pair, mode).await.unwrap(), "{pair:?}");
                assert!(b.holder(&key, &[]).await.unwrap().is_some(), "{pair:?}");
                assert!(!b.try_lock(&key, Mode::Exclusive).await.unwrap());
                b.wait_lock(&same_bits, mode, super::LONG).await.unwrap();
                assert!(b.unlock(&same_bits, mode).await.unwrap());
                assert!(a.unlock(&key, mode).await.unwrap());
                assert!(!a.holds(&pair, mode).await.unwrap(), "{pair:?}");
            }
        }
    });
}
