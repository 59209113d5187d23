//! A connection to MySQL or MariaDB for leases, and what its errors mean.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, DriverError as Local, Error, OptsBuilder};
use tokio::time::timeout;

use super::sql::{Locked, create_table};
use crate::backend::lease::link::{Connection, Opener};
use crate::backend::lease::store::{Answer, StoreError};
use crate::config::TableName;
use crate::endpoint::MySqlEndpoint;
use crate::error::{InitError, InitSource};

/// Opens connections.
pub(super) struct MySqlOpener {
    pub(super) endpoint: MySqlEndpoint,
    pub(super) table: TableName,
    pub(super) connect_timeout: Duration,
}

/// One connection, which carries one statement at a time.
pub(super) struct MySqlConnection {
    conn: tokio::sync::Mutex<Option<Conn>>,
    closed: std::sync::Mutex<bool>,
    pub(super) server: String,
    /// A node of a cluster, whose nodes each have a clock.
    pub(super) is_galera: bool,
    pub(super) locked: Locked,
}

impl Opener for MySqlOpener {
    type Connection = MySqlConnection;

    async fn open(&self) -> Result<MySqlConnection, InitError> {
        let limit = self.connect_timeout;
        match timeout(limit, Box::pin(self.connect())).await {
            Ok(connection) => connection,
            Err(_) => Err(InitError::Unreachable {
                endpoint: self.endpoint.address.to_string(),
                reason: format!("no answer within {limit:?}"),
                source: None,
            }),
        }
    }
}

impl MySqlOpener {
    pub(super) fn new(
        mut endpoint: MySqlEndpoint,
        table: TableName,
        program: &str,
        connect_timeout: Duration,
    ) -> MySqlOpener {
        endpoint.opts = OptsBuilder::from_opts(endpoint.opts)
            .connect_attribute("program_name", program)
            .connect_attribute("_pid", std::process::id().to_string())
            // Otherwise the driver may leave the address that it was given for the path that the server names.
            .prefer_socket(false)
            .max_allowed_packet(Some(1 << 22))
            .into();
        MySqlOpener {
            endpoint,
            table,
            connect_timeout,
        }
    }

    async fn connect(&self) -> Result<MySqlConnection, InitError> {
        let endpoint = &*self.endpoint.address;
        let connected = self.endpoint.connect().await;
        let mut conn = connected.map_err(|error| connecting(endpoint, error))?;
        let rows: Vec<(String, String)> = conn
            .query(
                "SHOW VARIABLES WHERE Variable_name IN ('version', 'version_comment', 'wsrep_on', 'read_only', \
                 'super_read_only', 'innodb_read_only')",
            )
            .await
            .map_err(|error| connecting(endpoint, error))?;
        let value = |name: &str| {
            let found = rows.iter().find(|(other, _)| other == name);
            found.map_or("", |(_, value)| value.as_str())
        };
        for name in ["read_only", "super_read_only", "innodb_read_only"] {
            if matches!(value(name), "ON" | "1") {
                return Err(refused(
                    endpoint,
                    &format!("it is read-only ({name})"),
                    "connect to a server that accepts writes",
                ));
            }
        }
        let is_galera = matches!(value("wsrep_on"), "ON" | "1");
        let version = value("version");
        let number: String = version
            .chars()
            .take_while(|c| c.is_ascii_digit() || *c == '.')
            .collect();
        let product = if version.contains("MariaDB") {
            "MariaDB"
        } else {
            "MySQL"
        };
        // A lock wait is bounded by the shortest time that both servers have. Another level of isolation would lock gaps.
        // A node that is behind would answer old: a lock that was given back elsewhere would be busy, one that was taken elsewhere
        // free in a list, and a lease that was taken through another node lost at its renewal. (Writes wait for nothing: what
        // they change by an old row fails when the cluster puts them in order.)
        let sync = if is_galera {
            ", SESSION wsrep_sync_wait = 1"
        } else {
            ""
        };
        let set = format!(
            "SET SESSION innodb_lock_wait_timeout = 1, SESSION lock_wait_timeout = 5, SESSION autocommit = 1{sync}"
        );
        for statement in [
            &*set,
            "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
        ] {
            conn.query_drop(statement)
                .await
                .map_err(|error| connecting(endpoint, error))?;
        }
        self.ensure(&mut conn).await?;
        Ok(MySqlConnection {
            conn: tokio::sync::Mutex::new(Some(conn)),
            closed: std::sync::Mutex::new(false),
            server: format!("{product} {number}"),
            is_galera,
            locked: if product == "MariaDB" {
                Locked::Refused
            } else {
                Locked::Skipped
            },
        })
    }

