//! Processes by their identity, so that no signal ever reaches a process that took over a number.

use std::{
    collections::HashMap,
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

/// A process: its number, and the moment of its start in the kernel's ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    pub(crate) started: u64,
}

/// What `/proc/<pid>/stat` says.
struct Stat {
    state: char,
    parent: u32,
    started: u64,
}

impl Process {
    /// The process that has the number now.
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let stat = stat(pid).with_context(|| {
            format!(
                "process {pid} is not to be seen in /proc, which the servers for tests need (Linux)"
            )
        })?;
        Ok(Self {
            pid,
            started: stat.started,
        })
    }

    /// This process.
    pub(crate) fn own() -> Result<Self> {
        Self::of(std::process::id())
    }

    /// Whether it still runs. One that has ended but has not been waited for does not.
    pub(crate) fn is_alive(self) -> bool {
        stat(self.pid).is_some_and(|stat| stat.started == self.started && stat.state != 'Z')
    }

    /// Whether its command line names `path`.
    pub(crate) fn names(self, path: &Path) -> bool {
        let path = path.to_string_lossy();
        fs::read(format!("/proc/{}/cmdline", self.pid))
            .is_ok_and(|line| String::from_utf8_lossy(&line).contains(&*path))
    }

    /// Sends a signal, unless the process has ended.
    pub(crate) fn signal(self, signal: Signal) {
        if !self.is_alive() {
            return;
        }
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // It may end between the look and the signal, which is what one wanted.
            let _ = kill_process(pid, signal);
        }
    }

    /// Stops (SIGSTOP) the process and all its descendants; returns them, itself first.
    ///
    /// Its parent first, then again until no new one shows up: a server that accepts a connection meanwhile forks.
    pub(crate) fn freeze(self) -> Vec<Self> {
        let mut frozen = vec![self];
        self.signal(Signal::STOP);
        loop {
            let fresh: Vec<_> = self
                .descendants()
                .into_iter()
                .filter(|process| !frozen.contains(process))
                .collect();
            if fresh.is_empty() {
                break;
            }
            for process in fresh {
                process.signal(Signal::STOP);
                frozen.push(process);
            }
        }
        // A signal is delivered a moment later: a frozen server must not answer once more.
        let settled = Instant::now() + Duration::from_secs(2);
        while !frozen.iter().all(|process| process.has_stopped()) && Instant::now() < settled {
            thread::sleep(Duration::from_millis(1));
        }
        frozen
    }

    /// Continues (SIGCONT) the process and all its descendants.
    pub(crate) fn thaw(self) {
        for process in self.descendants() {
            process.signal(Signal::CONT);
        }
        self.signal(Signal::CONT);
    }

    /// Kills (SIGKILL) the process and all its descendants.
    ///
    /// # Errors
    ///
    /// When one is still there after 10 seconds.
    pub(crate) fn kill_tree(self) -> Result<()> {
        let tree = self.freeze();
        for process in &tree {
            process.signal(Signal::KILL);
        }
        for process in tree {
            process.wait_for_end(Duration::from_secs(10))?;
        }
        Ok(())
    }

    /// Waits until it has ended.
    pub(crate) fn wait_for_end(self, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        while self.is_alive() {
            if Instant::now() > deadline {
                bail!("process {} did not end within {patience:?}", self.pid);
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Every process below this one, parents before their children.
    fn descendants(self) -> Vec<Self> {
        let mut children: HashMap<u32, Vec<Self>> = HashMap::new();
        for pid in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = pid.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            if let Some(stat) = stat(pid) {
                let process = Self {
                    pid,
                    started: stat.started,
                };
                children.entry(stat.parent).or_default().push(process);
            }
        }
        let mut found = Vec::new();
        let mut parents = vec![self.pid];
        while let Some(parent) = parents.pop() {
            for child in children.remove(&parent).unwrap_or_default() {
                parents.push(child.pid);
                found.push(child);
            }
        }
        found
    }

    fn has_stopped(self) -> bool {
        stat(self.pid).is_none_or(|stat| {
            stat.started != self.started || matches!(stat.state, 'T' | 't' | 'Z' | 'X')
        })
    }
}

fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let text = String::from_utf8_lossy(&text);
    // The second field is the program's name in brackets, and may hold blanks and brackets.
    let (_, fields) = text.rsplit_once(") ")?;
    let fields: Vec<&str> = fields.split(' ').collect();
    Some(Stat {
        state: fields.first()?.chars().next()?,
        parent: fields.get(1)?.parse().ok()?,
        started: fields.get(19)?.parse().ok()?,
    })
}
