//! The SQL of the table that shows the texts of keys: see [`Config::key_table`](crate::Config::key_table).

use crate::error::InitError;

/// The SQL that makes the table on PostgreSQL, for programs whose own user may not: `table` is `name` or `schema.name`, without a
/// schema in `public`. A program then needs `INSERT` on it, and `SELECT` to show the keys of others.
///
/// # Errors
///
/// [`InitError::BadConfig`] when `table` is no name.
#[cfg(feature = "postgres")]
pub fn postgres_schema(table: &str) -> Result<String, InitError> {
    use crate::backend::lease::postgres::SCHEMA;
    use crate::backend::session::postgres::key_table;
    let table = crate::lease::named(table)?;
    Ok(key_table::create_table(&table.or_schema(SCHEMA)))
}

/// The SQL that makes the table on MySQL and MariaDB, for programs whose own user may not: `table` is `name` or
/// `database.name`. A program then needs `INSERT` on it, and `SELECT` to show the keys of others.
///
/// # Errors
///
/// [`InitError::BadConfig`] when `table` is no name.
#[cfg(feature = "mysql")]
pub fn mysql_schema(table: &str) -> Result<String, InitError> {
    use crate::backend::session::mysql::key_table;
    Ok(key_table::create_table(&crate::lease::named(table)?))
}
