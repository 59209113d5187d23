//! Tasks of one process that hand a lock to each other, while another process waits: how long they keep it out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use futures_util::future::try_join_all;

use super::Effort;
use crate::contenders;
use crate::entry::{Entry, Target};
use crate::floor::raw;
use crate::server::Server;
use crate::spread::Spread;
use crate::worker::Worker;

pub(crate) const ROW: &str = "bound";

/// The default of `hand_over`.
const BOUND: Duration = Duration::from_millis(20);

const TASKS: usize = 64;

/// What each body does.
const BODY: Duration = Duration::from_millis(1);

pub(crate) async fn run(server: &Server, effort: Effort) -> Result<Vec<Entry>> {
    let mut worker = Worker::start(server.kind, server.url()).await?;
    let mut floor = raw(server.kind, server.url()).await?;
    let locker = contenders::locker(server.url()).await?;
    let over = Arc::new(AtomicBool::new(false));
    let slowest = Arc::new(AtomicU64::new(0));
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| {
            let lock = locker.lock("bench/bound");
            let (over, slowest) = (over.clone(), slowest.clone());
            tokio::spawn(async move {
                while !over.load(Ordering::SeqCst) {
                    let guard = lock.acquire().await?;
                    let start = Instant::now();
                    tokio::time::sleep(BODY).await;
                    let micros = start.elapsed().as_micros().try_into().unwrap_or(u64::MAX);
                    slowest.fetch_max(micros, Ordering::SeqCst);
                    guard.release().await?;
                }
                Ok::<(), dlock::Error>(())
            })
        })
        .collect();
    worker
        .order(&format!("turns {} bench/bound", effort.rounds(60)))
        .await?;
    let mut round_trips = Vec::new();
    let answer = {
        let mut answer = std::pin::pin!(worker.answer());
        loop {
            tokio::select! {
                answer = &mut answer => break answer?,
                () = tokio::time::sleep(Duration::from_millis(5)) => {
                    let start = Instant::now();
                    floor.one().await?;
                    round_trips.push(micros(start.elapsed()));
                }
            }
        }
    };
    over.store(true, Ordering::SeqCst);
    for done in try_join_all(tasks).await? {
        done?;
    }
    let waits: Vec<f64> = answer
        .split(' ')
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    #[allow(clippy::cast_precision_loss, reason = "less than a minute")]
    let body = slowest.load(Ordering::SeqCst) as f64;
    let allowed = micros(BOUND) + body + Spread::of(round_trips).worst;
    let ratio = Spread::of(waits.iter().map(|wait| wait / allowed));
    let waits = Spread::of(waits.iter().map(|wait| wait / 1e3));
    Ok(vec![
        Entry::new(
            ROW,
            server.name(),
            "another process, against 64 tasks",
            waits,
            "ms",
        )
        .against(
            format!(
                "the bound, the slowest body and round trip ({:.1} ms)",
                allowed / 1e3
            ),
            ratio,
        )
        .target(Target::RatioNeverAbove(1.0)),
    ])
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
