//! Against a real server, named by `DLOCK_TEST_POSTGRES_URL` (for one test also `DLOCK_TEST_POSTGRES_ADMIN_URL`).

mod batches;
mod counting;
mod facts;
mod offers;
mod opening;
mod waits;

use std::future::Future;
use std::time::Duration;

use super::{PostgresDriver, PostgresSession};
use crate::backend::session::driver::{Driver, DriverError, Session, SessionSettings};
use crate::config::Config;
use crate::endpoint::{Endpoint, PostgresEndpoint};
use crate::key::{Mode, ServerKey};

const LIMIT: Duration = Duration::from_secs(30);
const LONG: Duration = Duration::from_secs(20);

fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime for the test").block_on(test)
}

fn endpoint() -> PostgresEndpoint {
    endpoint_of("DLOCK_TEST_POSTGRES_URL")
}

fn endpoint_of(variable: &str) -> PostgresEndpoint {
    let url = std::env::var(variable)
        .unwrap_or_else(|_| panic!("{variable} must name a PostgreSQL server for the tests"));
    endpoint_at(&url)
}

fn endpoint_at(dsn: &str) -> PostgresEndpoint {
    let config = Config::from_dsn(dsn).expect("a good DSN");
    let Endpoint::Postgres(endpoint) = config.endpoint().expect("a good configuration") else {
        panic!("not PostgreSQL")
    };
    *endpoint
}

fn settings() -> SessionSettings {
    SessionSettings {
        limit: LIMIT,
        connect_timeout: Duration::from_secs(10),
        namespace: "driver tests".into(),
        application_name: "dlock driver tests".into(),
        allowed: crate::hazard::Hazards::default(),
        fencing_table: crate::config::TableName::of_fences(),
        key_table: None,
    }
}

fn driver() -> PostgresDriver {
    PostgresDriver::new(endpoint(), settings())
}

async fn session() -> PostgresSession {
    driver()
        .connect()
        .await
        .expect("a session on the test server")
}

/// A key that no other test uses.
fn fresh_key() -> ServerKey {
    ServerKey::Number(fastrand::i64(..))
}

