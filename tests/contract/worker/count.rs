//! Counting in a file, which only a lock makes right.

use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context, Result};
use dlock::Locker;

/// Raises the number in a file, once a round, each time under the lock. Two who do so at once lose a step, and meet at
/// the marker.
pub(crate) fn up(locker: &Locker, key: &str, file: &Path, rounds: u32) -> Result<()> {
    let marker = file.with_extension("occupied");
    for _ in 0..rounds {
        let guard = locker.lock(key).acquire_blocking()?;
        File::create_new(&marker).context("somebody else is here")?;
        let number: u64 = fs::read_to_string(file)?.trim().parse()?;
        // The others get every chance to come in between.
        std::thread::yield_now();
        fs::write(file, (number + 1).to_string())?;
        fs::remove_file(&marker)?;
        guard.release_blocking()?;
    }
    Ok(())
}
