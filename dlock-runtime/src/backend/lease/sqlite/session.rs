//! The connection to the file, on the thread that talks to it, and what its errors mean.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::{Connection, Error, ErrorCode, OpenFlags, TransactionBehavior};

use super::desk::gone;
use super::file::{self, refused};
use super::sql;
use crate::backend::lease::store::{Answer, StoreError};
use crate::config::TableName;
use crate::error::{InitError, InitSource};

/// One connection, while there is one.
pub(super) struct Session {
    pub(super) path: Arc<PathBuf>,
    pub(super) table: TableName,
    /// How long one statement waits for others who write.
    pub(super) busy: Duration,
    /// How long opening may take.
    pub(super) connect_timeout: Duration,
    pub(super) open: Option<Open>,
}

/// An open file.
pub(super) struct Open {
    pub(super) connection: Connection,
    /// Which file it is.
    pub(super) file: String,
}

impl Open {
    /// Runs a transaction. Also says whether it had come to its commit.
    fn change<T>(
        &mut self,
        work: impl FnOnce(&Connection, &str) -> rusqlite::Result<T>,
    ) -> (rusqlite::Result<T>, bool) {
        let begun = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate);
        let transaction = match begun {
            Ok(transaction) => transaction,
            Err(error) => return (Err(error), false),
        };
        match work(&transaction, &self.file) {
            Ok(value) => (transaction.commit().map(|()| value), true),
            // Dropped, it is rolled back.
            Err(error) => (Err(error), false),
        }
    }
}

impl Session {
    /// Reads, without keeping anybody from writing.
    pub(super) fn read<T>(
        &mut self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Answer<T> {
        let outcome = work(&self.connected()?.connection);
        self.heed(outcome, false)
    }

    /// Changes something in one transaction, which nobody else's overlaps.
    pub(super) fn write<T>(
        &mut self,
        work: impl FnOnce(&Connection, &str) -> rusqlite::Result<T>,
    ) -> Answer<T> {
        let (changed, committing) = self.connected()?.change(work);
        let value = self.heed(changed, committing)?;
        // A change of a file that the path does not lead to any more is seen by nobody.
        if self.is_replaced() {
            self.open = None;
            return Err(gone(REPLACED));
        }
        Ok(value)
    }

    fn is_replaced(&self) -> bool {
        let file = file::identity(&self.path);
        self.open
            .as_ref()
            .is_some_and(|open| file.as_deref() != Some(&*open.file))
    }

    fn connected(&mut self) -> Answer<&mut Open> {
        if self.is_replaced() {
            self.open = None;
        }
        if self.open.is_none() {
            self.connect().map_err(|error| StoreError::Unreachable {
                reason: error.to_string(),
                source: None,
            })?;
        }
        self.open.as_mut().ok_or_else(|| gone(REPLACED))
    }

    /// Opens the file, and makes file and table where they are missing.
    pub(super) fn connect(&mut self) -> Result<(), InitError> {
        file::check(&self.path)?;
        let begin = Instant::now();
        loop {
            match self.try_connect() {
                Ok(open) => {
                    self.open = Some(open);
                    return Ok(());
                }
                // Others are making the file or the table, or write.
                Err(Failed::Sqlite(error))
                    if is_busy(&error) && begin.elapsed() < self.connect_timeout =>
                {
                    thread::sleep(Duration::from_millis(fastrand::u64(1..10)));
                }
                Err(Failed::Sqlite(error)) => return Err(self.connecting(error)),
                Err(Failed::Init(error)) => return Err(error),
            }
        }
    }

    fn try_connect(&self) -> Result<Open, Failed> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let before = file::identity(&self.path);
        let connection = Connection::open_with_flags(&*self.path, flags)?;
        connection.busy_timeout(self.busy)?;
        let mode: String =
            connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
        if mode != "wal" {
            return Err(Failed::Init(refused(
                self.path.display().to_string(),
                &format!("its journal stays in mode {mode:?} in place of \"wal\""),
                "name another file, on a local disk",
            )));
        }
        // A token that was given out must not be given out again after a power cut.
        connection.execute_batch("PRAGMA synchronous = FULL")?;
        connection.set_prepared_statement_cache_capacity(32);
        if connection.prepare(&sql::look(&self.table)).is_err() {
            connection.execute_batch(&sql::create_table(&self.table))?;
            if let Err(error) = connection.prepare(&sql::look(&self.table)) {
                if is_busy(&error) {
                    return Err(error.into());
                }
                if error.to_string().contains("no such column: last_run") {
                    // It is the last one that was looked for: the others are there.
                    let table = self.table.quoted('"');
                    return Err(Failed::Init(refused(
                        self.path.display().to_string(),
                        &format!(
                            "its table {table} was made by an older version of dlock: it has no column last_run"
                        ),
                        &format!("run ALTER TABLE {table} ADD COLUMN last_run TEXT"),
                    )));
                }
                return Err(Failed::Init(refused(
                    self.path.display().to_string(),
                    &format!("its table {} is not one of leases: {error}", self.table),
                    "name another table with the option table=…, or drop this one",
                )));
            }
        }
        let file = file::identity(&self.path);
        match file {
            Some(file) if before.is_none_or(|before| before == file) => {
                Ok(Open { connection, file })
            }
            _ => Err(Failed::Init(InitError::Unreachable {
                endpoint: self.path.display().to_string(),
                reason: REPLACED.to_owned(),
                source: None,
            })),
        }
    }

    /// Why the file could not be opened or set up.
    fn connecting(&self, error: Error) -> InitError {
        let endpoint = self.path.display().to_string();
        match error.sqlite_error_code() {
            Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => refused(
                endpoint,
                &format!("it cannot be opened: {error}"),
                "let this program's user write the file and its directory, in which SQLite keeps two more files",
            ),
            Some(ErrorCode::ReadOnly) => refused(
                endpoint,
                &format!("it cannot be written: {error}"),
                "let this program's user write the file and its directory, in which SQLite keeps two more files",
            ),
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => refused(
                endpoint,
                &format!("it is no database of SQLite, or a damaged one: {error}"),
                "name another file",
            ),
            _ => InitError::Unreachable {
                endpoint,
                reason: error.to_string(),
                source: Some(InitSource(Arc::new(error))),
            },
        }
    }

    fn heed<T>(&mut self, outcome: rusqlite::Result<T>, committing: bool) -> Answer<T> {
        outcome.map_err(|error| {
            let error = explain(error, committing);
            if matches!(error, StoreError::Gone { .. }) {
                self.open = None;
            }
            error
        })
    }
}

const REPLACED: &str = "the file of SQLite was replaced or removed";

enum Failed {
    Sqlite(Error),
    Init(InitError),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Failed {
        Failed::Sqlite(error)
    }
}

fn is_busy(error: &Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
    )
}

/// Why a statement brought no answer.
fn explain(error: Error, committing: bool) -> StoreError {
    let reason = error.to_string();
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StoreError::Again {
            reason: "others write to the file of SQLite".to_owned(),
        },
        Some(
            ErrorCode::ReadOnly
            | ErrorCode::PermissionDenied
            | ErrorCode::NotADatabase
            | ErrorCode::DatabaseCorrupt
            | ErrorCode::ConstraintViolation
            | ErrorCode::Unknown,
        ) if !committing => StoreError::Refused {
            code: error
                .sqlite_error()
                .map_or_else(String::new, |error| error.extended_code.to_string()),
            message: reason,
            source: Some(Arc::new(error)),
        },
        // A full disk, a failed write: it may be over the next time.
        _ => StoreError::Gone {
            reason,
            source: Some(Arc::new(error)),
        },
    }
}
