//! The statements of a session: each prepared when it is first used, then one round trip each time.

use smallvec::SmallVec;
use tokio::sync::OnceCell;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, Statement};

use crate::scheme::AdvisoryKey;

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
    numbers: OfKeys,
    pairs: OfKeys,
    pub(super) check: Cached,
    pub(super) list: Cached,
    pub(super) kill: Cached,
}

/// The statements about a lock, whose key is their first parameters.
pub(super) struct OfKeys {
    pub(super) try_lock: Cached,
    pub(super) try_lock_shared: Cached,
    pub(super) lock: Cached,
    pub(super) lock_shared: Cached,
    pub(super) unlock: Cached,
    pub(super) unlock_shared: Cached,
    pub(super) offer: Cached,
    pub(super) offer_shared: Cached,
    pub(super) try_all: Cached,
    pub(super) try_all_shared: Cached,
    pub(super) unlock_all: Cached,
    pub(super) unlock_all_shared: Cached,
    pub(super) admits_reader: Cached,
    pub(super) holds: Cached,
    pub(super) holder: Cached,
}

impl Statements {
    /// Those for the space that the key is in.
    pub(super) fn of(&self, key: &AdvisoryKey) -> &OfKeys {
        match key {
            AdvisoryKey::Number(_) => &self.numbers,
            AdvisoryKey::Pair(..) => &self.pairs,
        }
    }

    /// Those for keys that are numbers, as those of the native scheme are.
    pub(super) fn of_numbers(&self) -> &OfKeys {
        &self.numbers
    }
}

