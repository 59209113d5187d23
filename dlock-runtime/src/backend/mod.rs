//! What a strategy does for the queue: take a lock, give it back, say who has it.

#[cfg(any(feature = "postgres", feature = "mysql", feature = "sqlite"))]
pub(crate) mod lease;
mod memory;
mod open;
#[cfg(any(feature = "postgres", feature = "mysql"))]
pub(crate) mod session;

pub(crate) use open::{Opened, open};

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use futures_util::future::BoxFuture;
use tokio::sync::Notify;

use crate::error::{Holder, Source, Unsupported};
use crate::hold::Vitality;
use crate::key::{Key, KeyText, Mode, ServerKey};
use crate::listing::{LockInfo, Party};
use crate::scheme::KeyScheme;

/// A place that keeps locks for many processes, or for this one.
///
/// The queue asks for a key only while it neither holds nor asks for it, except for the shared mode of one hold.
pub(crate) trait Backend: Send + Sync + 'static {
    /// The lock's name as the server compares it, by the native scheme.
    fn server_key(&self, key: &Key) -> ServerKey;

    /// The lock's name as the server compares it, by another scheme; or the rule that the key breaks.
    fn foreign_key(&self, _key: &Key, _scheme: &KeyScheme) -> Result<ServerKey, &'static str> {
        Err("only session locks can be shared with other libraries: leave the key scheme out here")
    }

    /// Whether many may hold a lock at once, and what to say when not.
    fn shared_mode(&self) -> Result<(), Unsupported>;

    /// Whether the locks are those of this process alone, so that a forked child has nothing to do with its parent's.
    fn is_local(&self) -> bool {
        false
    }

    /// Takes a free lock on the spot, where that needs no I/O. `None`: ask [`take`](Self::take).
    fn take_now(&self, _key: &ServerKey, _want: Want) -> Option<Hold> {
        None
    }

    /// Takes the lock, waiting until the errand is called off. Runs on the I/O thread.
    fn take(self: Arc<Self>, errand: Arc<Errand>) -> BoxFuture<'static, Taken>;

    /// Whether a reader would get in now, beside those of this process who hold the lock: not when a writer waits. Where
    /// that cannot be found out, no.
    fn admits_reader<'a>(&'a self, key: &'a ServerKey) -> BoxFuture<'a, bool>;

    /// Who holds the lock, asked now. `Ok(None)`: nobody does.
    fn holder<'a>(&'a self, key: &'a ServerKey) -> BoxFuture<'a, Result<Option<Holder>, Untold>>;

    /// The locks in use, or the one of that name. Not on the way of any acquire, and run to its end.
    fn list<'a>(
        &'a self,
        _only: Option<&'a ServerKey>,
    ) -> BoxFuture<'a, Result<Vec<LockInfo>, Untold>> {
        let unsupported = Unsupported {
            what: "a list of the locks in use".into(),
            remedy: "this place of locks has none".into(),
        };
        Box::pin(std::future::ready(Err(Untold::Unsupported(unsupported))))
    }

    /// Ends the holds of everybody else on the lock, and says who held it. Where a hold ends with a session, so do the
    /// session's other locks: without `force` that is refused. Run to its end, but ends nothing without the warrant.
    fn kick<'a>(
        &'a self,
        _key: &'a ServerKey,
        _force: bool,
        _warrant: Arc<Warrant>,
    ) -> BoxFuture<'a, Result<Vec<Party>, NotKicked>> {
        let unsupported = Unsupported {
            what: "kicking the holder of a lock".into(),
            remedy: "this place of locks has no way to".into(),
        };
        let untold = Untold::Unsupported(unsupported);
        Box::pin(std::future::ready(Err(NotKicked::Untold(untold))))
    }

    /// The server has granted the lock to this process, under a key with this text. On the I/O thread, and only a note.
    fn granted(&self, _key: &ServerKey, _text: &KeyText) {}

    /// How many connections are open. None where there are none to have.
    fn connections(&self) -> Connections {
        Connections::default()
    }

    /// Ends every hold with this reason and closes every connection. Nothing is taken afterwards.
    fn close(&self, reason: &str);
}

/// The open connections of a locker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Connections {
    pub(crate) keepers: usize,
    pub(crate) waiters: usize,
}

/// How a lock is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Want {
    pub(crate) mode: Mode,
    /// With a fencing token of its own, where the strategy gives none unasked.
    pub(crate) fenced: bool,
}

/// A lock that the server has granted.
pub(crate) struct Hold {
    pub(crate) vitality: Arc<Vitality>,
    pub(crate) grant: Box<dyn Grant>,
}

impl Want {
    pub(crate) fn plain(mode: Mode) -> Want {
        Want {
            mode,
            fenced: false,
        }
    }
}

impl Hold {
    /// Whether a caller may hold it beside others who do.
    pub(crate) fn serves(&self, want: Want) -> bool {
        !want.fenced || self.vitality.token().is_some()
    }
}

/// The way back to where a lock was granted.
pub(crate) trait Grant: Send {
    /// Gives the lock back; the error says why it was not held any more.
    fn give_back(self: Box<Self>) -> GivenBack;

    /// Gives the lock back and, if nobody else had waited for it, takes it again: for a line that goes on here, in one round
    /// trip in place of two. `None`: there is no such way, and the lock is as it was.
    fn offer(&mut self) -> Option<BoxFuture<'static, Offered>> {
        None
    }
}

