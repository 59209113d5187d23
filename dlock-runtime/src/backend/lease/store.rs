//! What the lease strategy needs of a database: one implementation a database, and no other place that writes SQL for
//! leases.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use super::row::{Row, Stamped};
use crate::error::Source;
use crate::key::Mode;

/// The table of leases in one database.
///
/// Every statement is complete in itself: one round trip, one transaction, the database's own clock. Each future runs to its
/// end, within a time that the store bounds.
pub(crate) trait Store: Send + Sync + 'static {
    /// Takes the lock exclusively, if it is free or has expired. What the claim's own owner holds is not free: a take that
    /// comes late must not change it.
    fn take(&self, claim: &Claim<'_>) -> impl Future<Output = Answer<Option<u64>>> + Send;

    /// The row, and the database's present time. `None`: there is no such row.
    fn read(&self, name: &str) -> impl Future<Output = Answer<Option<Row>>> + Send;

    /// The rows of locks that are held or were announced for, or the one of that name, whether it is or not.
    fn list(&self, _only: Option<&str>) -> impl Future<Output = Answer<Vec<Stamped>>> + Send {
        std::future::ready(Err(StoreError::Refused {
            code: "list".to_owned(),
            message: "this database's leases have no list".to_owned(),
            source: None,
        }))
    }

    /// Takes the lease of a row away from whoever has it, if the row is as it was when it was read and not expired: the token counts
    /// up, nobody is its owner, and the end stays. `false`: the row was changed.
    fn revoke(&self, _name: &str, _version: u64) -> impl Future<Output = Answer<bool>> + Send {
        std::future::ready(Err(StoreError::Refused {
            code: "revoke".to_owned(),
            message: "this database's leases cannot be revoked".to_owned(),
            source: None,
        }))
    }

    /// Makes sure that there is a row, free if it is new.
    fn create(&self, name: &str) -> impl Future<Output = Answer<()>> + Send;

    /// Changes the readers, if the row is as it was when it was read. `false`: it is not, or somebody has locked it.
    fn swap(&self, name: &str, change: &Swap) -> impl Future<Output = Answer<bool>> + Send;

    /// Says that somebody waits, as long as the lock is held: the holder's release then tells so. `None`: it is free.
    fn announce(
        &self,
        notice: &Notice<'_>,
    ) -> impl Future<Output = Answer<Option<Announced>>> + Send;

    /// Takes back what was announced. `true`: others wait.
    fn retract(&self, name: &str, owner: &str) -> impl Future<Output = Answer<bool>> + Send;

    /// Lengthens leases, all in one statement, where the row still has owner and token and has not expired. Answers in the
    /// order of the request.
    fn renew(&self, renewals: &[Renewal]) -> impl Future<Output = Answer<Vec<Renewed>>> + Send;

    /// Ends an exclusive lease where the row still has owner and token and has not expired; the row stays. `kept_for`: the
    /// lock stays taken for so long, by nobody who could renew or release it ([`KEPT`](super::row::KEPT)).
    fn release(
        &self,
        name: &str,
        owner: &str,
        token: u64,
        kept_for: Option<Duration>,
    ) -> impl Future<Output = Answer<Released>> + Send;

    /// Wakes those who wait for the lock, wherever they are. Does nothing where nobody can be woken.
    fn wake(&self, name: &str) -> impl Future<Output = ()> + Send;

    /// Whether releases wake those who wait; otherwise they have to ask.
    fn wakes(&self) -> bool;

    /// The longest pause between two tries where nobody is woken, if it is another than usual.
    fn asks_every(&self) -> Option<Duration> {
        None
    }

    /// Whether the database's clock is several, or can step: an expired lease may then be taken only after it was seen
    /// unchanged for its whole ttl.
    fn doubts_clock(&self) -> bool {
        false
    }

    /// Whether an attempt to reach the database is of use now, after one that failed.
    fn pause(&self) -> impl Future<Output = ()> + Send;

    /// How many connections to a server are open.
    fn connections(&self) -> usize;

    /// Closes every connection.
    fn close(&self, reason: &str);
}

/// Somebody who wants the lock exclusively.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claim<'a> {
    pub(crate) name: &'a str,
    /// Unique to this acquisition.
    pub(crate) owner: &'a str,
    pub(crate) program: &'a str,
    pub(crate) ttl: Duration,
    /// Where the clock is doubted: the version at which the row was seen unchanged for its whole ttl.
    pub(crate) stale: Option<u64>,
}

/// A new list of readers.
#[derive(Clone, Debug)]
pub(crate) struct Swap {
    /// The version that was read.
    pub(crate) version: u64,
    /// The token, where it counts up.
    pub(crate) token: Option<u64>,
    /// Whoever of those who wait is done with waiting.
    pub(crate) owner: Arc<str>,
    /// As JSON.
    pub(crate) readers: String,
    /// When the last reader's lease ends, in microseconds of the database's clock; 0: there is no reader left.
    pub(crate) expires_at: i64,
    /// How long a reader's lease lasts.
    pub(crate) ttl: Duration,
    /// The last holder that has gone, as JSON, if it is another now.
    pub(crate) last_run: Option<String>,
}

/// Somebody who waits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Notice<'a> {
    pub(crate) name: &'a str,
    pub(crate) owner: &'a str,
    pub(crate) mode: Mode,
    /// Since when, as an earlier announcement told; `None`: from now on.
    pub(crate) since: Option<i64>,
    /// How long the announcement counts.
    pub(crate) lasts: Duration,
}

/// An announcement was noted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Announced {
    /// Since when this one waits.
    pub(crate) since: i64,
    /// How long the lease lasts as it is.
    pub(crate) remaining: Duration,
}

/// A lease to be lengthened.
#[derive(Clone, Debug)]
pub(crate) struct Renewal {
    pub(crate) name: Arc<str>,
    pub(crate) owner: Arc<str>,
    pub(crate) token: u64,
    pub(crate) mode: Mode,
    pub(crate) ttl: Duration,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Renewed {
    Yes,
    /// The row is as it was, but somebody has locked it: try again soon.
    Locked,
    /// The row has another owner or token, or has expired.
    Lost,
}

/// What the row said to a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Released {
    pub(crate) was_held: bool,
    /// Somebody waits for the lock.
    pub(crate) is_wanted: bool,
}

/// What a statement brings.
pub(crate) type Answer<T> = Result<T, StoreError>;

/// Why a statement brought no answer.
#[derive(Clone, Debug)]
pub(crate) enum StoreError {
    /// The connection is lost: whether the statement was carried out is unknown.
    Gone {
        reason: String,
        source: Option<Source>,
    },
    /// The database cannot be reached: nothing was carried out.
    Unreachable {
        reason: String,
        source: Option<Source>,
    },
    /// Undone for the sake of another transaction: try again.
    Again { reason: String },
    /// The statement was refused: nothing was carried out.
    Refused {
        code: String,
        message: String,
        source: Option<Source>,
    },
}

impl std::fmt::Display for StoreError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            StoreError::Gone { reason, .. }
            | StoreError::Unreachable { reason, .. }
            | StoreError::Again { reason } => f.write_str(reason),
            StoreError::Refused { code, message, .. } => write!(f, "{message} ({code})"),
        }
    }
}
