//! What the tests have in common: a server of their own, its accounts, and messages that keep secrets.

use std::error::Error as StdError;
use std::time::{Duration, Instant};

use dlock::{Config, InitError, Locker};
use xtask::servers::{self, Kind, PASSWORD, Row, Server};

/// How long anything that must happen may take on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// [`PASSWORD`], as it stands in a DSN.
pub(crate) const ENCODED: &str = "secret%2Fword";

/// Asks the server as its administrator.
pub(crate) fn admin(server: &Server, sql: &str) -> Vec<Row> {
    servers::rows(&server.admin_url(), sql).expect("the administrator may")
}

/// Creates an account with [`PASSWORD`] and no right at all; `how` is what the database calls its conditions.
pub(crate) fn create_account(server: &Server, name: &str, how: &str) {
    let sql = match server.kind() {
        Kind::Postgres => format!("CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'"),
        Kind::MariaDb | Kind::MySql => {
            format!("CREATE USER '{name}'@'%' IDENTIFIED BY '{PASSWORD}' {how}")
        }
    };
    admin(server, &sql);
}

/// A DSN by TCP.
pub(crate) fn dsn(
    server: &Server,
    host: &str,
    account: &str,
    database: &str,
    query: &str,
) -> String {
    let scheme = match server.kind() {
        Kind::Postgres => "postgres",
        Kind::MariaDb | Kind::MySql => "mysql",
    };
    let port = server.address().port();
    format!("{scheme}://{account}:{ENCODED}@{host}:{port}/{database}?{query}")
}

/// Connects; an error has been seen to keep its secrets.
pub(crate) fn connect(dsn: &str) -> Result<Locker, InitError> {
    let connected = Config::from_dsn(dsn).and_then(Locker::connect_blocking);
    if let Err(error) = &connected {
        assert_silent(error);
    }
    connected
}

/// Fails when an error, or one behind it, shows the password.
pub(crate) fn assert_silent(error: &(dyn StdError + 'static)) {
    let mut next = Some(error);
    while let Some(error) = next {
        let shown = format!("{error}\n{error:?}");
        assert!(
            !shown.contains(PASSWORD) && !shown.contains(ENCODED),
            "the password is in {shown}"
        );
        next = error.source();
    }
}

/// Waits until something is so; it has to become so soon.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < SOON, "not within {SOON:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// How many sessions of an account wait in the server's queue for a lock.
pub(crate) fn waiters(server: &Server, account: &str) -> usize {
    match server.kind() {
        Kind::Postgres => admin(
            server,
            &format!(
                "SELECT pid FROM pg_locks JOIN pg_stat_activity USING (pid)
                 WHERE locktype = 'advisory' AND NOT granted AND usename = '{account}'"
            ),
        )
        .len(),
        Kind::MariaDb | Kind::MySql => admin(server, "SHOW FULL PROCESSLIST")
            .iter()
            .filter(|row| {
                row.get(1) == Some(&Some(account.to_owned()))
                    && row.get(6) == Some(&Some("User lock".to_owned()))
            })
            .count(),
    }
}

/// Runs the same test on every kind of server.
macro_rules! on_every_server {
    ($($test:ident => $body:ident;)*) => {
        $(mod $test {
            #[test]
            fn postgres() {
                super::$body(&mut ::xtask::servers::Server::start(::xtask::servers::Kind::Postgres).expect("a server"));
            }

            #[test]
            fn mariadb() {
                super::$body(&mut ::xtask::servers::Server::start(::xtask::servers::Kind::MariaDb).expect("a server"));
            }

            #[test]
            fn mysql() {
                super::$body(&mut ::xtask::servers::Server::start(::xtask::servers::Kind::MySql).expect("a server"));
            }
        })*
    };
}
pub(crate) use on_every_server;
