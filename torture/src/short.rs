//! The short runs of CI: each server with each strategy, a file, and a failover, with fixed seeds. A cluster takes too long to
//! break.

use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow};

use crate::arguments::Arguments;
use crate::once;

/// The combinations, by seed. Those of one wave run side by side: the machine is shared by all of them.
const WAVES: [[(&str, &str, u64); 4]; 2] = [
    [
        ("postgres", "session", 11),
        ("mariadb", "session", 12),
        ("mysql", "session", 13),
        ("sqlite", "lease", 14),
    ],
    [
        ("postgres", "lease", 21),
        ("mariadb", "lease", 22),
        ("mysql", "lease", 23),
        ("failover", "lease", 24),
    ],
];

/// How long each run is broken.
const LASTS: Duration = Duration::from_secs(30);

/// Runs all of them. Whether nothing was broken.
pub(crate) fn run(arguments: &Arguments) -> Result<bool> {
    let mut sound = true;
    for wave in WAVES {
        thread::scope(|scope| {
            let runs = wave.map(|(server, strategy, seed)| {
                let arguments = arguments.on(server, strategy, LASTS, seed);
                scope.spawn(move || once(&arguments.orders()?))
            });
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
