//! How a key becomes the name of a lock on the server, so that programs that use other libraries hold the same lock.
//!
//! A scheme knows the conversions of one library, and nothing of servers: what a server does to a name (its limits,
//! and whether it folds case) is its driver's to know. The native scheme is in [`key`](crate::key).

mod dotnet;
mod raw;
mod ruby;
mod sqlalchemy;
mod sqlx;
#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::key::{Key, KeyValue};

/// By which rules keys become the names of locks on the server.
///
/// The native scheme is dlock's own. Each of the others is that of another library: with it a lock is the same lock for
/// both, so a service can be moved to Rust piece by piece. Locks of two schemes do not exclude each other. What a scheme
/// cannot express is [`Error::InvalidKey`](crate::Error::InvalidKey), which names the rule; a scheme that has no names for
/// the server at all is refused at start-up. The page [`docs/keys.md`] has the algorithms.
///
/// A scheme is set for a whole configuration ([`Config::key_scheme`](crate::Config::key_scheme), or the option
/// `key_scheme` of the DSN, with the names that [`Display`](fmt::Display) shows), or for one lock
/// ([`Lock::key_scheme`](crate::Lock::key_scheme), or `scheme = …` of the attribute).
///
/// ```no_run
/// use dlock_runtime::{Config, KeyScheme, Locker};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let locker = Locker::connect_blocking(Config::from_dsn("postgres://app@db/app")?)?;
/// // The lock that Python's `create_sadlock(connection, 42)` takes.
/// let guard = locker.lock(42).key_scheme(KeyScheme::SqlalchemyDlock).acquire_blocking()?;
/// # Ok(())
/// # }
/// ```
///
/// [`docs/keys.md`]: https://github.com/dlock-db/dlock/blob/main/docs/keys.md
#[derive(Clone, Default)]
#[non_exhaustive]
pub enum KeyScheme {
    /// dlock's own: every text is a lock of its own on every server.
    #[default]
    Native,
    /// Python's sqlalchemy-dlock, all versions but 0.1.1 to 0.1.3. PostgreSQL: the `BLAKE2b` hash of text and bytes,
    /// integers as they are. MySQL and MariaDB: the text, of at most 64 characters.
    SqlalchemyDlock,
    /// Python's sqlalchemy-dlock 0.1.1 to 0.1.3, which hashed with CRC-64 on PostgreSQL.
    SqlalchemyDlockCrc64,
    /// Python's `PyMySQLLock`: the text itself, on MySQL and MariaDB.
    PyMysqlLock,
    /// Ruby's `with_advisory_lock`, with the value of its environment variable `WITH_ADVISORY_LOCK_PREFIX`; empty where it is
    /// not set. PostgreSQL: two 32-bit numbers, the CRC-32 of the text and the number that the prefix begins with.
    /// MySQL and MariaDB: prefix and text.
    WithAdvisoryLock {
        /// The prefix.
        prefix: Arc<str>,
    },
    /// Rust's sqlx, `PgAdvisoryLock`: a hash of the text, integers and pairs as they are, on PostgreSQL.
    Sqlx,
    /// .NET's `DistributedLock`: `PostgresAdvisoryLockKey` with `allowHashing: true`, and the names of `MySqlDistributedLock`
    /// without `exactName`.
    DistributedLockNet,
    /// What the server itself has. PostgreSQL: an integer of 64 bits or a pair of 32 bits, also written in decimal
    /// digits (`"42"`, `"4,2"`). MySQL and MariaDB: the exact name.
    Raw,
    /// One's own.
    Custom(Arc<dyn KeyNaming>),
}

