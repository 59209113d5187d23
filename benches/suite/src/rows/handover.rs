//! From the release in one process to the grant in another that waits.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::sync::Mutex;

use super::Effort;
use crate::contenders;
use crate::entry::{Entry, Target};
use crate::floor::{Raw, apart::Apart, raw};
use crate::rounds::{Contender, interleave};
use crate::server::Server;
use crate::sqlx;
use crate::worker::{Worker, moment};

pub(crate) const ROW: &str = "hand-over";

/// Design: at most this many times the raw wait in the server's queue.
const TARGET: Target = Target::RatioAtMost(1.3);

pub(super) const KEY: &str = "bench:hand-over";

pub(crate) async fn run(server: &Arc<Server>, effort: Effort) -> Result<Vec<Entry>> {
    let mut all = vec![
        by_raw(server).await?,
        by_dlock(server).await?,
        by_raw_apart(server).await?,
    ];
    all.extend(by_sqlx(server).await?);
    let slice = Duration::from_millis(4);
    let outcomes = interleave(&mut all, effort.rounds(41), slice).await?;
    let mut entries = Entry::of_rounds(ROW, &server.name(), outcomes);
    for entry in &mut entries {
        if entry.who.starts_with("dlock") {
            entry.target = Some(TARGET);
        }
    }
    Ok(entries)
}

pub(super) async fn by_raw(server: &Arc<Server>) -> Result<Contender> {
    let worker = other(server).await?;
    let holder = Arc::new(Mutex::new(raw(server.kind, server.url()).await?));
    let server = server.clone();
    Ok(Contender::new("raw", move |count| {
        let (worker, holder, server) = (worker.clone(), holder.clone(), server.clone());
        async move {
            let mut worker = worker.lock().await;
            let mut holder = holder.lock().await;
            let mut times = Vec::new();
            for _ in 0..count {
                Raw::wait(&mut holder, KEY).await?;
                worker.order(&format!("wait raw {KEY}")).await?;
                queued(&server).await?;
                let from = moment();
                holder.unlock(KEY).await?;
                times.push(since(from, &worker.answer().await?)?);
            }
            Ok(median(times) * count)
        }
    }))
}

/// What two threads cost that wake each other, on either side.
async fn by_raw_apart(server: &Arc<Server>) -> Result<Contender> {
    let worker = other(server).await?;
    let holder = Arc::new(Apart::open(server.kind, server.url()).await?);
    let server = server.clone();
    Ok(Contender::new("raw, behind a thread", move |count| {
        let (worker, holder, server) = (worker.clone(), holder.clone(), server.clone());
        async move {
            let mut worker = worker.lock().await;
            let mut times = Vec::new();
            for _ in 0..count {
                holder.wait(KEY).await?;
                worker.order(&format!("wait apart {KEY}")).await?;
                queued(&server).await?;
                let from = moment();
                holder.unlock(KEY).await?;
                times.push(since(from, &worker.answer().await?)?);
            }
            Ok(median(times) * count)
        }
    }))
}

async fn by_dlock(server: &Arc<Server>) -> Result<Contender> {
    let worker = other(server).await?;
    let locker = contenders::locker(server.url()).await?;
    let server = server.clone();
    Ok(Contender::new("dlock", move |count| {
        let (worker, lock, server) = (worker.clone(), locker.lock(KEY), server.clone());
        async move {
            let mut worker = worker.lock().await;
            let mut times = Vec::new();
            for _ in 0..count {
                let guard = lock.acquire().await?;
                worker.order(&format!("wait dlock {KEY}")).await?;
                queued(&server).await?;
                let from = moment();
                guard.release().await?;
                times.push(since(from, &worker.answer().await?)?);
            }
            Ok(median(times) * count)
        }
    }))
}

async fn by_sqlx(server: &Arc<Server>) -> Result<Option<Contender>> {
    let Some(holder) = sqlx::Held::open(server.kind, server.url(), KEY).await? else {
        return Ok(None);
    };
    let (worker, holder) = (other(server).await?, Arc::new(holder));
    let server = server.clone();
    Ok(Some(Contender::new("sqlx", move |count| {
        let (worker, holder, server) = (worker.clone(), holder.clone(), server.clone());
        async move {
            let mut worker = worker.lock().await;
            let mut times = Vec::new();
            for _ in 0..count {
                let waiting = async {
                    worker.order(&format!("wait sqlx {KEY}")).await?;
                    queued(&server).await
                };
                let from = holder.around(waiting).await?;
                times.push(since(from, &worker.answer().await?)?);
            }
            Ok(median(times) * count)
        }
    })))
}

pub(super) async fn other(server: &Server) -> Result<Arc<Mutex<Worker>>> {
    let worker = Worker::start(server.kind, server.url()).await?;
    Ok(Arc::new(Mutex::new(worker)))
}

/// Until somebody stands in the server's queue.
async fn queued(server: &Server) -> Result<()> {
    for _ in 0..5000 {
        if server.waiting().await? > 0 {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    anyhow::bail!("nobody waits")
}

pub(super) fn since(from: u64, granted: &str) -> Result<Duration> {
    let granted: u64 = granted.parse().context("no moment")?;
    // The grant may come before the release has returned, but not before it began.
    Ok(Duration::from_nanos(granted.saturating_sub(from)))
}

pub(super) fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}
