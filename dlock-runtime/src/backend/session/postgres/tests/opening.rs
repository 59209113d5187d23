//! Sessions that cannot be opened: which of the reasons it is.

use std::time::{Duration, Instant};

use super::{PostgresDriver, endpoint, run, session, settings};
use crate::backend::session::driver::{ConnectError, Driver, Session};
use crate::backend::session::postgres::errors;

async fn refused(change: impl FnOnce(&mut tokio_postgres::Config)) -> ConnectError {
    let mut endpoint = endpoint();
    change(&mut endpoint.config);
    let settings = super::SessionSettings {
        connect_timeout: Duration::from_secs(5),
        ..settings()
    };
    match PostgresDriver::new(endpoint, settings).connect().await {
        Ok(_) => panic!("the session was opened"),
        Err(error) => error,
    }
}

#[test]
fn the_server_says_what_it_is() {
    run(async {
        let session = session().await;
        let version = super::text(&session, "SELECT current_setting('server_version')").await;
        let (name, number) = session
            .server()
            .split_once(' ')
            .expect("a name and a version");
        assert_eq!(name, "PostgreSQL");
        assert!(version.starts_with(number), "{version}");
    });
}

#[test]
fn an_unknown_database_is_a_refused_login() {
    run(async {
        let error = refused(|config| {
            config.dbname("dlock_no_such_database");
        });
        let error = error.await;
        assert!(
            matches!(error, ConnectError::LoginRefused { .. }),
            "{error:?}"
        );
    });
}

#[test]
fn an_unknown_user_is_a_refused_login_and_the_password_is_not_shown() {
    run(async {
        let error = refused(|config| {
            config.user("dlock_nobody").password("hunter2");
        });
        let error = error.await;
        assert!(
            matches!(error, ConnectError::LoginRefused { .. }),
            "{error:?}"
        );
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    });
}

#[test]
fn a_driver_that_cannot_log_in_is_a_refused_login() {
    run(async {
        let error = tokio_postgres::Config::new()
            .connect(tokio_postgres::NoTls)
            .await
            .err();
        let error = errors::connecting(error.expect("no host was given"));
        assert!(
            matches!(error, ConnectError::LoginRefused { .. }),
            "{error:?}"
        );
    });
}

#[test]
fn a_full_server_has_too_many_connections() {
    run(async {
        let admin = super::endpoint_of("DLOCK_TEST_POSTGRES_ADMIN_URL");
        let admin = PostgresDriver::new(admin, settings())
            .connect()
            .await
            .unwrap();
        let role = format!("dlock_test_{:016x}", fastrand::u64(..));
        let create = format!("CREATE ROLE {role} LOGIN PASSWORD 'p' CONNECTION LIMIT 0");
        admin.client.batch_execute(&create).await.unwrap();
        let error = refused(|config| {
            config.user(&role).password("p");
        });
        let error = error.await;
        admin
            .client
            .batch_execute(&format!("DROP ROLE {role}"))
            .await
            .unwrap();
        assert!(matches!(error, ConnectError::TooMany { .. }), "{error:?}");
    });
}

#[test]
fn a_port_without_a_server_is_unreachable() {
    run(async {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let error = PostgresDriver::new(elsewhere(port), settings())
            .connect()
            .await
            .err();
        assert!(
            matches!(error, Some(ConnectError::Unreachable { .. })),
            "{error:?}"
        );
    });
}

#[test]
fn a_server_that_never_answers_is_unreachable_after_the_time_out() {
    run(async {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = elsewhere(listener.local_addr().unwrap().port());
        let connect_timeout = Duration::from_millis(100);
        let settings = super::SessionSettings {
            connect_timeout,
            ..settings()
        };
        let start = Instant::now();
        let error = PostgresDriver::new(endpoint, settings)
            .connect()
            .await
            .err();
        assert!(start.elapsed() >= connect_timeout);
        let Some(ConnectError::Unreachable { reason, .. }) = error else {
            panic!("{error:?}")
        };
        assert!(reason.contains("100ms"), "{reason}");
    });
}

fn elsewhere(port: u16) -> crate::endpoint::PostgresEndpoint {
    super::endpoint_at(&format!(
        "postgres://nobody@127.0.0.1:{port}/postgres?sslmode=disable"
    ))
}
