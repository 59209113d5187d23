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
