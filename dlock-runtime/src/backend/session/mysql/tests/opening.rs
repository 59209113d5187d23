//! Sessions that cannot be opened: which of the reasons it is.

use std::time::{Duration, Instant};

use mysql_async::OptsBuilder;
use mysql_async::prelude::Queryable;

use super::{MySqlDriver, SERVERS, Server, SessionSettings, on_both, one, settings};
use crate::backend::session::driver::{ConnectError, Driver, Session};
use crate::backend::session::mysql::settings::Flavor;

async fn refused(
    server: Server,
    change: impl FnOnce(OptsBuilder) -> OptsBuilder,
    settings: SessionSettings,
) -> ConnectError {
    let mut endpoint = server.endpoint();
    endpoint.opts = change(OptsBuilder::from_opts(endpoint.opts)).into();
    match MySqlDriver::new(endpoint, settings).connect().await {
        Ok(_) => panic!("the session was opened"),
        Err(error) => error,
    }
}

fn elsewhere(opts: OptsBuilder, port: u16) -> OptsBuilder {
    opts.socket(None::<String>)
        .ip_or_hostname("127.0.0.1")
        .tcp_port(port)
}

#[test]
fn the_server_says_what_it_is() {
    on_both(|server| async move {
        let session = server.session().await;
        let version: String = one(&session, "SELECT VERSION()").await;
        let (name, number) = session
            .server()
            .split_once(' ')
            .expect("a name and a version");
        assert_eq!(session.facts.flavor, server.flavor);
        assert_eq!(
            name,
            if server.flavor == Flavor::MySql {
                "MySQL"
            } else {
                "MariaDB"
            }
        );
        assert!(version.starts_with(number), "{version}");
    });
}

#[test]
fn an_unknown_database_is_a_refused_login() {
    on_both(|server| async move {
        let change = |opts: OptsBuilder| opts.db_name(Some("dlock_no_such_database"));
        let error = refused(server, change, settings()).await;
        assert!(
            matches!(error, ConnectError::LoginRefused { .. }),
            "{error:?}"
        );
    });
}

#[test]
fn a_wrong_password_is_a_refused_login_and_is_not_shown() {
    on_both(|server| async move {
        let change = |opts: OptsBuilder| opts.user(Some("dlock_nobody")).pass(Some("hunter2"));
        let error = refused(server, change, settings()).await;
        let ConnectError::LoginRefused { .. } = &error else {
            panic!("{error:?}")
        };
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    });
}

#[test]
fn a_full_account_has_too_many_connections() {
    on_both(|server| async move {
        let admin = Server {
            variable: server.admin,
            ..server
        };
        let admin = admin.session().await;
        let user = format!("dlock_{:08x}", fastrand::u32(..));
        let create =
            format!("CREATE USER {user}@'%' IDENTIFIED BY 'p' WITH MAX_USER_CONNECTIONS 1");
        admin
            .slot
            .run(move |conn| conn.query_drop(create))
            .await
            .unwrap();
        let mut endpoint = server.endpoint();
        endpoint.opts = OptsBuilder::from_opts(endpoint.opts)
            .user(Some(&*user))
            .pass(Some("p"))
            .db_name(None::<String>)
            .into();
        let driver = MySqlDriver::new(endpoint, settings());
        let first = driver.connect().await;
        let second = driver.connect().await.err();
        let drop_user = format!("DROP USER {user}@'%'");
        admin
            .slot
            .run(move |conn| conn.query_drop(drop_user))
            .await
            .unwrap();
        assert!(first.is_ok(), "{:?}", first.err());
        assert!(
            matches!(second, Some(ConnectError::TooMany { .. })),
            "{second:?}"
        );
    });
}

#[test]
fn a_port_without_a_server_is_unreachable() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    on_both(|server| async move {
        let change = |opts: OptsBuilder| elsewhere(opts, port);
        let error = refused(server, change, settings()).await;
        assert!(
            matches!(error, ConnectError::Unreachable { .. }),
            "{error:?}"
        );
    });
}

#[test]
fn a_server_that_never_answers_is_unreachable_after_the_time_out() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let connect_timeout = Duration::from_millis(100);
    on_both(|server| async move {
        let change = |opts: OptsBuilder| elsewhere(opts, port);
        let settings = SessionSettings {
            connect_timeout,
            ..settings()
        };
        let start = Instant::now();
        let error = refused(server, change, settings).await;
        assert!(start.elapsed() >= connect_timeout);
        let ConnectError::Unreachable { reason, .. } = error else {
            panic!("{error:?}")
        };
        assert!(reason.contains("100ms"), "{reason}");
    });
}

#[test]
fn keys_of_different_namespaces_have_different_names() {
    for server in SERVERS {
        let mut other = server.driver();
        other.settings.namespace = "another".into();
        assert_ne!(server.driver().server_key("a"), other.server_key("a"));
    }
}
