//! The statements of SQLite for leases. What is decided is decided in Rust, between a read and a write of one transaction.

use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, OptionalExtension, params};

use crate::backend::lease::row::{LastRun, Row, Stamped, is_forgotten, parse, to_json};
use crate::config::TableName;

/// A row, and the file in which its lock was taken.
pub(super) struct Found {
    pub(super) row: Row,
    pub(super) file: String,
    pub(super) acquired_at: i64,
    pub(super) last_run: Option<String>,
}

/// One table and one namespace.
#[derive(Debug)]
pub(super) struct Table {
    read: String,
    list: String,
    insert: String,
    write: String,
    namespace: String,
}

impl Found {
    /// The present holder goes, at `ended` or unnoticed.
    pub(super) fn note_run(&mut self, ended: Option<i64>) {
        let (row, since) = (&self.row, self.acquired_at);
        if is_forgotten(&row.owner) {
            let (owner, program) = (row.owner.clone(), row.program.clone());
            self.last_run = LastRun(row.token, since, ended, owner, program).to_json();
        }
    }
}

impl Table {
    pub(super) fn new(table: &TableName, namespace: &str) -> Table {
        let table = table.quoted('"');
        Table {
            read: format!(
                "SELECT token, owner, program, readers, waiters, version, expires_at, ttl, file, \
                 acquired_at, last_run FROM {table} WHERE namespace = ?1 AND name = ?2"
            ),
            list: format!(
                "SELECT token, owner, program, readers, waiters, version, expires_at, ttl, file, \
                 acquired_at, last_run, name FROM {table} WHERE namespace = ?1 AND name <> '' AND (name = ?2 \
                 OR ?2 IS NULL AND (owner <> '' OR readers <> '{{}}' OR waiters <> '{{}}')) ORDER BY name"
            ),
            insert: format!(
                "INSERT INTO {table} SELECT ?1, ?2, COALESCE(MAX(token), 0), '', '', '{{}}', '{{}}', ?3, 0, 0, 0, '', NULL \
                 FROM {table} WHERE namespace = ?1 AND name = ''"
            ),
            write: format!(
                "UPDATE {table} SET token = ?3, owner = ?4, program = ?5, readers = ?6, waiters = ?7, version = ?8, \
                 expires_at = ?9, ttl = ?10, file = ?11, acquired_at = iif(token = ?3, acquired_at, ?12), last_run = ?13 \
                 WHERE namespace = ?1 AND name = ?2"
            ),
            namespace: namespace.to_owned(),
        }
    }

    pub(super) fn read(
        &self,
        connection: &Connection,
        name: &str,
    ) -> rusqlite::Result<Option<Found>> {
        connection
            .prepare_cached(&self.read)?
            .query_row(params![self.namespace, name], found)
            .optional()
    }

    /// The rows of locks that somebody holds or waits for, or the one of this name.
    pub(super) fn list(
        &self,
        connection: &Connection,
        only: Option<&str>,
    ) -> rusqlite::Result<Vec<Stamped>> {
        let stamped = |row: &rusqlite::Row<'_>| {
            let found = found(row)?;
            Ok(Stamped {
                row: found.row,
                name: row.get(11)?,
                acquired_at: found.acquired_at,
                last_run: LastRun::parse(found.last_run.as_deref()),
            })
        };
        connection
            .prepare_cached(&self.list)?
            .query_map(params![self.namespace, only], stamped)?
            .collect()
    }

    /// Makes a row, free and with the token of the floor. There must be none.
    pub(super) fn insert(&self, connection: &Connection, name: &str) -> rusqlite::Result<()> {
        connection
            .prepare_cached(&self.insert)?
            .execute(params![self.namespace, name, now()])?;
        Ok(())
    }

    /// Writes a row that was read in the same transaction.
    pub(super) fn write(
        &self,
        connection: &Connection,
        name: &str,
        Found {
            row,
            file,
            last_run,
            ..
        }: &Found,
    ) -> rusqlite::Result<()> {
        connection.prepare_cached(&self.write)?.execute(params![
            self.namespace,
            name,
            i64::try_from(row.token).unwrap_or(i64::MAX),
            row.owner,
            row.program,
            to_json(&row.readers),
            to_json(&row.waiters),
            i64::try_from(row.version).unwrap_or(i64::MAX),
            row.expires_at,
            row.ttl,
            file,
            row.now,
            last_run,
        ])?;
        Ok(())
    }
}

/// The first eleven columns.
fn found(row: &rusqlite::Row<'_>) -> rusqlite::Result<Found> {
    Ok(Found {
        row: Row {
            token: number(row, 0)?,
            owner: row.get(1)?,
            program: row.get(2)?,
            readers: parse(&row.get::<_, String>(3)?),
            waiters: parse(&row.get::<_, String>(4)?),
            version: number(row, 5)?,
            expires_at: row.get(6)?,
            ttl: row.get(7)?,
            now: now(),
        },
        file: row.get(8)?,
        acquired_at: row.get(9)?,
        last_run: row.get(10)?,
    })
}

fn number(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<u64> {
    Ok(u64::try_from(row.get::<_, i64>(column)?).unwrap_or(0))
}

/// The machine's clock, which all who share the file have in common. It can step.
pub(super) fn now() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// Reads nothing, if the table is one of leases.
pub(super) fn look(table: &TableName) -> String {
    format!(
        "SELECT namespace, name, token, owner, program, readers, waiters, acquired_at, expires_at, ttl, version, file, last_run \
         FROM {} WHERE 0",
        table.quoted('"')
    )
}

/// Makes the table, unless it exists. Texts are compared byte by byte.
pub(super) fn create_table(table: &TableName) -> String {
    format!(
        "CREATE TABLE IF NOT EXISTS {} (
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    token INTEGER NOT NULL,
    owner TEXT NOT NULL,
    program TEXT NOT NULL,
    readers TEXT NOT NULL,
    waiters TEXT NOT NULL,
    acquired_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    ttl INTEGER NOT NULL,
    version INTEGER NOT NULL,
    file TEXT NOT NULL,
    last_run TEXT,
    PRIMARY KEY (namespace, name)
) WITHOUT ROWID",
        table.quoted('"')
    )
}
