//! The Rust peer: sqlx's `PgAdvisoryLock`.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use futures_util::future::try_join_all;
use sqlx::postgres::{PgAdvisoryLock, PgConnection, PgPoolOptions};
use sqlx::{Connection, PgPool};
use tokio::sync::Mutex;
use xtask::servers::Kind;

use crate::rounds::{Contender, Stopwatch};
use crate::worker::moment;

async fn pool(url: &str) -> Result<PgPool> {
    Ok(PgPoolOptions::new()
        .max_connections(10)
        .connect(url)
        .await?)
}

/// Its lock with a connection from its pool, as its documentation shows, and on a connection that is kept in hand.
pub(crate) async fn uncontended(kind: Kind, url: &str) -> Result<Vec<Contender>> {
    if kind != Kind::Postgres {
        return Ok(Vec::new());
    }
    let pool = pool(url).await?;
    let with_pool = Contender::new("sqlx, pool", move |count| {
        let pool = pool.clone();
        async move {
            let lock = PgAdvisoryLock::new("bench/sqlx");
            let mut watch = Stopwatch::start();
            for _ in 0..count {
                let guard = lock.acquire(pool.acquire().await?).await?;
                guard.release_now().await?;
                watch.lap();
            }
            Ok(watch.typical())
        }
    });
    let connection = Arc::new(Mutex::new(PgConnection::connect(url).await?));
    let with_connection = Contender::new("sqlx, one connection", move |count| {
        let connection = connection.clone();
        async move {
            let mut connection = connection.lock().await;
            let lock = PgAdvisoryLock::new("bench/sqlx-connection");
            let mut watch = Stopwatch::start();
            for _ in 0..count {
                let guard = lock.acquire(&mut *connection).await?;
                guard.release_now().await?;
                watch.lap();
            }
            Ok(watch.typical())
        }
    });
    Ok(vec![with_pool, with_connection])
}

/// Some tasks, with a key each or with one for all.
pub(crate) async fn tasks(
    kind: Kind,
    url: &str,
    tasks: u32,
    key: fn(u32) -> String,
) -> Result<Vec<Contender>> {
    if kind != Kind::Postgres {
        return Ok(Vec::new());
    }
    let pool = pool(url).await?;
    let contender = Contender::new("sqlx, pool of 10", move |count| {
        let pool = pool.clone();
        async move {
            let each = count.div_ceil(tasks);
            let start = Instant::now();
            let all = (0..tasks).map(|task| {
                let pool = pool.clone();
                let lock = PgAdvisoryLock::new(key(task));
                tokio::spawn(async move {
                    for _ in 0..each {
                        let guard = lock.acquire(pool.acquire().await?).await?;
                        guard.release_now().await?;
                    }
                    anyhow::Ok(())
                })
            });
            for done in try_join_all(all).await? {
                done?;
            }
            Ok(start.elapsed() * count / (each * tasks))
        }
    });
    Ok(vec![contender])
}

/// Waits for a lock on a connection of its own; the moment of the grant.
pub(crate) async fn wait(url: &str, key: &str) -> Result<u64> {
    let mut connection = PgConnection::connect(url).await?;
    let lock = PgAdvisoryLock::new(key);
    let guard = lock.acquire(&mut connection).await?;
    let granted = moment();
    guard.release_now().await?;
    connection.close().await?;
    Ok(granted)
}

/// Holds a lock until told, and says when it began to give it back.
pub(crate) struct Held {
    connection: Arc<Mutex<PgConnection>>,
    key: String,
}

impl Held {
    pub(crate) async fn open(kind: Kind, url: &str, key: &str) -> Result<Option<Held>> {
        if kind != Kind::Postgres {
            return Ok(None);
        }
        Ok(Some(Held {
            connection: Arc::new(Mutex::new(PgConnection::connect(url).await?)),
            key: key.to_owned(),
        }))
    }

    /// Takes the lock, waits for `queued`, gives it back. The moment before the latter.
    pub(crate) async fn around(&self, queued: impl Future<Output = Result<()>>) -> Result<u64> {
        let mut connection = self.connection.lock().await;
        let lock = PgAdvisoryLock::new(self.key.clone());
        let guard = lock.acquire(&mut *connection).await?;
        queued.await?;
        let from = moment();
        guard.release_now().await?;
        Ok(from)
    }
}
