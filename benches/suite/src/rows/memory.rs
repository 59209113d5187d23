//! Without a server: what the attribute and the memory backend cost.

use std::hint::black_box;

use anyhow::Result;
use dlock::{Config, Error, Locker, db_locked};

use super::Effort;
use crate::entry::{Entry, Target};
use crate::rounds::{Contender, Stopwatch, interleave};

pub(crate) const ROW: &str = "memory";

/// Design: one microsecond.
const TARGET: Target = Target::AtMost(1.0);

/// How many calls are timed together.
const BATCH: u32 = 256;

#[allow(clippy::unnecessary_wraps, reason = "as the attribute's function")]
fn plain(number: u64) -> Result<u64, Error> {
    Ok(black_box(number))
}

#[db_locked(key = "bench/attribute")]
fn locked(number: u64) -> Result<u64, Error> {
    Ok(black_box(number))
}

pub(crate) async fn run(effort: Effort) -> Result<Vec<Entry>> {
    let locker = Locker::connect(Config::from_dsn("memory:")?).await?;
    locker.install_global()?;
    let lock = locker.lock("bench/memory");
    let mut all = [
        calls("std mutex", || {
            static MUTEX: std::sync::Mutex<u64> = std::sync::Mutex::new(0);
            if let Ok(mut number) = MUTEX.lock() {
                *number += 1;
            }
            Ok(())
        }),
        calls("plain call", || plain(1).map(drop)),
        calls("attribute", || locked(1).map(drop)),
        calls("acquire and release", move || {
            lock.acquire_blocking()?.release_blocking()
        }),
    ];
    let outcomes = interleave(&mut all, effort.rounds, effort.slice).await?;
    let mut entries = Entry::of_rounds(ROW, "memory", outcomes);
    for entry in &mut entries {
        if ["attribute", "acquire and release"].contains(&&*entry.who) {
            entry.target = Some(TARGET);
        }
    }
    Ok(entries)
}

fn calls(name: &str, call: impl Fn() -> Result<(), Error> + Clone + Send + 'static) -> Contender {
    Contender::new(name, move |count| {
        let call = call.clone();
        async move {
            let work = move || {
                // Too short to be timed one by one.
                let mut watch = Stopwatch::start();
                for _ in 0..count.div_ceil(BATCH) {
                    for _ in 0..BATCH {
                        black_box(call())?;
                    }
                    watch.lap();
                }
                Ok(watch.typical() * count / (count.div_ceil(BATCH) * BATCH))
            };
            tokio::task::spawn_blocking(work).await?
        }
    })
}
