//! The short runs of CI: each server with each strategy, a file, a failover and a cluster, with fixed seeds.

use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow};

use crate::arguments::Arguments;
use crate::once;

/// The combinations, their faults and their seeds. Those of one wave run side by side: the machine is shared by all of them.
const WAVES: [&[(&str, &str, &str, u64)]; 2] = [
    &[
        ("postgres", "session", "all", 11),
        ("mariadb", "session", "all", 12),
        ("mysql", "session", "all", 13),
        ("sqlite", "lease", "all", 14),
        // Half a minute is not enough for all of its faults: those that no other has, and a kill.
        ("galera", "lease", CLUSTER, 15),
    ],
    &[
        ("postgres", "lease", "all", 21),
        ("mariadb", "lease", "all", 22),
        ("mysql", "lease", "all", 23),
        ("failover", "lease", "all", 24),
    ],
];

const CLUSTER: &str = "frozen-node,killed-node,quorum-loss,kill";

/// How long each run is broken.
const LASTS: Duration = Duration::from_secs(30);

/// Runs all of them. Whether nothing was broken.
pub(crate) fn run(arguments: &Arguments) -> Result<bool> {
    let mut sound = true;
    for wave in WAVES {
        thread::scope(|scope| {
            let runs: Vec<_> = wave
                .iter()
                .map(|(server, strategy, faults, seed)| {
                    let arguments = arguments.on(server, strategy, faults, LASTS, *seed);
                    scope.spawn(move || once(&arguments.orders()?))
                })
                .collect();
            for run in runs {
                let (text, verdict) = run.join().map_err(|_| anyhow!("a run panicked"))??;
                println!("{text}");
                sound &= verdict.violations.is_empty();
            }
            anyhow::Ok(())
        })?;
    }
    Ok(sound)
}
