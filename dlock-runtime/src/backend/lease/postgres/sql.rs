//! PostgreSQL's statements for leases.
//!
//! Times are the database's own, by `clock_timestamp()`. The token stands in a unique index and the end of the lease does not:
//! a statement that raises the token needs the strongest lock on the row, and one that renews a weaker one, which goes
//! together with the `FOR KEY SHARE` of a fence check. So a check in somebody's transaction keeps takes off until it ends, and
//! never a renewal.

use tokio_postgres::types::Type;

use crate::backend::lease::row::{KEPT, REVOKED};
use crate::config::TableName;

/// One statement, and the types of its parameters: with them it needs no round trip to be prepared.
pub(super) struct Sql {
    pub(super) text: String,
    pub(super) types: &'static [Type],
}

/// The statements of one table.
pub(super) struct Statements {
    pub(super) take: Sql,
    pub(super) insert: Sql,
    pub(super) create: Sql,
    pub(super) read: Sql,
    pub(super) list: Sql,
    pub(super) revoke: Sql,
    pub(super) swap: Sql,
    pub(super) swap_counting: Sql,
    pub(super) announce: Sql,
    pub(super) retract: Sql,
    pub(super) renew: Sql,
    pub(super) release: Sql,
    pub(super) wake: Sql,
}

/// Namespace, name, owner, program and ttl.
const CLAIM: &[Type] = &[Type::TEXT, Type::TEXT, Type::TEXT, Type::TEXT, Type::INT8];

/// Where notifications of releases go.
pub(super) const CHANNEL: &str = "dlock_lease";

/// The present moment in microseconds.
const NOW: &str = "(extract(epoch FROM clock_timestamp()) * 1000000)::int8";

/// When the present holder took the lock, in microseconds.
const SINCE: &str = "(extract(epoch FROM lease.acquired_at) * 1000000)::int8";

/// The last holder that has gone, when the row changes hands: one whose lease ran out is noted only now.
fn last_run() -> String {
    format!(
        "CASE WHEN lease.owner = '' OR lease.owner LIKE '{KEPT}%' THEN lease.last_run \
             ELSE jsonb_build_array(lease.token, {SINCE}, NULL, lease.owner, lease.program) END"
    )
}

/// A row that nobody holds: long expired on every clock.
const FREE: &str = "to_timestamp(0)";

const NAMED: &str = "namespace = $1 AND name = $2";

impl Statements {
    pub(super) fn new(table: &TableName) -> Statements {
        let table = table.quoted('"');
        let sql = |text: String, types| Sql { text, types };
        Statements {
            take: sql(take(&table), CLAIM),
            insert: sql(
                format!(
                    "INSERT INTO {table} (namespace, name, token, owner, program, expires_at, ttl) \
                     SELECT $1, $2, 1 + coalesce((SELECT token FROM {table} WHERE namespace = $1 AND name = ''), 0), \
                         $3, $4, clock_timestamp() + $5::int8 * interval '1 microsecond', $5 \
                     ON CONFLICT (namespace, name) DO NOTHING RETURNING token"
                ),
                CLAIM,
            ),
            create: sql(
                format!(
                    "INSERT INTO {table} (namespace, name, token, owner, program, expires_at, ttl) \
                     SELECT $1, $2, coalesce((SELECT token FROM {table} WHERE namespace = $1 AND name = ''), 0), \
                         '', '', {FREE}, 0 ON CONFLICT (namespace, name) DO NOTHING"
                ),
                &[Type::TEXT, Type::TEXT],
            ),
            read: sql(
                format!(
                    "SELECT token, owner, program, readers::text, waiters::text, version, \
                         (extract(epoch FROM expires_at) * 1000000)::int8, ttl, {NOW} FROM {table} WHERE {NAMED}"
                ),
                &[Type::TEXT, Type::TEXT],
            ),
            list: sql(list(&table), &[Type::TEXT, Type::TEXT]),
            revoke: sql(revoke(&table), &[Type::TEXT, Type::TEXT, Type::INT8]),
            swap: sql(
                swap(&table, "", "NO KEY UPDATE"),
                &[
                    Type::TEXT,
                    Type::TEXT,
                    Type::INT8,
                    Type::TEXT,
                    Type::TEXT,
                    Type::INT8,
                    Type::INT8,
                    Type::TEXT,
                ],
            ),
            swap_counting: sql(
                swap(&table, "token = $9,", "UPDATE"),
                &[
                    Type::TEXT,
                    Type::TEXT,
                    Type::INT8,
                    Type::TEXT,
                    Type::TEXT,
                    Type::INT8,
                    Type::INT8,
                    Type::TEXT,
                    Type::INT8,
                ],
            ),
            announce: sql(
                announce(&table),
                &[
                    Type::TEXT,
                    Type::TEXT,
                    Type::TEXT,
                    Type::INT8,
                    Type::INT8,
                    Type::INT4,
                ],
            ),
            retract: sql(
                format!(
                    "UPDATE {table} SET waiters = waiters - $3::text WHERE {NAMED} AND waiters ? $3::text \
                     RETURNING waiters::text, {NOW}"
                ),
                &[Type::TEXT, Type::TEXT, Type::TEXT],
            ),
            renew: sql(
                renew(&table),
                &[
                    Type::TEXT,
                    Type::TEXT_ARRAY,
                    Type::TEXT_ARRAY,
                    Type::INT8_ARRAY,
                    Type::INT8_ARRAY,
                    Type::BOOL_ARRAY,
                ],
            ),
            release: sql(
                release(&table),
                &[Type::TEXT, Type::TEXT, Type::TEXT, Type::INT8, Type::INT8],
            ),
            wake: sql(format!("SELECT pg_notify('{CHANNEL}', $1)"), &[Type::TEXT]),
        }
    }
}

