//! What can go wrong: [`Error`] for locking, [`InitError`] for start-up.

use std::error::Error as StdError;
use std::fmt::{self, Write};
use std::sync::Arc;
use std::time::Duration;

/// The error of a driver or of the operating system behind one of ours.
pub(crate) type Source = Arc<dyn StdError + Send + Sync + 'static>;

/// Why a lock could not be taken, or did not last.
///
/// Cheap to clone and two words wide: the details live behind one shared pointer.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Error {
    /// Others kept the lock until the time-out.
    Busy(Arc<Busy>),
    /// The server could not be reached, or did not answer, until the time-out.
    Unavailable(Arc<Unavailable>),
    /// The lock was held, and then could not be vouched for any more.
    Lost(Arc<Lost>),
    /// The lock was held for longer than `max_hold`.
    HoldExceeded(Arc<HoldExceeded>),
    /// Waiting would never end: what is waited for is held by whoever waits.
    WouldDeadlock(Arc<WouldDeadlock>),
    /// The connection holds the lock already: only for locks on the caller's own connection.
    AlreadyHeld(Arc<AlreadyHeld>),
    /// The session that was to be kicked holds other locks too.
    HoldsMore(Arc<HoldsMore>),
    /// `dlock::check` was called outside every locked body.
    NotLocked,
    /// The server was reached and refused the statement that takes the lock.
    Refused(Arc<Refused>),
    /// This process holds as many locks as it may: the server's lock table belongs to everybody.
    TooManyHeld(Arc<TooManyHeld>),
    /// This kind of lock does not exist on this server.
    Unsupported(Arc<Unsupported>),
    /// The text is not a key.
    InvalidKey(Arc<InvalidKey>),
    /// A lock was asked for before `dlock::init`.
    NotInitialized,
    /// `init = …` on a locked `main` failed.
    Init(Arc<InitError>),
    /// The locker was shut down.
    ShutDown,
    /// The thread that serves every connection of dlock has stopped because of a panic.
    RuntimeStopped,
    /// The process was forked after the locker connected: its connections belong to the parent.
    Forked,
}

/// Who kept the lock: part of [`Error::Busy`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Busy {
    /// The key that was asked for.
    pub key: Arc<str>,
    /// How long the caller waited.
    pub waited: Duration,
    /// Who holds the lock, where the server can tell.
    pub holder: Option<Holder>,
}

/// The session that holds a lock, as far as the server tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Holder {
    /// The name that the program gave itself (`application_name`, or the connection attribute `program_name`). MariaDB
    /// keeps it only with the performance schema, and over TLS the driver does not hand it to MySQL.
    pub program: Option<String>,
    /// The user and the address that the session came from.
    pub client: Option<String>,
    /// The server's number for the session (`pg_backend_pid()`, `CONNECTION_ID()`).
    pub session: Option<i64>,
    /// Whether this very process holds it.
    pub this_process: bool,
    /// Whether this process has lost it: the guard or the body is told and has not let go of it yet, and until then nobody else of
    /// the process gets it. Others may hold it already; the server was not asked. Known of this process's own locks.
    pub lost: bool,
    /// How long it has been held: known of this process's own locks. Readers who hold it together count from the first.
    pub held_for: Option<Duration>,
    /// How long the lock stays taken although its body has ended, for its `min_hold`: nobody runs under it. `None` while somebody
    /// does. Known of leases; a lock that a session keeps for `min_hold` counts as held.
    pub kept_for: Option<Duration>,
    /// How long the holder's session has been connected, by the server's clock: it holds the lock for that long at most.
    /// No server keeps the time of the grant. Known on PostgreSQL, of sessions that the account may see.
    pub connected_for: Option<Duration>,
    /// How many others wait for it: of this process every caller in line, of other processes each session that waits on
    /// the server, which is at most one a process and key with dlock. Of a lock that this process holds, only its own
    /// callers are known; on MySQL, only the sessions that the account may see. MariaDB does not tell for which lock a
    /// session waits: there it is known only when none waits for any.
    pub waiting: Option<u64>,
}

