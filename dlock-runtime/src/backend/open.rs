//! From a configuration to the backend that serves it.

use std::sync::Arc;

use super::Backend;
use super::memory::Memory;
use crate::config::Config;
use crate::endpoint::Endpoint;
use crate::error::InitError;

/// A backend that was reached.
pub(crate) struct Opened {
    pub(crate) backend: Arc<dyn Backend>,
    /// What the server is, in words.
    pub(crate) server: String,
}

/// Reaches the server of a configuration. Runs on the I/O thread.
pub(crate) async fn open(config: &Config) -> Result<Opened, InitError> {
    match config.endpoint()? {
        Endpoint::Memory { name } => Ok(Opened {
            backend: Arc::new(Memory::open(name.as_ref(), config.get_namespace())),
            server: "memory".into(),
        }),
        #[cfg(feature = "postgres")]
        Endpoint::Postgres(endpoint) => {
            use super::session::postgres::PostgresDriver;
            let driver = PostgresDriver::new(*endpoint, session::settings(config));
            session::open(driver, config).await
        }
        #[cfg(feature = "mysql")]
        Endpoint::MySql(endpoint) => {
            use super::session::mysql::MySqlDriver;
            let driver = MySqlDriver::new(*endpoint, session::settings(config));
            session::open(driver, config).await
        }
    }
}

#[cfg(any(feature = "postgres", feature = "mysql"))]
mod session {
    use super::{Config, InitError, Opened};
    use crate::backend::session::driver::{ConnectError, Driver, SessionSettings};
    use crate::backend::session::{Limits, SessionLocks};
    use crate::error::InitSource;

    pub(super) fn settings(config: &Config) -> SessionSettings {
        SessionSettings {
            limit: config.get_limit(),
            connect_timeout: config.get_connect_timeout(),
            namespace: config.get_namespace().into(),
            application_name: config.program_name().into(),
        }
    }

    pub(super) async fn open<D: Driver>(driver: D, config: &Config) -> Result<Opened, InitError> {
        let endpoint = driver.endpoint().to_owned();
        let limits = Limits {
            limit: config.get_limit(),
            heartbeat: config.get_heartbeat(),
            max_waiters: config.get_max_waiters(),
            connect_timeout: config.get_connect_timeout(),
        };
        let backend = SessionLocks::connect(driver, limits)
            .await
            .map_err(|error| init_error(endpoint, error))?;
        let server = backend.server().to_owned();
        Ok(Opened { backend, server })
    }

    fn init_error(endpoint: String, error: ConnectError) -> InitError {
        match error {
            ConnectError::Unreachable { reason, source } => InitError::Unreachable {
                endpoint,
                reason,
                source: source.map(InitSource),
            },
            ConnectError::TooMany { reason, source }
            | ConnectError::LoginRefused { reason, source } => InitError::LoginRefused {
                endpoint,
                reason,
                source: source.map(InitSource),
            },
            ConnectError::Unsafe { reason, remedy } => InitError::UnsafeServer {
                endpoint,
                reason,
                remedy,
            },
        }
    }
}