/// The rows of locks that somebody holds or waits for, or the one of that name.
fn list(table: &str) -> String {
    format!(
        "SELECT token, owner, program, readers::text, waiters::text, version, \
                         (extract(epoch FROM expires_at) * 1000000)::int8, ttl, {NOW}, name, \
                         {SINCE}, last_run::text FROM {table} AS lease \
                     WHERE namespace = $1 AND name <> '' AND CASE WHEN $2::text IS NULL \
                         THEN expires_at > clock_timestamp() OR waiters <> '{{}}' ELSE name = $2 END ORDER BY name"
    )
}

/// Takes a lease away. With the strength of a take: a fence check in somebody's transaction holds it up.
fn revoke(table: &str) -> String {
    format!(
        "UPDATE {table} SET owner = '{REVOKED}', readers = '{{}}', token = token + 1, version = version + 1 \
                     WHERE {NAMED} AND version = $3 AND expires_at > clock_timestamp() RETURNING token"
    )
}

/// Notes somebody who waits, as long as the lock is held, and forgets those who do not say so any more.
fn announce(table: &str) -> String {
    format!(
        "UPDATE {table} SET waiters = (SELECT coalesce(jsonb_object_agg(key, value), '{{}}') FROM jsonb_each(waiters) \
                         WHERE value -> 1 > to_jsonb({NOW})) || jsonb_build_object($3::text, \
                         jsonb_build_array(coalesce($4::int8, {NOW}), {NOW} + $5::int8, $6::int4)) \
                     WHERE {NAMED} AND expires_at > clock_timestamp() \
                     RETURNING (waiters -> $3::text ->> 0)::int8, \
                         (extract(epoch FROM expires_at - clock_timestamp()) * 1000000)::int8"
    )
}

/// Ends a lease. With a time greater than zero the lock stays taken for so long.
fn release(table: &str) -> String {
    format!(
        "UPDATE {table} AS lease SET owner = CASE WHEN $5 > 0 THEN '{KEPT}' || owner ELSE '' END, \
             last_run = jsonb_build_array(token, {SINCE}, {NOW}, owner, program), \
             program = CASE WHEN $5 > 0 THEN program ELSE '' END, \
             expires_at = CASE WHEN $5 > 0 \
                 THEN clock_timestamp() + $5 * interval '1 microsecond' ELSE {FREE} END, \
             ttl = CASE WHEN $5 > 0 THEN $5 ELSE ttl END, version = version + 1 \
         WHERE {NAMED} AND owner = $3 AND token = $4 AND expires_at > clock_timestamp() \
         RETURNING waiters::text, {NOW}"
    )
}

/// Takes a row that is free or has expired, without waiting for whoever has locked it.
fn take(table: &str) -> String {
    format!(
        "UPDATE {table} AS lease SET owner = $3, program = $4, token = lease.token + 1, readers = '{{}}', \
             waiters = lease.waiters - $3::text, acquired_at = clock_timestamp(), \
             expires_at = clock_timestamp() + $5::int8 * interval '1 microsecond', ttl = $5, \
             version = lease.version + 1, last_run = {} \
         FROM (SELECT namespace, name FROM {table} \
               WHERE {NAMED} AND expires_at <= clock_timestamp() FOR UPDATE SKIP LOCKED) AS free \
         WHERE lease.namespace = free.namespace AND lease.name = free.name RETURNING lease.token",
        last_run()
    )
}

