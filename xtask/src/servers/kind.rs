//! The kinds of servers, and what tests may know of their accounts.

use std::{env, fmt, path::Path};

use anyhow::{Context, Result};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};

/// The account of an ordinary application: it owns [`DATABASE`] and has no other privilege.
///
/// That suffices to see and to end the sessions of the same account; anything else is for the administrator.
pub const USER: &str = "dlock";
/// The password of both accounts. It needs percent-encoding, so that every test with a URL covers that.
pub const PASSWORD: &str = "secret/word";
/// The database of the application.
pub const DATABASE: &str = "dlock";

/// A kind of server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// PostgreSQL.
    Postgres,
    /// MariaDB.
    MariaDb,
    /// Oracle MySQL.
    MySql,
}

impl Kind {
    /// Every kind; a test that covers all servers loops over this.
    pub const ALL: [Self; 3] = [Self::Postgres, Self::MariaDb, Self::MySql];

    /// The environment variable with the URL of the application's account.
    pub fn url_variable(self) -> &'static str {
        match self {
            Self::Postgres => "DLOCK_TEST_POSTGRES_URL",
            Self::MariaDb => "DLOCK_TEST_MARIADB_URL",
            Self::MySql => "DLOCK_TEST_MYSQL_URL",
        }
    }

    /// The environment variable with the URL of the administrator's account.
    pub fn admin_url_variable(self) -> &'static str {
        match self {
            Self::Postgres => "DLOCK_TEST_POSTGRES_ADMIN_URL",
            Self::MariaDb => "DLOCK_TEST_MARIADB_ADMIN_URL",
            Self::MySql => "DLOCK_TEST_MYSQL_ADMIN_URL",
        }
    }

    /// The environment variable with the URL of the application's account by the Unix socket.
    ///
    /// Only the project's own servers have one.
    pub fn socket_url_variable(self) -> &'static str {
        match self {
            Self::Postgres => "DLOCK_TEST_POSTGRES_SOCKET_URL",
            Self::MariaDb => "DLOCK_TEST_MARIADB_SOCKET_URL",
            Self::MySql => "DLOCK_TEST_MYSQL_SOCKET_URL",
        }
    }

    /// The URL that the environment names for this kind, if any.
    pub fn external_url(self) -> Option<String> {
        env::var(self.url_variable())
            .ok()
            .filter(|url| !url.is_empty())
    }

    /// The URL of the server that this test run uses.
    ///
    /// # Errors
    ///
    /// When the environment names none. A test must fail then: a server that is missing is never skipped.
    pub fn url(self) -> Result<String> {
        self.external_url().with_context(|| {
            format!(
                "no {self} to test against: {} is not set; run the tests with `cargo xtask test`, \
                 or start the servers with `cargo xtask servers up` and set what `cargo xtask servers env` prints",
                self.url_variable()
            )
        })
    }

    /// The administrator's URL of the server that this test run uses; the ordinary URL where none is set.
    ///
    /// # Errors
    ///
    /// As [`Kind::url`].
    pub fn admin_url(self) -> Result<String> {
        match env::var(self.admin_url_variable()) {
            Ok(url) if !url.is_empty() => Ok(url),
            _ => self.url(),
        }
    }

    /// Whether a version that [`super::version`] returned is one of this kind.
    pub(crate) fn is_named_by(self, version: &str) -> bool {
        version.starts_with(match self {
            Self::Postgres => "PostgreSQL ",
            Self::MariaDb => "MariaDB ",
            Self::MySql => "MySQL ",
        })
    }

    /// The name in file names and on the command line.
    pub(crate) fn id(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::MariaDb => "mariadb",
            Self::MySql => "mysql",
        }
    }

    /// The administrator's account.
    pub(crate) fn admin(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::MariaDb | Self::MySql => "root",
        }
    }

    pub(crate) fn tcp_url(self, user: &str, port: u16) -> String {
        let password = utf8_percent_encode(PASSWORD, NON_ALPHANUMERIC);
        format!(
            "{}://{user}:{password}@127.0.0.1:{port}/{DATABASE}",
            self.id()
        )
    }

    pub(crate) fn socket_url(self, user: &str, run: &Path, port: u16) -> String {
        let password = utf8_percent_encode(PASSWORD, NON_ALPHANUMERIC);
        let run = run.to_string_lossy();
        let path = utf8_percent_encode(&run, NON_ALPHANUMERIC);
        match self {
            Self::Postgres => format!("postgres://{user}:{password}@{path}:{port}/{DATABASE}"),
            Self::MariaDb | Self::MySql => {
                format!(
                    "{}://{user}:{password}@localhost/{DATABASE}?socket={path}%2Fs",
                    self.id()
                )
            }
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Postgres => "PostgreSQL",
            Self::MariaDb => "MariaDB",
            Self::MySql => "Oracle MySQL",
        })
    }
}
