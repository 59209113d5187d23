//! 1,000 tasks that wait for 1,000 keys, which another process holds: how many connections that takes.

use std::time::Duration;

use anyhow::Result;

use super::Effort;
use crate::contenders;
use crate::entry::{Entry, Target};
use crate::server::Server;
use crate::spread::Spread;
use crate::worker::Worker;

pub(crate) const ROW: &str = "waiting";

const TASKS: usize = 1000;

/// The default of `max_waiters`, and the keeper.
const TARGET: Target = Target::NeverAbove(9.0);

pub(crate) async fn run(server: &Server, effort: Effort) -> Result<Vec<Entry>> {
    let mut worker = Worker::start(server.kind, server.url()).await?;
    worker.ask(&format!("hold {TASKS} busy")).await?;
    let before = server.settled_connections().await?;
    let locker = contenders::locker(server.url()).await?;
    let patience = Duration::from_secs(if effort.is_quick { 2 } else { 6 });
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let lock = locker.lock(format!("busy/{task}")).timeout(patience);
            tokio::spawn(async move { lock.acquire().await.map(drop) })
        })
        .collect();
    let mut connections = Vec::new();
    while !tasks.iter().all(tokio::task::JoinHandle::is_finished) {
        tokio::time::sleep(Duration::from_millis(50)).await;
        #[allow(clippy::cast_precision_loss, reason = "some hundreds at most")]
        connections.push(server.connections().await?.saturating_sub(before) as f64);
    }
    let mut otherwise = 0.0;
    for task in tasks {
        match task.await? {
            Err(error) if error.is_busy() => {}
            Err(error) => {
                if otherwise == 0.0 {
                    eprintln!("a busy key was reported otherwise: {error}");
                }
                otherwise += 1.0;
            }
            Ok(()) => anyhow::bail!("a busy key was granted"),
        }
    }
    let spread = Spread::of(connections);
    Ok(vec![
        Entry::new(
            ROW,
            server.name(),
            "1,000 tasks on 1,000 busy keys",
            spread,
            "connections",
        )
        .target(TARGET),
        Entry::new(
            ROW,
            server.name(),
            "of them, time-outs not reported as busy",
            Spread::exactly(otherwise),
            "",
        )
        .target(Target::NeverAbove(0.0)),
    ])
}
