//! The counters behind fencing tokens on PostgreSQL: a row for each lock.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error};

use super::errors;
use super::table::{Failure, has_code, with_table};
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
    pub(super) async fn count(&self, client: &Client, name: &str) -> Result<Counted, DriverError> {
        if !self.ready.load(Ordering::Acquire) {
            self.set_up(client).await.map_err(errors::statement)?;
            self.ready.store(true, Ordering::Release);
        }
        let sql = &raise(&self.table);
        let create = create_table(&self.table);
        let raised = with_table(client, &create, || async move {
            let rows = client.query_typed(sql, &[(&name, Type::TEXT)]).await?;
            rows.first().map(|row| row.try_get(0)).transpose()
        });
        match raised.await {
            Ok(token) => counted(token),
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

    /// A count that a crash of the server could undo would be given out twice; and it sees the newest row, whatever the
    /// account's default. Only the notes of keys wait for tables too, and they have the next count set this up again.
    async fn set_up(&self, client: &Client) -> Result<(), Error> {
        let milliseconds = self.patience.as_millis().max(1);
        client
            .batch_execute(&format!(
                "SELECT set_config('lock_timeout', '{milliseconds}', false), \
                     set_config('default_transaction_isolation', 'read committed', false), \
                     set_config('synchronous_commit', CASE current_setting('synchronous_commit') \
                         WHEN 'off' THEN 'on' ELSE current_setting('synchronous_commit') END, false)"
            ))
            .await
    }

    fn explain(&self, error: Error) -> Result<Counted, DriverError> {
        let table = &self.table;
        let undone = [
            SqlState::LOCK_NOT_AVAILABLE,
            SqlState::QUERY_CANCELED,
            SqlState::T_R_DEADLOCK_DETECTED,
            SqlState::T_R_SERIALIZATION_FAILURE,
        ];
        if has_code(&error, &undone) {
            return Ok(Counted::Kept {
                reason: format!(
                    "another transaction keeps the row or the table {table}: {}",
                    errors::describe(&error)
                ),
            });
        }
        let remedy = if has_code(&error, &[SqlState::INSUFFICIENT_PRIVILEGE]) {
            format!("GRANT SELECT, INSERT, UPDATE ON {table} to this user, and USAGE on its schema")
        } else if has_code(&error, &[SqlState::UNDEFINED_COLUMN]) {
            format!(
                "{table} is not a table of fencing tokens: name another with the option fencing_table"
            )
        } else {
            format!("the table {table} has to be writable")
        };
        Err(errors::statement(error).advised(&remedy))
    }

    fn explain_creation(&self, error: Error) -> Result<Counted, DriverError> {
        let undone = [
            SqlState::LOCK_NOT_AVAILABLE,
            SqlState::QUERY_CANCELED,
            SqlState::T_R_DEADLOCK_DETECTED,
        ];
        if has_code(&error, &undone) {
            return self.explain(error);
        }
        let remedy = format!(
            "the table {} does not exist and cannot be made: let an administrator run the SQL of \
             dlock::fencing::postgres_schema, and grant SELECT, INSERT and UPDATE on the table",
            self.table
        );
        Err(errors::statement(error).advised(&remedy))
    }
}

fn counted(token: Option<i64>) -> Result<Counted, DriverError> {
    let token = token.and_then(|token| u64::try_from(token).ok());
    token.map(Counted::Token).ok_or_else(|| DriverError::Gone {
        reason: "unexpected answer of the server: no fencing token".to_owned(),
        source: None,
    })
}

fn raise(table: &TableName) -> String {
    format!(
        "INSERT INTO {} AS fence (name, token) VALUES ($1, 1) \
         ON CONFLICT (name) DO UPDATE SET token = fence.token + 1 RETURNING token",
        table.quoted('"')
    )
}

/// Makes the table, unless it exists. A row's token changes often and its name never: room is left for that.
pub(crate) fn create_table(table: &TableName) -> String {
    format!(
        "CREATE TABLE IF NOT EXISTS {} (
    name text COLLATE \"C\" PRIMARY KEY,
    token bigint NOT NULL
) WITH (fillfactor = 50);
",
        table.quoted('"')
    )
}

/// Whether a token is the newest of its lock. Kept until the transaction ends: before that no newer one can be counted.
pub(crate) fn assert_fence(table: &TableName) -> String {
    format!(
        "SELECT true FROM {} WHERE name = $1 AND token = $2 FOR SHARE",
        table.quoted('"')
    )
}
