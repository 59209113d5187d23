//! From the release of a lease in one process to the grant in another that waits: told on PostgreSQL, found by asking
//! elsewhere.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use dlock::Locker;
use tokio::time::sleep;
use xtask::servers::Kind;

use super::Effort;
use super::handover::{KEY, by_raw, median, other, since};
use crate::contenders::{self, TTL};
use crate::entry::{Entry, Target};
use crate::rounds::{Contender, interleave};
use crate::server::Server;
use crate::worker::moment;

pub(crate) const ROW: &str = "lease-hand-over";

/// Where releases wake: microseconds.
const TARGET: Target = Target::AtMost(5000.0);

pub(crate) async fn run(server: &Arc<Server>, effort: Effort) -> Result<Vec<Entry>> {
    let mut raw = by_raw(server).await?;
    "raw, in the server's queue".clone_into(&mut raw.name);
    let mut all = vec![raw, by_lease(server).await?];
    let wakes = server.kind == Kind::Postgres;
    let rounds = effort.rounds(if wakes { 41 } else { 25 });
    let outcomes = interleave(&mut all, rounds, Duration::from_millis(4)).await?;
    let mut entries = Entry::of_rounds(ROW, &server.name(), outcomes);
    if let (true, Some(lease)) = (wakes, entries.last_mut()) {
        lease.target = Some(TARGET);
    }
    Ok(entries)
}

async fn by_lease(server: &Arc<Server>) -> Result<Contender> {
    let worker = other(server).await?;
    let order = format!("leases {}", TTL.as_millis());
    worker.lock().await.ask(&order).await?;
    let locker = contenders::leases(server.url(), TTL).await?;
    let kind = server.kind;
    Ok(Contender::new("dlock, leases", move |count| {
        let (worker, locker) = (worker.clone(), locker.clone());
        async move {
            let mut worker = worker.lock().await;
            let mut times = Vec::new();
            for _ in 0..count {
                let guard = locker.lock(KEY).acquire().await?;
                worker.order(&format!("wait dlock {KEY}")).await?;
                announced(&locker).await?;
                sleep(body(kind)).await;
                let from = moment();
                guard.release().await?;
                times.push(since(from, &worker.answer().await?)?);
            }
            Ok(median(times) * count)
        }
    }))
}

/// Until the row says that somebody waits.
async fn announced(locker: &Locker) -> Result<()> {
    for _ in 0..5000 {
        let lock = locker.inspect(KEY).await?;
        if lock.is_some_and(|lock| !lock.waiters.is_empty()) {
            return Ok(());
        }
        sleep(Duration::from_millis(1)).await;
    }
    bail!("nobody waits")
}

/// How long the lease is kept from others. Who asks does so the more seldom, the longer it waits: until the pauses are as
/// long as they get, and then to any point of one.
fn body(kind: Kind) -> Duration {
    match kind {
        Kind::Postgres => Duration::from_millis(10),
        Kind::MariaDb | Kind::MySql => Duration::from_millis(600 + moment() / 1000 % 200),
    }
}
