//! The status file: what this process waits for and holds, for whoever looks from outside.
//!
//! A thread of its own writes it, so that a slow disk delays nobody: whatever changes leaves no more than a mark for that thread.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};
use std::{fs, io, thread};

use futures_channel::oneshot;

use super::Watch;
use super::snapshot::Snapshot;
use crate::config::StatusFile;
use crate::dsn::bad;
use crate::error::InitError;

/// The shortest time between two writes: what changes meanwhile goes into the second.
const BETWEEN_WRITES: Duration = Duration::from_millis(100);

/// How long a file is waited for that another locker of this process is done with.
const FREED_WITHIN: Duration = Duration::from_secs(1);

/// Whoever writes the file. It ends with the watch, or before.
pub(super) struct Status {
    letters: Sender<Letter>,
    /// A change was announced, and not looked at yet.
    marked: Arc<AtomicBool>,
}

enum Letter {
    Changed,
    /// Nothing is held any more: the last state is written, and this dropped.
    End(oneshot::Sender<()>),
}

impl Status {
    /// Begins a file, in which nothing is held yet.
    ///
    /// # Errors
    ///
    /// [`InitError::BadConfig`] when it cannot be written, or another locker of this process writes it.
    pub(super) async fn start(
        file: StatusFile,
        watch: Weak<Watch>,
        redact: bool,
    ) -> Result<Status, InitError> {
        let path = std::path::absolute(&file.path).unwrap_or_else(|_| file.path.clone());
        let claim = Claim::of(path).await?;
        let (letters, inbox) = channel();
        let marked = Arc::<AtomicBool>::default();
        let (reply, begun) = oneshot::channel();
        let desk = Desk {
            claim,
            file,
            watch,
            redact,
            marked: marked.clone(),
            failed: false,
        };
        thread::Builder::new()
            .name("dlock-status".into())
            .spawn(move || desk.work(&inbox, reply))
            .map_err(|error| InitError::Thread {
                reason: error.to_string(),
            })?;
        match begun.await {
            Ok(begun) => begun.map(|()| Status { letters, marked }),
            Err(oneshot::Canceled) => Err(InitError::Thread {
                reason: "the thread of the status file panicked".into(),
            }),
        }
    }

    /// Something has changed. Never waits.
    pub(super) fn mark(&self) {
        if !self.marked.swap(true, Ordering::AcqRel) {
            let _ = self.letters.send(Letter::Changed);
        }
    }

    /// Nothing is held any more, and nothing will be. Answered when the file says so.
    pub(super) fn end(&self) -> oneshot::Receiver<()> {
        let (written, answer) = oneshot::channel();
        let _ = self.letters.send(Letter::End(written));
        answer
    }
}

/// A path that one locker of this process writes.
struct Claim(PathBuf);

