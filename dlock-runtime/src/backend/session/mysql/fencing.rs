//! The counters behind fencing tokens on MySQL and MariaDB: a row for each lock.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use mysql_async::prelude::Queryable;

use super::errors;
use super::slot::Slot;
use super::table::{Failure, with_table};
use crate::backend::session::driver::{Counted, DriverError};
use crate::config::TableName;

/// How a session counts.
pub(super) struct Counter {
    table: TableName,
    /// How long a count waits for whoever has locked its row.
    patience: Duration,
    /// Whether the session is set up for counting.
    ready: AtomicBool,
}

impl Counter {
    pub(super) fn new(table: TableName, patience: Duration) -> Counter {
        Counter {
            table,
            patience,
            ready: AtomicBool::new(false),
        }
    }

    /// Raises the counter of a lock that this session holds, and makes the table where it is missing.
    pub(super) async fn count(&self, slot: &Slot, name: &str) -> Result<Counted, DriverError> {
        if !self.ready.load(Ordering::Acquire) {
            self.set_up(slot).await?;
            self.ready.store(true, Ordering::Release);
        }
        let create = create_table(&self.table);
        let raised = with_table(slot, &create, || {
            let (sql, name) = (raise(&self.table), name.as_bytes().to_vec());
            slot.run(move |conn| {
                async move {
                    conn.exec_drop(sql, (name,)).await?;
                    Ok(conn.last_insert_id())
                }
                .boxed()
            })
        });
        match raised.await {
            Ok(Some(token)) => Ok(Counted::Token(token)),
            Ok(None) => Err(errors::unexpected("no fencing token")),
            Err(Failure::Statement(error)) => self.explain(error),
            Err(Failure::Creation(error)) => self.explain_creation(error),
            Err(Failure::Vanishing) => Ok(Counted::Kept {
                reason: format!("the table {} is made and dropped by others", self.table),
            }),
        }
    }

    /// The session's settings have been changed: the next count sets them up again.
    pub(super) fn unsettle(&self) {
        self.ready.store(false, Ordering::Release);
    }

    /// Only the notes of keys wait for rows or tables too, and they have the next count set this up again.
    async fn set_up(&self, slot: &Slot) -> Result<(), DriverError> {
        let seconds = self.patience.as_secs().max(1);
        let sql = format!(
            "SET SESSION innodb_lock_wait_timeout = {seconds}, SESSION lock_wait_timeout = {seconds}"
        );
        slot.run(move |conn| conn.query_drop(sql).boxed()).await
    }

    fn explain(&self, error: DriverError) -> Result<Counted, DriverError> {
        let table = &self.table;
        // A time-out, a deadlock, an interruption, the limits for statements.
        if errors::has_code(&error, &["1205", "1213", "1317", "3024", "1969"]) {
            return Ok(Counted::Kept {
                reason: format!("another transaction keeps the row or the table {table}: {error}"),
            });
        }
        let remedy = if errors::has_code(&error, &["1142", "1143"]) {
            format!("GRANT SELECT, INSERT, UPDATE ON {table} to this user")
        } else if errors::has_code(&error, &["1046"]) {
            "the DSN has no database: name the table with its own, fencing_table=database.table"
                .to_owned()
        } else if errors::has_code(&error, &["1054"]) {
            format!(
                "{table} is not a table of fencing tokens: name another with the option fencing_table"
            )
        } else {
            format!("the table {table} has to be writable")
        };
        Err(error.advised(&remedy))
    }

    fn explain_creation(&self, error: DriverError) -> Result<Counted, DriverError> {
        if errors::has_code(&error, &["1205", "1317", "1046"]) {
            return self.explain(error);
        }
        let remedy = format!(
            "the table {} does not exist and cannot be made: let an administrator run the SQL of \
             dlock::fencing::mysql_schema, and grant SELECT, INSERT and UPDATE on the table",
            self.table
        );
        Err(error.advised(&remedy))
    }
}

/// The token comes with the acknowledgement, of a new row and of an old one.
fn raise(table: &TableName) -> String {
    format!(
        "INSERT INTO {} (name, token) VALUES (?, LAST_INSERT_ID(1)) \
         ON DUPLICATE KEY UPDATE token = LAST_INSERT_ID(token + 1)",
        table.quoted('`')
    )
}

/// Makes the table, unless it exists. Names are compared byte by byte.
pub(crate) fn create_table(table: &TableName) -> String {
    format!(
        "CREATE TABLE IF NOT EXISTS {} (
    name VARBINARY(255) NOT NULL PRIMARY KEY,
    token BIGINT NOT NULL
) ENGINE = InnoDB
",
        table.quoted('`')
    )
}

/// Whether a token is the newest of its lock. Kept until the transaction ends: before that no newer one can be counted.
pub(crate) fn assert_fence(table: &TableName) -> String {
    format!(
        "SELECT token FROM {} WHERE name = ? AND token = ? LOCK IN SHARE MODE",
        table.quoted('`')
    )
}
