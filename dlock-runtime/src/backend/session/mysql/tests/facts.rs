//! What the heartbeat notices, and the facts about the servers that the locks rely on.

use mysql_async::OptsBuilder;
use mysql_async::prelude::Queryable;

use super::{LIMIT, assert_gone, fresh_key, on_both, one};
use crate::backend::session::driver::{Driver, DriverError, Session};
use crate::backend::session::mysql::settings::Flavor;
use crate::key::{Mode, ServerKey};

#[test]
fn the_heartbeat_is_content_with_its_own_session() {
    on_both(|server| async move {
        let session = server.session().await;
        for _ in 0..3 {
            session.check().await.unwrap();
        }
        let held: u64 = one(
            &session,
            &format!("SELECT IS_USED_LOCK('{}')", session.facts.sentinel),
        )
        .await;
        assert_eq!(held, session.facts.id);
    });
}

#[test]
fn s2_the_heartbeat_notices_that_all_locks_were_released() {
    on_both(|server| async move {
        let session = server.session().await;
        session.check().await.unwrap();
        one::<i64>(&session, "SELECT RELEASE_ALL_LOCKS()").await;
        let error = session.check().await.unwrap_err();
        let DriverError::Gone { reason, .. } = error else {
            panic!("{error:?}")
        };
        assert!(reason.contains("reset"), "{reason}");
    });
}

/// A pool's reset keeps the connection and its number, and releases every lock.
#[test]
fn s2_the_heartbeat_notices_a_reset_of_the_session() {
    on_both(|server| async move {
        let (a, b, key) = (server.session().await, server.session().await, fresh_key());
        assert!(a.try_lock(&key, Mode::Exclusive).await.unwrap());
        assert!(a.slot.run(|conn| Box::pin(conn.reset())).await.unwrap());
        assert!(b.try_lock(&key, Mode::Exclusive).await.unwrap());
        let error = a.check().await.unwrap_err();
        let DriverError::Gone { reason, .. } = error else {
            panic!("{error:?}")
        };
        assert!(reason.contains("reset"), "{reason}");
    });
}

#[test]
fn s2_the_heartbeat_notices_another_session_server_or_role() {
    on_both(|server| async move {
        let mut proxied = server.session().await;
        proxied.facts.id += 1;
        let error = proxied.check().await.unwrap_err().to_string();
        assert!(error.contains("in place of"), "{error}");
        let mut failed_over = server.session().await;
        failed_over.facts.identity.push('x');
        let error = failed_over.check().await.unwrap_err().to_string();
        assert!(error.contains("another server"), "{error}");
        let mut demoted = server.session().await;
        demoted.facts.role.push('x');
        let error = demoted.check().await.unwrap_err().to_string();
        assert!(error.contains("read-only"), "{error}");
    });
}

#[test]
fn an_interruption_through_another_server_is_refused() {
    on_both(|server| async move {
        let (a, mut elsewhere) = (server.session().await, server.session().await);
        elsewhere.facts.identity.push('x');
        assert_gone(&a.interrupt(&elsewhere).await);
        a.check().await.unwrap();
    });
}

/// Also where the server, or the program's own settings, begin sessions with others.
#[test]
fn s1_the_settings_are_on_the_session() {
    on_both(|server| async move {
        let statement_limit = match server.flavor {
            Flavor::MySql => "max_execution_time",
            Flavor::MariaDb => "max_statement_time",
        };
        let others = format!(
            "SET SESSION wait_timeout = 1000, SESSION {statement_limit} = 1000, SESSION autocommit = 0"
        );
        let mut driver = server.driver();
        driver.endpoint.opts = OptsBuilder::from_opts(driver.endpoint.opts)
            .setup(vec![others])
            .into();
        let session = driver.connect().await.unwrap();
        for (setting, value) in [
            ("wait_timeout", LIMIT.as_secs()),
            (statement_limit, 0),
            ("autocommit", 1),
        ] {
            let sql = format!("SELECT CAST(@@SESSION.{setting} AS UNSIGNED)");
            let found: u64 = one(&session, &sql).await;
            assert_eq!(found, value, "{server:?} {setting}");
        }
    });
}

/// A paused client is this: a session that says nothing.
#[test]
fn s1_a_silent_session_is_ended_by_the_server_and_the_next_statement_says_so() {
    on_both(|server| async move {
        let mut driver = server.driver();
        driver.settings.limit = std::time::Duration::from_secs(1);
        let silent = driver.connect().await.unwrap();
        let (other, key) = (server.session().await, fresh_key());
        assert!(silent.try_lock(&key, Mode::Exclusive).await.unwrap());
        let wait = other
            .wait_lock(&key, Mode::Exclusive, super::LONG)
            .await
            .unwrap();
        assert_eq!(wait, super::Wait::Granted);
        assert_gone(&silent.unlock(&key, Mode::Exclusive).await);
    });
}

#[test]
fn locks_are_counted_by_the_server() {
    on_both(|server| async move {
        let (a, b, key) = (server.session().await, server.session().await, fresh_key());
        assert!(a.try_lock(&key, Mode::Exclusive).await.unwrap());
        assert!(a.try_lock(&key, Mode::Exclusive).await.unwrap());
        assert!(a.unlock(&key, Mode::Exclusive).await.unwrap());
        assert!(!b.try_lock(&key, Mode::Exclusive).await.unwrap());
        assert!(a.unlock(&key, Mode::Exclusive).await.unwrap());
        assert!(!a.unlock(&key, Mode::Exclusive).await.unwrap());
        assert!(b.try_lock(&key, Mode::Exclusive).await.unwrap());
    });
}

/// An empty name: an error of MySQL, NULL on MariaDB. Neither is a lock, and neither hurts the session.
#[test]
fn an_answer_that_is_no_answer_is_not_a_lock() {
    on_both(|server| async move {
        let session = server.session().await;
        let nameless = ServerKey::Name("".into());
        let error = session
            .try_lock(&nameless, Mode::Exclusive)
            .await
            .unwrap_err();
        let DriverError::Refused { code, .. } = &error else {
            panic!("{error:?}")
        };
        match server.flavor {
            Flavor::MySql => assert_eq!(code, "3057"),
            Flavor::MariaDb => assert_eq!(code, "NULL"),
        }
        session.check().await.unwrap();
    });
}

#[test]
fn a_statement_that_the_server_refuses_leaves_the_session_as_it_was() {
    on_both(|server| async move {
        let session = server.session().await;
        let refused = session
            .slot
            .run(|conn| conn.query_drop("SELECT no_such_column"))
            .await;
        let error = refused.unwrap_err();
        assert!(
            matches!(&error, DriverError::Refused { code, .. } if code == "1054"),
            "{error:?}"
        );
        session.check().await.unwrap();
    });
}
