//! From a configuration to the leases of a database.

use super::bells::Bells;
use super::{Leases, Store};
use crate::backend::Opened;
use crate::capabilities::{Capabilities, Reach, Strategy};
use crate::config::Config;
#[cfg(feature = "mysql")]
use crate::dsn::bad;
#[cfg(feature = "mysql")]
use crate::endpoint::MySqlEndpoint;
#[cfg(feature = "postgres")]
use crate::endpoint::PostgresEndpoint;
use crate::error::InitError;

/// Leases in a table of PostgreSQL.
#[cfg(feature = "postgres")]
pub(crate) async fn postgres(
    endpoint: PostgresEndpoint,
    config: &Config,
) -> Result<Opened, InitError> {
    use super::postgres::PostgresStore;

    let bells = Bells::default();
    let settings = config.lease_settings();
    let (store, facts) = PostgresStore::open(endpoint, &settings, &bells).await?;
    Ok(opened(
        store,
        bells,
        config,
        facts.server,
        Some(facts.behind_pooler),
    ))
}

/// Leases in a table of MySQL or MariaDB.
#[cfg(feature = "mysql")]
pub(crate) async fn mysql(endpoint: MySqlEndpoint, config: &Config) -> Result<Opened, InitError> {
    use super::mysql::MySqlStore;

    if config.lease_settings().table.schema.is_none() && endpoint.database.is_none() {
        return Err(bad(
            "the DSN names no database for the table of leases: write mysql://host/database, or table=database.table",
        ));
    }
    let settings = config.lease_settings();
    let (store, server) = MySqlStore::open(endpoint, &settings).await?;
    Ok(opened(store, Bells::default(), config, server, None))
}

fn opened<S: Store>(
    store: S,
    bells: Bells,
    config: &Config,
    server: String,
    behind_pooler: Option<bool>,
) -> Opened {
    let settings = config.lease_settings();
    let capabilities = Capabilities {
        version: server
            .split_once(' ')
            .map(|(_, version)| version.to_owned()),
        server,
        strategy: Strategy::Lease,
        shared_mode: true,
        reach: Reach::Database,
        limit: Some(settings.ttl),
        behind_pooler,
        proved: false,
        allowed: config.get_allowed().to_vec(),
        found: Vec::new(),
    };
    Opened {
        backend: Leases::new(store, bells, settings),
        capabilities,
    }
}
