//! From a configuration to the backend that serves it.

use std::sync::{Arc, Once};

use super::Backend;
use super::memory::Memory;
use crate::capabilities::{Capabilities, Reach, Strategy};
use crate::config::Config;
use crate::endpoint::Endpoint;
use crate::error::InitError;

/// A backend that was reached.
pub(crate) struct Opened {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) capabilities: Capabilities,
}

/// Reaches the server of a configuration. Runs on the I/O thread.
pub(crate) async fn open(config: &Config) -> Result<Opened, InitError> {
    if !config.is_enabled() {
        return Ok(switched_off(config));
    }
    match config.endpoint()? {
        Endpoint::Memory { name } => Ok(Opened {
            backend: Arc::new(Memory::open(name.as_ref(), config.get_namespace())),
            capabilities: memory(config),
        }),
        #[cfg(feature = "postgres")]
        Endpoint::Postgres(endpoint) if config.is_lease() => {
            Box::pin(super::lease::open::postgres(*endpoint, config)).await
        }
        #[cfg(feature = "postgres")]
        Endpoint::Postgres(endpoint) => {
            use super::session::postgres::PostgresDriver;
            let driver = PostgresDriver::new(*endpoint, session::settings(config));
            Box::pin(session::open(driver, config)).await
        }
        #[cfg(feature = "sqlite")]
        Endpoint::Sqlite { path } => Box::pin(super::lease::open::sqlite(&path, config)).await,
        #[cfg(feature = "mysql")]
        Endpoint::MySql(endpoint) if config.is_lease() => {
            Box::pin(super::lease::open::mysql(*endpoint, config)).await
        }
        #[cfg(feature = "mysql")]
        Endpoint::MySql(endpoint) => {
            use super::session::mysql::MySqlDriver;
            let driver = MySqlDriver::new(*endpoint, session::settings(config));
            Box::pin(session::open(driver, config)).await
        }
    }
}

/// Locks that exclude nobody outside of the locker.
fn switched_off(config: &Config) -> Opened {
    static WARNING: Once = Once::new();
    WARNING.call_once(|| {
        eprintln!("dlock is switched off (DLOCK_ENABLED=0 or Config::enabled(false)): no other process is excluded");
    });
    Opened {
        backend: Arc::new(Memory::open(None, config.get_namespace())),
        capabilities: Capabilities {
            server: "none: dlock is switched off".into(),
            ..memory(config)
        },
    }
}

fn memory(config: &Config) -> Capabilities {
    Capabilities {
        server: "memory".into(),
        version: None,
        strategy: Strategy::Memory,
        shared_mode: true,
        reach: Reach::Process,
        limit: None,
        behind_pooler: Some(false),
        proved: false,
        allowed: config.get_allowed().to_vec(),
        found: Vec::new(),
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
            allowed: config.get_allowed().clone(),
            fencing_table: config.get_fencing_table(),
            key_table: config.get_key_table(),
        }
    }

    pub(super) async fn open<D: Driver>(driver: D, config: &Config) -> Result<Opened, InitError> {
        let endpoint = driver.endpoint().to_owned();
        let limits = Limits {
            limit: config.get_limit(),
            heartbeat: config.get_heartbeat(),
            max_waiters: config.get_max_waiters(),
            max_held: config.get_max_held(),
        };
        let backend = SessionLocks::connect(driver, limits, config.get_allowed())
            .await
            .map_err(|error| init_error(endpoint, error))?;
        let capabilities = backend.capabilities().clone();
        Ok(Opened {
            backend,
            capabilities,
        })
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