/// Changes the readers. Locked with the strength of a take where the token counts up, and never waited for.
fn swap(table: &str, token: &str, strength: &str) -> String {
    let forgotten = last_run();
    format!(
        "UPDATE {table} AS lease SET {token} last_run = coalesce($8::text::jsonb, {forgotten}), \
             owner = '', program = '', readers = $4::text::jsonb, \
             waiters = lease.waiters - $5::text, acquired_at = clock_timestamp(), \
             expires_at = to_timestamp($6::int8 / 1000000.0), ttl = $7, version = lease.version + 1 \
         FROM (SELECT namespace, name FROM {table} WHERE {NAMED} AND version = $3 FOR {strength} SKIP LOCKED) AS it \
         WHERE lease.namespace = it.namespace AND lease.name = it.name RETURNING lease.version"
    )
}

/// Renews what stands, leaves out what somebody has locked, and says of the rest whether it still stands. No renewal brings an
/// end nearer: one that was on its way for long may come behind a longer one.
fn renew(table: &str) -> String {
    format!(
        "WITH mine AS ( \
             SELECT * FROM unnest($2::text[], $3::text[], $4::int8[], $5::int8[], $6::bool[]) \
                 WITH ORDINALITY AS mine (name, owner, token, ttl, shared, number)), \
         standing AS ( \
             SELECT mine.* FROM mine JOIN {table} AS lease ON lease.namespace = $1 AND lease.name = mine.name \
             WHERE lease.expires_at > clock_timestamp() AND CASE WHEN mine.shared \
                 THEN (lease.readers -> mine.owner ->> 0)::int8 = mine.token \
                     AND (lease.readers -> mine.owner ->> 1)::int8 > {NOW} \
                 ELSE lease.owner = mine.owner AND lease.token = mine.token END \
             FOR NO KEY UPDATE OF lease SKIP LOCKED), \
         renewed AS ( \
             UPDATE {table} AS lease SET version = lease.version + 1, ttl = standing.ttl, \
                 expires_at = greatest(lease.expires_at, \
                     clock_timestamp() + standing.ttl * interval '1 microsecond'), \
                 readers = CASE WHEN standing.shared \
                     THEN jsonb_set(lease.readers, ARRAY[standing.owner, '1'], to_jsonb(greatest( \
                         (lease.readers -> standing.owner ->> 1)::int8, {NOW} + standing.ttl))) \
                     ELSE lease.readers END \
             FROM standing WHERE lease.namespace = $1 AND lease.name = standing.name \
             RETURNING standing.number) \
         SELECT mine.number, renewed.number IS NOT NULL, coalesce(lease.expires_at > clock_timestamp() \
             AND (lease.owner = mine.owner AND lease.token = mine.token \
                 OR (lease.readers -> mine.owner ->> 0)::int8 = mine.token \
                 AND (lease.readers -> mine.owner ->> 1)::int8 > {NOW}), false) \
         FROM mine LEFT JOIN renewed USING (number) \
         LEFT JOIN {table} AS lease ON lease.namespace = $1 AND lease.name = mine.name"
    )
}

/// Makes the table, unless it exists. The rows are changed often and their indexed columns seldom: room is left for that.
pub(crate) fn create_table(table: &TableName) -> String {
    format!(
        "CREATE TABLE IF NOT EXISTS {} (
    namespace text COLLATE \"C\" NOT NULL,
    name text COLLATE \"C\" NOT NULL,
    token bigint NOT NULL,
    owner text COLLATE \"C\" NOT NULL,
    program text NOT NULL,
    readers jsonb NOT NULL DEFAULT '{{}}',
    waiters jsonb NOT NULL DEFAULT '{{}}',
    acquired_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at timestamptz NOT NULL,
    ttl bigint NOT NULL,
    version bigint NOT NULL DEFAULT 0,
    last_run jsonb,
    PRIMARY KEY (namespace, name),
    UNIQUE (namespace, name, token)
) WITH (fillfactor = 50);
",
        table.quoted('"')
    )
}

/// Whether a token is the present holder's. Kept until the transaction ends: nobody else can take the lock before.
pub(crate) fn assert_fence(table: &TableName) -> String {
    format!(
        "SELECT true FROM {} WHERE {NAMED} AND expires_at > clock_timestamp() \
         AND (owner <> '' AND owner NOT LIKE '{KEPT}%' AND token = $3 \
             OR EXISTS (SELECT FROM jsonb_each(readers) AS reader \
                 WHERE reader.value -> 0 = to_jsonb($3::int8) AND reader.value -> 1 > to_jsonb({NOW}) \
                     AND reader.key NOT LIKE '{KEPT}%')) FOR KEY SHARE",
        table.quoted('"')
    )
}
