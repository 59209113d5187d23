//! 256 tasks, each with a key of its own, as fast as they can.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use dlock::Locker;
use futures_util::future::try_join_all;
use tokio::sync::Mutex;
use xtask::servers::Kind;

use super::Effort;
use crate::contenders;
use crate::counting::statements;
use crate::entry::{Entry, Target};
use crate::floor::{mysql, postgres};
use crate::rounds::{Contender, interleave};
use crate::server::Server;
use crate::sqlx;

pub(crate) const ROW: &str = "distinct";

/// Design: at least 0.8 of the floor's rate, so at most this many times its time.
const TARGET: Target = Target::RatioAtMost(1.25);

const TASKS: u32 = 256;

/// One operation is one lock taken and given back by one of the tasks.
pub(crate) async fn run(server: &Server, effort: Effort) -> Result<Vec<Entry>> {
    let url = server.url();
    let locker = contenders::locker(url).await?;
    let mut all = if server.kind == Kind::Postgres {
        let raw = postgres::Raw::connect(url).await?;
        vec![pipelined(raw), dlock(&locker)]
    } else {
        let raw = mysql::Raw::connect(url).await?;
        let batch = mysql::Raw::connect(url).await?;
        vec![one_by_one(raw), dlock(&locker), batched(batch)]
    };
    let key = |task| format!("bench/{task}");
    all.extend(sqlx::tasks(server.kind, url, TASKS, key).await?);
    let outcomes = interleave(&mut all, effort.rounds, effort.slice).await?;
    let mut entries = Entry::of_rounds(ROW, &server.name(), outcomes);
    for (entry, contender) in entries.iter_mut().zip(&mut all) {
        if entry.who.starts_with("dlock") {
            entry.target = Some(TARGET);
        }
        entry.statements = Some(statements(server, contender).await?);
    }
    Ok(entries)
}

/// How often each task does it, so that together they come to at least `count`.
fn each(count: u32) -> u32 {
    count.div_ceil(TASKS)
}

/// The time for `count` of them, where more were done.
macro_rules! share {
    ($start:expr, $count:expr) => {
        Ok($start.elapsed() * $count / (each($count) * TASKS))
    };
}

fn pipelined(raw: Arc<postgres::Raw>) -> Contender {
    Contender::new("raw, pipelined on one connection", move |count| {
        let raw = raw.clone();
        async move {
            let start = Instant::now();
            let tasks = (0..TASKS).map(|task| {
                let raw = raw.clone();
                tokio::spawn(async move {
                    for _ in 0..each(count) {
                        raw.lock(task.into()).await?;
                        raw.unlock(task.into()).await?;
                    }
                    anyhow::Ok(())
                })
            });
            for done in try_join_all(tasks).await? {
                done?;
            }
            share!(start, count)
        }
    })
}

/// MySQL's protocol has no pipelining: one statement after the other.
fn one_by_one(raw: mysql::Raw) -> Contender {
    let raw = Arc::new(Mutex::new(raw));
    Contender::new("raw, one connection", move |count| {
        let raw = raw.clone();
        async move {
            let start = Instant::now();
            let tasks = (0..TASKS).map(|task| {
                let raw = raw.clone();
                let name = format!("bench:{task}");
                tokio::spawn(async move {
                    for _ in 0..each(count) {
                        raw.lock().await.lock(&name).await?;
                        raw.lock().await.unlock(&name).await?;
                    }
                    anyhow::Ok(())
                })
            });
            for done in try_join_all(tasks).await? {
                done?;
            }
            share!(start, count)
        }
    })
}

/// What batches could reach: all names in one statement.
fn batched(raw: mysql::Raw) -> Contender {
    let raw = Arc::new(Mutex::new(raw));
    let names: Arc<[String]> = (0..TASKS).map(|task| format!("batch:{task}")).collect();
    Contender::new("raw, all names in one statement", move |count| {
        let (raw, names) = (raw.clone(), names.clone());
        async move {
            let mut raw = raw.lock().await;
            let start = Instant::now();
            for _ in 0..each(count) {
                raw.batch(mysql::Batch::Lock, &names).await?;
                raw.batch(mysql::Batch::Unlock, &names).await?;
            }
            share!(start, count)
        }
    })
}

fn dlock(locker: &Locker) -> Contender {
    let locker = locker.clone();
    Contender::new("dlock", move |count| {
        let locker = locker.clone();
        async move {
            let start = Instant::now();
            let tasks = (0..TASKS).map(|task| {
                let lock = locker.lock(format!("bench/{task}"));
                tokio::spawn(async move {
                    for _ in 0..each(count) {
                        lock.acquire().await?.release().await?;
                    }
                    anyhow::Ok(())
                })
            });
            for done in try_join_all(tasks).await? {
                done?;
            }
            share!(start, count)
        }
    })
}