fn claimed() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    static CLAIMED: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
    CLAIMED.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Claim {
    async fn of(path: PathBuf) -> Result<Claim, InitError> {
        let begin = Instant::now();
        while !claimed().insert(path.clone()) {
            if begin.elapsed() > FREED_WITHIN {
                return Err(bad(format!(
                    "status_file {} is written by another locker of this process: give each one of its own",
                    path.display()
                )));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(Claim(path))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        claimed().remove(&self.0);
    }
}

/// Nothing is held any more; and whoever waits for the file to say so.
struct End(Option<oneshot::Sender<()>>);

/// Lets the time between two writes pass, unless the end comes before.
fn pause(inbox: &Receiver<Letter>) -> Result<(), End> {
    let begin = Instant::now();
    loop {
        let rest = BETWEEN_WRITES.saturating_sub(begin.elapsed());
        match inbox.recv_timeout(rest) {
            Ok(Letter::End(answer)) => return Err(End(Some(answer))),
            Err(RecvTimeoutError::Disconnected) => return Err(End(None)),
            Ok(Letter::Changed) => {}
            Err(RecvTimeoutError::Timeout) => return Ok(()),
        }
    }
}

/// The thread's end.
struct Desk {
    claim: Claim,
    file: StatusFile,
    watch: Weak<Watch>,
    redact: bool,
    marked: Arc<AtomicBool>,
    /// The last write failed, and it was said so.
    failed: bool,
}

impl Desk {
    fn work(mut self, inbox: &Receiver<Letter>, begun: oneshot::Sender<Result<(), InitError>>) {
        let path = &self.claim.0;
        let first = write(path, &self.text(&Snapshot::default(), true)).map_err(|error| {
            bad(format!(
                "status_file {} cannot be written: {error}; name a file in a folder that exists and that this program may write",
                path.display()
            ))
        });
        let is_refused = first.is_err();
        let _ = begun.send(first);
        if is_refused {
            return;
        }
        let end = self.keep(inbox);
        self.put(&Snapshot::default(), false);
        // Free for the next before it is said.
        drop(self);
        if let End(Some(answer)) = end {
            let _ = answer.send(());
        }
    }

    /// Writes what changes, until nothing will any more.
    fn keep(&mut self, inbox: &Receiver<Letter>) -> End {
        // What vouches for a hold moves on without a word.
        let mut look_after = None;
        loop {
            let letter = match look_after {
                Some(time) => inbox.recv_timeout(time),
                None => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match letter {
                Ok(Letter::End(answer)) => return End(Some(answer)),
                Err(RecvTimeoutError::Disconnected) => return End(None),
                Ok(Letter::Changed) | Err(RecvTimeoutError::Timeout) => {}
            }
            // Whatever is marked from here on is looked at once more.
            self.marked.store(false, Ordering::Release);
            let Some(watch) = self.watch.upgrade() else {
                return End(None);
            };
            let snapshot = watch.snapshot();
            drop(watch);
            self.put(&snapshot, true);
            if let Err(end) = pause(inbox) {
                return end;
            }
            // Marked meanwhile: the mark was heard in the pause.
            look_after = if self.marked.load(Ordering::Acquire) {
                Some(Duration::ZERO)
            } else {
                snapshot.changes_within()
            };
        }
    }

    fn put(&mut self, snapshot: &Snapshot, running: bool) {
        let path = &self.claim.0;
        match write(path, &self.text(snapshot, running)) {
            Ok(()) => self.failed = false,
            Err(error) => {
                if !std::mem::replace(&mut self.failed, true) {
                    eprintln!(
                        "dlock cannot write the status file {}: {error}; it is tried again with the next change",
                        path.display()
                    );
                }
            }
        }
    }

    fn text(&self, snapshot: &Snapshot, running: bool) -> String {
        let head = [
            ("program", super::snapshot::quoted(&self.file.program)),
            ("host", super::snapshot::quoted(&host())),
            ("pid", std::process::id().to_string()),
            ("started", started().to_string()),
            ("strategy", super::snapshot::quoted(self.file.strategy)),
            ("running", running.to_string()),
        ];
        snapshot.to_json(&head, self.redact)
    }
}

/// Replaces the file as a whole: nobody reads a part of it.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let new = path.with_file_name(format!(
        ".{}.{}.tmp",
        name.to_string_lossy(),
        std::process::id()
    ));
    let written = fs::write(&new, text).and_then(|()| fs::rename(&new, path));
    if written.is_err() {
        let _ = fs::remove_file(&new);
    }
    written
}

fn host() -> String {
    let host = rustix::system::uname();
    host.nodename().to_string_lossy().into_owned()
}

/// When this process began, in milliseconds since 1970; where the system does not tell, when this was asked first.
fn started() -> u64 {
    static STARTED: OnceLock<u64> = OnceLock::new();
    *STARTED.get_or_init(|| of_system().unwrap_or_else(|| millis(SystemTime::now())))
}

/// From `/proc`, in the way of `ps -o lstart`.
#[cfg(target_os = "linux")]
fn of_system() -> Option<u64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the program's name, in parentheses, and may have any in it.
    let (_, fields) = stat.rsplit_once(')')?;
    let ticks: u64 = fields.split_whitespace().nth(19)?.parse().ok()?;
    let boot = fs::read_to_string("/proc/stat").ok()?;
    let boot: u64 = boot
        .lines()
        .find_map(|line| line.strip_prefix("btime "))?
        .trim()
        .parse()
        .ok()?;
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    Some(boot * 1000 + ticks.saturating_mul(1000) / per_second)
}

#[cfg(not(target_os = "linux"))]
fn of_system() -> Option<u64> {
    None
}

/// Milliseconds since 1970.
pub(super) fn millis(time: SystemTime) -> u64 {
    let since = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
