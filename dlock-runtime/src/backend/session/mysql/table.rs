//! Statements on a table of dlock's, which is made where it is missing.

use futures_util::FutureExt;
use mysql_async::prelude::Queryable;

use super::errors;
use super::slot::Slot;
use crate::backend::session::driver::DriverError;

/// How often the table is looked for again after it was made.
const TRIES: usize = 5;

/// Why a statement on a table was not done.
pub(super) enum Failure {
    Statement(DriverError),
    /// The table does not exist and could not be made.
    Creation(DriverError),
    /// Others make it and drop it.
    Vanishing,
}

/// Runs a statement; where its table is missing, makes the table and runs it again.
pub(super) async fn with_table<T, F: Future<Output = Result<T, DriverError>>>(
    slot: &Slot,
    create: &str,
    statement: impl Fn() -> F,
) -> Result<T, Failure> {
    for _ in 0..TRIES {
        let error = match statement().await {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        if !errors::has_code(&error, &["1146"]) {
            return Err(Failure::Statement(error));
        }
        let create = create.to_owned();
        let made = slot.run(move |conn| conn.query_drop(create).boxed()).await;
        // Two who make it at once: it exists, or the one's change has undone the other's.
        if let Err(error) = made
            && !errors::has_code(&error, &["1050", "1213"])
        {
            return Err(Failure::Creation(error));
        }
    }
    Err(Failure::Vanishing)
}
