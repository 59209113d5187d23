//! One lease that nobody else wants, taken and given back.

use std::sync::Arc;

use anyhow::Result;
use tokio::sync::Mutex;

use super::Effort;
use crate::contenders::{self, TTL};
use crate::counting::statements;
use crate::entry::{Entry, Target};
use crate::floor::lease::Raw;
use crate::rounds::{Contender, Stopwatch, interleave};
use crate::server::Server;

pub(crate) const ROW: &str = "lease-uncontended";

/// At most this many times the same two statements by the raw driver.
const TARGET: Target = Target::RatioAtMost(1.2);

const RAW_KEY: &str = "bench/raw";

pub(crate) async fn run(server: &Server, effort: Effort) -> Result<Vec<Entry>> {
    let locker = contenders::leases(server.url(), TTL).await?;
    // The first take of a name makes its row, which the floor needs.
    locker.lock(RAW_KEY).acquire().await?.release().await?;
    let mut all = vec![
        by_raw(server).await?,
        contenders::dlock_async(&locker),
        contenders::dlock_blocking(&locker),
    ];
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

async fn by_raw(server: &Server) -> Result<Contender> {
    let raw = Raw::connect(server.kind, server.url()).await?;
    let raw = Arc::new(Mutex::new(raw));
    Ok(Contender::new("raw take and release", move |count| {
        let raw = raw.clone();
        async move {
            let mut raw = raw.lock().await;
            let mut watch = Stopwatch::start();
            for _ in 0..count {
                raw.turn(RAW_KEY).await?;
                watch.lap();
            }
            Ok(watch.typical())
        }
    }))
}