/// A key scheme of one's own, for [`KeyScheme::custom`].
///
/// The same key has to give the same name for ever, in every process: nothing that changes may go into it. An `Err` is the
/// rule that the key breaks; it is shown with the key in [`Error::InvalidKey`](crate::Error::InvalidKey). A server that is
/// left out is refused.
///
/// ```
/// use dlock_runtime::{AdvisoryKey, Key, KeyNaming, KeyScheme, KeyValue};
///
/// /// The first number is the application's, the second the row's.
/// struct Rows;
///
/// impl KeyNaming for Rows {
///     fn name(&self) -> &str {
///         "rows"
///     }
///
///     fn postgres(&self, key: &Key) -> Result<AdvisoryKey, &'static str> {
///         match key.value() {
///             KeyValue::Integer(row) => i32::try_from(row)
///                 .map(|row| AdvisoryKey::Pair(7, row))
///                 .map_err(|_| "a row's number has 32 bits"),
///             _ => Err("a row has a number"),
///         }
///     }
/// }
///
/// let scheme = KeyScheme::custom(Rows);
/// ```
pub trait KeyNaming: Send + Sync + 'static {
    /// The scheme's name, for messages.
    fn name(&self) -> &str;

    /// The lock on PostgreSQL.
    ///
    /// # Errors
    ///
    /// The rule that the key breaks.
    fn postgres(&self, _key: &Key) -> Result<AdvisoryKey, &'static str> {
        Err("this scheme has no names for PostgreSQL")
    }

    /// The name on MySQL and MariaDB. The limits of the server are checked, and its folding of case is allowed for, by
    /// dlock.
    ///
    /// # Errors
    ///
    /// The rule that the key breaks.
    fn mysql(&self, _key: &Key) -> Result<String, &'static str> {
        Err("this scheme has no names for MySQL and MariaDB")
    }
}

/// A key of PostgreSQL's advisory locks, which live in two spaces: a number is never a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AdvisoryKey {
    /// `pg_advisory_lock(bigint)`
    Number(i64),
    /// `pg_advisory_lock(int, int)`
    Pair(i32, i32),
}

const ONLY_POSTGRES: &str = "sqlx has advisory locks of PostgreSQL only";
const ONLY_MYSQL: &str = "PyMySQLLock has named locks of MySQL and MariaDB only";

impl KeyScheme {
    /// The names of all schemes but one's own, as a DSN writes them.
    pub(crate) const NAMES: [&str; 8] = [
        "native",
        "sqlalchemy-dlock",
        "sqlalchemy-dlock-crc64",
        "py-mysql-lock",
        "with-advisory-lock",
        "sqlx",
        "distributed-lock-net",
        "raw",
    ];

    /// Ruby's `with_advisory_lock`, with a prefix; empty for none.
    pub fn with_advisory_lock(prefix: impl Into<Arc<str>>) -> KeyScheme {
        KeyScheme::WithAdvisoryLock {
            prefix: prefix.into(),
        }
    }

    /// A scheme of one's own.
    pub fn custom(naming: impl KeyNaming) -> KeyScheme {
        KeyScheme::Custom(Arc::new(naming))
    }

    /// Reads a name; `with-advisory-lock:prefix` has a prefix.
    pub(crate) fn parse(name: &str) -> Option<KeyScheme> {
        Some(match name {
            "native" => KeyScheme::Native,
            "sqlalchemy-dlock" => KeyScheme::SqlalchemyDlock,
            "sqlalchemy-dlock-crc64" => KeyScheme::SqlalchemyDlockCrc64,
            "py-mysql-lock" => KeyScheme::PyMysqlLock,
            "with-advisory-lock" => KeyScheme::with_advisory_lock(""),
            "sqlx" => KeyScheme::Sqlx,
            "distributed-lock-net" => KeyScheme::DistributedLockNet,
            "raw" => KeyScheme::Raw,
            other => KeyScheme::with_advisory_lock(other.strip_prefix("with-advisory-lock:")?),
        })
    }

    pub(crate) fn is_native(&self) -> bool {
        matches!(self, KeyScheme::Native)
    }

