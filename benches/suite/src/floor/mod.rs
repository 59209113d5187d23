//! The floors: the raw drivers, doing the same statements.

pub(crate) mod apart;
pub(crate) mod lease;
pub(crate) mod mysql;
pub(crate) mod postgres;

use std::sync::Arc;

use anyhow::Result;
use xtask::servers::Kind;

/// A raw connection to any of the servers.
pub(crate) enum Raw {
    Postgres(Arc<postgres::Raw>),
    MySql(Box<mysql::Raw>),
}

/// Opens a raw connection.
pub(crate) async fn raw(kind: Kind, url: &str) -> Result<Raw> {
    Ok(match kind {
        Kind::Postgres => Raw::Postgres(postgres::Raw::connect(url).await?),
        Kind::MariaDb | Kind::MySql => Raw::MySql(Box::new(mysql::Raw::connect(url).await?)),
    })
}

impl Raw {
    /// Waits for a lock in the server's queue.
    pub(crate) async fn wait(&mut self, key: &str) -> Result<()> {
        match self {
            Raw::Postgres(raw) => raw.wait(number(key)).await,
            Raw::MySql(raw) => raw.wait(key).await,
        }
    }

    pub(crate) async fn unlock(&mut self, key: &str) -> Result<()> {
        match self {
            Raw::Postgres(raw) => raw.unlock(number(key)).await,
            Raw::MySql(raw) => raw.unlock(key).await,
        }
    }

    /// A round trip that does nothing.
    pub(crate) async fn one(&mut self) -> Result<()> {
        match self {
            Raw::Postgres(raw) => raw.one().await,
            Raw::MySql(raw) => raw.one().await,
        }
    }
}

/// Any number will do, if it is the same in every process (FNV-1a).
fn number(key: &str) -> i64 {
    let hash = key.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    i64::from_ne_bytes(hash.to_ne_bytes())
}
