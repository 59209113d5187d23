//! The texts of keys on PostgreSQL: a row for each lock.

use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error};

use super::errors;
use super::table::{Failure, has_code, with_table};
use crate::backend::session::driver::{DriverError, KeyTable, Noted};
use crate::config::TableName;

/// A waiter's connection is not kept from its work for longer by somebody who has locked the table.
const PATIENCE: &str = "SET lock_timeout = '500ms'";

/// The table, and what to do where it cannot be written.
pub(super) fn describe(table: &TableName, connect_timeout: Duration) -> KeyTable {
    KeyTable {
        remedy: format!(
            "GRANT SELECT, INSERT ON {table} to this user, and USAGE on its schema; where it does not exist and cannot be made, let \
             an administrator run the SQL of dlock::key_table::postgres_schema; or leave the option key_table out"
        ),
        name: table.to_string(),
        connect_timeout,
    }
}

pub(super) async fn note(
    client: &Client,
    table: &TableName,
    keys: &[Noted],
) -> Result<bool, DriverError> {
    set_up(client).await?;
    let every = |_: &&Noted| true;
    let in_ascii = |noted: &&Noted| noted.text.is_ascii();
    let noted = match insert(client, table, keys.iter().filter(every)).await {
        // The database's encoding has no such characters: the others' texts are not kept from it.
        Err(Failure::Statement(error))
            if has_code(&error, &[SqlState::UNTRANSLATABLE_CHARACTER]) =>
        {
            insert(client, table, keys.iter().filter(in_ascii)).await
        }
        done => done,
    };
    let kept = [
        SqlState::LOCK_NOT_AVAILABLE,
        SqlState::QUERY_CANCELED,
        SqlState::T_R_DEADLOCK_DETECTED,
        SqlState::T_R_SERIALIZATION_FAILURE,
    ];
    match noted {
        Ok(()) => Ok(true),
        Err(Failure::Statement(error) | Failure::Creation(error)) if !has_code(&error, &kept) => {
            Err(errors::statement(error))
        }
        Err(_) => Ok(false),
    }
}

/// Without naming the column that conflicts, which would need the right to read it.
async fn insert<'a>(
    client: &Client,
    table: &TableName,
    keys: impl Iterator<Item = &'a Noted>,
) -> Result<(), Failure> {
    let sql = &format!(
        "INSERT INTO {} (name, key_text) SELECT * FROM unnest($1, $2) ON CONFLICT DO NOTHING",
        table.quoted('"')
    );
    let (names, texts): (Vec<&str>, Vec<&str>) =
        keys.map(|noted| (&*noted.name, &*noted.text)).unzip();
    let (names, texts) = (&names, &texts);
    with_table(client, &create_table(table), || async move {
        let columns: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 2] =
            [(names, Type::TEXT_ARRAY), (texts, Type::TEXT_ARRAY)];
        client.query_typed(sql, &columns).await.map(|_| ())
    })
    .await
}

pub(super) async fn noted(
    client: &Client,
    table: &TableName,
    names: &[Arc<str>],
) -> Result<Vec<Noted>, DriverError> {
    set_up(client).await?;
    let sql = format!(
        "SELECT name, key_text FROM {} WHERE name = ANY($1)",
        table.quoted('"')
    );
    let names: Vec<&str> = names.iter().map(|name| &**name).collect();
    let rows = client
        .query_typed(&sql, &[(&names, Type::TEXT_ARRAY)])
        .await;
    let noted = rows.and_then(|rows| {
        let read = |row: &tokio_postgres::Row| {
            Ok(Noted {
                name: row.try_get::<_, &str>(0)?.into(),
                text: row.try_get::<_, &str>(1)?.into(),
            })
        };
        rows.iter().map(read).collect::<Result<Vec<_>, Error>>()
    });
    noted.map_err(errors::statement)
}

async fn set_up(client: &Client) -> Result<(), DriverError> {
    client
        .batch_execute(PATIENCE)
        .await
        .map_err(errors::statement)
}

/// Makes the table, unless it exists. Names are compared byte by byte.
pub(crate) fn create_table(table: &TableName) -> String {
    format!(
        "CREATE TABLE IF NOT EXISTS {} (
    name text COLLATE \"C\" PRIMARY KEY,
    key_text text NOT NULL
);
",
        table.quoted('"')
    )
}
