//! False clocks: libfaketime shows a process another time than the machine's.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use anyhow::{Context, Result};

use super::{
    packages::{Bundle, unpacked},
    place,
};

/// The wall clock of a process, some seconds ahead of the machine's or behind it.
///
/// The clocks that only measure time (`CLOCK_MONOTONIC`, `CLOCK_BOOTTIME`) stay true: what waits, waits as long as told.
#[derive(Clone, Debug)]
pub struct FakeClock {
    library: PathBuf,
    seconds_ahead: i64,
}

impl FakeClock {
    /// A clock that shows so many seconds more than the machine's; less, when negative.
    ///
    /// # Errors
    ///
    /// When there is no libfaketime to be had.
    pub fn ahead(seconds_ahead: i64) -> Result<Self> {
        let library = unpacked(Bundle::FakeTime, |tree| {
            let libraries = fs::read_dir(tree.join("usr/lib"))?.flatten();
            libraries
                .map(|entry| entry.path().join("faketime/libfaketimeMT.so.1"))
                .find(|library| library.is_file())
                .context("the packages come without libfaketimeMT.so.1")
        })?;
        Ok(Self {
            library,
            seconds_ahead,
        })
    }

    /// Shows this time to the process that the command starts, from its start to its end.
    pub fn show_to(&self, command: &mut Command) {
        Self::preload(&self.library, command);
        command.env("FAKETIME", offset(self.seconds_ahead));
    }

    /// Shows the time that a file in the directory `run` says, so that it can [change](Self::change), also to the next
    /// process that is started so.
    ///
    /// # Errors
    ///
    /// When the directory cannot be written.
    pub fn show_by_file(&self, command: &mut Command, run: &Path) -> Result<()> {
        // Where everybody reaches it.
        let library = run.join("libfaketime.so");
        if !library.exists() {
            fs::copy(&self.library, &library)?;
            set(run, self.seconds_ahead)?;
        }
        Self::preload(&library, command);
        command
            .env("FAKETIME_TIMESTAMP_FILE", run.join(FILE))
            // Read at each look at the clock, the file would cost MySQL a minute at its start.
            .env("FAKETIME_CACHE_DURATION", CACHED.as_secs().to_string());
        Ok(())
    }

    /// Changes the time that processes are shown by a file in `run`, and returns when they see it: after two seconds.
    ///
    /// # Errors
    ///
    /// When the directory cannot be written.
    pub fn change(run: &Path, seconds_ahead: i64) -> Result<()> {
        set(run, seconds_ahead)?;
        // And as much again: it counts whole seconds.
        thread::sleep(CACHED * 2);
        Ok(())
    }

    fn preload(library: &Path, command: &mut Command) {
        command
            .env("LD_PRELOAD", library)
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            // Its shared memory would outlive a killed process.
            .env("FAKETIME_DISABLE_SHM", "1");
    }
}

/// How long a process believes what it has read in the file.
const CACHED: Duration = Duration::from_secs(1);

/// The file with the offset, in the server's private directory.
const FILE: &str = "clock";

fn set(run: &Path, seconds_ahead: i64) -> Result<()> {
    let new = run.join("clock.new");
    fs::write(&new, offset(seconds_ahead) + "\n")?;
    place::open_to_all(&new)?;
    fs::rename(&new, run.join(FILE)).context("cannot set the false clock")
}

fn offset(seconds_ahead: i64) -> String {
    format!("{seconds_ahead:+}")
}
