//! The texts of keys on MySQL and MariaDB: a row for each lock.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use mysql_async::prelude::Queryable;

use super::errors;
use super::slot::Slot;
use super::table::{Failure, with_table};
use crate::backend::session::driver::{DriverError, KeyTable, Noted};
use crate::config::TableName;

/// A waiter's connection is not kept from its work for longer by somebody who has locked the table. Whole seconds.
const PATIENCE: &str = "SET SESSION innodb_lock_wait_timeout = 1, SESSION lock_wait_timeout = 1";

/// The table, and what to do where it cannot be written.
pub(super) fn describe(table: &TableName, connect_timeout: Duration) -> KeyTable {
    KeyTable {
        remedy: format!(
            "GRANT SELECT, INSERT ON {table} to this user; where it does not exist and cannot be made, let an administrator run \
             the SQL of dlock::key_table::mysql_schema; where the DSN has no database, write key_table=database.table; or leave \
             the option key_table out"
        ),
        name: table.to_string(),
        connect_timeout,
    }
}

pub(super) async fn note(
    slot: &Slot,
    table: &TableName,
    keys: &[Noted],
) -> Result<bool, DriverError> {
    set_up(slot).await?;
    let (sql, create) = (insert(table, keys), create_table(table));
    let noted = with_table(slot, &create, || {
        let sql = sql.clone();
        slot.run(move |conn| conn.query_drop(sql).boxed())
    });
    // A time-out, a deadlock, an interruption, the limits for statements.
    let kept = ["1205", "1213", "1317", "3024", "1969"];
    match noted.await {
        Ok(()) => Ok(true),
        Err(Failure::Statement(error) | Failure::Creation(error))
            if !errors::has_code(&error, &kept) =>
        {
            Err(error)
        }
        Err(_) => Ok(false),
    }
}

pub(super) async fn noted(
    slot: &Slot,
    table: &TableName,
    names: &[Arc<str>],
) -> Result<Vec<Noted>, DriverError> {
    set_up(slot).await?;
    let names: Vec<String> = names.iter().map(|name| hexadecimal(name)).collect();
    let sql = format!(
        "SELECT name, key_text FROM {} WHERE name IN ({})",
        table.quoted('`'),
        names.join(", ")
    );
    let rows: Vec<(Vec<u8>, Vec<u8>)> = slot.run(move |conn| conn.query(sql).boxed()).await?;
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).map(Arc::from);
    rows.into_iter()
        .map(|(name, key)| {
            Ok(Noted {
                name: text(name)?,
                text: text(key)?,
            })
        })
        .collect::<Result<_, std::string::FromUtf8Error>>()
        .map_err(|_| errors::unexpected("a key that is not UTF-8"))
}

async fn set_up(slot: &Slot) -> Result<(), DriverError> {
    slot.run(move |conn| conn.query_drop(PATIENCE).boxed())
        .await
}

/// What is there already stays. In hexadecimal digits, since each number of rows would be a prepared statement of its own.
fn insert(table: &TableName, keys: &[Noted]) -> String {
    let table = table.quoted('`');
    if keys.is_empty() {
        return format!(
            "INSERT IGNORE INTO {table} (name, key_text) SELECT '', '' FROM DUAL WHERE 1 = 0"
        );
    }
    let rows: Vec<String> = keys
        .iter()
        .map(|key| {
            let (name, text) = (hexadecimal(&key.name), hexadecimal(&key.text));
            format!("({name}, _utf8mb4 {text})")
        })
        .collect();
    format!(
        "INSERT IGNORE INTO {table} (name, key_text) VALUES {}",
        rows.join(", ")
    )
}

/// Text as a literal of its bytes.
fn hexadecimal(text: &str) -> String {
    let mut literal = String::with_capacity(2 * text.len() + 3);
    literal.push_str("X'");
    for byte in text.bytes() {
        // Writing to a string does not fail.
        let _ = write!(literal, "{byte:02X}");
    }
    literal.push('\'');
    literal
}

/// Makes the table, unless it exists. Names are compared byte by byte.
pub(crate) fn create_table(table: &TableName) -> String {
    format!(
        "CREATE TABLE IF NOT EXISTS {} (
    name VARBINARY(255) NOT NULL PRIMARY KEY,
    key_text TEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL
) ENGINE = InnoDB
",
        table.quoted('`')
    )
}
