//! Where locks can be kept: every backend on every server.

use std::fmt;

use xtask::servers::Kind;

/// A backend on a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Memory,
    Postgres,
    MariaDb,
    MySql,
    /// Leases in a table of PostgreSQL.
    PostgresLease,
    /// Leases in a table of MariaDB.
    MariaDbLease,
    /// Leases in a table of MySQL.
    MySqlLease,
}

/// How a server is talked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    Postgres,
    MySql,
}

impl Place {
    pub(crate) const ALL: [Place; 7] = [
        Place::Memory,
        Place::Postgres,
        Place::MariaDb,
        Place::MySql,
        Place::PostgresLease,
        Place::MariaDbLease,
        Place::MySqlLease,
    ];
    pub(crate) const SERVERS: [Place; 6] = [
        Place::Postgres,
        Place::MariaDb,
        Place::MySql,
        Place::PostgresLease,
        Place::MariaDbLease,
        Place::MySqlLease,
    ];
    /// Where sessions hold the locks.
    pub(crate) const SESSIONS: [Place; 3] = [Place::Postgres, Place::MariaDb, Place::MySql];
    /// Where rows of a table do.
    pub(crate) const LEASES: [Place; 3] =
        [Place::PostgresLease, Place::MariaDbLease, Place::MySqlLease];

    /// The kind of server, where there is one.
    pub(crate) fn kind(self) -> Option<Kind> {
        match self {
            Place::Memory => None,
            Place::Postgres | Place::PostgresLease => Some(Kind::Postgres),
            Place::MariaDb | Place::MariaDbLease => Some(Kind::MariaDb),
            Place::MySql | Place::MySqlLease => Some(Kind::MySql),
        }
    }

    /// How the server is talked to, where there is one.
    pub(crate) fn family(self) -> Option<Family> {
        match self {
            Place::Memory => None,
            Place::Postgres | Place::PostgresLease => Some(Family::Postgres),
            Place::MariaDb | Place::MySql | Place::MariaDbLease | Place::MySqlLease => {
                Some(Family::MySql)
            }
        }
    }

    /// The schemes of the DSNs that lead here.
    pub(crate) fn schemes(self) -> &'static [&'static str] {
        match self {
            Place::Memory => &["memory:"],
            Place::Postgres => &["postgres://", "postgresql://"],
            // Either scheme leads to either server; the server itself says what it is.
            Place::MariaDb => &["mariadb://"],
            Place::MySql => &["mysql://"],
            // An option asks for leases, not the scheme.
            Place::PostgresLease | Place::MariaDbLease | Place::MySqlLease => &[],
        }
    }

    /// Whether the place has locks that many may hold at once.
    pub(crate) fn has_shared_mode(self) -> bool {
        !matches!(self, Place::MariaDb | Place::MySql)
    }

    /// Whether rows of a table hold the locks.
    pub(crate) fn is_lease(self) -> bool {
        Place::LEASES.contains(&self)
    }

    /// How many connections a locker has that does nothing.
    pub(crate) fn idle_connections(self) -> usize {
        // Leases: one takes and releases, the other renews and listens.
        if self.is_lease() { 2 } else { 1 }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Place::Memory => "memory",
            Place::Postgres => "postgres",
            Place::MariaDb => "mariadb",
            Place::MySql => "mysql",
            Place::PostgresLease => "postgres-lease",
            Place::MariaDbLease => "mariadb-lease",
            Place::MySqlLease => "mysql-lease",
        })
    }
}
