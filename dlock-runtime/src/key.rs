//! Keys: what the user writes, and what each server compares.

use std::sync::Arc;

/// Whether others may hold the lock at the same time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Nobody else holds the lock.
    #[default]
    Exclusive,
    /// Others may hold it too, all of them shared.
    Shared,
}

/// A lock's name as its server compares it: the identity under which requests meet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ServerKey {
    /// PostgreSQL's advisory locks.
    Number(i64),
    /// MySQL's and MariaDB's named locks, and the memory backend.
    Name(Arc<str>),
}

/// The number of a key on PostgreSQL.
#[cfg(feature = "postgres")]
pub(crate) fn postgres_key(namespace: &str, key: &str) -> i64 {
    let mut first = [0; 8];
    first.copy_from_slice(&digest(namespace, key)[..8]);
    i64::from_be_bytes(first)
}

/// The name of a key on MySQL and MariaDB.
#[cfg(feature = "mysql")]
pub(crate) fn mysql_name(namespace: &str, key: &str) -> String {
    let readable: String = key
        .chars()
        .take(25)
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '/' {
                c.to_ascii_lowercase()
            } else {
                '_'
            }
        })
        .collect();
    let code = data_encoding::BASE32_NOPAD.encode(&digest(namespace, key)[..20]);
    format!("dlock:{readable}:{}", code.to_ascii_lowercase())
}

fn digest(namespace: &str, key: &str) -> [u8; 32] {
    use sha2::Digest;
    let mut hash = sha2::Sha256::new();
    for part in ["dlock/1\0", namespace, "\0", key] {
        hash.update(part.as_bytes());
    }
    hash.finalize().into()
}