    /// Why no key at all has a name on PostgreSQL.
    pub(crate) fn without_postgres(&self) -> Option<&'static str> {
        matches!(self, KeyScheme::PyMysqlLock).then_some(ONLY_MYSQL)
    }

    /// Why no key at all has a name on MySQL and MariaDB.
    pub(crate) fn without_mysql(&self) -> Option<&'static str> {
        matches!(self, KeyScheme::Sqlx).then_some(ONLY_POSTGRES)
    }

    /// The lock on PostgreSQL, by another scheme than the native one, which needs a namespace.
    pub(crate) fn postgres(&self, key: &Key) -> Result<AdvisoryKey, &'static str> {
        match self {
            KeyScheme::Native => Err("the native scheme is not another library's"),
            KeyScheme::SqlalchemyDlock => sqlalchemy::blake2b(key),
            KeyScheme::SqlalchemyDlockCrc64 => sqlalchemy::crc64(key),
            KeyScheme::PyMysqlLock => Err(ONLY_MYSQL),
            KeyScheme::WithAdvisoryLock { prefix } => ruby::pair(prefix, key),
            KeyScheme::Sqlx => sqlx::number(key),
            KeyScheme::DistributedLockNet => dotnet::advisory_key(key),
            KeyScheme::Raw => raw::advisory_key(key),
            KeyScheme::Custom(naming) => naming.postgres(key),
        }
    }

    /// The name on MySQL and MariaDB, by another scheme than the native one, before the server has had its say.
    pub(crate) fn mysql(&self, key: &Key) -> Result<String, &'static str> {
        match self {
            KeyScheme::Native => Err("the native scheme is not another library's"),
            KeyScheme::SqlalchemyDlock | KeyScheme::SqlalchemyDlockCrc64 => sqlalchemy::name(key),
            KeyScheme::PyMysqlLock | KeyScheme::Raw => raw::name(key),
            KeyScheme::WithAdvisoryLock { prefix } => ruby::name(prefix, key),
            KeyScheme::Sqlx => Err(ONLY_POSTGRES),
            KeyScheme::DistributedLockNet => dotnet::name(key),
            KeyScheme::Custom(naming) => naming.mysql(key),
        }
    }
}

/// Custom schemes are equal when they are one.
impl PartialEq for KeyScheme {
    fn eq(&self, other: &KeyScheme) -> bool {
        match (self, other) {
            (KeyScheme::Custom(one), KeyScheme::Custom(other)) => Arc::ptr_eq(one, other),
            (KeyScheme::Custom(_), _) | (_, KeyScheme::Custom(_)) => false,
            (one, other) => one.to_string() == other.to_string(),
        }
    }
}

impl Eq for KeyScheme {}

impl fmt::Display for KeyScheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            KeyScheme::Native => "native",
            KeyScheme::SqlalchemyDlock => "sqlalchemy-dlock",
            KeyScheme::SqlalchemyDlockCrc64 => "sqlalchemy-dlock-crc64",
            KeyScheme::PyMysqlLock => "py-mysql-lock",
            KeyScheme::WithAdvisoryLock { prefix } if prefix.is_empty() => "with-advisory-lock",
            KeyScheme::WithAdvisoryLock { prefix } => {
                return write!(f, "with-advisory-lock:{prefix}");
            }
            KeyScheme::Sqlx => "sqlx",
            KeyScheme::DistributedLockNet => "distributed-lock-net",
            KeyScheme::Raw => "raw",
            KeyScheme::Custom(naming) => naming.name(),
        })
    }
}

impl fmt::Debug for KeyScheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyScheme({self})")
    }
}

/// Reads the name that a DSN writes.
impl FromStr for KeyScheme {
    type Err = crate::error::InitError;

    fn from_str(name: &str) -> Result<KeyScheme, Self::Err> {
        KeyScheme::parse(name).ok_or_else(|| {
            crate::dsn::bad(format!(
                "unknown key scheme {name:?}: write one of {}",
                KeyScheme::NAMES.join(", ")
            ))
        })
    }
}

/// The bytes of text or bytes, which some schemes do not tell apart.
fn bytes<'k>(value: &KeyValue<'k>) -> Option<&'k [u8]> {
    match value {
        KeyValue::Text(text) => Some(text.as_bytes()),
        KeyValue::Bytes(bytes) => Some(bytes),
        KeyValue::Integer(_) | KeyValue::Pair(..) => None,
    }
}

/// An integer that PostgreSQL can have.
fn int64(number: i128) -> Result<AdvisoryKey, &'static str> {
    i64::try_from(number)
        .map(AdvisoryKey::Number)
        .map_err(|_| "an advisory lock of PostgreSQL has a signed 64-bit integer")
}