/// What kept the server out of reach: part of [`Error::Unavailable`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Unavailable {
    /// The key that was asked for; empty where all locks were.
    pub key: Arc<str>,
    /// How long the caller waited.
    pub waited: Duration,
    /// The last thing that went wrong, in words.
    pub reason: String,
    pub(crate) source: Option<Source>,
}

/// Why a hold ended before its release: part of [`Error::Lost`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Lost {
    /// The key that was held.
    pub key: Arc<str>,
    /// What was seen, in words.
    pub reason: String,
}

/// The limit that was passed: part of [`Error::HoldExceeded`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct HoldExceeded {
    /// The key that was held.
    pub key: Arc<str>,
    /// The longest time that the body may hold it.
    pub max_hold: Duration,
}

/// What waits for what: part of [`Error::WouldDeadlock`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct WouldDeadlock {
    /// The key that was asked for.
    pub key: Arc<str>,
    /// Why the wait would never end, and what to do.
    pub reason: &'static str,
}

/// What the connection holds: part of [`Error::AlreadyHeld`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AlreadyHeld {
    /// The key that was asked for.
    pub key: Arc<str>,
}

/// What a kick would free beside the key: part of [`Error::HoldsMore`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct HoldsMore {
    /// The key that was to be freed.
    pub key: Arc<str>,
    /// The other locks of the sessions that hold it: keys where they are known, else the locks' names on the server.
    pub others: Vec<Arc<str>>,
}

/// The server's own words: part of [`Error::Refused`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Refused {
    /// The key that was asked for.
    pub key: Arc<str>,
    /// The server's code: a SQLSTATE, or MySQL's error number.
    pub code: String,
    /// The server's message.
    pub message: String,
    pub(crate) source: Option<Source>,
}

/// The bound that was met: part of [`Error::TooManyHeld`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TooManyHeld {
    /// The key that was asked for.
    pub key: Arc<str>,
    /// How many locks a locker of this configuration may hold at a time: [`Config::max_held`](crate::Config::max_held).
    pub most: usize,
}

/// What was asked for, and what to use in its place: part of [`Error::Unsupported`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Unsupported {
    /// What was asked for.
    pub what: String,
    /// What to do.
    pub remedy: String,
}

pub(crate) fn unsupported(what: String, remedy: &str) -> Error {
    Error::Unsupported(Arc::new(Unsupported {
        what,
        remedy: remedy.to_owned(),
    }))
}

/// The rule that a text broke: part of [`Error::InvalidKey`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct InvalidKey {
    /// The text, cut to at most 64 characters.
    pub key: String,
    /// The rule.
    pub rule: &'static str,
}

impl Error {
    /// Whether others kept the lock until the time-out.
    pub fn is_busy(&self) -> bool {
        matches!(self, Error::Busy(_))
    }

    /// Whether the lock was held and then lost.
    pub fn is_lost(&self) -> bool {
        matches!(self, Error::Lost(_))
    }

