//! 10,000 keys held by one process: its connections, its memory, and what the heartbeats cost the server.

use std::time::Duration;

use anyhow::{Context, Result};

use super::Effort;
use crate::entry::{Entry, Target};
use crate::server::Server;
use crate::spread::Spread;
use crate::worker::Worker;

pub(crate) const ROW: &str = "held";

const KEYS: u32 = 10_000;

/// The heartbeats of the other process.
const HEARTBEAT: Duration = Duration::from_secs(1);

pub(crate) async fn run(server: &Server, effort: Effort) -> Result<Vec<Entry>> {
    let window = HEARTBEAT * if effort.is_quick { 2 } else { 6 };
    let before = server.settled_connections().await?;
    let mut worker = Worker::start(server.kind, server.url()).await?;
    // The raw connection of the other process is not dlock's.
    let before = before + 1;
    worker.ask("hold 1 first").await?;
    if !effort.is_quick {
        // Until the second connection of the start, which nobody needs, is closed.
        tokio::time::sleep(Duration::from_secs(12)).await;
    }
    let with_one = idle(server, window).await?;
    let memory = resident(&mut worker).await?;
    worker.ask(&format!("hold {KEYS} held")).await?;
    let grown = resident(&mut worker).await? - memory;
    let connections = server.connections().await?.saturating_sub(before);
    let with_all = idle(server, window).await?;

    let name = server.name();
    let new = |who: &str, value: f64, unit: &str| {
        Entry::new(ROW, &name, who, Spread::exactly(value), unit)
    };
    #[allow(clippy::cast_precision_loss, reason = "a few")]
    let open = connections as f64;
    let mut entries = vec![
        new("10,000 keys: connections", open, "").target(Target::AtMost(2.0)),
        new(
            "10,000 keys: memory of a key",
            grown / f64::from(KEYS),
            "KiB",
        )
        .target(Target::AtMost(1.0)),
        new("1 key: statements of a heartbeat", with_one.statements, ""),
        new(
            "10,000 keys: statements of a heartbeat",
            with_all.statements,
            "",
        )
        .target(Target::AtMost(1.2)),
    ];
    if let (Some(one), Some(all)) = (with_one.micros, with_all.micros) {
        entries.push(new("1 key: server's time for a heartbeat", one, "µs"));
        entries.push(
            new("10,000 keys: server's time for a heartbeat", all, "µs")
                .against("1 key", Spread::exactly(all / one))
                .target(Target::RatioAtMost(1.5)),
        );
    }
    Ok(entries)
}

/// What one heartbeat costs the server.
struct Heartbeat {
    statements: f64,
    micros: Option<f64>,
}

async fn idle(server: &Server, window: Duration) -> Result<Heartbeat> {
    let beats = window.as_secs_f64() / HEARTBEAT.as_secs_f64();
    // What came before is over.
    tokio::time::sleep(HEARTBEAT).await;
    let cpu = server.cpu().await?;
    tokio::time::sleep(window).await;
    let micros = cpu
        .zip(server.cpu().await?)
        .map(|(before, after)| after.saturating_sub(before).as_secs_f64() * 1e6 / beats);
    server.count_statements(true).await?;
    let before = server.statements().await?;
    tokio::time::sleep(window).await;
    let after = server.statements().await?;
    server.count_statements(false).await?;
    #[allow(clippy::cast_precision_loss, reason = "a few")]
    let counted = after.saturating_sub(before + server.looking_adds()) as f64;
    Ok(Heartbeat {
        statements: counted / beats,
        micros,
    })
}

async fn resident(worker: &mut Worker) -> Result<f64> {
    let told = worker.ask("memory").await?;
    told.parse().context("no number")
}
