//! Session locks: advisory locks of PostgreSQL, named locks of MySQL and MariaDB.

pub(crate) mod driver;
mod ending;
#[cfg(feature = "mysql")]
pub(crate) mod mysql;
#[cfg(feature = "postgres")]
pub(crate) mod postgres;
