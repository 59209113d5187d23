//! What a locker's server is, and what its locks can do.

use std::time::Duration;

use crate::hazard::Hazard;

/// What was found out about the server when the locker connected: see [`Locker::capabilities`](crate::Locker::capabilities).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// What the server is, in words: `PostgreSQL 15.18`, `MariaDB 10.11.19`, `MySQL 9.7.4`, `memory`.
    pub server: String,
    /// The number in it; `None` for memory.
    pub version: Option<String>,
    /// How the locks are kept.
    pub strategy: Strategy,
    /// Whether many may hold a lock at once, in shared mode.
    pub shared_mode: bool,
    /// Who meets under the same name.
    pub reach: Reach,
    /// After this much silence the server ends a session and frees its locks; of leases: their ttl. `None`: it never does,
    /// or there is no server.
    pub limit: Option<Duration>,
    /// Whether something stands between this process and the server and gives sessions numbers of its own, as poolers
    /// do. `None` where that cannot be told. In itself this is no hazard: in session mode locks hold.
    pub behind_pooler: Option<bool>,
    /// Whether two connections were seen to exclude each other. Memory needs no proof, nor do
    /// leases: the primary key of their table excludes.
    pub proved: bool,
    /// What the configuration allows.
    pub allowed: Vec<Hazard>,
    /// What of that was found.
    pub found: Vec<Hazard>,
}

/// How locks are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Strategy {
    /// A session of the server holds them: advisory locks, named locks.
    Session,
    /// Rows of a table hold them, each until a time.
    Lease,
    /// A table in this process holds them.
    Memory,
}

/// Who meets under the same name of a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reach {
    /// The lockers of this process.
    Process,
    /// Everybody who uses the same database of the server.
    Database,
    /// Everybody who uses the same server, whatever the database.
    Server,
}
