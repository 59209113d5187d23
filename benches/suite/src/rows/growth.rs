//! How the costs grow: with the keys held, with the tasks that wait for one key, and with the processes.

use std::time::Duration;

use anyhow::Result;
use futures_util::future::try_join_all;

use super::{Effort, same_key};
use crate::contenders;
use crate::entry::Entry;
use crate::rounds::interleave;
use crate::server::Server;
use crate::spread::Spread;
use crate::worker::Worker;

pub(crate) const ROW: &str = "growth";

const KEYS: [usize; 5] = [1, 10, 100, 1000, 10_000];
const WAITERS: [u32; 4] = [1, 10, 100, 1000];
const PROCESSES: [usize; 4] = [1, 4, 16, 64];

pub(crate) async fn run(server: &Server, effort: Effort) -> Result<Vec<Entry>> {
    let mut entries = with_keys(server, effort).await?;
    entries.extend(with_waiters(server, effort).await?);
    entries.extend(with_processes(server, effort).await?);
    Ok(entries)
}

/// One lock taken and given back, while others are held; in lockers of their own, so that rounds can interleave.
async fn with_keys(server: &Server, effort: Effort) -> Result<Vec<Entry>> {
    let mut all = Vec::new();
    let mut held = Vec::new();
    for keys in KEYS {
        let locker = contenders::locker(server.url()).await?;
        // Together not more than twice 10,000: the server's table of locks has an end.
        for some in (0..keys).collect::<Vec<_>>().chunks(256) {
            let taking = some.iter().map(|key| {
                let lock = locker.lock(format!("growth/{keys}/{key}"));
                async move { lock.acquire().await }
            });
            held.extend(try_join_all(taking).await?);
        }
        all.push(contenders::dlock_beside(&locker, keys));
    }
    let outcomes = interleave(&mut all, effort.rounds, effort.slice).await?;
    Ok(Entry::of_rounds(ROW, &server.name(), outcomes))
}

/// Turns of one key in one process.
async fn with_waiters(server: &Server, effort: Effort) -> Result<Vec<Entry>> {
    let mut all = Vec::new();
    for tasks in WAITERS {
        let mut contender = same_key::dlock(server.url(), tasks).await?;
        contender.name = format!("{tasks} tasks on one key");
        all.push(contender);
    }
    let outcomes = interleave(&mut all, effort.rounds, effort.slice).await?;
    Ok(Entry::of_rounds(ROW, &server.name(), outcomes))
}

/// Turns of one key, and of a key each, by processes that do nothing else.
async fn with_processes(server: &Server, effort: Effort) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    let time = Duration::from_millis(if effort.is_quick { 50 } else { 250 });
    for one_key in [false, true] {
        for count in PROCESSES {
            let mut workers = Vec::new();
            for _ in 0..count {
                workers.push(Worker::start(server.kind, server.url()).await?);
            }
            let (mut raw, mut dlock) = (Vec::new(), Vec::new());
            for _ in 0..effort.rounds(5) {
                raw.push(spin(&mut workers, "raw", time, one_key).await?);
                dlock.push(spin(&mut workers, "dlock", time, one_key).await?);
            }
            let ratio = Spread::of(dlock.iter().zip(&raw).map(|(dlock, raw)| dlock / raw));
            let keys = if one_key { "one key" } else { "a key each" };
            let who = format!("{count} processes, {keys}");
            entries.push(
                Entry::new(ROW, server.name(), who, Spread::of(dlock), "µs").against("raw", ratio),
            );
        }
    }
    Ok(entries)
}

/// Microseconds for each turn, all processes together.
async fn spin(workers: &mut [Worker], who: &str, time: Duration, one_key: bool) -> Result<f64> {
    for (number, worker) in workers.iter_mut().enumerate() {
        let key = if one_key { 0 } else { number };
        let milliseconds = time.as_millis();
        worker
            .order(&format!("spin {who} {milliseconds} bench:processes:{key}"))
            .await?;
    }
    let mut turns = 0.0;
    for worker in workers {
        turns += worker.answer().await?.parse::<f64>()?;
    }
    Ok(time.as_secs_f64() * 1e6 / turns)
}
