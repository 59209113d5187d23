//! What every session of ours asks of MySQL or MariaDB before its first lock, and what it reads back.

use std::collections::HashMap;
use std::sync::Arc;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, Row};

use super::{column, errors};
use crate::backend::session::driver::{ConnectError, DriverError, SessionSettings};
use crate::hazard::{Hazard, Hazards};

const DIRECT: &str = "connect to a writable MySQL (5.7.8 or newer) or MariaDB (10.1.1 or newer) server \
    that is not a node of a Galera cluster, or keep the locks as rows with strategy=lease";

/// The beginning of the names of sentinels.
pub(super) const SENTINEL: &str = "dlock-sentinel:";

/// Which of the two servers it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flavor {
    MySql,
    MariaDb,
}

/// What a session is, as it was when it was opened.
pub(super) struct Facts {
    pub(super) flavor: Flavor,
    /// `CONNECTION_ID()`.
    pub(super) id: u64,
    /// The number that the handshake gave.
    pub(super) told: u32,
    /// Which server it is, in its own words.
    pub(super) identity: String,
    /// The values of the variables that make a server read-only.
    pub(super) role: String,
    /// The named lock that tells whether the session still has its locks.
    pub(super) sentinel: String,
    /// The heartbeat: connection, identity, role, and the sentinel's holder. Its cost does not grow with the locks.
    pub(super) check: Arc<str>,
    pub(super) server: String,
    /// What is wrong with the server, and allowed.
    pub(super) hazards: Vec<Hazard>,
}

/// Sets the session up, and reads back what the server has made of it.
pub(super) async fn apply(
    conn: &mut Conn,
    settings: &SessionSettings,
) -> Result<Facts, ConnectError> {
    let limit = settings.limit.as_secs().max(1);
    let variables = Variables::read(conn).await.map_err(refused)?;
    let (flavor, server) = variables.judge()?;
    let hazards = variables.hazards(&server, &settings.allowed)?;
    let statement_limit = match flavor {
        Flavor::MySql => "max_execution_time",
        Flavor::MariaDb => "max_statement_time",
    };
    // `autocommit`: a session that keeps locks must not keep a transaction.
    conn.query_drop(format!(
        "SET SESSION wait_timeout = {limit}, SESSION {statement_limit} = 0, SESSION autocommit = 1"
    ))
    .await
    .map_err(refused)?;

    let identity = variables.identity();
    let role = variables.present(&["read_only", "super_read_only", "innodb_read_only"]);
    let facts = format!("CONNECTION_ID(), {identity}, CONCAT_WS('/', {role})");
    let sentinel = format!("{SENTINEL}{:032x}", fastrand::u128(..));
    let row: Row = conn
        .query_first(format!(
            "SELECT {facts}, @@SESSION.wait_timeout, @@SESSION.{statement_limit} = 0, \
             @@SESSION.autocommit = 1, GET_LOCK('{sentinel}', 0)"
        ))
        .await
        .map_err(refused)?
        .ok_or_else(|| refusal("no row for the settings of the session".to_owned()))?;
    let wait_timeout: u64 = get(&row, 3)?;
    let unlimited: i64 = get(&row, 4)?;
    let autocommit: i64 = get(&row, 5)?;
    let held: i64 = get(&row, 6)?;
    if wait_timeout != limit {
        return Err(refusal(format!(
            "wait_timeout stayed {wait_timeout} s when set to {limit} s"
        )));
    }
    if unlimited != 1 {
        return Err(refusal(format!(
            "the server kept a limit on our session: {statement_limit} cannot be set to 0"
        )));
    }
    if autocommit != 1 {
        return Err(refusal(
            "autocommit stayed off when set to 1: our session would keep a transaction open"
                .to_owned(),
        ));
    }
    if held != 1 {
        return Err(refusal(
            "a lock under a random name, which nobody can hold, was not granted".to_owned(),
        ));
    }
    Ok(Facts {
        flavor,
        id: get(&row, 0)?,
        told: conn.id(),
        identity: get(&row, 1)?,
        role: get(&row, 2)?,
        sentinel,
        check: format!("SELECT {facts}, IS_USED_LOCK(?)").into(),
        server,
        hazards,
    })
}

/// Which server a connection of somebody else's is on, as [`Facts::identity`] has it.
pub(crate) async fn identity<Q: Queryable>(conn: &mut Q) -> Result<Option<String>, DriverError> {
    let asked = async {
        let identity = Variables::read(conn).await?.identity();
        conn.query_first(format!("SELECT {identity}")).await
    };
    asked.await.map_err(errors::statement)
}

