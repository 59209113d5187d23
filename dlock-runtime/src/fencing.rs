//! Fencing tokens of session locks from the outside: the SQL of their table, and the check of a token in a transaction of
//! one's own. Leases keep their tokens in the table of leases: see [`lease`](crate::lease).
//!
//! A body whose session the server has ended may go on for a moment, and a statement that was sent before may still arrive.
//! Who must rule that out checks the token in the very transaction that writes:
//!
//! ```no_run
//! # #[cfg(feature = "postgres")]
//! # async fn book(client: &mut tokio_postgres::Client) -> Result<(), Box<dyn std::error::Error>> {
//! use dlock_runtime::fencing::Fence;
//!
//! let token = dlock_runtime::current().and_then(|lock| lock.token()).ok_or("no token")?;
//! let transaction = client.transaction().await?;
//! if !Fence::session().check_postgres(&transaction, "ledger", token).await? {
//!     return Err("somebody else has the lock".into());
//! }
//! transaction.execute("UPDATE ledger SET total = total + 1", &[]).await?;
//! transaction.commit().await?;
//! # Ok(())
//! # }
//! ```
//!
//! From the check to the end of the transaction nobody else gets the lock with a token: the next holder waits for it.

pub use crate::lease::Fence;

use crate::config::TableName;
use crate::error::InitError;

/// The SQL that makes the table on PostgreSQL, for programs whose own user may not: `table` is `name` or `schema.name`, by
/// default `public.dlock_fence`. The program then needs `SELECT`, `INSERT` and `UPDATE` on it.
///
/// # Errors
///
/// [`InitError::BadConfig`] when `table` is no name.
#[cfg(feature = "postgres")]
pub fn postgres_schema(table: Option<&str>) -> Result<String, InitError> {
    use crate::backend::lease::postgres::SCHEMA;
    use crate::backend::session::postgres::fencing;
    Ok(fencing::create_table(&named(table)?.or_schema(SCHEMA)))
}

/// The SQL that makes the table on MySQL and MariaDB, for programs whose own user may not: `table` is `name` or
/// `database.name`, by default `dlock_fence`. The program then needs `SELECT`, `INSERT` and `UPDATE` on it.
///
/// # Errors
///
/// [`InitError::BadConfig`] when `table` is no name.
#[cfg(feature = "mysql")]
pub fn mysql_schema(table: Option<&str>) -> Result<String, InitError> {
    use crate::backend::session::mysql::fencing;
    Ok(fencing::create_table(&named(table)?))
}

fn named(table: Option<&str>) -> Result<TableName, InitError> {
    table.map_or_else(|| Ok(TableName::of_fences()), crate::lease::named)
}
