//! Against real servers, named by `DLOCK_TEST_MYSQL_URL` and `DLOCK_TEST_MARIADB_URL` (for one test also
//! `…_ADMIN_URL`): every test runs on both.

mod batches;
mod counting;
mod facts;
mod names;
mod offers;
mod opening;
mod waits;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use mysql_async::prelude::{FromValue, Queryable};

use super::settings::Flavor;
use super::{MySqlDriver, MySqlSession};
use crate::backend::session::driver::{Driver, DriverError, Session, SessionSettings, Wait};
use crate::endpoint::MySqlEndpoint;
use crate::key::{Mode, ServerKey};

const LIMIT: Duration = Duration::from_secs(30);
const LONG: Duration = Duration::from_secs(20);

/// One of the two servers.
#[derive(Clone, Copy, Debug)]
struct Server {
    variable: &'static str,
    /// The URL of an account that may create accounts.
    admin: &'static str,
    flavor: Flavor,
}

const SERVERS: [Server; 2] = [
    Server {
        variable: "DLOCK_TEST_MYSQL_URL",
        admin: "DLOCK_TEST_MYSQL_ADMIN_URL",
        flavor: Flavor::MySql,
    },
    Server {
        variable: "DLOCK_TEST_MARIADB_URL",
        admin: "DLOCK_TEST_MARIADB_ADMIN_URL",
        flavor: Flavor::MariaDb,
    },
];

/// Runs a test on both servers, one after the other.
fn on_both<F: Future<Output = ()>>(test: impl Fn(Server) -> F) {
    for server in SERVERS {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime
            .expect("a runtime for the test")
            .block_on(test(server));
    }
}

impl Server {
    fn endpoint(self) -> MySqlEndpoint {
        let url = std::env::var(self.variable)
            .unwrap_or_else(|_| panic!("{} must name a server for the tests", self.variable));
        match crate::dsn::parse(&url) {
            Ok((crate::endpoint::Endpoint::MySql(endpoint), _)) => *endpoint,
            other => panic!("{} is no DSN of MySQL: {other:?}", self.variable),
        }
    }

    fn driver(self) -> MySqlDriver {
        MySqlDriver::new(self.endpoint(), settings())
    }