/// Those of the variables that this server has.
struct Variables(HashMap<String, String>);

impl Variables {
    /// `SHOW` leaves out what does not exist, where `SELECT @@name` fails.
    async fn read<Q: Queryable>(conn: &mut Q) -> Result<Self, Error> {
        let rows: Vec<(String, String)> = conn
            .query(
                "SHOW VARIABLES WHERE Variable_name IN ('version', 'version_comment', 'wsrep_on',
                    'server_uuid', 'server_uid', 'server_id', 'hostname', 'port',
                    'read_only', 'super_read_only', 'innodb_read_only')",
            )
            .await?;
        Ok(Variables(
            rows.into_iter()
                .map(|(name, value)| (name.to_ascii_lowercase(), value))
                .collect(),
        ))
    }

    fn get(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    /// Those of the names that exist, as the arguments of a function.
    fn present(&self, names: &[&str]) -> String {
        let present: Vec<_> = names
            .iter()
            .filter(|name| self.0.contains_key(**name))
            .map(|name| format!("@@GLOBAL.{name}"))
            .collect();
        if present.is_empty() {
            "''".to_owned()
        } else {
            present.join(", ")
        }
    }

    /// Which server it is, in SQL.
    fn identity(&self) -> String {
        let parts = self.present(&["server_uuid", "server_uid", "server_id", "hostname", "port"]);
        format!("CONCAT_WS('/', {parts})")
    }

    /// What the server is, if it is one that can keep our locks.
    fn judge(&self) -> Result<(Flavor, String), ConnectError> {
        let version = self.get("version");
        let maria = [version, self.get("version_comment")]
            .iter()
            .any(|text| text.to_ascii_lowercase().contains("mariadb"));
        let number = version.split('-').next().unwrap_or(version);
        // Where the session's limits on statements came; older ones also kept only one named lock a session.
        let (flavor, name, oldest) = if maria {
            (Flavor::MariaDb, "MariaDB", [10, 1, 1])
        } else {
            (Flavor::MySql, "MySQL", [5, 7, 8])
        };
        let server = format!("{name} {number}");
        if numbers(number) < oldest {
            return Err(refusal(format!(
                "{server} is too old for several named locks a session"
            )));
        }
        Ok((flavor, server))
    }

    /// What is wrong with the server and allowed; the first that is not allowed is an error.
    fn hazards(&self, server: &str, allowed: &Hazards) -> Result<Vec<Hazard>, ConnectError> {
        let mut found = Vec::new();
        if is_on(self.get("wsrep_on")) {
            let reason = format!(
                "{server} is a node of a Galera cluster, whose named locks exclude nobody on other nodes"
            );
            found.push((Hazard::Galera, reason));
        }
        let read_only = ["read_only", "super_read_only", "innodb_read_only"];
        if let Some(name) = read_only.iter().find(|name| is_on(self.get(name))) {
            let reason = format!(
                "the server is read-only ({name} = {}), a replica whose locks exclude nobody on the primary",
                self.get(name)
            );
            found.push((Hazard::Standby, reason));
        }
        allowed.accept(found, DIRECT)
    }
}

/// Anything but off: newer MariaDB versions have several kinds of read-only.
fn is_on(value: &str) -> bool {
    !(value.is_empty() || value == "0" || value.eq_ignore_ascii_case("off"))
}

fn numbers(version: &str) -> [u32; 3] {
    let mut numbers = [0; 3];
    for (number, part) in numbers.iter_mut().zip(version.split('.')) {
        *number = part.parse().unwrap_or(0);
    }
    numbers
}

fn get<T: mysql_async::prelude::FromValue>(row: &Row, index: usize) -> Result<T, ConnectError> {
    match column(row, index) {
        Ok(Some(value)) => Ok(value),
        Ok(None) => Err(refusal("NULL for a setting of the session".to_owned())),
        Err(
            DriverError::Gone { reason, source }
            | DriverError::Refused {
                message: reason,
                source,
                ..
            },
        ) => Err(ConnectError::Unreachable { reason, source }),
    }
}

/// The server does not have what session locks need; or the connection broke.
fn refused(error: Error) -> ConnectError {
    match errors::statement(error) {
        DriverError::Refused { code, message, .. } => refusal(format!(
            "the server refused what a session of locks needs: {message} ({code})"
        )),
        DriverError::Gone { reason, source } => ConnectError::Unreachable { reason, source },
    }
}

fn refusal(reason: String) -> ConnectError {
    ConnectError::Unsafe {
        reason,
        remedy: DIRECT.to_owned(),
    }
}
