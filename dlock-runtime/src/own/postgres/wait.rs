//! Taking a lock on the caller's connection, and giving it back.

use std::time::{Duration, Instant};

use super::speech::{Speech, arguments, is};
use crate::backend::session::driver::DriverError;
use crate::backend::session::postgres::errors;
use crate::key::Mode;
use crate::own::{doubt, left};
use crate::scheme::AdvisoryKey;

/// Until when a lock is held.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Span {
    Session,
    Transaction,
}

/// What a try has found.
pub(super) enum Try {
    Taken,
    Busy,
    AlreadyHeld,
}

/// What is to be taken, and how.
#[derive(Clone, Copy)]
pub(super) struct Target {
    pub(super) key: AdvisoryKey,
    pub(super) mode: Mode,
    pub(super) span: Span,
}

/// How often a statement is sent again that a stray cancel request has ended before it did its work.
const TRIES: usize = 5;

/// A place in the caller's transaction to which a wait goes back that came to nothing.
const SAVEPOINT: &str = "dlock_wait";

impl Target {
    /// A call of a lock function: `pg_advisory_lock`, its name split before and behind what tells the spans apart.
    fn call(&self, before: &str, verb: &str) -> String {
        let span = match self.span {
            Span::Session => "",
            Span::Transaction => "xact_",
        };
        let mode = match self.mode {
            Mode::Exclusive => "",
            Mode::Shared => "_shared",
        };
        format!("{before}_{span}{verb}{mode}({})", arguments(self.key))
    }
}

/// One try, together with the question whether this connection holds the lock already: the server would count silently.
pub(super) async fn try_once(
    speech: Speech<'_>,
    target: Target,
    reentrant: bool,
) -> Result<Try, DriverError> {
    let try_lock = target.call("pg_try_advisory", "lock");
    let sql = if reentrant {
        format!("SELECT {try_lock}")
    } else {
        format!(
            "SELECT CASE WHEN EXISTS (SELECT FROM pg_locks AS lock
                 WHERE lock.pid = pg_backend_pid() AND lock.granted AND {})
             THEN NULL ELSE {try_lock} END",
            is(target.key)
        )
    };
    match speech.says(&sql).await {
        Ok(Some(true)) => Ok(Try::Taken),
        Ok(Some(false)) => Ok(Try::Busy),
        Ok(None) => Ok(Try::AlreadyHeld),
        // Cancelled, it may hold the lock all the same.
        Err(error) if errors::proves_nothing(&error) && target.span == Span::Session => {
            if holds(speech, target).await? {
                return Ok(Try::Taken);
            }
            Err(error)
        }
        Err(error) => Err(error),
    }
}

/// Waits in the server's queue, a slice at a time. `false`: the deadline has passed.
pub(super) async fn until(
    speech: Speech<'_>,
    target: Target,
    deadline: Option<Instant>,
) -> Result<bool, DriverError> {
    if begin_savepoint(speech).await? {
        return Within::begin(speech).await?.wait(target, deadline).await;
    }
    while let Some(slice) = left(deadline) {
        let Err(error) = speech.ask(&wait(target, slice)).await else {
            return Ok(true);
        };
        if !errors::proves_nothing(&error) {
            return Err(error);
        }
        if holds(speech, target).await? {
            return Ok(true);
        }
        if !errors::is_time_out(&error) {
            return Err(error);
        }
    }
    Ok(false)
}

/// The statements of one message are one transaction, unless there is one already: the settings are local to it.
fn wait(target: Target, slice: Duration) -> String {
    let milliseconds = slice.as_nanos().div_ceil(1_000_000).max(1);
    format!(
        "SELECT set_config('lock_timeout', '{milliseconds}', true), set_config('statement_timeout', '0', true);
         SELECT {}",
        target.call("pg_advisory", "lock")
    )
}

/// Opens a savepoint, if there is a transaction. Outside of one that is an error without any effect.
async fn begin_savepoint(speech: Speech<'_>) -> Result<bool, DriverError> {
    match speech.ask(&format!("SAVEPOINT {SAVEPOINT}")).await {
        Ok(_) => Ok(true),
        Err(DriverError::Refused { code, .. }) if code == "25P01" => Ok(false),
        Err(error) => Err(error),
    }
}