    /// Whether the server could not be reached or did not answer.
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Error::Unavailable(_))
    }

    /// The key that was asked for, where the error is about one.
    pub fn key(&self) -> Option<&str> {
        match self {
            Error::Busy(busy) => Some(&busy.key),
            Error::Unavailable(unavailable) => {
                Some(&*unavailable.key).filter(|key| !key.is_empty())
            }
            Error::Lost(lost) => Some(&lost.key),
            Error::HoldExceeded(exceeded) => Some(&exceeded.key),
            Error::WouldDeadlock(deadlock) => Some(&deadlock.key),
            Error::AlreadyHeld(held) => Some(&held.key),
            Error::HoldsMore(more) => Some(&more.key),
            Error::Refused(refused) => Some(&refused.key),
            Error::TooManyHeld(too_many) => Some(&too_many.key),
            Error::InvalidKey(invalid) => Some(&invalid.key),
            _ => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Busy(busy) => {
                write!(f, "lock {:?} is busy", &*busy.key)?;
                if !busy.waited.is_zero() {
                    write!(f, " after a wait of {:?}", Milliseconds(busy.waited))?;
                }
                match &busy.holder {
                    Some(holder) => write!(f, ": held by {holder}"),
                    None => Ok(()),
                }
            }
            Error::Unavailable(unavailable) => {
                let Unavailable { key, waited, reason, .. } = &**unavailable;
                if key.is_empty() {
                    f.write_str("the server of the locks is unavailable")?;
                } else {
                    write!(f, "the server of lock {:?} is unavailable", &**key)?;
                }
                if !waited.is_zero() {
                    write!(f, " after {:?}", Milliseconds(*waited))?;
                }
                write!(f, ": {reason}")
            }
            Error::Lost(lost) => write!(f, "lock {:?} was lost: {}", &*lost.key, lost.reason),
            Error::HoldExceeded(exceeded) => {
                let HoldExceeded { key, max_hold, .. } = &**exceeded;
                write!(f, "lock {:?} was held for longer than {max_hold:?}", &**key)
            }
            Error::WouldDeadlock(deadlock) => {
                let WouldDeadlock { key, reason, .. } = &**deadlock;
                write!(f, "waiting for lock {:?} would never end: {reason}", &**key)
            }
            Error::AlreadyHeld(held) => write!(
                f,
                "this connection holds lock {:?} already: release it first, or ask for it with `reentrant()`",
                &*held.key
            ),
            Error::HoldsMore(more) => {
                write!(
                    f,
                    "lock {:?} was not kicked: the session that holds it would lose {} other locks, {:?}; \
                     `kick_session` ends it all the same",
                    &*more.key,
                    more.others.len(),
                    &more.others[..more.others.len().min(8)]
                )
            }
            Error::NotLocked => f.write_str("this code does not run under a lock"),
            Error::Refused(refused) => {
                let Refused { key, code, message, .. } = &**refused;
                write!(f, "the server refused lock {:?}: {message} ({code})", &**key)
            }
            Error::TooManyHeld(too_many) => {
                let TooManyHeld { key, most, .. } = &**too_many;
                write!(
                    f,
                    "lock {:?} was not taken: this process holds or waits for {most} already, and may hold no more (max_held); \
                     release some, or raise max_held, and on PostgreSQL max_locks_per_transaction with it",
                    &**key
                )
            }
            Error::Unsupported(unsupported) => {
                write!(f, "{} is not supported: {}", unsupported.what, unsupported.remedy)
            }
            Error::InvalidKey(invalid) => write!(f, "{:?} is not a key: {}", invalid.key, invalid.rule),
            Error::NotInitialized => f.write_str(
                "dlock is not initialised: call dlock::init(dsn) first (on a locked `main`: #[db_locked(init = …)])",
            ),
            Error::Init(error) => write!(f, "dlock could not be started: {error}"),
            Error::ShutDown => f.write_str("dlock was shut down: call dlock::init(dsn) again before taking locks"),
            Error::RuntimeStopped => f.write_str("the I/O thread of dlock has stopped after a panic"),
            Error::Forked => f.write_str(
                "the process was forked after dlock connected: connect in the child, after the fork",
            ),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Error::Unavailable(unavailable) => as_source(unavailable.source.as_ref()),
            Error::Refused(refused) => as_source(refused.source.as_ref()),
            Error::Init(error) => Some(&**error),
            _ => None,
        }
    }
}

impl From<InitError> for Error {
    fn from(error: InitError) -> Error {
        Error::Init(Arc::new(error))
    }
}

