//! What the session strategy needs of a database: one implementation a database, and no other place that
//! writes SQL for session locks.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use crate::capabilities::Reach;
use crate::config::TableName;
use crate::error::{Holder, Source};
use crate::hazard::{Hazard, Hazards};
use crate::key::{Key, Mode, ServerKey};
use crate::listing::LockInfo;
use crate::scheme::KeyScheme;

/// What is the same for every session of a locker.
#[derive(Clone, Debug)]
pub(crate) struct SessionSettings {
    /// How long the server keeps a silent session, in whole seconds, at least one.
    pub(crate) limit: Duration,
    /// For the whole of [`Driver::connect`], and for an interruption.
    pub(crate) connect_timeout: Duration,
    /// Sets the keys of one application apart from those of others on the same server.
    pub(crate) namespace: Arc<str>,
    /// What the server shows to others as the name of this program.
    pub(crate) application_name: Arc<str>,
    /// What a server may be all the same.
    pub(crate) allowed: Hazards,
    /// Where fencing tokens are counted.
    pub(crate) fencing_table: TableName,
    /// Where the texts of keys are noted, if anywhere.
    pub(crate) key_table: Option<TableName>,
}

/// Opens sessions on one server.
pub(crate) trait Driver: Send + Sync + 'static {
    /// A session: one connection with our settings on it.
    type Session: Session;

    /// Opens a session, applies our settings and reads them back, within the connect time-out.
    fn connect(&self) -> impl Future<Output = Result<Self::Session, ConnectError>> + Send;

    /// The name of the lock as the server compares it, by the native scheme.
    fn server_key(&self, key: &str) -> ServerKey;

    /// The name of the lock as the server compares it, by another scheme; or the rule that the key breaks.
    fn foreign_key(&self, key: &Key, scheme: &KeyScheme) -> Result<ServerKey, &'static str>;

    /// Whether the server has locks that many may hold at once.
    fn has_shared_mode(&self) -> bool;

    /// Who meets under the same name.
    fn reach(&self) -> Reach;

    /// Host and port, or the path of the socket: for messages, without user and password.
    fn endpoint(&self) -> &str;

    /// The table that the texts of keys are noted in, if there is one.
    fn key_table(&self) -> Option<KeyTable>;
}

