//! The locker of the process: a process of its own is the only place to see it uninitialised.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dlock::{Config, Error, InitError, Locker};

/// Before `init`, with it, a second time, inside a scope, after `shutdown`, and once more.
pub(crate) fn check(key: &str) -> Result<()> {
    let none = Duration::ZERO;
    ensure!(
        matches!(dlock::locker(), Err(Error::NotInitialized)),
        "there is no locker before init"
    );
    ensure!(
        dlock::shutdown(none).cut == 0,
        "without a locker, shutdown does nothing"
    );

    dlock::init_with(Config::from_env()?)?;
    let guard = dlock::locker()?.lock(key).acquire_blocking()?;
    ensure!(
        matches!(
            dlock::init_with(Config::from_env()?),
            Err(InitError::AlreadyInitialized)
        ),
        "a second init is refused"
    );
    let other = Locker::connect_blocking(Config::from_env()?)?;
    ensure!(
        matches!(other.install_global(), Err(InitError::AlreadyInitialized)),
        "a second locker is refused"
    );

    // In its scope the other locker is the one; it is another session, so the key is busy.
    let busy = other.scope_sync(|| dlock::locker()?.lock(key).try_acquire_blocking())?;
    ensure!(busy.is_none(), "the scope's locker is another session");
    let scoped = other.scope_sync(|| dlock::locker().map(|locker| format!("{locker:?}")))?;
    ensure!(scoped == format!("{other:?}"), "the scope's locker");
    guard.release_blocking()?;
    drop(
        dlock::locker()?
            .lock(key)
            .try_acquire_blocking()?
            .context("free again")?,
    );

    ensure!(dlock::shutdown(none).cut <= 1);
    ensure!(
        matches!(dlock::locker(), Err(Error::NotInitialized)),
        "there is no locker after shutdown"
    );
    other.install_global()?;
    let guard = dlock::locker()?.lock(key).timeout(10).acquire_blocking()?;
    guard.release_blocking()?;
    dlock::shutdown(Duration::from_secs(5));
    dlock::init_with(Config::from_env()?)?;
    dlock::shutdown(none);
    Ok(())
}