    /// Makes sure that the table is there and can be used.
    async fn ensure(&self, conn: &mut Conn) -> Result<(), InitError> {
        let (endpoint, table) = (&*self.endpoint.address, &self.table);
        for _ in 0..5 {
            let Err(error) = self.look(conn).await else {
                return Ok(());
            };
            match code(&error) {
                // There is no such table.
                1146 => {}
                1142 | 1143 => {
                    return Err(refused(
                        endpoint,
                        &format!("the table {table} may not be used: {}", describe(&error)),
                        &format!("GRANT SELECT, INSERT, UPDATE ON {table} to this user"),
                    ));
                }
                1054 if describe(&error).contains("last_run") => {
                    // It is the last one that was looked for: the others are there.
                    return Err(refused(
                        endpoint,
                        &format!(
                            "the table {table} was made by an older version of dlock: it has no column last_run"
                        ),
                        &format!(
                            "let its owner run ALTER TABLE {} ADD COLUMN last_run LONGTEXT \
                             CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NULL",
                            table.quoted('`')
                        ),
                    ));
                }
                1054 => {
                    return Err(refused(
                        endpoint,
                        &format!(
                            "the table {table} is not one of leases: {}",
                            describe(&error)
                        ),
                        "name another table with the option table=…, or drop this one",
                    ));
                }
                _ => return Err(connecting(endpoint, error)),
            }
            // Two who make it at once: it exists, or the one's change has undone the other's.
            if let Err(error) = conn.query_drop(create_table(table)).await
                && !matches!(code(&error), 1050 | 1213)
            {
                return Err(refused(
                    endpoint,
                    &format!(
                        "the table {table} does not exist and cannot be made: {}",
                        describe(&error)
                    ),
                    "let an administrator run the SQL of dlock::lease::mysql_schema, and grant SELECT, INSERT and UPDATE \
                     on the table",
                ));
            }
        }
        Err(refused(
            endpoint,
            &format!("the table {table} could not be made: others make and drop it"),
            "let an administrator run the SQL of dlock::lease::mysql_schema",
        ))
    }
}

impl MySqlOpener {
    /// Looks whether the table has its columns, and whether this user may read and write it: without, only the first lock
    /// would tell. The writes are prepared alone: run, they would wait for whoever maintains the table.
    async fn look(&self, conn: &mut Conn) -> Result<(), Error> {
        let table = self.table.quoted('`');
        let read = format!(
            "SELECT namespace, name, token, owner, program, readers, waiters, acquired_at, expires_at, ttl, version, last_run \
             FROM {table} WHERE false"
        );
        conn.query_drop(read).await?;
        for write in [
            format!("INSERT INTO {table} SELECT * FROM {table}"),
            format!("UPDATE {table} SET version = version WHERE namespace = ''"),
        ] {
            let prepared = conn.prep(write).await?;
            conn.close(prepared).await?;
        }
        Ok(())
    }
}

impl MySqlConnection {
    /// Runs a statement in its turn; one that does not end in time takes the connection with it.
    pub(super) async fn run<T, F>(&self, within: Duration, statement: F) -> Answer<T>
    where
        F: for<'c> FnOnce(&'c mut Conn) -> BoxFuture<'c, Result<T, Error>>,
    {
        let mut slot = self.conn.lock().await;
        // Out of its place while it is used: a future that is dropped half-way takes it along.
        let Some(mut conn) = slot.take() else {
            return Err(gone("the connection is closed"));
        };
        let outcome = match timeout(within, statement(&mut conn)).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(explain(error)),
            Err(_) => Err(gone("the server has stopped answering")),
        };
        if matches!(outcome, Err(StoreError::Gone { .. })) || self.is_closed() {
            quit(conn);
            self.mark_closed();
        } else {
            *slot = Some(conn);
        }
        outcome
    }

    fn mark_closed(&self) {
        *self.closed.lock().unwrap_or_else(PoisonError::into_inner) = true;
    }
}

