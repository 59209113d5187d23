//! The way from a lock to its observers: a bounded queue, and a thread that empties it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, OnceLock, Weak};
use std::thread;
use std::time::Duration;

use data_encoding::HEXLOWER;
use futures_channel::oneshot;
use sha2::{Digest, Sha256};

use super::{Acquired, Counts, Failed, Failure, Loss, Observer, Outage, Released, Wait};
use crate::backend::{Backend, Connections};
use crate::error::InitError;
use crate::key::{KeyText, Mode};

/// How many events may wait for the observers; the documentation of the module names it.
const CAPACITY: usize = 1024;

/// After how many events the counts are told, though more events wait.
const BETWEEN_COUNTS: usize = 256;

/// How often the connections are counted while nothing happens.
const BETWEEN_LOOKS: Duration = Duration::from_secs(5);

/// What happened to a lock.
pub(super) struct Note {
    pub(super) request: u64,
    pub(super) key: KeyText,
    pub(super) mode: Mode,
    pub(super) what: What,
}

pub(super) enum What {
    Waits { local: bool },
    Acquired { wait: Duration },
    Failed { wait: Duration, failure: Failure },
    Released { hold: Duration },
    Lost { hold: Duration, reason: Arc<str> },
    Unavailable { wait: Duration, reason: Arc<str> },
}

enum Letter {
    Note(Note),
    /// Everything sent before has been told.
    Receipt(oneshot::Sender<()>),
}

/// How much there is: written where it happens, so that it is right whatever was dropped.
pub(super) struct Tally {
    locker: u64,
    pub(super) holds: AtomicUsize,
    pub(super) waiters: AtomicUsize,
    dropped: AtomicU64,
    pub(super) backend: OnceLock<Weak<dyn Backend>>,
}

/// The sending end; the thread ends with it, when it has told what was sent before.
pub(super) struct Post {
    letters: SyncSender<Letter>,
    pub(super) tally: Arc<Tally>,
}

impl Post {
    /// Starts the thread.
    pub(super) fn start(
        observers: Vec<Arc<dyn Observer>>,
        redact: bool,
    ) -> Result<Post, InitError> {
        static LOCKERS: AtomicU64 = AtomicU64::new(0);
        let (letters, inbox) = sync_channel(CAPACITY);
        let tally = Arc::new(Tally {
            locker: LOCKERS.fetch_add(1, Ordering::Relaxed),
            holds: AtomicUsize::new(0),
            waiters: AtomicUsize::new(0),
            dropped: AtomicU64::new(0),
            backend: OnceLock::new(),
        });
        let desk = Desk {
            observers,
            redact,
            tally: tally.clone(),
        };
        // Nobody joins it: an observer that never returns must not hold up whoever drops the locker.
        thread::Builder::new()
            .name("dlock-observer".into())
            .spawn(move || desk.work(&inbox))
            .map_err(|error| InitError::Thread {
                reason: error.to_string(),
            })?;
        Ok(Post { letters, tally })
    }

