//! Those who take a lock and give it back: the floors, and dlock.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use dlock::{Config, Locker, Strategy};
use tokio::sync::Mutex;
use xtask::servers::Kind;

use crate::floor::{mysql, postgres};
use crate::rounds::{Contender, Stopwatch};

pub(crate) const TWO_SELECTS: &str = "two prepared SELECT 1";
pub(crate) const STATEMENTS: &str = "raw lock and unlock";
pub(crate) const DLOCK: &str = "dlock, async";
pub(crate) const DLOCK_BLOCKING: &str = "dlock, blocking";

/// Two round trips of the driver that do nothing.
pub(crate) async fn two_selects(kind: Kind, url: &str) -> Result<Contender> {
    Ok(if kind == Kind::Postgres {
        let raw = postgres::Raw::connect(url).await?;
        Contender::new(TWO_SELECTS, move |count| {
            let raw = raw.clone();
            async move {
                let mut watch = Stopwatch::start();
                for _ in 0..count {
                    raw.one().await?;
                    raw.one().await?;
                    watch.lap();
                }
                Ok(watch.typical())
            }
        })
    } else {
        let raw = Arc::new(Mutex::new(mysql::Raw::connect(url).await?));
        Contender::new(TWO_SELECTS, move |count| {
            let raw = raw.clone();
            async move {
                let mut raw = raw.lock().await;
                let mut watch = Stopwatch::start();
                for _ in 0..count {
                    raw.one().await?;
                    raw.one().await?;
                    watch.lap();
                }
                Ok(watch.typical())
            }
        })
    })
}

/// The same statements as dlock's, by the raw driver.
pub(crate) async fn raw_statements(kind: Kind, url: &str) -> Result<Contender> {
    Ok(if kind == Kind::Postgres {
        let raw = postgres::Raw::connect(url).await?;
        Contender::new(STATEMENTS, move |count| {
            let raw = raw.clone();
            async move {
                let mut watch = Stopwatch::start();
                for _ in 0..count {
                    raw.lock(4711).await?;
                    raw.unlock(4711).await?;
                    watch.lap();
                }
                Ok(watch.typical())
            }
        })
    } else {
        let raw = Arc::new(Mutex::new(mysql::Raw::connect(url).await?));
        Contender::new(STATEMENTS, move |count| {
            let raw = raw.clone();
            async move {
                let mut raw = raw.lock().await;
                let mut watch = Stopwatch::start();
                for _ in 0..count {
                    raw.lock("bench:raw").await?;
                    raw.unlock("bench:raw").await?;
                    watch.lap();
                }
                Ok(watch.typical())
            }
        })
    })
}

/// That of a locker which may hold as many locks as are measured: the default leaves most of the server's table to others.
pub(crate) fn config(url: &str) -> Result<Config> {
    Ok(Config::from_dsn(url)?.max_held(20_000))
}

pub(crate) async fn locker(url: &str) -> Result<Locker> {
    Ok(Locker::connect(config(url)?).await?)
}

/// How long a lease lasts that is not renewed, where nothing else is measured: the default.
pub(crate) const TTL: Duration = Duration::from_secs(30);

/// That of a locker whose locks are leases.
pub(crate) async fn leases(url: &str, ttl: Duration) -> Result<Locker> {
    let config = Config::from_dsn(url)?.strategy(Strategy::Lease).ttl(ttl);
    Ok(Locker::connect(config).await?)
}

/// dlock, awaited.
pub(crate) fn dlock_async(locker: &Locker) -> Contender {
    let locker = locker.clone();
    Contender::new(DLOCK, move |count| {
        let lock = locker.lock("bench/async");
        async move {
            let mut watch = Stopwatch::start();
            for _ in 0..count {
                lock.acquire().await?.release().await?;
                watch.lap();
            }
            Ok(watch.typical())
        }
    })
}

/// dlock, on a thread that parks.
pub(crate) fn dlock_blocking(locker: &Locker) -> Contender {
    let locker = locker.clone();
    Contender::new(DLOCK_BLOCKING, move |count| {
        let lock = locker.lock("bench/blocking");
        async move {
            let work = move || {
                let mut watch = Stopwatch::start();
                for _ in 0..count {
                    lock.acquire_blocking()?.release_blocking()?;
                    watch.lap();
                }
                Ok(watch.typical())
            };
            tokio::task::spawn_blocking(work).await?
        }
    })
}

/// dlock, awaited, by a locker that holds so many other keys.
pub(crate) fn dlock_beside(locker: &Locker, keys: usize) -> Contender {
    let mut contender = dlock_async(locker);
    contender.name = format!("{keys} keys held");
    contender
}
