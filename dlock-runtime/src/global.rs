//! The locker of the process: a thin static over a [`Locker`].

use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use crate::config::Config;
use crate::error::{Error, InitError};
use crate::locker::{Locker, Report};
use crate::scope;

static GLOBAL: RwLock<Option<Locker>> = RwLock::new(None);

/// Connects to the server of a DSN, once, for the whole process.
///
/// Works in a synchronous and in an async `main`, and returns when the server was reached. A locker that was
/// connected otherwise is installed with [`Locker::install_global`].
///
/// # Errors
///
/// [`InitError`]: a bad DSN, an unreachable server, a refused login, a server that cannot keep these locks, or a
/// second call.
pub fn init(dsn: &str) -> Result<(), InitError> {
    init_with(Config::from_dsn(dsn)?)
}

/// As [`init`], with a configuration.
///
/// # Errors
///
/// As [`init`].
pub fn init_with(config: Config) -> Result<(), InitError> {
    if read().is_some() {
        return Err(InitError::AlreadyInitialized);
    }
    install(&Locker::connect_blocking(config)?)
}

/// Shuts the process's locker down, as [`Locker::shutdown`] does, parking the thread up to `patience` and the time
/// it takes to close. Without a locker it does nothing; [`init`] may follow.
pub fn shutdown(patience: Duration) -> Report {
    let locker = GLOBAL
        .write()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    locker.map_or_else(Report::default, |locker| locker.shutdown_blocking(patience))
}

/// The locker in scope, else the process's.
///
/// # Errors
///
/// [`Error::NotInitialized`] when there is neither.
pub fn locker() -> Result<Locker, Error> {
    scope::current().or_else(read).ok_or(Error::NotInitialized)
}

pub(crate) fn install(locker: &Locker) -> Result<(), InitError> {
    let mut global = GLOBAL.write().unwrap_or_else(PoisonError::into_inner);
    if global.is_some() {
        return Err(InitError::AlreadyInitialized);
    }
    *global = Some(locker.clone());
    Ok(())
}

/// Starts dlock for a locked `main`.
pub(crate) fn init_from(source: impl IntoConfig) -> Result<(), InitError> {
    init_with(source.into_config()?)
}

fn read() -> Option<Locker> {
    GLOBAL
        .read()
        .unwrap_or_else(PoisonError::into_inner)
        .clone()
}

/// What `init = …` on a locked `main` takes: a DSN, a [`Config`], or a `Result` of one of them.
pub trait IntoConfig {
    /// The configuration, or what kept it from being made.
    ///
    /// # Errors
    ///
    /// [`InitError`]: a bad DSN, or the error that was given.
    fn into_config(self) -> Result<Config, InitError>;
}

impl IntoConfig for Config {
    fn into_config(self) -> Result<Config, InitError> {
        Ok(self)
    }
}

impl IntoConfig for &str {
    fn into_config(self) -> Result<Config, InitError> {
        Config::from_dsn(self)
    }
}

impl IntoConfig for String {
    fn into_config(self) -> Result<Config, InitError> {
        Config::from_dsn(&self)
    }
}

impl<C: IntoConfig, E: Into<InitError>> IntoConfig for Result<C, E> {
    fn into_config(self) -> Result<Config, InitError> {
        self.map_err(Into::into)?.into_config()
    }
}

impl From<std::env::VarError> for InitError {
    /// `std::env::var` does not say which variable it was, so neither can this.
    fn from(error: std::env::VarError) -> InitError {
        InitError::BadConfig {
            problem: format!("the DSN is not in the environment: {error}"),
        }
    }
}
