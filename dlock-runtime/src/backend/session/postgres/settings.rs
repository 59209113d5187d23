//! What every session of ours asks of PostgreSQL before its first lock, and what it reads back.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join;
use tokio_postgres::error::Severity;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error, Row};

use super::errors;
use crate::backend::session::driver::{ConnectError, SessionSettings};
use crate::hazard::{Hazard, Hazards};

/// How soon the server notices, while a statement of ours waits, that nobody is there for its answer any more.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);

/// `idle_session_timeout`, without which a paused client keeps its locks for ever, came with this version.
const OLDEST: i32 = 140_000;

const DIRECT: &str = "connect to a writable PostgreSQL server of version 14 or newer, \
    directly or through a pooler in session mode";

/// What a session is, as it was when it was opened.
pub(super) struct Facts {
    /// `pg_backend_pid()`.
    pub(super) pid: i32,
    /// The server's start, in microseconds since 1970.
    pub(super) started: i64,
    /// The advisory lock that tells whether the session still has its locks: two numbers that nobody else has, in the key
    /// space of two-number keys, where the locks of the native scheme are not. See [`sentinel`].
    pub(super) sentinel: (i32, i32),
    pub(super) server: String,
    /// The locks that the server's table is made for. It takes some more, from memory that it has for other things too.
    pub(super) capacity: usize,
    /// As [`IDENTITY`] says it.
    pub(super) identity: String,
    /// What is wrong with the server, and allowed.
    pub(super) hazards: Vec<Hazard>,
}

/// Sets the session up, and reads back what the server has made of it, in one flight.
pub(super) async fn apply(
    client: &Client,
    settings: &SessionSettings,
) -> Result<Facts, ConnectError> {
    let limit = settings.limit;
    let class = fastrand::i32(..);
    let (set, mut seen) = join(set(client, limit, true), read_back(client, class)).await;
    if let Err(error) = set {
        // A server on a system that cannot notice a closed socket refuses that one setting.
        let code = error.code().map(tokio_postgres::error::SqlState::code);
        if code != Some("22023") {
            return Err(refused(error));
        }
        let (set, again) = join(self::set(client, limit, false), read_back(client, class)).await;
        set.map_err(refused)?;
        seen = again;
    }
    let row = seen.map_err(refused)?;
    let read = ReadBack::of(&row).map_err(refused)?;
    let sentinel = (class, sentinel(class, read.pid));
    read.judge(limit, sentinel, &settings.allowed)
}

/// The identity in SQL: the start of the server, and the database, to which advisory locks belong. Not the
/// `system_identifier`, which standbys share and not everybody may read.
pub(crate) const IDENTITY: &str =
    "(extract(epoch FROM pg_postmaster_start_time()) * 1000000)::int8 || '/' || current_database()";

/// Makes a sentinel's second number: no pair that a program is likely to use.
const SENTINEL: i32 = 0x5e17_1e1d;

/// The second number of a sentinel, by its first, which is random, and the number of the session's process: sentinels of two
/// sessions are never the same, and in a list of locks they can be told from other pairs.
pub(super) fn sentinel(class: i32, pid: i32) -> i32 {
    class ^ pid ^ SENTINEL
}

/// `SET` and not the options of the start-up message, which PgBouncer refuses. What only newer servers know is
/// asked for by version.
async fn set(client: &Client, limit: Duration, watch_socket: bool) -> Result<(), Error> {
    let limit_seconds = limit.as_secs().max(1);
    // Both take at least `limit` to give up a silent client: they free its locks too, and must not do so while
    // the client still vouches for them.
    let interval = limit_seconds.div_ceil(6);
    let idle = limit_seconds.saturating_sub(3 * interval).max(1);
    let limit = limit_seconds * 1000;
    let check = if watch_socket {
        CHECK_INTERVAL.as_millis()
    } else {
        0
    };
    let newer = |version: i32, name: &str, value: u128| {
        format!(
            "SELECT set_config('{name}', '{value}', false)
             WHERE current_setting('server_version_num')::int4 >= {version};"
        )
    };
    let mut sql = format!(
        "SET statement_timeout = 0; SET lock_timeout = 0; SET idle_in_transaction_session_timeout = 0;
         SET tcp_keepalives_idle = {idle}; SET tcp_keepalives_interval = {interval};
         SET tcp_keepalives_count = 3;"
    );
    sql += &newer(120_000, "tcp_user_timeout", limit.into());
    sql += &newer(OLDEST, "idle_session_timeout", limit.into());
    sql += &newer(OLDEST, "client_connection_check_interval", check);
    sql += &newer(170_000, "transaction_timeout", 0);
    client.batch_execute(&sql).await
}

