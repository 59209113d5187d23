//! Where the server is and how it is spoken to: what a DSN becomes.

#[cfg(feature = "mysql")]
mod mysql;
#[cfg(feature = "postgres")]
mod postgres;

use std::sync::Arc;
use std::time::Duration;

use crate::error::InitError;

#[cfg(feature = "mysql")]
pub(crate) use mysql::{MySqlEndpoint, MySqlPlace};
#[cfg(feature = "postgres")]
pub(crate) use postgres::{Hear, PostgresEndpoint};

/// A server, or the memory of this process. `Debug` shows no password.
#[derive(Clone, Debug)]
pub(crate) enum Endpoint {
    #[cfg(feature = "postgres")]
    Postgres(Box<PostgresEndpoint>),
    #[cfg(feature = "mysql")]
    MySql(Box<MySqlEndpoint>),
    /// `memory:` (private to the locker) or `memory:name` (shared by the lockers of this process that name it).
    Memory { name: Option<Arc<str>> },
}

impl Endpoint {
    /// The namespace of the locks when none is given.
    pub(crate) fn default_namespace(&self) -> &str {
        match self {
            #[cfg(feature = "mysql")]
            Endpoint::MySql(endpoint) => endpoint.database.as_deref().unwrap_or(""),
            // PostgreSQL's locks belong to one database, and those of the memory to one name.
            _ => "",
        }
    }

    /// Refuses settings of the client's sockets that would free a lock before `limit`.
    #[cfg_attr(
        not(feature = "postgres"),
        expect(clippy::unnecessary_wraps, unused_variables)
    )]
    pub(crate) fn check(&self, limit: Duration) -> Result<(), InitError> {
        match self {
            #[cfg(feature = "postgres")]
            Endpoint::Postgres(endpoint) => endpoint.check(limit),
            _ => Ok(()),
        }
    }

    /// Sets what every connection says and keeps to, and reads the files that TLS needs.
    #[cfg_attr(
        not(any(feature = "postgres", feature = "mysql")),
        expect(clippy::unnecessary_wraps)
    )]
    #[cfg_attr(not(feature = "postgres"), expect(unused_variables))]
    pub(crate) fn prepare(
        &mut self,
        name: &str,
        connect_timeout: Duration,
    ) -> Result<(), InitError> {
        match self {
            #[cfg(feature = "postgres")]
            Endpoint::Postgres(endpoint) => endpoint.prepare(name, connect_timeout),
            #[cfg(feature = "mysql")]
            Endpoint::MySql(endpoint) => endpoint.prepare(name),
            Endpoint::Memory { .. } => Ok(()),
        }
    }
}

/// What `Debug` shows in place of a password.
#[cfg(any(feature = "postgres", feature = "mysql"))]
fn masked(is_set: bool) -> Option<&'static str> {
    is_set.then_some("***")
}
