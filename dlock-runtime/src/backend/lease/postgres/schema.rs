//! The table: looked for, and made where it is missing.

use std::time::Duration;

use tokio::time;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};

use super::connection::{connecting, describe, refused};
use super::sql::create_table;
use crate::config::TableName;
use crate::error::InitError;

/// How often creation is tried: two who make the same table at once get errors that mean no more than that.
const TRIES: u32 = 20;

/// Makes sure that the table is there and can be used.
pub(super) async fn ensure(
    client: &Client,
    table: &TableName,
    endpoint: &str,
) -> Result<(), InitError> {
    let quoted = table.quoted('"');
    // Every column by its name: an older or foreign table of the name is found out here.
    let look = format!(
        "SELECT namespace, name, token, owner, program, readers, waiters, acquired_at, expires_at, ttl, version, last_run \
         FROM {quoted} WHERE false"
    );
    for tries in 0..TRIES {
        let Err(error) = client.batch_execute(&look).await else {
            return may_write(client, table, endpoint).await;
        };
        let code = error.code().cloned();
        if code == Some(SqlState::INSUFFICIENT_PRIVILEGE) {
            return Err(not_granted(table, endpoint, &describe(&error)));
        }
        if code == Some(SqlState::UNDEFINED_COLUMN) && describe(&error).contains("last_run") {
            // It is the last one that was looked for: the others are there.
            return Err(refused(
                endpoint,
                &format!(
                    "the table {table} was made by an older version of dlock: it has no column last_run"
                ),
                &format!("let its owner run ALTER TABLE {quoted} ADD COLUMN last_run jsonb"),
            ));
        }
        if code == Some(SqlState::UNDEFINED_COLUMN) {
            return Err(refused(
                endpoint,
                &format!(
                    "the table {table} is not one of leases: {}",
                    describe(&error)
                ),
                "name another table with the option table=…, or drop this one",
            ));
        }
        let missing = [SqlState::UNDEFINED_TABLE, SqlState::INVALID_SCHEMA_NAME];
        if !code.is_some_and(|code| missing.contains(&code)) {
            return Err(connecting(endpoint, error));
        }
        if let Err(error) = client.batch_execute(&create_table(table)).await {
            let raced = [
                SqlState::UNIQUE_VIOLATION,
                SqlState::DUPLICATE_OBJECT,
                SqlState::DUPLICATE_TABLE,
                SqlState::T_R_DEADLOCK_DETECTED,
            ];
            let Some(code) = error.code().cloned() else {
                return Err(connecting(endpoint, error));
            };
            if !raced.contains(&code) {
                return Err(refused(
                    endpoint,
                    &format!(
                        "the table {table} does not exist and cannot be made: {}",
                        describe(&error)
                    ),
                    "let an administrator run the SQL of dlock::lease::postgres_schema, and grant SELECT, INSERT and UPDATE on the table",
                ));
            }
            time::sleep(Duration::from_millis(
                fastrand::u64(5..25) * u64::from(tries + 1),
            ))
            .await;
        }
    }
    Err(refused(
        endpoint,
        &format!("the table {table} could not be made: others make and drop it"),
        "let an administrator run the SQL of dlock::lease::postgres_schema",
    ))
}

/// Makes sure that the user, who may read the table, may write too: without, only the first lock would tell. The catalogue is
/// asked, since a write that changes nothing would wait for whoever maintains the table.
async fn may_write(client: &Client, table: &TableName, endpoint: &str) -> Result<(), InitError> {
    let asked =
        "SELECT has_any_column_privilege($1, 'INSERT'), has_any_column_privilege($1, 'UPDATE')";
    let rights = client
        .query_typed(asked, &[(&table.quoted('"'), Type::TEXT)])
        .await
        .and_then(|rows| {
            let read = |row: &Row| Ok([row.try_get::<_, bool>(0)?, row.try_get(1)?]);
            rows.first().map(read).transpose()
        })
        .map_err(|error| connecting(endpoint, error))?;
    let missing = match rights {
        Some([false, _]) => "INSERT",
        Some([_, false]) => "UPDATE",
        _ => return Ok(()),
    };
    Err(not_granted(
        table,
        endpoint,
        &format!("this user has no right to {missing}"),
    ))
}

fn not_granted(table: &TableName, endpoint: &str, why: &str) -> InitError {
    refused(
        endpoint,
        &format!("the table {table} may not be used: {why}"),
        &format!("GRANT SELECT, INSERT, UPDATE ON {table} to this user, and USAGE on its schema"),
    )
}