/// The parameters of a statement: the key, then others.
pub(super) fn params<'p>(
    key: &'p AdvisoryKey,
    others: &[&'p (dyn ToSql + Sync)],
) -> SmallVec<[&'p (dyn ToSql + Sync); 3]> {
    let mut params: SmallVec<[&'p (dyn ToSql + Sync); 3]> = SmallVec::new();
    match key {
        AdvisoryKey::Number(number) => params.push(number),
        AdvisoryKey::Pair(first, second) => {
            params.push(first);
            params.push(second);
        }
    }
    params.extend_from_slice(others);
    params
}

/// The statements of one space: the parameters of the key, its condition in `pg_locks`, and the next parameter. In the
/// waits all of the key depends on the time-out.
macro_rules! of_keys {
    ($key:literal, $within:literal, $is_key:literal, $next:literal) => {
        OfKeys {
            try_lock: Cached::new(concat!("SELECT pg_try_advisory_lock(", $key, ")")),
            try_lock_shared: Cached::new(concat!("SELECT pg_try_advisory_lock_shared(", $key, ")")),
            // The time-out and the lock are one statement, the second evaluated after the first because it depends
            // on it: as two statements, a failure of the first would leave the second waiting without limit. The
            // setting is local to the statement's own transaction, so that it never outlives the wait.
            lock: Cached::new(concat!(
                "SELECT pg_advisory_lock(CASE WHEN set_config('lock_timeout', ",
                $next,
                "::text, true) IS NOT NULL THEN ",
                $within,
                ")"
            )),
            lock_shared: Cached::new(concat!(
                "SELECT pg_advisory_lock_shared(CASE WHEN set_config('lock_timeout', ",
                $next,
                "::text, true) IS NOT NULL THEN ",
                $within,
                ")"
            )),
            unlock: Cached::new(concat!("SELECT pg_advisory_unlock(", $key, ")")),
            unlock_shared: Cached::new(concat!("SELECT pg_advisory_unlock_shared(", $key, ")")),
            // The first before the second, since one depends on the other.
            offer: Cached::new(concat!(
                "SELECT CASE WHEN pg_advisory_unlock(",
                $key,
                ") THEN pg_try_advisory_lock(",
                $key,
                ") END"
            )),
            offer_shared: Cached::new(concat!(
                "SELECT CASE WHEN pg_advisory_unlock_shared(",
                $key,
                ") THEN pg_try_advisory_lock_shared(",
                $key,
                ") END"
            )),
            // A batch of numbers, with the key in each row: no answer is taken for that to another question.
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
            admits_reader: Cached::new(concat!(
                "SELECT CASE WHEN pg_try_advisory_lock_shared(",
                $key,
                ") THEN pg_advisory_unlock_shared(",
                $key,
                ") ELSE false END"
            )),
            holds: Cached::new(concat!(
                "SELECT EXISTS (
                    SELECT FROM pg_locks AS lock
                    WHERE lock.locktype = 'advisory' AND lock.pid = pg_backend_pid() AND lock.granted
                      AND lock.database = (SELECT oid FROM pg_database WHERE datname = current_database())
                      AND ",
                $is_key,
                " AND lock.mode = ",
                $next,
                "::text)"
            )),
            // Without the right to see other users' sessions the address and the start are NULL; a Unix socket has the
            // port -1.
            holder: Cached::new(concat!(
                "WITH locks AS (
                    SELECT lock.pid, lock.granted FROM pg_locks AS lock
                    WHERE lock.locktype = 'advisory'
                      AND lock.database = (SELECT oid FROM pg_database WHERE datname = current_database())
                      AND ",
                $is_key,
                ")
                 SELECT lock.pid, session.application_name,
                    session.usename || coalesce('@' || host(session.client_addr),
                        CASE WHEN session.client_port = -1 THEN '@[local]' END, ''),
                    (extract(epoch FROM clock_timestamp() - session.backend_start) * 1000000)::int8,
                    (SELECT count(*) FROM locks WHERE NOT granted AND pid <> ALL (",
                $next,
                "::int8[]))
                 FROM locks AS lock LEFT JOIN pg_stat_activity AS session ON session.pid = lock.pid
                 WHERE lock.granted ORDER BY lock.pid LIMIT 1"
            )),
        }
    };
}

impl Default for Statements {
    fn default() -> Self {
        Statements {
            numbers: of_keys!(
                "$1::int8",
                "$1::int8 END",
                "lock.classid::int8 << 32 | lock.objid::int8 = $1::int8 AND lock.objsubid = 1",
                "$2"
            ),
            // The list has the two numbers without their signs.
            pairs: of_keys!(
                "$1::int4, $2::int4",
                "$1::int4 END, $2::int4",
                "lock.classid = $1::int4::oid AND lock.objid = $2::int4::oid AND lock.objsubid = 2",
                "$3"
            ),
            // The sentinel was locked twice at the start. Unlocking it once tells whether the session still has its
            // locks, locking it again restores the count; it is never free in between, and both touch only the
            // session's own memory: reading `pg_locks` would cost with every lock of the server and stop the lock
            // manager, and a setting of the session would survive `pg_advisory_unlock_all()`.
            // Looked at and ended in one statement: the number of a process can be another's by then.
            kill: Cached::new(
                "SELECT pg_terminate_backend(lock.pid) FROM pg_locks AS lock
                 WHERE lock.locktype = 'advisory' AND lock.granted AND lock.pid = $1::int4
                   AND lock.database = (SELECT oid FROM pg_database WHERE datname = current_database())
                   AND lock.classid::int8 = $2::int8 AND lock.objid::int8 = $3::int8
                   AND lock.objsubid = $4::int4",
            ),
            // The holders of each lock first, then those who wait in their order: by the time that each began to wait, which
            // PostgreSQL tells from version 14 on. The column is read through JSON, since older ones do not have it.
            list: Cached::new(
                "SELECT lock.pid, lock.classid::int8, lock.objid::int8, lock.objsubid::int4, lock.mode = 'ShareLock',
                    lock.granted, session.application_name,
                    session.usename || coalesce('@' || host(session.client_addr),
                        CASE WHEN session.client_port = -1 THEN '@[local]' END, ''),
                    (extract(epoch FROM clock_timestamp() - (to_jsonb(lock) ->> 'waitstart')::timestamptz) * 1000000)::int8,
                    (extract(epoch FROM clock_timestamp() - session.backend_start) * 1000000)::int8
                 FROM pg_locks AS lock LEFT JOIN pg_stat_activity AS session ON session.pid = lock.pid
                 WHERE lock.locktype = 'advisory'
                   AND lock.database = (SELECT oid FROM pg_database WHERE datname = current_database())
                   AND ($1::int8 IS NULL OR
                       lock.classid::int8 = $1 AND lock.objid::int8 = $2::int8 AND lock.objsubid = $3::int4)
                 ORDER BY lock.granted DESC, (to_jsonb(lock) ->> 'waitstart')::timestamptz NULLS LAST, lock.pid",
            ),
            check: Cached::new(
                "SELECT pg_backend_pid(), pg_is_in_recovery(),
                    (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::int8,
                    CASE WHEN pg_advisory_unlock($1::int4, $2::int4)
                        THEN pg_try_advisory_lock($1::int4, $2::int4) ELSE false END",
            ),
        }
    }
}