/// One connection to the server.
///
/// Every method may be called while another is under way; a driver whose connection carries one statement at a
/// time makes the second wait. The futures are never dropped half-way by the strategy unless it closes the session.
pub(crate) trait Session: Send + Sync + 'static {
    /// How many tries and releases, or batches of them, may be under way at a time. A heartbeat stands behind them.
    const AT_ONCE: usize;

    /// How many of so many tries, or releases, one statement takes. At least one.
    fn batch(gathered: usize) -> usize;

    /// Prepares the statements of an exclusive try and its release, in as few round trips as the driver can.
    fn prepare(&self) -> impl Future<Output = Result<(), DriverError>> + Send;

    /// Tries once, without waiting. `true`: this session holds the lock.
    fn try_lock(
        &self,
        key: &ServerKey,
        mode: Mode,
    ) -> impl Future<Output = Result<bool, DriverError>> + Send;

    /// Waits in the server's queue, at most `at_most` (the server may round it up).
    ///
    /// A time-out or an interruption is reported only after the server said that this session does not hold the
    /// lock; where it does hold it all the same, the answer is [`Wait::Granted`].
    fn wait_lock(
        &self,
        key: &ServerKey,
        mode: Mode,
        at_most: Duration,
    ) -> impl Future<Output = Result<Wait, DriverError>> + Send;

    /// Ends the wait that is under way on this session, where needed through `helper`, another session of this
    /// server. Returns when the server has acknowledged it.
    fn interrupt(&self, helper: &Self) -> impl Future<Output = Result<(), DriverError>> + Send;

    /// Raises the counter of a lock that this session holds, durably and in a transaction of its own, and makes its table
    /// where that is missing. Waits for whoever has locked the row at most a third of the limit.
    fn count(&self, key: &ServerKey) -> impl Future<Output = Result<Counted, DriverError>> + Send;

    /// Gives the lock back. `false`: the session did not hold it.
    fn unlock(
        &self,
        key: &ServerKey,
        mode: Mode,
    ) -> impl Future<Output = Result<bool, DriverError>> + Send;

    /// Gives the lock back and tries it again, in this order, in one statement: whoever stands in the server's queue gets it
    /// in between.
    fn offer(
        &self,
        key: &ServerKey,
        mode: Mode,
    ) -> impl Future<Output = Result<Offer, DriverError>> + Send;

    /// Tries, or gives back, several different locks with one statement. An answer for each, in their order.
    ///
    /// After an error of the statement every lock of it is in doubt: the driver looks at each, and asks again for those
    /// that the statement did not get to.
    fn all(
        &self,
        act: Act,
        keys: &[ServerKey],
        mode: Mode,
    ) -> impl Future<Output = Result<Answers, DriverError>> + Send;

    /// Whether a reader would get the lock now: tries it shared, and gives it back in the same statement. `false` where
    /// there is no shared mode. After an error the session may hold it.
    fn admits_reader(
        &self,
        key: &ServerKey,
    ) -> impl Future<Output = Result<bool, DriverError>> + Send;

    /// The heartbeat: one statement of constant cost. `Err` when this is not the session, the server or the role
    /// that it was.
    fn check(&self) -> impl Future<Output = Result<(), DriverError>> + Send;

    /// The server's number for the session.
    fn id(&self) -> i64;

    /// Who holds the lock, and how many wait for it besides `own`, the sessions of this process: where the server can
    /// tell.
    fn holder(
        &self,
        key: &ServerKey,
        own: &[i64],
    ) -> impl Future<Output = Result<Option<Holder>, DriverError>> + Send;

    /// The locks in use, or the one of that name, without the sentinels of sessions. `own` are this process's sessions.
    fn list(
        &self,
        only: Option<&ServerKey>,
        own: &[i64],
    ) -> impl Future<Output = Result<Listed, DriverError>> + Send;

    /// Notes the texts of keys under the names of their locks, sorted by name, and makes the table where it is missing. What is
    /// noted of a name already stays. No texts: only whether it may note any. For a session that waits for nothing; waits for
    /// whoever has locked the table about a second. `false`: somebody still has, and nothing was noted.
    fn note_keys(&self, keys: &[Noted]) -> impl Future<Output = Result<bool, DriverError>> + Send;

    /// What is noted of the names. Waits for whoever has locked the table as [`note_keys`](Self::note_keys) does.
    fn noted_keys(
        &self,
        names: &[Arc<str>],
    ) -> impl Future<Output = Result<Vec<Noted>, DriverError>> + Send;

    /// Ends another session of the server, if it still holds the lock: asked with the same statement, or with the one before.
    /// `false`: it does not, or has ended already.
    fn kill(
        &self,
        session: i64,
        key: &ServerKey,
    ) -> impl Future<Output = Result<bool, DriverError>> + Send;

    /// Completes when the connection is seen to be closed by the other side; pending for ever where the driver
    /// does not watch an idle connection.
    fn closed(&self) -> impl Future<Output = Arc<str>> + Send;

    /// Closes the connection without waiting. The server frees what it held, and every call under way ends soon with
    /// [`DriverError::Gone`].
    fn close(&self);

    /// How many locks the server has room for, of all its sessions together. `None`: there is no such number.
    fn capacity(&self) -> Option<usize>;

    /// What the server is, in words: `PostgreSQL 15.18`, `MariaDB 10.11.19`, `MySQL 9.7.4`.
    fn server(&self) -> &str;

    /// Which server it is, and which of its databases where those have locks of their own: the same text for all sessions of
    /// one, another after a failover, and where the server keeps nothing that outlives it, after a restart too.
    fn identity(&self) -> &str;

    /// Whether the session has another number on the server than it was given at the start. `None`: it was given none.
    fn behind_pooler(&self) -> Option<bool>;

    /// What of the allowed was found.
    fn hazards(&self) -> &[Hazard];
}

/// What a server tells of its locks.
#[derive(Debug)]
pub(crate) enum Listed {
    Locks(Vec<LockInfo>),
    /// It does not tell, or not to this account: what to do about it.
    Untold {
        remedy: String,
    },
}

