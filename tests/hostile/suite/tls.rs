//! TLS as each mode promises it, against real servers with certificates of a private authority, and against those who
//! stand between.

mod authority;
mod clients;
mod downgrade;
mod modes;
mod passwords;

use dlock::{InitError, Locker};
use xtask::servers::{Kind, Server};

use crate::place::{SOON, admin, connect, dsn};

/// The steps from no TLS to all of it, in the words of each database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Disable,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

impl Step {
    pub(crate) const ALL: [Step; 5] = [
        Step::Disable,
        Step::Prefer,
        Step::Require,
        Step::VerifyCa,
        Step::VerifyFull,
    ];

    fn verifies(self) -> bool {
        matches!(self, Step::VerifyCa | Step::VerifyFull)
    }

    /// The options of a DSN; `authority` is the file of the only authority to trust.
    fn options(self, kind: Kind, authority: &str) -> String {
        let (name, word) = match (kind, self) {
            (Kind::Postgres, Step::Disable) => ("sslmode", "disable"),
            (Kind::Postgres, Step::Prefer) => ("sslmode", "prefer"),
            (Kind::Postgres, Step::Require) => ("sslmode", "require"),
            (Kind::Postgres, Step::VerifyCa) => ("sslmode", "verify-ca"),
            (Kind::Postgres, Step::VerifyFull) => ("sslmode", "verify-full"),
            (_, Step::Disable) => ("ssl-mode", "DISABLED"),
            (_, Step::Prefer) => ("ssl-mode", "PREFERRED"),
            (_, Step::Require) => ("ssl-mode", "REQUIRED"),
            (_, Step::VerifyCa) => ("ssl-mode", "VERIFY_CA"),
            (_, Step::VerifyFull) => ("ssl-mode", "VERIFY_IDENTITY"),
        };
        let file = match kind {
            Kind::Postgres => "sslrootcert",
            _ => "ssl-ca",
        };
        if self.verifies() {
            format!("{name}={word}&{file}={authority}")
        } else {
            format!("{name}={word}")
        }
    }
}

/// Connects, takes a lock, and tells whether the connections had TLS.
fn lock_over(server: &Server, dsn: &str) -> Result<bool, InitError> {
    let before = handshakes(server);
    let locker = connect(dsn)?;
    let guard = locker.lock("over TLS").try_acquire_blocking();
    let has_tls = match server.kind() {
        Kind::Postgres => sessions_with_tls(server) > 0,
        Kind::MariaDb | Kind::MySql => handshakes(server) > before,
    };
    finish(&locker, guard.expect("a lock").expect("free"));
    Ok(has_tls)
}

fn finish(locker: &Locker, guard: dlock::Guard) {
    guard.release_blocking().expect("held to the end");
    locker.shutdown_blocking(SOON);
}

/// How many handshakes the server has done.
fn handshakes(server: &Server) -> u64 {
    if server.kind() == Kind::Postgres {
        return 0;
    }
    let rows = admin(server, "SHOW GLOBAL STATUS LIKE 'Ssl_finished_accepts'");
    let number = rows
        .first()
        .and_then(|row| row.get(1)?.as_deref()?.parse().ok());
    number.expect("the server counts them")
}

/// PostgreSQL's sessions with TLS; the administrator's own are without.
fn sessions_with_tls(server: &Server) -> u64 {
    let rows = admin(server, "SELECT count(*) FROM pg_stat_ssl WHERE ssl");
    rows[0][0]
        .as_deref()
        .and_then(|number| number.parse().ok())
        .expect("a number")
}

/// The application's account by TCP, under the name or address `host`.
fn app(server: &Server, host: &str, options: &str) -> String {
    dsn(
        server,
        host,
        xtask::servers::USER,
        xtask::servers::DATABASE,
        options,
    )
}

/// Fails unless the error is a refusal that has all the words in its message.
fn assert_refused(outcome: Result<bool, InitError>, words: &[&str], case: &str) {
    let error = match outcome {
        Ok(has_tls) => panic!("{case}: let in (TLS: {has_tls})"),
        Err(error) => error.to_string(),
    };
    println!("{case}: {error}");
    for word in words {
        assert!(error.contains(word), "{case}: {error} lacks {word}");
    }
}
