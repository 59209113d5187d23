//! The short runs of CI: every combination of server and strategy side by side, with fixed seeds.

use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow};

use crate::arguments::Arguments;
use crate::once;

/// The combinations. Another strategy is another line.
const COMBINATIONS: [(&str, &str, u64); 3] = [
    ("postgres", "session", 11),
    ("mariadb", "session", 12),
    ("mysql", "session", 13),
];

/// How long each run is broken.
const LASTS: Duration = Duration::from_secs(30);

/// Runs all of them. Whether nothing was broken.
pub(crate) fn run(arguments: &Arguments) -> Result<bool> {
    thread::scope(|scope| {
        let runs = COMBINATIONS.map(|(server, strategy, seed)| {
            // The machine is shared by all of them.
            let arguments = arguments.on(server, strategy, LASTS, seed);
            scope.spawn(move || once(&arguments.orders()?))
        });
        let mut sound = true;
        for run in runs {
            let (text, verdict) = run.join().map_err(|_| anyhow!("a run panicked"))??;
            println!("{text}");
            sound &= verdict.violations.is_empty();
        }
        Ok(sound)
    })
}