/// The table of keys, for whoever has to be told about it.
#[derive(Clone, Debug)]
pub(crate) struct KeyTable {
    pub(crate) name: String,
    /// What makes it one that can be written.
    pub(crate) remedy: String,
    /// How long a connection may take to open.
    pub(crate) connect_timeout: Duration,
}

/// A key as the table of keys has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Noted {
    /// The lock's name on the server.
    pub(crate) name: Arc<str>,
    /// The key's text.
    pub(crate) text: Arc<str>,
}

/// The answers to a batch.
pub(crate) type Answers = Vec<Result<bool, DriverError>>;

/// What a session does to a lock without waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// `true`: the session holds it.
    Try,
    /// `false`: the session did not hold it.
    Release,
}

/// What became of a lock that was given back and tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Offer {
    /// Nobody waited for it: this session holds it again.
    Kept,
    /// Somebody else has it now, or nobody; this session does not hold it.
    Given,
    /// The session did not hold it.
    NotHeld,
}

/// What became of a fencing token.
#[derive(Debug)]
pub(crate) enum Counted {
    /// It is counted.
    Token(u64),
    /// Somebody keeps the counter: nothing was counted, and later it may be.
    Kept { reason: String },
}

/// How a wait in the server's queue ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// This session holds the lock.
    Granted,
    /// The time passed; the session does not hold the lock.
    TimedOut,
    /// The wait was interrupted; the session does not hold the lock.
    Interrupted,
}

/// Why a statement did not do its work.
#[derive(Clone, Debug)]
pub(crate) enum DriverError {
    /// The connection is gone, or its state is in doubt: it must be closed.
    Gone {
        reason: String,
        source: Option<Source>,
    },
    /// The server refused the statement; the session is as it was.
    Refused {
        code: String,
        message: String,
        source: Option<Source>,
    },
}

/// The source of an error that means that another session has answered than the one that was set up.
#[derive(Debug)]
pub(crate) struct AnotherSession(pub(crate) Option<Source>);

impl AnotherSession {
    /// As the source of an error.
    pub(crate) fn source(behind: Option<Source>) -> Source {
        Arc::new(AnotherSession(behind))
    }

    pub(crate) fn is_behind(error: &DriverError) -> bool {
        let (DriverError::Gone { source, .. } | DriverError::Refused { source, .. }) = error;
        source
            .as_deref()
            .is_some_and(|source| (source as &(dyn Error + 'static)).is::<AnotherSession>())
    }
}

impl fmt::Display for AnotherSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("another session of the server has answered")
    }
}

impl Error for AnotherSession {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0
            .as_deref()
            .map(|source| source as &(dyn Error + 'static))
    }
}

/// Why a session could not be opened.
#[derive(Clone, Debug)]
pub(crate) enum ConnectError {
    /// Nobody answered, or the connection broke.
    Unreachable {
        reason: String,
        source: Option<Source>,
    },
    /// The server has no connection left (53300, 1040 and kin).
    TooMany {
        reason: String,
        source: Option<Source>,
    },
    /// User, password or database were refused; trying again will not help.
    LoginRefused {
        reason: String,
        source: Option<Source>,
    },
    /// The server is not one that can keep these locks.
    Unsafe { reason: String, remedy: String },
}

impl Hazards {
    /// Names what was found, if all of it is allowed; else the first that is not is the error.
    pub(crate) fn accept(
        &self,
        found: Vec<(Hazard, String)>,
        better: &str,
    ) -> Result<Vec<Hazard>, ConnectError> {
        let judge = |(hazard, reason): (Hazard, String)| {
            if self.contains(hazard) {
                return Ok(hazard);
            }
            Err(ConnectError::Unsafe {
                reason,
                remedy: hazard.remedy(better),
            })
        };
        found.into_iter().map(judge).collect()
    }
}

impl DriverError {
    /// With what to do about it.
    pub(crate) fn advised(self, remedy: &str) -> DriverError {
        match self {
            DriverError::Refused {
                code,
                message,
                source,
            } => DriverError::Refused {
                message: format!("{message}; {remedy}"),
                code,
                source,
            },
            gone @ DriverError::Gone { .. } => gone,
        }
    }
}

impl fmt::Display for DriverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DriverError::Gone { reason, .. } => f.write_str(reason),
            DriverError::Refused { code, message, .. } => write!(f, "{message} ({code})"),
        }
    }
}