    async fn session(self) -> MySqlSession {
        self.driver()
            .connect()
            .await
            .expect("a session on the test server")
    }
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

/// A key that no other test uses.
fn fresh_key() -> ServerKey {
    ServerKey::Name(format!("dlock-test:{:032x}", fastrand::u128(..)).into())
}

async fn one<T: FromValue + Send>(session: &MySqlSession, sql: &str) -> T {
    let sql: Arc<str> = sql.into();
    session
        .value(sql, ())
        .await
        .expect("a statement of the test")
        .expect("a value")
}

/// The state of a session, where there is one. Not from `information_schema`: MariaDB 10.11 makes a table on disk for
/// each such question, and has crashed under many of them.
async fn state(session: &MySqlSession, id: u64) -> Option<String> {
    let rows: Vec<mysql_async::Row> = session
        .slot
        .run(|conn| conn.query("SHOW PROCESSLIST"))
        .await
        .expect("a statement of the test");
    let row = rows
        .iter()
        .find(|row| row.get::<u64, _>("Id") == Some(id))?;
    Some(
        row.get::<Option<String>, _>("State")
            .flatten()
            .unwrap_or_default(),
    )
}

async fn is_waiting(session: &MySqlSession, id: u64) -> bool {
    state(session, id).await.as_deref() == Some("User lock")
}

/// Completes when the server shows that session `id` waits for a named lock, and only then.
async fn until_waiting(session: &MySqlSession, id: u64) {
    while !is_waiting(session, id).await {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn assert_gone<T: std::fmt::Debug>(result: &Result<T, DriverError>) {
    assert!(
        matches!(result, Err(DriverError::Gone { .. })),
        "{result:?}"
    );
}

#[test]
fn a_lock_excludes_other_sessions_until_it_is_given_back() {
    on_both(|server| async move {
        let (a, b, key) = (server.session().await, server.session().await, fresh_key());
        assert!(a.try_lock(&key, Mode::Exclusive).await.unwrap());
        assert!(!b.try_lock(&key, Mode::Exclusive).await.unwrap());
        assert!(!b.unlock(&key, Mode::Exclusive).await.unwrap());
        assert!(a.unlock(&key, Mode::Exclusive).await.unwrap());
        assert!(!a.unlock(&key, Mode::Exclusive).await.unwrap());
        assert!(b.try_lock(&key, Mode::Exclusive).await.unwrap());
    });
}

#[test]
fn a_shared_lock_is_refused() {
    on_both(|server| async move {
        assert!(!server.driver().has_shared_mode());
        let error = server
            .session()
            .await
            .try_lock(&fresh_key(), Mode::Shared)
            .await
            .unwrap_err();
        let DriverError::Refused { message, .. } = error else {
            panic!("{error:?}")
        };
        assert!(message.contains("no shared mode"), "{message}");
    });
}

#[test]
fn operations_of_one_session_wait_for_their_turn() {
    on_both(|server| async move {
        let session = server.session().await;
        let keys: Vec<_> = (0..50).map(|_| fresh_key()).collect();
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
    on_both(|server| async move {
        let (a, b, key) = (server.session().await, server.session().await, fresh_key());
        assert!(a.try_lock(&key, Mode::Exclusive).await.unwrap());
        a.close();
        assert_eq!(&*a.closed().await, "closed by this process");
        assert_eq!(
            b.wait_lock(&key, Mode::Exclusive, LONG).await.unwrap(),
            Wait::Granted
        );
        assert_gone(&a.try_lock(&key, Mode::Exclusive).await);
    });
}

/// No task of the driver has to run for it: the runtime stands still.
#[test]
fn a_dropped_session_frees_its_locks_without_its_runtime() {
    for server in SERVERS {
        let runtime = || {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap()
        };
        let (stopped, other) = (runtime(), runtime());
        let key = fresh_key();
        let a = stopped.block_on(server.session());
        assert!(stopped.block_on(a.try_lock(&key, Mode::Exclusive)).unwrap());
        // Inside the runtime, where the driver's own clean-up would start a task.
        stopped.block_on(async move { drop(a) });
        let granted = other.block_on(async {
            server
                .session()
                .await
                .wait_lock(&key, Mode::Exclusive, LONG)
                .await
        });
        assert_eq!(granted.unwrap(), Wait::Granted);
    }
}

#[test]
fn a_killed_session_is_seen_at_the_next_statement() {
    on_both(|server| async move {
        let (a, b, key) = (server.session().await, server.session().await, fresh_key());
        assert!(a.try_lock(&key, Mode::Exclusive).await.unwrap());
        let kill = format!("KILL {}", a.facts.id);
        b.slot.run(move |conn| conn.query_drop(kill)).await.unwrap();
        assert_eq!(
            b.wait_lock(&key, Mode::Exclusive, LONG).await.unwrap(),
            Wait::Granted
        );
        assert_gone(&a.check().await);
        a.closed().await;
        assert_gone(&a.unlock(&key, Mode::Exclusive).await);
    });
}

#[test]
fn the_holder_is_named() {
    on_both(|server| async move {
        let (a, b, key) = (server.session().await, server.session().await, fresh_key());
        assert_eq!(b.holder(&key, &[]).await.unwrap(), None);
        assert!(a.try_lock(&key, Mode::Exclusive).await.unwrap());
        let holder = b.holder(&key, &[]).await.unwrap().expect("a holder");
        assert_eq!(holder.session, i64::try_from(a.facts.id).ok());
        assert!(!holder.this_process);
        let user: String = one(&a, "SELECT SUBSTRING_INDEX(USER(), '@', 1)").await;
        let client = holder.client.expect("the user and the address");
        assert!(client.starts_with(&format!("{user}@")), "{client}");
        // MariaDB keeps the attributes only where its performance schema is switched on.
        if one::<i64>(&a, "SELECT @@GLOBAL.performance_schema").await == 1 {
            // With TLS they do not arrive: the driver announces them only after the request for TLS, whose
            // announcement is the one that counts.
            let tls = "SELECT variable_value FROM performance_schema.session_status WHERE variable_name = 'Ssl_version'";
            let is_plain = one::<String>(&a, tls).await.is_empty();
            let program = format!("dlock driver tests (process {})", std::process::id());
            assert_eq!(holder.program, is_plain.then_some(program));
        }
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
fn the_others_who_wait_are_counted_where_the_server_names_their_lock() {
    on_both(|server| async move {
        let (a, b, c) = (
            server.session().await,
            server.session().await,
            server.session().await,
        );
        let key = fresh_key();
        let (elsewhere, other_key) = (server.session().await, fresh_key());
        assert!(c.try_lock(&other_key, Mode::Exclusive).await.unwrap());
        assert!(a.try_lock(&key, Mode::Exclusive).await.unwrap());
        let wait = b.wait_lock(&key, Mode::Exclusive, LONG);
        let other_wait = elsewhere.wait_lock(&other_key, Mode::Exclusive, LONG);
        let asked = async {
            until_waiting(&a, b.facts.id).await;
            until_waiting(&a, elsewhere.facts.id).await;
            let all = c.holder(&key, &[]).await.unwrap().expect("a holder");
            let others = c.holder(&key, &[b.id(), c.id()]).await.unwrap();
            assert!(a.unlock(&key, Mode::Exclusive).await.unwrap());
            assert!(c.unlock(&other_key, Mode::Exclusive).await.unwrap());
            (all.waiting, others.expect("a holder").waiting)
        };
        let (granted, other, waiting) = futures_util::join!(wait, other_wait, asked);
        assert_eq!(granted.unwrap(), Wait::Granted);
        assert_eq!(other.unwrap(), Wait::Granted);
        let told = match server.flavor {
            Flavor::MySql => (Some(1), Some(0)),
            Flavor::MariaDb => (None, None),
        };
        assert_eq!(waiting, told);
    });
}

#[test]
fn b4_a_session_that_does_not_hold_the_lock_is_not_killed() {
    on_both(|server| async move {
        let (a, b, key) = (server.session().await, server.session().await, fresh_key());
        assert!(!a.kill(b.id(), &key).await.unwrap());
        assert!(a.try_lock(&key, Mode::Exclusive).await.unwrap());
        assert!(!a.kill(b.id(), &key).await.unwrap(), "another holds it");
        assert!(a.unlock(&key, Mode::Exclusive).await.unwrap());
        b.check().await.expect("still there");
        assert!(b.try_lock(&key, Mode::Exclusive).await.unwrap());
        assert!(a.kill(b.id(), &key).await.unwrap());
        assert!(b.check().await.is_err());
        assert!(!a.kill(b.id(), &key).await.unwrap(), "it has ended");
    });
}