/// Everything that [`ReadBack::of`] takes from the row, by position. The sentinel is locked twice; see the heartbeat.
async fn read_back(client: &Client, class: i32) -> Result<Row, Error> {
    let object = SENTINEL;
    let rows = client
        .query_typed(
            "SELECT current_setting('server_version_num')::int4, current_setting('server_version'),
                pg_backend_pid(), pg_is_in_recovery(),
                (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::int8,
                CASE WHEN pg_try_advisory_lock($1, $1 # pg_backend_pid() # $2)
                    THEN pg_try_advisory_lock($1, $1 # pg_backend_pid() # $2) ELSE false END,
                (extract(epoch FROM
                    coalesce(current_setting('idle_session_timeout', true), '0')::interval) * 1000)::int8,
                (SELECT coalesce(string_agg(name, ', '), '')
                 FROM unnest(ARRAY['statement_timeout', 'lock_timeout',
                    'idle_in_transaction_session_timeout', 'transaction_timeout']) AS name
                 WHERE current_setting(name, true) <> '0'),
                current_setting('tcp_keepalives_idle')::int8 * 1000
                    + current_setting('tcp_keepalives_interval')::int8 * 1000
                    * current_setting('tcp_keepalives_count')::int8,
                coalesce(current_setting('tcp_user_timeout', true), '0')::int8,
                current_setting('max_locks_per_transaction')::int8
                    * (current_setting('max_connections')::int8
                    + current_setting('max_prepared_transactions')::int8),
                inet_server_addr() IS NULL, current_database()::text",
            &[(&class, Type::INT4), (&object, Type::INT4)],
        )
        .await?;
    // One row by its form; a driver error in place of an index that could panic.
    match rows.into_iter().next() {
        Some(row) => Ok(row),
        None => client.query_one("SELECT 1 WHERE false", &[]).await,
    }
}

/// The answer of [`read_back`]; times in milliseconds.
struct ReadBack {
    version: i32,
    version_text: String,
    pid: i32,
    standby: bool,
    started: i64,
    sentinel: bool,
    idle_limit: i64,
    /// The names of the settings that should be 0 and are not.
    limited: String,
    keepalives: i64,
    user_timeout: i64,
    capacity: i64,
    /// Whether the connection is a Unix socket where it reaches the server, which has neither of the two limits of TCP.
    local: bool,
    database: String,
}

impl ReadBack {
    fn of(row: &Row) -> Result<Self, Error> {
        Ok(ReadBack {
            version: row.try_get(0)?,
            version_text: row.try_get(1)?,
            pid: row.try_get(2)?,
            standby: row.try_get(3)?,
            started: row.try_get(4)?,
            sentinel: row.try_get(5)?,
            idle_limit: row.try_get(6)?,
            limited: row.try_get(7)?,
            keepalives: row.try_get(8)?,
            user_timeout: row.try_get(9)?,
            capacity: row.try_get(10)?,
            local: row.try_get(11)?,
            database: row.try_get(12)?,
        })
    }

    fn judge(
        self,
        limit: Duration,
        sentinel: (i32, i32),
        allowed: &Hazards,
    ) -> Result<Facts, ConnectError> {
        let hazards = self.hazards(allowed)?;
        let limit = i64::try_from(limit.as_secs().max(1) * 1000).unwrap_or(i64::MAX);
        let ReadBack {
            version_text,
            idle_limit,
            limited,
            keepalives,
            user_timeout,
            ..
        } = &self;
        let reason = if self.version >= OLDEST && *idle_limit != limit {
            format!("idle_session_timeout stayed {idle_limit} ms when set to {limit} ms")
        } else if !limited.is_empty() {
            format!("the server kept a limit on our session: {limited} cannot be set to 0")
        } else if *keepalives != 0 && *keepalives < limit {
            format!("tcp_keepalives_* give up after {keepalives} ms, before {limit} ms have passed")
        } else if *user_timeout != 0 && *user_timeout < limit {
            format!("tcp_user_timeout stayed {user_timeout} ms when set to {limit} ms")
        } else if !self.sentinel {
            "a lock under a random key, which nobody can hold, was not granted".to_owned()
        } else {
            return Ok(Facts {
                pid: self.pid,
                started: self.started,
                sentinel,
                server: format!("PostgreSQL {}", number(version_text)),
                identity: format!("{}/{}", self.started, self.database),
                capacity: usize::try_from(self.capacity).unwrap_or(usize::MAX),
                hazards,
            });
        };
        Err(ConnectError::Unsafe {
            reason,
            remedy: DIRECT.to_owned(),
        })
    }

    /// What is wrong with the server and allowed; the first that is not allowed is an error.
    fn hazards(&self, allowed: &Hazards) -> Result<Vec<Hazard>, ConnectError> {
        let mut found = Vec::new();
        if self.version < OLDEST {
            let reason = format!(
                "PostgreSQL {} cannot limit idle sessions: a paused client would keep its locks without limit",
                self.version_text
            );
            found.push((Hazard::NoIdleLimit, reason));
        }
        if self.standby {
            let reason = "the server is a standby, whose locks exclude nobody on the primary";
            found.push((Hazard::Standby, reason.to_owned()));
        }
        // 0 is the word for no limit, and for a connection that is not TCP. `tcp_user_timeout` came with version 12, and
        // is not to be had on every system.
        if !self.local && (self.keepalives == 0 || self.user_timeout == 0) {
            let names = match (self.keepalives, self.user_timeout) {
                (0, 0) => "tcp_keepalives_* and tcp_user_timeout",
                (0, _) => "tcp_keepalives_*",
                _ => "tcp_user_timeout",
            };
            let reason = format!(
                "{names} stayed 0 over TCP: the server would not end a connection whose other side has vanished"
            );
            found.push((Hazard::NoSocketLimit, reason));
        }
        allowed.accept(found, DIRECT)
    }
}

/// `15.18 (Debian 15.18-0+deb12u1)` without the packager's part.
fn number(version: &str) -> &str {
    version.split_whitespace().next().unwrap_or(version)
}

/// The server does not have what session locks need; or the connection broke.
fn refused(error: Error) -> ConnectError {
    let broken = error
        .as_db_error()
        .is_none_or(|refusal| refusal.parsed_severity() != Some(Severity::Error));
    if broken {
        return ConnectError::Unreachable {
            reason: errors::describe(&error),
            source: Some(Arc::new(error)),
        };
    }
    ConnectError::Unsafe {
        reason: format!(
            "the server refused what a session of locks needs: {}",
            errors::describe(&error)
        ),
        remedy: DIRECT.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    fn good() -> ReadBack {
        ReadBack {
            version: 150_018,
            version_text: "15.18 (packaged)".to_owned(),
            pid: 1,
            standby: false,
            started: 1,
            sentinel: true,
            idle_limit: 30_000,
            limited: String::new(),
            keepalives: 30_000,
            user_timeout: 30_000,
            capacity: 6400,
            database: "app".into(),
            local: false,
        }
    }

    #[test]
    fn a_hazard_that_is_allowed_is_found_and_no_other() {
        let mut allowed = Hazards::default();
        allowed.insert(Hazard::NoIdleLimit);
        let old = || ReadBack {
            version: 130_023,
            idle_limit: 0,
            ..good()
        };
        let facts = old().judge(LIMIT, (1, 2), &allowed).expect("allowed");
        assert_eq!(facts.hazards, [Hazard::NoIdleLimit]);
        let standby = || ReadBack {
            standby: true,
            ..old()
        };
        let Some(ConnectError::Unsafe { remedy, .. }) =
            standby().judge(LIMIT, (1, 2), &allowed).err()
        else {
            panic!("not refused")
        };
        assert!(remedy.contains("allow=standby"), "{remedy}");
        allowed.insert(Hazard::Standby);
        let facts = standby().judge(LIMIT, (1, 2), &allowed).expect("allowed");
        assert_eq!(facts.hazards, [Hazard::NoIdleLimit, Hazard::Standby]);
        // To have no limit is allowed, not to have another.
        let limited = ReadBack {
            limited: "lock_timeout".to_owned(),
            ..standby()
        };
        assert!(limited.judge(LIMIT, (1, 2), &allowed).is_err());
    }

    #[test]
    fn s1_a_server_that_did_not_take_the_settings_is_unsafe() {
        let facts = good()
            .judge(LIMIT, (1, 2), &Hazards::default())
            .expect("a good server");
        assert_eq!(facts.server, "PostgreSQL 15.18");
        let local = ReadBack {
            keepalives: 0,
            user_timeout: 0,
            local: true,
            ..good()
        };
        assert!(local.judge(LIMIT, (1, 2), &Hazards::default()).is_ok());
        for (read_back, word) in [
            (
                ReadBack {
                    version: 130_023,
                    ..good()
                },
                "paused",
            ),
            (
                ReadBack {
                    standby: true,
                    ..good()
                },
                "standby",
            ),
            (
                ReadBack {
                    idle_limit: 0,
                    ..good()
                },
                "idle_session_timeout",
            ),
            (
                ReadBack {
                    limited: "lock_timeout".to_owned(),
                    ..good()
                },
                "lock_timeout",
            ),
            (
                ReadBack {
                    keepalives: 29_000,
                    ..good()
                },
                "tcp_keepalives",
            ),
            (
                ReadBack {
                    keepalives: 0,
                    ..good()
                },
                "tcp_keepalives_* stayed 0 over TCP",
            ),
            (
                ReadBack {
                    user_timeout: 0,
                    ..good()
                },
                "tcp_user_timeout stayed 0 over TCP",
            ),
            (
                ReadBack {
                    user_timeout: 29_000,
                    ..good()
                },
                "tcp_user_timeout",
            ),
            (
                ReadBack {
                    sentinel: false,
                    ..good()
                },
                "random key",
            ),
        ] {
            match read_back.judge(LIMIT, (1, 2), &Hazards::default()).err() {
                Some(ConnectError::Unsafe { reason, remedy }) => {
                    assert!(reason.contains(word), "{reason}");
                    assert!(remedy.contains("version 14"), "{remedy}");
                }
                other => panic!("{word}: {other:?}"),
            }
        }
    }
}
