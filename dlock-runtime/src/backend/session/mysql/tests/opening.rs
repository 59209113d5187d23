//! Sessions that cannot be opened: which of the reasons it is.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use mysql_async::OptsBuilder;
use mysql_async::prelude::Queryable;

use super::{MySqlDriver, SERVERS, Server, SessionSettings, on_both, one, settings};
use crate::backend::session::driver::{ConnectError, Driver, Session};
use crate::backend::session::mysql::settings::Flavor;
use crate::endpoint::{MySqlEndpoint, MySqlPlace};
use crate::tls;

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

/// As behind a pooler that changes settings, each of them alone.
#[test]
fn s1_a_setting_that_the_session_does_not_have_is_unsafe() {
    on_both(|server| async move {
        let statement_limit = match server.flavor {
            Flavor::MySql => "SESSION max_execution_time",
            Flavor::MariaDb => "SESSION max_statement_time",
        };
        let limited = format!("{statement_limit} = 0");
        let still_limited = format!("{statement_limit}=999");
        for (sent, arrives, reason) in [
            (
                "SESSION wait_timeout = 30",
                "SESSION wait_timeout = 31",
                "wait_timeout stayed 31 s when set to 30 s",
            ),
            (&*limited, &*still_limited, "cannot be set to 0"),
            (
                "SESSION autocommit = 1",
                "SESSION autocommit = 0",
                "autocommit stayed off",
            ),
            // A function that answers with 0.
            ("GET_LOCK(", "LOCATE  (", "random name"),
        ] {
            let port = rewriting(server, sent, arrives);
            let place = MySqlPlace::Tcp {
                host: "127.0.0.1".to_owned(),
                port,
            };
            let opts = OptsBuilder::from_opts(server.endpoint().opts).socket(None::<String>);
            let plain = tls::Settings {
                mode: tls::Mode::Disable,
                ..tls::Settings::default()
            };
            let endpoint = MySqlEndpoint::new(opts, place, plain);
            let Err(error) = MySqlDriver::new(endpoint, settings()).connect().await else {
                panic!("{server:?} {sent}: the session was opened")
            };
            let ConnectError::Unsafe { reason: told, .. } = &error else {
                panic!("{server:?} {sent}: {error:?}")
            };
            assert!(told.contains(reason), "{server:?} {sent}: {told}");
        }
    });
}

/// A port that leads one connection to the server, on which some words of the client arrive as others of the same length.
fn rewriting(server: Server, sent: &str, arrives: &str) -> u16 {
    assert_eq!(sent.len(), arrives.len(), "packets keep their length");
    let (sent, arrives) = (sent.to_owned(), arrives.to_owned());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let opts = server.endpoint().opts;
    let upstream = (opts.ip_or_hostname().to_owned(), opts.tcp_port());
    thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let mut server = TcpStream::connect(upstream).unwrap();
        let (mut answers, mut back) = (server.try_clone().unwrap(), client.try_clone().unwrap());
        thread::spawn(move || {
            let _ = std::io::copy(&mut answers, &mut back);
            let _ = back.shutdown(Shutdown::Both);
        });
        let mut packet = [0; 1 << 14];
        while let Ok(length @ 1..) = client.read(&mut packet) {
            let packet = &mut packet[..length];
            let found = packet
                .windows(sent.len())
                .position(|words| words == sent.as_bytes());
            if let Some(at) = found {
                packet[at..at + sent.len()].copy_from_slice(arrives.as_bytes());
            }
            if server.write_all(packet).is_err() {
                break;
            }
        }
        let _ = server.shutdown(Shutdown::Both);
    });
    port
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
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
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
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
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
