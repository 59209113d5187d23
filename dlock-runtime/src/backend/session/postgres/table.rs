//! Statements on a table of dlock's, which is made where it is missing.

use std::time::Duration;

use tokio::time;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error};

/// How often creation is tried: two who make the same table at once get errors that mean no more than that.
const TRIES: u32 = 20;

/// Why a statement on a table was not done.
pub(super) enum Failure {
    Statement(Error),
    /// The table does not exist and could not be made.
    Creation(Error),
    /// Others make it and drop it.
    Vanishing,
}

/// Runs a statement; where its table is missing, makes the table and runs it again.
pub(super) async fn with_table<T, F: Future<Output = Result<T, Error>>>(
    client: &Client,
    create: &str,
    statement: impl Fn() -> F,
) -> Result<T, Failure> {
    for tries in 0..TRIES {
        let error = match statement().await {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        let missing = [SqlState::UNDEFINED_TABLE, SqlState::INVALID_SCHEMA_NAME];
        if !has_code(&error, &missing) {
            return Err(Failure::Statement(error));
        }
        if let Err(error) = client.batch_execute(create).await {
            let raced = [
                SqlState::UNIQUE_VIOLATION,
                SqlState::DUPLICATE_OBJECT,
                SqlState::DUPLICATE_TABLE,
            ];
            if !has_code(&error, &raced) {
                return Err(Failure::Creation(error));
            }
            let pause = fastrand::u64(5..25) * u64::from(tries + 1);
            time::sleep(Duration::from_millis(pause)).await;
        }
    }
    Err(Failure::Vanishing)
}

pub(super) fn has_code(error: &Error, codes: &[SqlState]) -> bool {
    error.code().is_some_and(|code| codes.contains(code))
}
