//! Reading a history, also while it is being written.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::{History, Process, Record};

/// Reads the files of a run as they grow.
#[derive(Debug)]
pub struct Reader {
    directory: PathBuf,
    nemesis: Tail,
    workers: Vec<(Process, Tail)>,
    history: History,
}

#[derive(Debug)]
struct Tail {
    path: PathBuf,
    read: u64,
}

impl Reader {
    /// For the run that writes to a directory.
    pub fn new(directory: &Path) -> Reader {
        Reader {
            directory: directory.to_owned(),
            nemesis: Tail {
                path: directory.join("nemesis.jsonl"),
                read: 0,
            },
            workers: Vec::new(),
            history: History::default(),
        }
    }

    /// Reads what was written since the last time.
    ///
    /// # Errors
    ///
    /// When a file cannot be read, or has a line that is no record.
    pub fn poll(&mut self) -> Result<&History> {
        for entry in fs::read_dir(&self.directory)? {
            let path = entry?.path();
            if let Some(process) = process_of(&path)
                && self.workers.iter().all(|(known, _)| *known != process)
            {
                self.workers.push((process, Tail { path, read: 0 }));
                self.history.workers.push((process, Vec::new()));
            }
        }
        self.nemesis.read_into(&mut self.history.nemesis)?;
        for ((_, tail), (_, records)) in self.workers.iter_mut().zip(&mut self.history.workers) {
            tail.read_into(records)?;
        }
        Ok(&self.history)
    }
}

impl Tail {
    /// A last line without an end is still being written, or was cut off by the death of its process.
    fn read_into(&mut self, records: &mut Vec<Record>) -> Result<()> {
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        file.seek(SeekFrom::Start(self.read))?;
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        let Some(end) = text.iter().rposition(|byte| *byte == b'\n') else {
            return Ok(());
        };
        for line in text[..end].split(|byte| *byte == b'\n') {
            let record = serde_json::from_slice(line).with_context(|| {
                let line = String::from_utf8_lossy(line);
                format!("no record, in {}: {line}", self.path.display())
            })?;
            records.push(record);
        }
        self.read += end as u64 + 1;
        Ok(())
    }
}

/// `worker-1.0.jsonl` is of process 1.0.
fn process_of(path: &Path) -> Option<Process> {
    let name = path.file_name()?.to_str()?;
    let (slot, life) = name
        .strip_prefix("worker-")?
        .strip_suffix(".jsonl")?
        .split_once('.')?;
    Some(Process {
        slot: slot.parse().ok()?,
        life: life.parse().ok()?,
    })
}
