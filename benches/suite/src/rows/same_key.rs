//! 64 tasks of one process that want one key, as fast as they can.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use futures_util::future::try_join_all;
use tokio::sync::{Mutex, Semaphore};

use super::Effort;
use crate::contenders;
use crate::entry::{Entry, Target};
use crate::floor::{Raw, raw};
use crate::rounds::{Contender, interleave};
use crate::server::Server;
use crate::sqlx;

pub(crate) const ROW: &str = "same-key";

/// Design: at least 20 times the rate of who goes to the server each time.
const TARGET: Target = Target::RatioAtMost(0.05);

const TASKS: u32 = 64;
const CONNECTIONS: usize = 10;

/// One operation is one turn of one task.
pub(crate) async fn run(server: &Server, effort: Effort) -> Result<Vec<Entry>> {
    let url = server.url();
    let mut all = sqlx::tasks(server.kind, url, TASKS, |_| "bench/same".to_owned()).await?;
    all.push(pool(server).await?);
    all.push(dlock(url, TASKS).await?);
    let outcomes = interleave(&mut all, effort.rounds, effort.slice).await?;
    let mut entries = Entry::of_rounds(ROW, &server.name(), outcomes);
    for entry in &mut entries {
        if entry.who.starts_with("dlock") {
            entry.target = Some(TARGET);
        }
    }
    Ok(entries)
}

/// Raw connections that wait in the server's queue.
async fn pool(server: &Server) -> Result<Contender> {
    let mut free = Vec::new();
    for _ in 0..CONNECTIONS {
        free.push(raw(server.kind, server.url()).await?);
    }
    let pool = Arc::new((Semaphore::new(CONNECTIONS), Mutex::new(free)));
    Ok(Contender::new("raw, 10 connections", move |count| {
        let pool = pool.clone();
        async move {
            let each = count.div_ceil(TASKS);
            let start = Instant::now();
            let tasks = (0..TASKS).map(|_| {
                let pool = pool.clone();
                tokio::spawn(async move {
                    for _ in 0..each {
                        let _permit = pool.0.acquire().await?;
                        let mut connection: Raw =
                            pool.1.lock().await.pop().context("no connection")?;
                        connection.wait("bench:same").await?;
                        connection.unlock("bench:same").await?;
                        pool.1.lock().await.push(connection);
                    }
                    anyhow::Ok(())
                })
            });
            for done in try_join_all(tasks).await? {
                done?;
            }
            Ok(start.elapsed() * count / (each * TASKS))
        }
    }))
}

/// So many tasks on one key.
pub(crate) async fn dlock(url: &str, tasks: u32) -> Result<Contender> {
    let locker = contenders::locker(url).await?;
    Ok(Contender::new("dlock", move |count| {
        let lock = locker.lock("bench/same");
        async move {
            let each = count.div_ceil(tasks);
            let start = Instant::now();
            let tasks_running = (0..tasks).map(|_| {
                let lock = lock.clone();
                tokio::spawn(async move {
                    for _ in 0..each {
                        lock.acquire().await?.release().await?;
                    }
                    anyhow::Ok(())
                })
            });
            for done in try_join_all(tasks_running).await? {
                done?;
            }
            Ok(start.elapsed() * count / (each * tasks))
        }
    }))
}