    /// Hands an event over, or drops it: never waits.
    pub(super) fn send(&self, note: Note) {
        if self.letters.try_send(Letter::Note(note)).is_err() {
            self.tally.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Answered when everything that was sent before has been told. `None`: the queue is full.
    pub(super) fn receipt(&self) -> Option<oneshot::Receiver<()>> {
        let (told, answer) = oneshot::channel();
        self.letters.try_send(Letter::Receipt(told)).ok()?;
        Some(answer)
    }
}

impl Tally {
    fn counts(&self) -> Counts {
        let backend = self.backend.get().and_then(Weak::upgrade);
        let connections =
            backend.map_or_else(Connections::default, |backend| backend.connections());
        Counts {
            keeper_connections: connections.keepers,
            waiter_connections: connections.waiters,
            locker: self.locker,
            holds: self.holds.load(Ordering::Relaxed),
            waiters: self.waiters.load(Ordering::Relaxed),
            dropped: self.dropped.load(Ordering::Relaxed),
        }
    }
}

/// The thread's end.
struct Desk {
    observers: Vec<Arc<dyn Observer>>,
    redact: bool,
    tally: Arc<Tally>,
}

impl Desk {
    fn work(self, inbox: &Receiver<Letter>) {
        let mut told = Counts {
            locker: self.tally.locker,
            ..Counts::default()
        };
        let mut since = 0;
        loop {
            let letter = match inbox.try_recv() {
                Ok(letter) => letter,
                Err(TryRecvError::Disconnected) => break,
                Err(TryRecvError::Empty) => {
                    self.tell_counts(&mut told, self.tally.counts());
                    since = 0;
                    match inbox.recv_timeout(BETWEEN_LOOKS) {
                        Ok(letter) => letter,
                        // Connections come and go without an event.
                        Err(RecvTimeoutError::Timeout) => continue,
                        Err(RecvTimeoutError::Disconnected) => break,
                    }
                }
            };
            match letter {
                Letter::Note(note) => self.tell(note),
                Letter::Receipt(receipt) => {
                    self.tell_counts(&mut told, self.tally.counts());
                    let _ = receipt.send(());
                }
            }
            since += 1;
            if since >= BETWEEN_COUNTS {
                self.tell_counts(&mut told, self.tally.counts());
                since = 0;
            }
        }
        // The locker is gone, and with it whatever it held.
        let end = Counts {
            holds: 0,
            waiters: 0,
            keeper_connections: 0,
            waiter_connections: 0,
            ..self.tally.counts()
        };
        self.tell_counts(&mut told, end);
    }

    fn tell_counts(&self, told: &mut Counts, counts: Counts) {
        if *told != counts {
            *told = counts;
            self.each(|observer| observer.on_counts(&counts));
        }
    }

    fn tell(&self, note: Note) {
        let Note {
            request,
            key,
            mode,
            what,
        } = note;
        let locker = self.tally.locker;
        let key = if self.redact {
            redacted(&key)
        } else {
            key.to_shared()
        };
        match what {
            What::Waits { local } => {
                let wait = Wait {
                    locker,
                    request,
                    key,
                    mode,
                    local,
                };
                self.each(|observer| observer.on_wait(&wait));
            }
            What::Acquired { wait } => {
                let acquired = Acquired {
                    locker,
                    request,
                    key,
                    mode,
                    wait,
                };
                self.each(|observer| observer.on_acquire(&acquired));
            }
            What::Failed { wait, failure } => {
                let failed = Failed {
                    locker,
                    request,
                    key,
                    mode,
                    wait,
                    failure,
                };
                self.each(|observer| observer.on_fail(&failed));
            }
            What::Released { hold } => {
                let released = Released {
                    locker,
                    request,
                    key,
                    mode,
                    hold,
                };
                self.each(|observer| observer.on_release(&released));
            }
            What::Lost { hold, reason } => {
                let loss = Loss {
                    locker,
                    request,
                    key,
                    mode,
                    hold,
                    reason,
                };
                self.each(|observer| observer.on_lost(&loss));
            }
            What::Unavailable { wait, reason } => {
                let outage = Outage {
                    locker,
                    request,
                    key,
                    mode,
                    wait,
                    reason,
                };
                self.each(|observer| observer.on_unavailable(&outage));
            }
        }
    }

    fn each(&self, tell: impl Fn(&dyn Observer)) {
        for observer in &self.observers {
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| tell(&**observer))) {
                // What was thrown may panic once more when it is dropped.
                let _ = catch_unwind(AssertUnwindSafe(|| drop(panic)));
            }
        }
    }
}

/// A short name for a key, the same in every process. The same key can be recognised by it, and guessed by who knows which
/// keys there may be.
pub(super) fn redacted(key: &str) -> Arc<str> {
    let digest = Sha256::new()
        .chain_update(b"dlock/redacted\0")
        .chain_update(key)
        .finalize();
    let hash: String = HEXLOWER.encode(&digest).chars().take(12).collect();
    format!("#{hash}").into()
}
