//! From the end of a session on the server to the moment when the holder knows.

use std::time::{Duration, Instant};

use anyhow::Result;
use dlock::{Config, Locker};
use xtask::servers::Kind;

use super::Effort;
use crate::entry::{Entry, Target};
use crate::server::Server;
use crate::spread::Spread;

pub(crate) const ROW: &str = "loss";

/// Where nothing but a heartbeat finds a closed socket, this is the wait.
const HEARTBEAT: Duration = Duration::from_millis(500);

pub(crate) async fn run(server: &Server, effort: Effort) -> Result<Vec<Entry>> {
    let mut times = Vec::new();
    for _ in 0..effort.rounds(25) {
        let config = Config::from_dsn(server.url())?.heartbeat(HEARTBEAT);
        let locker = Locker::connect(config).await?;
        let guard = locker.lock("bench/loss").acquire().await?;
        // At any point between two heartbeats.
        let pause = moment_of_a_heartbeat();
        tokio::time::sleep(pause).await;
        let told = tokio::spawn(async move {
            guard.lost().await;
            Instant::now()
        });
        let killed = Instant::now();
        server.kill_all().await?;
        let told = told.await?;
        times.push(told.saturating_duration_since(killed).as_secs_f64() * 1e3);
        locker.shutdown(Duration::from_secs(1)).await;
    }
    let target = match server.kind {
        Kind::Postgres => 100.0,
        // A heartbeat, and its round trip on a machine that does something else too.
        Kind::MariaDb | Kind::MySql => HEARTBEAT.as_secs_f64() * 1e3 + 100.0,
    };
    let who = format!("killed session, heartbeat of {HEARTBEAT:?}");
    Ok(vec![
        Entry::new(ROW, server.name(), who, Spread::of(times), "ms")
            .target(Target::NeverAbove(target)),
    ])
}

fn moment_of_a_heartbeat() -> Duration {
    let nanoseconds = crate::worker::moment() / 1000 % 500;
    Duration::from_millis(nanoseconds)
}