/// A wait inside a transaction of the caller's, which an error would end.
struct Within<'s> {
    speech: Speech<'s>,
    /// The caller's own settings, as literals.
    lock_timeout: String,
    statement_timeout: String,
}

impl<'s> Within<'s> {
    /// The savepoint is there.
    async fn begin(speech: Speech<'s>) -> Result<Within<'s>, DriverError> {
        let sql = "SELECT quote_literal(current_setting('lock_timeout')),
                          quote_literal(current_setting('statement_timeout'))";
        let mut row = speech.ask(sql).await?.into_iter().flatten();
        let mut setting = || row.next().unwrap_or_else(|| "'0'".to_owned());
        Ok(Within {
            lock_timeout: setting(),
            statement_timeout: setting(),
            speech,
        })
    }

    async fn wait(self, target: Target, deadline: Option<Instant>) -> Result<bool, DriverError> {
        let speech = self.speech;
        while let Some(slice) = left(deadline) {
            let error = match speech.ask(&wait(target, slice)).await {
                Ok(_) => {
                    self.end().await.map_err(doubt)?;
                    return Ok(true);
                }
                Err(error @ DriverError::Gone { .. }) => return Err(error),
                Err(error) => error,
            };
            // What the transaction was granted meanwhile is free again; what the session was granted stays.
            let back = format!("ROLLBACK TO SAVEPOINT {SAVEPOINT}");
            speech.ask(&back).await.map_err(doubt)?;
            let session = target.span == Span::Session && errors::proves_nothing(&error);
            if session && holds(speech, target).await? {
                self.end().await.map_err(doubt)?;
                return Ok(true);
            }
            if !errors::is_time_out(&error) {
                self.end().await?;
                return Err(error);
            }
        }
        self.end().await?;
        Ok(false)
    }

    /// Removes the savepoint, and gives the caller's settings back.
    async fn end(&self) -> Result<(), DriverError> {
        let sql = format!(
            "RELEASE SAVEPOINT {SAVEPOINT};
             SELECT set_config('lock_timeout', {}, true), set_config('statement_timeout', {}, true)",
            self.lock_timeout, self.statement_timeout
        );
        self.speech.ask(&sql).await.map(|_| ())
    }
}

/// Whether this connection holds the lock: the only proof after an error. Without an answer the connection is in doubt.
async fn holds(speech: Speech<'_>, target: Target) -> Result<bool, DriverError> {
    let mode = match target.mode {
        Mode::Exclusive => "ExclusiveLock",
        Mode::Shared => "ShareLock",
    };
    let sql = format!(
        "SELECT EXISTS (SELECT FROM pg_locks AS lock
             WHERE lock.pid = pg_backend_pid() AND lock.granted AND lock.mode = '{mode}' AND {})",
        is(target.key)
    );
    let mut tries = 1;
    loop {
        match speech.says(&sql).await {
            // A late cancel request hits whatever runs next, and that is this question.
            Err(error) if errors::is_interruption(&error) && tries < TRIES => tries += 1,
            answer => return Ok(answer.map_err(doubt)? == Some(true)),
        }
    }
}

/// Gives a session lock back. `false`: the connection did not hold it.
pub(super) async fn release(speech: Speech<'_>, target: Target) -> Result<bool, DriverError> {
    let unlock = format!("SELECT {}", target.call("pg_advisory", "unlock"));
    let mut interrupted = false;
    let mut tries = 1;
    loop {
        let error = match speech.says(&unlock).await {
            // Unlocking is not undone by an error: what is not held any more was given back by us.
            Ok(answer) => return Ok(answer == Some(true) || interrupted),
            Err(error) => error,
        };
        if tries == TRIES {
            return Err(error);
        }
        tries += 1;
        match &error {
            // The caller's transaction has failed: nothing runs in it but its end, and nothing is lost with it.
            DriverError::Refused { code, .. } if code == "25P02" => {
                speech.ask("ROLLBACK").await?;
            }
            error if errors::is_interruption(error) => interrupted = true,
            _ => return Err(error),
        }
    }
}
