//! A running process of a server, and its guard.

use std::{
    fs,
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, Result};

use super::{Kind, process::Process, watchdog::Watchdog};

/// How long a server may take to start or to stop, on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A process that this one started.
#[derive(Debug)]
pub(crate) struct Daemon {
    child: Child,
    process: Process,
    /// Held for its `Drop`.
    _watchdog: Option<Watchdog>,
}

impl Daemon {
    /// Starts the command, with `log` for its messages.
    ///
    /// With `guarded` it ends when this process does, in the way of that kind, and the directories go with it.
    pub(crate) fn spawn(
        mut command: Command,
        log: &Path,
        guarded: Option<(Kind, [&Path; 2])>,
    ) -> Result<Self> {
        let log = fs::OpenOptions::new().create(true).append(true).open(log)?;
        let mut child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Out of reach of the terminal's Ctrl-C.
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot run {}", command.get_program().to_string_lossy()))?;
        let started = Process::of(child.id()).and_then(|process| {
            let watchdog = guarded
                .map(|(kind, directories)| Watchdog::start(kind, process, directories))
                .transpose()?;
            Ok((process, watchdog))
        });
        match started {
            Ok((process, watchdog)) => Ok(Self {
                child,
                process,
                _watchdog: watchdog,
            }),
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(error)
            }
        }
    }

    pub(crate) fn process(&self) -> Process {
        self.process
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Ends it in the given way and waits for it.
    pub(crate) fn end(&mut self, way: impl FnOnce(Process) -> Result<()>) -> Result<()> {
        way(self.process)?;
        self.process.wait_for_end(PATIENCE)?;
        self.child.wait()?;
        Ok(())
    }
}

/// The end of a log, to go into an error message.
pub(crate) fn log_end(log: &Path) -> String {
    let log = fs::read(log).unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    let lines: Vec<&str> = log.lines().collect();
    let end = lines.len().saturating_sub(15);
    lines
        .get(end..)
        .unwrap_or_default()
        .iter()
        .fold(String::new(), |text, line| text + "\n  " + line)
}
