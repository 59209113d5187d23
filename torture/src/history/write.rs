//! Writing a history.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};

use super::{Event, Record};
use crate::clock::{Moment, now};

/// The file of one process. A record is one `write`: it survives the death of the process, and needs no flush.
#[derive(Debug)]
pub struct Log(File);

impl Log {
    /// Opens the file of a process in the directory of a run.
    ///
    /// # Errors
    ///
    /// When it cannot be created.
    pub fn open(directory: &Path, name: &str) -> Result<Log> {
        let path = directory.join(format!("{name}.jsonl"));
        let file = OpenOptions::new().create(true).append(true).open(&path);
        Ok(Log(file.with_context(|| {
            format!("cannot create {}", path.display())
        })?))
    }

    /// Records what happens at this moment.
    ///
    /// # Panics
    ///
    /// When the file cannot be written: a history with holes proves nothing.
    pub fn write(&self, event: Event) {
        self.write_at(now(), event);
    }

    /// Records what happened at a moment.
    ///
    /// # Panics
    ///
    /// As [`write`](Self::write).
    pub fn write_at(&self, at: Moment, event: Event) {
        let mut line = serde_json::to_vec(&Record { at, event }).expect("a record is plain data");
        line.push(b'\n');
        (&self.0).write_all(&line).expect("the history is written");
    }
}
