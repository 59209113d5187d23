//! Statements on the caller's connection.

use std::time::{Duration, Instant};

use mysql_async::prelude::{Queryable, StatementLike};
use mysql_async::{Params, Statement};

use crate::backend::session::driver::DriverError;
use crate::backend::session::mysql::errors;
use crate::backend::session::mysql::settings::Flavor;
use crate::error::Holder;
use crate::own::{doubt, left};

/// What a try has found.
pub(super) enum Try {
    Taken,
    Busy,
    AlreadyHeld,
}

/// How often a statement is sent again that a stray KILL QUERY has ended before it did its work.
const TRIES: usize = 5;

/// Between two tries, where the server cannot count the rest of a wait.
const PAUSE: Duration = Duration::from_millis(10);

/// Runs a statement that answers with one number; `None` is NULL.
async fn number<Q: Queryable, S: StatementLike>(
    conn: &mut Q,
    statement: S,
    params: impl Into<Params> + Send,
) -> Result<Option<i64>, DriverError> {
    let answer: Option<Option<i64>> = conn
        .exec_first(statement, params)
        .await
        .map_err(errors::statement)?;
    Ok(answer.flatten())
}

/// The connection's current database.
pub(super) async fn database<Q: Queryable>(conn: &mut Q) -> Result<String, DriverError> {
    let answer: Option<Option<String>> = conn
        .query_first("SELECT DATABASE()")
        .await
        .map_err(errors::statement)?;
    Ok(answer.flatten().unwrap_or_default())
}

/// Which of the two servers it is.
pub(super) async fn flavor<Q: Queryable>(conn: &mut Q) -> Result<Flavor, DriverError> {
    let sql = "SELECT CONCAT(@@version, ' ', @@version_comment)";
    let answer: Option<String> = conn.query_first(sql).await.map_err(errors::statement)?;
    let is_maria = answer.is_some_and(|version| version.to_ascii_lowercase().contains("mariadb"));
    Ok(if is_maria {
        Flavor::MariaDb
    } else {
        Flavor::MySql
    })
}

pub(super) async fn prepare_release<Q: Queryable>(conn: &mut Q) -> Result<Statement, DriverError> {
    conn.prep("SELECT RELEASE_LOCK(?)")
        .await
        .map_err(errors::statement)
}

/// One try, together with the question whether this connection holds the lock already: the server would count silently.
pub(super) async fn try_once<Q: Queryable>(
    conn: &mut Q,
    name: &str,
    reentrant: bool,
) -> Result<Try, DriverError> {
    let asked = if reentrant {
        number(conn, "SELECT GET_LOCK(?, 0)", (name,)).await
    } else {
        let sql = "SELECT IF(IS_USED_LOCK(?) = CONNECTION_ID(), 2, GET_LOCK(?, 0))";
        number(conn, sql, (name, name)).await
    };
    let error = match asked {
        Ok(Some(2)) => return Ok(Try::AlreadyHeld),
        Ok(Some(1)) => return Ok(Try::Taken),
        Ok(Some(_)) => return Ok(Try::Busy),
        Ok(None) => errors::null("GET_LOCK"),
        Err(error @ DriverError::Gone { .. }) => return Err(error),
        Err(error) => error,
    };
    if holds(conn, name).await? {
        return Ok(Try::Taken);
    }
    Err(error)
}

/// Waits in the server's queue, a slice at a time. `false`: the deadline has passed.
pub(super) async fn wait<Q: Queryable>(
    conn: &mut Q,
    name: &str,
    deadline: Option<Instant>,
) -> Result<bool, DriverError> {
    let flavor = flavor(conn).await?;
    while let Some(slice) = left(deadline) {
        let asked = match flavor {
            Flavor::MariaDb => {
                let milliseconds =
                    u64::try_from(slice.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
                number(conn, "SELECT GET_LOCK(?, ? / 1000)", (name, milliseconds)).await
            }
            // MySQL counts whole seconds: the rest is tried for. The server sleeps, since the caller's runtime may have no clock.
            Flavor::MySql => {
                let seconds = slice.as_secs();
                if seconds == 0 {
                    let pause = PAUSE.min(slice).as_secs_f64();
                    number(conn, "SELECT SLEEP(?)", (pause,)).await?;
                }
                number(conn, "SELECT GET_LOCK(?, ?)", (name, seconds)).await
            }
        };
        let error = match asked {
            Ok(Some(1)) => return Ok(true),
            Ok(Some(_)) => continue,
            Ok(None) => errors::null("GET_LOCK"),
            Err(error @ DriverError::Gone { .. }) => return Err(error),
            Err(error) => error,
        };
        if holds(conn, name).await? {
            return Ok(true);
        }
        // A limit on the caller's statements, which MariaDB answers with NULL as it does a KILL QUERY, does not end the wait.
        let goes_on = errors::is_time_out(&error)
            || (flavor == Flavor::MariaDb && errors::is_interruption(&error));
        if !goes_on {
            return Err(error);
        }
    }
    Ok(false)
}

/// Whether this connection holds the lock: the only proof after an error or NULL. Without an answer the connection is in doubt.
async fn holds<Q: Queryable>(conn: &mut Q, name: &str) -> Result<bool, DriverError> {
    let mut tries = 1;
    loop {
        let sql = "SELECT IS_USED_LOCK(?) = CONNECTION_ID()";
        match number(conn, sql, (name,)).await {
            // A late KILL QUERY hits whatever runs next, and that is this question.
            Err(error) if errors::is_interruption(&error) && tries < TRIES => tries += 1,
            answer => return Ok(answer.map_err(doubt)? == Some(1)),
        }
    }
}

/// Who holds the lock: the number of the session.
pub(super) async fn holder<Q: Queryable>(
    conn: &mut Q,
    name: &str,
) -> Result<Option<Holder>, DriverError> {
    let session = number(conn, "SELECT IS_USED_LOCK(?)", (name,)).await?;
    Ok(session.map(|session| Holder {
        session: Some(session),
        ..Holder::default()
    }))
}

/// Gives the lock back. `false`: the connection did not hold it.
pub(super) async fn release<Q: Queryable>(
    conn: &mut Q,
    statement: &Statement,
    name: &str,
) -> Result<bool, DriverError> {
    let mut interrupted = false;
    let mut tries = 1;
    loop {
        let error = match number(conn, statement, (name,)).await {
            // Releasing is not undone by an error: what is not held any more was given back by us.
            Ok(answer) => return Ok(answer == Some(1) || interrupted),
            Err(error) => error,
        };
        if tries == TRIES || !errors::is_interruption(&error) {
            return Err(error);
        }
        interrupted = true;
        tries += 1;
    }
}