impl From<Error> for std::io::Error {
    fn from(error: Error) -> Self {
        use std::io::ErrorKind;
        let kind = match &error {
            Error::Busy(_) => ErrorKind::WouldBlock,
            Error::Unavailable(_) => ErrorKind::NotConnected,
            Error::InvalidKey(_) => ErrorKind::InvalidInput,
            Error::Unsupported(_) => ErrorKind::Unsupported,
            _ => ErrorKind::Other,
        };
        std::io::Error::new(kind, error)
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.this_process {
            f.write_str("this process")?;
        } else {
            let program = self.program.as_deref().unwrap_or("another program");
            write!(f, "{}", OneLine(program))?;
            if let Some(client) = &self.client {
                write!(f, ", {}", OneLine(client))?;
            }
            if let Some(session) = self.session {
                write!(f, ", session {session}")?;
            }
            if let Some(connected) = self.connected_for {
                write!(f, ", connected for {:?}", Milliseconds(connected))?;
            }
        }
        if let Some(held) = self.held_for {
            write!(f, " for {:?}", Milliseconds(held))?;
        }
        if self.lost {
            f.write_str(", lost meanwhile and not given back yet")?;
        }
        if let Some(kept) = self.kept_for {
            write!(f, ", kept for {:?} more by min_hold", Milliseconds(kept))?;
        }
        match self.waiting {
            None | Some(0) => Ok(()),
            Some(1) => f.write_str("; 1 other waits"),
            Some(others) => write!(f, "; {others} others wait"),
        }
    }
}

/// Shows what another program says of itself: it must not break the line, or turn the text around it.
struct OneLine<'t>(&'t str);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '"' | '\'' | '\\' => f.write_char(c)?,
                c => write!(f, "{}", c.escape_debug())?,
            }
        }
        Ok(())
    }
}

/// Shows a duration to the millisecond.
struct Milliseconds(Duration);

impl fmt::Debug for Milliseconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = Duration::from_millis(u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX));
        fmt::Debug::fmt(&whole, f)
    }
}

fn as_source(source: Option<&Source>) -> Option<&(dyn StdError + 'static)> {
    source.map(|source| &**source as &(dyn StdError + 'static))
}

/// Why dlock could not be started.
///
/// No variant carries or shows a password.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum InitError {
    /// The DSN or a setting is wrong: `problem` names the value, the rule and the remedy.
    BadConfig {
        /// What is wrong, and what to write in its place.
        problem: String,
    },
    /// Neither `DLOCK_DSN` nor `DATABASE_URL` is set.
    NoDsn,
    /// The server could not be reached within the connect time-out.
    Unreachable {
        /// Host and port, or the path of the socket.
        endpoint: String,
        /// What was seen, in words.
        reason: String,
        /// The error of the driver or the operating system.
        source: Option<InitSource>,
    },
    /// The server was reached and refused the login: user, password, database, or the number of connections.
    LoginRefused {
        /// Host and port, or the path of the socket.
        endpoint: String,
        /// The server's own words.
        reason: String,
        /// The error of the driver.
        source: Option<InitSource>,
    },
    /// The server is not one that can keep these locks.
    UnsafeServer {
        /// Host and port, or the path of the socket.
        endpoint: String,
        /// What was found.
        reason: String,
        /// What to do.
        remedy: String,
    },
    /// `init` was called before, and `shutdown` was not.
    AlreadyInitialized,
    /// The operating system refused to start the I/O thread.
    Thread {
        /// The error of the operating system.
        reason: String,
    },
}

/// The error behind an [`InitError`], for `source()`.
#[derive(Clone)]
pub struct InitSource(pub(crate) Source);

impl fmt::Debug for InitSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for InitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InitError::BadConfig { problem } => f.write_str(problem),
            InitError::NoDsn => {
                f.write_str("no DSN: set DLOCK_DSN or DATABASE_URL, for instance to postgres://user@host/database")
            }
            InitError::Unreachable { endpoint, reason, .. } => write!(f, "cannot reach {endpoint}: {reason}"),
            InitError::LoginRefused { endpoint, reason, .. } => write!(f, "{endpoint} refused the login: {reason}"),
            InitError::UnsafeServer { endpoint, reason, remedy } => {
                write!(f, "{endpoint} cannot keep these locks: {reason}; {remedy}")
            }
            InitError::AlreadyInitialized => {
                f.write_str("dlock is initialised already: call dlock::init once, or dlock::shutdown before it")
            }
            InitError::Thread { reason } => write!(f, "cannot start the I/O thread: {reason}"),
        }
    }
}

impl StdError for InitError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            InitError::Unreachable { source, .. } | InitError::LoginRefused { source, .. } => {
                as_source(source.as_ref().map(|source| &source.0))
            }
            _ => None,
        }
    }
}