impl Connection for MySqlConnection {
    fn is_closed(&self) -> bool {
        *self.closed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        self.mark_closed();
        // A statement that is under way closes it at its end.
        if let Ok(mut slot) = self.conn.try_lock()
            && let Some(conn) = slot.take()
        {
            quit(conn);
        }
    }
}

impl Drop for MySqlConnection {
    fn drop(&mut self) {
        self.close();
    }
}

/// Says goodbye without waiting for the answer.
fn quit(conn: Conn) {
    let _ = conn.disconnect().now_or_never();
}

fn gone(reason: &str) -> StoreError {
    StoreError::Gone {
        reason: reason.to_owned(),
        source: None,
    }
}

fn describe(error: &Error) -> String {
    match error {
        Error::Server(refusal) => format!("{} ({})", refusal.message, refusal.code),
        Error::Io(error) => error.to_string(),
        Error::Driver(error) => error.to_string(),
        Error::Other(error) => error.to_string(),
        // Might quote the address that it was given.
        Error::Url(_) => "the address is not one that the driver understands".to_owned(),
    }
}

/// The server's number; 0: the error is not the server's.
fn code(error: &Error) -> u16 {
    match error {
        Error::Server(refusal) => refusal.code,
        _ => 0,
    }
}

/// Why a statement brought no answer.
fn explain(error: Error) -> StoreError {
    let reason = describe(&error);
    let source = |error| Some(Arc::new(error) as _);
    match code(&error) {
        // Deadlock, which in a cluster is a conflict of nodes; lock wait; duplicate key; killed query; statement limits.
        1213 | 1205 | 1062 | 1317 | 3024 | 1969 => StoreError::Again { reason },
        // Not an error of the server; shutdown, network, unknown prepared statement, killed, idle for too long; a cluster
        // without a quorum (1047 before the statement, 1180 at its commit).
        0 | 1047 | 1053 | 1077..=1079 | 1152..=1161 | 1180 | 1184 | 1243 | 1927 | 3169 | 4031 => {
            StoreError::Gone {
                reason,
                source: source(error),
            }
        }
        code => StoreError::Refused {
            code: code.to_string(),
            message: match &error {
                Error::Server(refusal) => refusal.message.clone(),
                _ => reason,
            },
            source: source(error),
        },
    }
}

/// Why a connection could not be opened or set up.
fn connecting(endpoint: &str, error: Error) -> InitError {
    let reason = describe(&error);
    let by_driver = matches!(
        error,
        Error::Url(_)
            | Error::Driver(
                Local::UnknownAuthPlugin { .. }
                    | Local::MysqlOldPasswordDisabled
                    | Local::CleartextPluginDisabled
                    | Local::NoClientSslFlagFromServer
            )
    );
    let by_server = matches!(
        code(&error),
        1040 | 1044
            | 1045
            | 1046
            | 1049
            | 1129
            | 1130
            | 1203
            | 1226
            | 1251
            | 1698
            | 1820
            | 1862
            | 3118
            | 3159
            | 4151
    );
    let (endpoint, source) = (endpoint.to_owned(), Some(InitSource(Arc::new(error))));
    if by_driver || by_server {
        InitError::LoginRefused {
            endpoint,
            reason,
            source,
        }
    } else {
        InitError::Unreachable {
            endpoint,
            reason,
            source,
        }
    }
}

fn refused(endpoint: &str, reason: &str, remedy: &str) -> InitError {
    InitError::UnsafeServer {
        endpoint: endpoint.to_owned(),
        reason: reason.to_owned(),
        remedy: remedy.to_owned(),
    }
}
