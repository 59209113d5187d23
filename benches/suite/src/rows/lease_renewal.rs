//! Leases that one process holds and renews: the statements of a renewal, and the server's time for them.

use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::sleep;

use super::Effort;
use crate::entry::{Entry, Target};
use crate::server::Server;
use crate::spread::Spread;
use crate::worker::Worker;

pub(crate) const ROW: &str = "lease-renewal";

/// Each third of it, all leases are renewed.
const TTL: Duration = Duration::from_secs(6);
const PERIOD: Duration = Duration::from_secs(2);

/// So many leases in words and as a number, and how many of them are taken in the step.
const STEPS: [(&str, u32, u32); 2] = [("1,000", 1_000, 1_000), ("10,000", 10_000, 9_000)];

pub(crate) async fn run(server: &Server, effort: Effort) -> Result<Vec<Entry>> {
    let periods = if effort.is_quick { 2 } else { 5 };
    let mut worker = Worker::start(server.kind, server.url()).await?;
    worker.ask(&format!("leases {}", TTL.as_millis())).await?;
    let mut entries = Vec::new();
    let mut first = None;
    for (name, leases, more) in STEPS {
        worker.ask(&format!("hold {more} renewal/{leases}")).await?;
        let cost = renewals(server, periods).await?;
        // Of one that was lost there is nothing to renew.
        worker.ask("standing").await?;
        let thousands = f64::from(leases) / 1e3;
        let new = |what: &str, value: f64, unit: &str| {
            let who = format!("{name} leases: {what}");
            Entry::new(ROW, server.name(), who, Spread::exactly(value), unit)
        };
        let statements = cost.statements / thousands;
        entries.push(
            new("statements, for 1,000 and a period", statements, "").target(Target::AtMost(1.0)),
        );
        let millis = cost.millis / thousands;
        let mut time = new("server's time, for 1,000 and a period", millis, "ms");
        if let Some(base) = first {
            time = time.against("1,000 leases", Spread::exactly(millis / base));
        }
        first.get_or_insert(millis);
        entries.push(time);
    }
    Ok(entries)
}

/// What one renewal of all leases costs the server.
struct Cost {
    statements: f64,
    millis: f64,
}

async fn renewals(server: &Server, periods: u32) -> Result<Cost> {
    let window = PERIOD * periods;
    server.count_statements(true).await?;
    between_two(server).await?;
    let before = server.statements().await?;
    sleep(window).await;
    let after = server.statements().await?;
    server.count_statements(false).await?;
    #[allow(clippy::cast_precision_loss, reason = "some hundreds")]
    let counted = after.saturating_sub(before + server.looking_adds()) as f64;
    let before = server.busy().await?;
    sleep(window).await;
    let busy = server.busy().await?.saturating_sub(before);
    Ok(Cost {
        statements: counted / f64::from(periods),
        millis: busy.as_secs_f64() * 1e3 / f64::from(periods),
    })
}

/// Until half-way between two renewals: so many periods from there on have as many renewals.
async fn between_two(server: &Server) -> Result<()> {
    // Those that were taken one after the other are renewed together from the next time on.
    sleep(PERIOD).await;
    let mut seen = server.statements().await?;
    for _ in 0..100 {
        sleep(PERIOD / 40).await;
        let now = server.statements().await?;
        if now > seen + server.looking_adds() {
            sleep(PERIOD / 2).await;
            return Ok(());
        }
        seen = now;
    }
    bail!("no renewal was seen")
}
