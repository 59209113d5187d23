//! What a server leaves on disk about itself, so that any process can stop and remove it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use super::{Kind, launch::Site, place, process::Process};

/// What another process must know to stop and remove a server.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) kind: Kind,
    /// `None` before the first start.
    pub(crate) process: Option<Process>,
    pub(crate) site: Site,
    pub(crate) home: PathBuf,
}

/// The file of the record, in the server's directory.
const RECORD: &str = "record.json";

impl Record {
    /// The record of the server with that directory, if there is one.
    pub(crate) fn read(home: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(home.join(RECORD)).ok()?).ok()
    }

    /// Notes it in the server's directory.
    pub(crate) fn write(&self) -> Result<()> {
        let path = self.home.join(RECORD);
        let new = path.with_extension("new");
        fs::write(&new, serde_json::to_vec(self)?)?;
        fs::rename(&new, &path).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Whether the server runs: the same process, with the same data.
    pub(crate) fn is_alive(&self) -> bool {
        self.running().is_some()
    }

    fn running(&self) -> Option<Process> {
        self.process
            .filter(|process| process.is_alive() && process.names(&self.site.data))
    }

    /// Stops the server if it runs, and removes its directories.
    pub(crate) fn remove(&self) -> Result<()> {
        if let Some(process) = self.running() {
            halt(self.kind, process)?;
        }
        clean(&self.site, &self.home)
    }
}

/// The name of the directory of the server that [`super::up`] starts.
pub(crate) fn kept_name(kind: Kind) -> String {
    format!("up-{}", kind.id())
}

/// Ends a server at once, in the way that leaves least behind.
pub(crate) fn halt(kind: Kind, process: Process) -> Result<()> {
    if kind != Kind::Postgres {
        return process.kill_tree();
    }
    // PostgreSQL's way to end at once: unlike after a SIGKILL, it removes its shared memory.
    process.thaw();
    process.signal(Signal::QUIT);
    process
        .wait_for_end(Duration::from_secs(10))
        .or_else(|_| process.kill_tree())
}

/// Removes what a server that has ended left behind.
pub(crate) fn clean(site: &Site, home: &Path) -> Result<()> {
    remove_shared_memory(&site.data);
    place::remove(&site.run)?;
    place::remove(home)
}

/// Removes the System V segment of a PostgreSQL that was killed; it would stay until the next start of the machine.
fn remove_shared_memory(data: &Path) {
    let Ok(text) = fs::read_to_string(data.join("postmaster.pid")) else {
        return;
    };
    // Line 7: the key and the number of the segment.
    let segment = text
        .lines()
        .nth(6)
        .and_then(|line| line.split_whitespace().nth(1));
    if let Some(segment) = segment {
        // It may be gone already.
        let _ = Command::new("ipcrm")
            .args(["-m", segment])
            .stderr(Stdio::null())
            .status();
    }
}