/// What became of a lock that was given back for others to take.
pub(crate) struct Offered {
    /// The error says why it was not held any more.
    pub(crate) given_back: Result<(), Arc<str>>,
    /// Nobody wanted it: it was taken again.
    pub(crate) again: Option<Hold>,
}

/// How a lock goes back: on the spot, or on the I/O thread.
pub(crate) enum GivenBack {
    Now(Result<(), Arc<str>>),
    Later(BoxFuture<'static, Result<(), Arc<str>>>),
}

/// How an errand ended.
pub(crate) enum Taken {
    /// The lock is held.
    Held(Hold),
    /// The errand was called off, and the lock is not held.
    CalledOff,
    /// This locker holds as many locks as it may.
    TooMany { most: usize },
    /// The server refused the statement.
    Refused {
        code: String,
        message: String,
        source: Option<Source>,
    },
}

/// Why a question about locks has no answer.
#[derive(Clone, Debug)]
pub(crate) enum Untold {
    /// The server does not tell, or not to this account.
    Unsupported(Unsupported),
    /// The server refused a statement.
    Refused {
        code: String,
        message: String,
        source: Option<Source>,
    },
    /// The server cannot be asked.
    Trouble(Trouble),
}

/// Why nobody was kicked.
#[derive(Clone, Debug)]
pub(crate) enum NotKicked {
    /// It cannot be seen who holds the lock, or what else, or the server refused to end a hold.
    Untold(Untold),
    /// The locker that was asked holds it itself.
    Own,
    /// The sessions that hold it hold these too.
    HoldsMore(Vec<LockInfo>),
    /// The caller had waited for too long, and took the warrant back.
    Withdrawn,
}

/// The permission to kick, until whoever asked for the kick has waited for too long.
#[derive(Debug, Default)]
pub(crate) struct Warrant(AtomicU8);

impl Warrant {
    const USED: u8 = 1;
    const WITHDRAWN: u8 = 2;

    /// A hold is about to be ended. `false`: the warrant was withdrawn.
    pub(crate) fn serve(&self) -> bool {
        let free = self
            .0
            .compare_exchange(0, Self::USED, Ordering::AcqRel, Ordering::Acquire);
        free.unwrap_or_else(|present| present) != Self::WITHDRAWN
    }

    /// Nothing more is ended from here on. `true`: nothing was before.
    pub(crate) fn withdraw(&self) -> bool {
        self.0.swap(Self::WITHDRAWN, Ordering::AcqRel) == 0
    }
}

impl From<Untold> for NotKicked {
    fn from(untold: Untold) -> NotKicked {
        NotKicked::Untold(untold)
    }
}

/// Why the server cannot be asked at present.
#[derive(Clone, Debug)]
pub(crate) struct Trouble {
    pub(crate) reason: String,
    pub(crate) source: Option<Source>,
}

/// What is known of a lock that is being taken.
#[derive(Clone, Debug)]
pub(crate) enum Progress {
    /// The server has not answered yet.
    Asked,
    /// Somebody else holds it.
    Busy,
    /// It is granted, and its fencing token is being counted.
    Counting {
        /// Whether the lock was busy before, or the server could not be asked.
        waited: bool,
    },
    /// The server cannot be asked; the attempts go on.
    Trouble(Trouble),
}

/// One lock being taken: between the queue, which may call it off, and the strategy, which reports.
pub(crate) struct Errand {
    pub(crate) key: ServerKey,
    pub(crate) want: Want,
    called_off: AtomicBool,
    stop: Notify,
    progress: Mutex<Progress>,
    news: Notify,
    /// When the last caller in line gives up, as far as known; `None`: never.
    patience: Mutex<Option<Instant>>,
}

impl Errand {
    pub(crate) fn new(key: ServerKey, want: Want, patience: Option<Instant>) -> Arc<Errand> {
        Arc::new(Errand {
            key,
            want,
            called_off: AtomicBool::new(false),
            stop: Notify::new(),
            progress: Mutex::new(Progress::Asked),
            news: Notify::new(),
            patience: Mutex::new(patience),
        })
    }

    /// Nobody wants the lock any more. The strategy ends the wait and says [`Taken::CalledOff`], or hands over a
    /// lock that it was granted meanwhile.
    pub(crate) fn call_off(&self) {
        self.called_off.store(true, Ordering::Release);
        self.stop.notify_one();
    }

    pub(crate) fn is_called_off(&self) -> bool {
        self.called_off.load(Ordering::Acquire)
    }

    /// Completes when the errand is called off. For one waiting task at a time.
    pub(crate) async fn called_off(&self) {
        while !self.is_called_off() {
            self.stop.notified().await;
        }
    }

    /// Tells the queue what the server said.
    pub(crate) fn report(&self, progress: Progress) {
        *self.progress.lock().unwrap_or_else(PoisonError::into_inner) = progress;
        self.news.notify_one();
    }

    pub(crate) fn progress(&self) -> Progress {
        self.progress
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Completes when there was a report since the last time.
    pub(crate) async fn news(&self) {
        self.news.notified().await;
    }

    /// When the last caller in line gives up; `None`: never.
    pub(crate) fn patience(&self) -> Option<Instant> {
        *self.patience.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody joined the line who waits until `deadline`.
    pub(crate) fn wait_until(&self, deadline: Option<Instant>) {
        let mut patience = self.patience.lock().unwrap_or_else(PoisonError::into_inner);
        *patience = match (*patience, deadline) {
            (Some(one), Some(other)) => Some(one.max(other)),
            _ => None,
        };
    }
}
