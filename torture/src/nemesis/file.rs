//! A file of SQLite, and another program that writes to it.

use std::path::PathBuf;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result};
use rusqlite::{Connection, TransactionBehavior};

/// How long the other program waits for its turn to write.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) struct File(pub(super) PathBuf);

impl File {
    /// Has the file written to for so long, in one transaction.
    pub(super) fn write_for(&self, lasts: Duration) -> Result<()> {
        let mut connection = self.open()?;
        connection.busy_timeout(PATIENCE)?;
        let writing = connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .context("another program cannot write to the file")?;
        writing.execute_batch(
            "CREATE TABLE IF NOT EXISTS other (n INTEGER); INSERT INTO other VALUES (1)",
        )?;
        sleep(lasts);
        writing.commit()?;
        Ok(())
    }

    /// How many keys have a holder in the table.
    pub(super) fn held(&self) -> Result<usize> {
        let held: u32 = self
            .open()?
            .query_row(super::admin::HELD, [], |row| row.get(0))?;
        Ok(held.try_into()?)
    }

    fn open(&self) -> Result<Connection> {
        Ok(Connection::open(&self.0)?)
    }
}