/// Completes when the server shows a waiter for the key, and only then.
async fn until_queued(session: &PostgresSession, key: &ServerKey) {
    while waiters(session, key).await == 0 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn waiters(session: &PostgresSession, key: &ServerKey) -> i64 {
    let ServerKey::Number(number) = key else {
        panic!("a number")
    };
    let sql = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
               AND classid::int8 << 32 | objid::int8 = $1 AND objsubid = 1";
    session
        .client
        .query_one(sql, &[number])
        .await
        .expect("pg_locks")
        .get(0)
}

async fn text(session: &PostgresSession, sql: &str) -> String {
    session.client.query_one(sql, &[]).await.expect(sql).get(0)
}

fn assert_gone<T: std::fmt::Debug>(result: &Result<T, DriverError>) {
    assert!(
        matches!(result, Err(DriverError::Gone { .. })),
        "{result:?}"
    );
}

#[test]
fn a_lock_excludes_other_sessions_until_it_is_given_back() {
    run(async {
        let (a, b, key) = (session().await, session().await, fresh_key());
        assert!(a.try_lock(&key, Mode::Exclusive).await.unwrap());
        assert!(!b.try_lock(&key, Mode::Exclusive).await.unwrap());
        assert!(!b.unlock(&key, Mode::Exclusive).await.unwrap());
        assert!(a.unlock(&key, Mode::Exclusive).await.unwrap());
        assert!(b.try_lock(&key, Mode::Exclusive).await.unwrap());
    });
}

#[test]
fn shared_locks_exclude_only_exclusive_ones() {
    run(async {
        let (a, b, key) = (session().await, session().await, fresh_key());
        assert!(a.try_lock(&key, Mode::Shared).await.unwrap());
        assert!(b.try_lock(&key, Mode::Shared).await.unwrap());
        assert!(b.unlock(&key, Mode::Shared).await.unwrap());
        assert!(!b.try_lock(&key, Mode::Exclusive).await.unwrap());
        assert!(!a.unlock(&key, Mode::Exclusive).await.unwrap());
        assert!(a.unlock(&key, Mode::Shared).await.unwrap());
        assert!(b.try_lock(&key, Mode::Exclusive).await.unwrap());
    });
}

#[test]
fn many_operations_of_one_session_are_under_way_at_once() {
    run(async {
        let session = session().await;
        let keys: Vec<_> = (0..200).map(|_| fresh_key()).collect();
        let tries = keys
            .iter()
            .map(|key| session.try_lock(key, Mode::Exclusive));
        for locked in futures_util::future::join_all(tries).await {
            assert!(locked.unwrap());
        }
        let releases = keys.iter().map(|key| session.unlock(key, Mode::Exclusive));
        for unlocked in futures_util::future::join_all(releases).await {
            assert!(unlocked.unwrap());
        }
    });
}

#[test]
fn a_closed_session_frees_its_locks_at_once() {
    run(async {
        let (a, b, key) = (session().await, session().await, fresh_key());
        assert!(a.try_lock(&key, Mode::Exclusive).await.unwrap());
        a.close();
        assert_eq!(&*a.closed().await, "closed by this process");
        b.wait_lock(&key, Mode::Exclusive, LONG).await.unwrap();
        assert_gone(&a.try_lock(&key, Mode::Exclusive).await);
    });
}

#[test]
fn a_dropped_session_frees_its_locks_at_once() {
    run(async {
        let (a, b, key) = (session().await, session().await, fresh_key());
        assert!(a.try_lock(&key, Mode::Exclusive).await.unwrap());
        drop(a);
        let granted = b.wait_lock(&key, Mode::Exclusive, LONG).await.unwrap();
        assert_eq!(granted, super::Wait::Granted);
    });
}

#[test]
fn a_terminated_session_is_seen_without_asking() {
    run(async {
        let (a, b, key) = (session().await, session().await, fresh_key());
        assert!(a.try_lock(&key, Mode::Exclusive).await.unwrap());
        text(
            &b,
            &format!("SELECT pg_terminate_backend({})::text", a.facts.pid),
        )
        .await;
        let reason = a.closed().await;
        assert!(reason.contains("57P01"), "{reason}");
        let error = a.check().await.unwrap_err();
        let DriverError::Gone { reason, .. } = error else {
            panic!("{error:?}")
        };
        assert!(reason.contains("57P01"), "{reason}");
    });
}

#[test]
fn the_holder_is_named() {
    run(async {
        let (a, b, key) = (session().await, session().await, fresh_key());
        assert_eq!(b.holder(&key, &[]).await.unwrap(), None);
        assert!(a.try_lock(&key, Mode::Exclusive).await.unwrap());
        let holder = b.holder(&key, &[]).await.unwrap().expect("a holder");
        assert_eq!(holder.program.as_deref(), Some("dlock driver tests"));
        assert_eq!(holder.session, Some(a.facts.pid.into()));
        assert!(!holder.this_process);
        let client = holder.client.expect("the user and the address");
        let user = text(&a, "SELECT current_user::text").await;
        assert!(client.starts_with(&format!("{user}@")), "{client}");
        assert!(
            a.holder(&key, &[a.id()])
                .await
                .unwrap()
                .expect("a holder")
                .this_process
        );
    });
}

#[test]
fn the_holder_is_told_with_its_age_and_the_others_who_wait() {
    run(async {
        let (a, b, c) = (session().await, session().await, session().await);
        let key = fresh_key();
        assert!(a.try_lock(&key, Mode::Exclusive).await.unwrap());
        let wait = b.wait_lock(&key, Mode::Exclusive, LONG);
        let asked = async {
            until_queued(&a, &key).await;
            let all = c.holder(&key, &[]).await.unwrap().expect("a holder");
            let others = c.holder(&key, &[b.id(), c.id()]).await.unwrap();
            assert!(a.unlock(&key, Mode::Exclusive).await.unwrap());
            (all, others.expect("a holder").waiting)
        };
        let (granted, (all, others)) = futures_util::future::join(wait, asked).await;
        assert_eq!(granted.unwrap(), super::Wait::Granted);
        assert_eq!((all.waiting, others), (Some(1), Some(0)));
        assert!(all.connected_for.expect("of its own account") > Duration::ZERO);
        assert_eq!(all.held_for, None, "no server keeps it");
    });
}

#[test]
fn a_name_is_refused_where_numbers_are_locked() {
    run(async {
        let name = ServerKey::Name("a".into());
        let error = session()
            .await
            .try_lock(&name, Mode::Exclusive)
            .await
            .unwrap_err();
        assert!(matches!(error, DriverError::Refused { .. }), "{error:?}");
    });
}
