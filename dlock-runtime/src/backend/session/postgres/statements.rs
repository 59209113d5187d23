//! The statements of a session: each prepared when it is first used, then one round trip each time.

use tokio::sync::OnceCell;
use tokio_postgres::{Client, Error, Statement};

/// A statement that is prepared once in a session.
pub(super) struct Cached {
    sql: &'static str,
    statement: OnceCell<Statement>,
}

impl Cached {
    const fn new(sql: &'static str) -> Self {
        Cached {
            sql,
            statement: OnceCell::const_new(),
        }
    }

    pub(super) async fn get(&self, client: &Client) -> Result<&Statement, Error> {
        self.statement
            .get_or_try_init(|| client.prepare(self.sql))
            .await
    }
}

/// All statements of a session.
pub(super) struct Statements {
    pub(super) try_lock: Cached,
    pub(super) try_lock_shared: Cached,
    pub(super) lock: Cached,
    pub(super) lock_shared: Cached,
    pub(super) unlock: Cached,
    pub(super) unlock_shared: Cached,
    pub(super) try_all: Cached,
    pub(super) try_all_shared: Cached,
    pub(super) unlock_all: Cached,
    pub(super) unlock_all_shared: Cached,
    pub(super) admits_reader: Cached,
    pub(super) holds: Cached,
    pub(super) check: Cached,
    pub(super) holder: Cached,
}

impl Default for Statements {
    fn default() -> Self {
        Statements {
            try_lock: Cached::new("SELECT pg_try_advisory_lock($1)"),
            try_lock_shared: Cached::new("SELECT pg_try_advisory_lock_shared($1)"),
            // The time-out and the lock are one statement, the second evaluated after the first because it depends
            // on it: as two statements, a failure of the first would leave the second waiting without limit. The
            // setting is local to the statement's own transaction, so that it never outlives the wait.
            lock: Cached::new(
                "SELECT pg_advisory_lock(
                    CASE WHEN set_config('lock_timeout', $1::text, true) IS NOT NULL THEN $2::int8 END)",
            ),
            lock_shared: Cached::new(
                "SELECT pg_advisory_lock_shared(
                    CASE WHEN set_config('lock_timeout', $1::text, true) IS NOT NULL THEN $2::int8 END)",
            ),
            unlock: Cached::new("SELECT pg_advisory_unlock($1)"),
            unlock_shared: Cached::new("SELECT pg_advisory_unlock_shared($1)"),
            // With the key in each row: no answer is taken for that to another question.
            try_all: Cached::new(
                "SELECT key, pg_try_advisory_lock(key) FROM unnest($1::int8[]) AS key",
            ),
            try_all_shared: Cached::new(
                "SELECT key, pg_try_advisory_lock_shared(key) FROM unnest($1::int8[]) AS key",
            ),
            unlock_all: Cached::new(
                "SELECT key, pg_advisory_unlock(key) FROM unnest($1::int8[]) AS key",
            ),
            unlock_all_shared: Cached::new(
                "SELECT key, pg_advisory_unlock_shared(key) FROM unnest($1::int8[]) AS key",
            ),
            // A try fails when a writer stands in the server's queue.
            admits_reader: Cached::new(
                "SELECT CASE WHEN pg_try_advisory_lock_shared($1::int8)
                    THEN pg_advisory_unlock_shared($1::int8) ELSE false END",
            ),
            holds: Cached::new(
                "SELECT EXISTS (
                    SELECT FROM pg_locks
                    WHERE locktype = 'advisory' AND pid = pg_backend_pid() AND granted
                      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
                      AND classid::int8 << 32 | objid::int8 = $1 AND objsubid = 1 AND mode = $2::text)",
            ),
            // The sentinel was locked twice at the start. Unlocking it once tells whether the session still has its
            // locks, locking it again restores the count; it is never free in between, and both touch only the
            // session's own memory: reading `pg_locks` would cost with every lock of the server and stop the lock
            // manager, and a setting of the session would survive `pg_advisory_unlock_all()`.
            check: Cached::new(
                "SELECT pg_backend_pid(), pg_is_in_recovery(),
                    (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::int8,
                    CASE WHEN pg_advisory_unlock($1::int4, $2::int4)
                        THEN pg_try_advisory_lock($1::int4, $2::int4) ELSE false END",
            ),
            // Without the right to see other users' sessions the address and the start are NULL; a Unix socket has the
            // port -1.
            holder: Cached::new(
                "WITH locks AS (
                    SELECT pid, granted FROM pg_locks
                    WHERE locktype = 'advisory'
                      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
                      AND classid::int8 << 32 | objid::int8 = $1 AND objsubid = 1)
                 SELECT lock.pid, session.application_name,
                    session.usename || coalesce('@' || host(session.client_addr),
                        CASE WHEN session.client_port = -1 THEN '@[local]' END, ''),
                    (extract(epoch FROM clock_timestamp() - session.backend_start) * 1000000)::int8,
                    (SELECT count(*) FROM locks WHERE NOT granted AND pid <> ALL ($2::int8[]))
                 FROM locks AS lock LEFT JOIN pg_stat_activity AS session ON session.pid = lock.pid
                 WHERE lock.granted ORDER BY lock.pid LIMIT 1",
            ),
        }
    }
}
