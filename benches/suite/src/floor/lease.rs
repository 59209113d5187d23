//! Leases by the raw drivers: the two statements that dlock sends, copied from `dlock-runtime/src/backend/lease`, on the
//! table that dlock has made.

use anyhow::{Context, Result, ensure};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Statement};
use tokio_postgres::types::Type;
use tokio_postgres::{Client, NoTls};
use xtask::servers::Kind;

/// Of the length of dlock's own.
const OWNER: &str = "bench-floor.internal:123456:89abcdef#0123456789abcdef.1";
const PROGRAM: &str = "dlock-bench";

/// Microseconds.
const TTL: i64 = 30_000_000;

/// A connection, with the statements prepared.
pub(crate) enum Raw {
    Postgres {
        client: Client,
        take: tokio_postgres::Statement,
        release: tokio_postgres::Statement,
    },
    MySql {
        conn: Box<Conn>,
        take: Statement,
        /// The statement has what is set before what it is set in.
        is_mariadb: bool,
        release: Statement,
    },
}

impl Raw {
    pub(crate) async fn connect(kind: Kind, url: &str) -> Result<Raw> {
        if kind == Kind::Postgres {
            let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
            tokio::spawn(connection);
            return Ok(Raw::Postgres {
                take: client.prepare_typed(POSTGRES_TAKE, TAKE_TYPES).await?,
                release: client
                    .prepare_typed(POSTGRES_RELEASE, RELEASE_TYPES)
                    .await?,
                client,
            });
        }
        let mut conn = super::mysql::connect(url).await?;
        conn.query_drop("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
            .await?;
        let is_mariadb = kind == Kind::MariaDb;
        let take = if is_mariadb {
            format!(
                "SET STATEMENT innodb_lock_wait_timeout = 0 FOR UPDATE dlock_lease FORCE INDEX (fence) {MYSQL_SET} WHERE {MYSQL_FREE}"
            )
        } else {
            format!(
                "UPDATE (SELECT namespace AS its_namespace, name AS its_name FROM dlock_lease FORCE INDEX (fence) \
                     WHERE {MYSQL_FREE} LIMIT 1 FOR UPDATE SKIP LOCKED) AS unlocked \
                 STRAIGHT_JOIN dlock_lease AS lease FORCE INDEX (PRIMARY) \
                     ON namespace = its_namespace AND name = its_name {MYSQL_SET}"
            )
        };
        Ok(Raw::MySql {
            take: conn.prep(take.replace("{now}", MYSQL_NOW)).await?,
            is_mariadb,
            release: conn.prep(MYSQL_RELEASE.replace("{now}", MYSQL_NOW)).await?,
            conn: Box::new(conn),
        })
    }

    /// Takes a lease whose row is there, and gives it back.
    pub(crate) async fn turn(&mut self, key: &str) -> Result<()> {
        match self {
            Raw::Postgres {
                client,
                take,
                release,
            } => {
                let row = client
                    .query_opt(&*take, &[&"", &key, &OWNER, &PROGRAM, &TTL])
                    .await?;
                let token: i64 = row.context("it is not free")?.try_get(0)?;
                let given_back = client
                    .query_opt(&*release, &[&"", &key, &OWNER, &token, &0_i64])
                    .await?;
                ensure!(given_back.is_some(), "{key} was not held");
            }
            Raw::MySql {
                conn,
                take,
                is_mariadb,
                release,
            } => {
                let waiter = format!("$.\"{OWNER}\"");
                if *is_mariadb {
                    conn.exec_drop(&*take, (OWNER, PROGRAM, waiter, TTL, TTL, "", key))
                        .await?;
                } else {
                    conn.exec_drop(&*take, ("", key, OWNER, PROGRAM, waiter, TTL, TTL))
                        .await?;
                }
                ensure!(conn.affected_rows() == 1, "{key} is not free");
                let token = conn.last_insert_id().context("no token")?;
                conn.exec_drop(&*release, ("", key, OWNER, token)).await?;
                ensure!(conn.affected_rows() == 1, "{key} was not held");
            }
        }
        Ok(())
    }
}

const TAKE_TYPES: &[Type] = &[Type::TEXT, Type::TEXT, Type::TEXT, Type::TEXT, Type::INT8];

const POSTGRES_TAKE: &str = "\
    UPDATE public.dlock_lease AS lease SET owner = $3, program = $4, token = lease.token + 1, readers = '{}', \
        waiters = lease.waiters - $3::text, acquired_at = clock_timestamp(), \
        expires_at = clock_timestamp() + $5::int8 * interval '1 microsecond', ttl = $5, \
        version = lease.version + 1, \
        last_run = CASE WHEN lease.owner = '' OR lease.owner LIKE '#kept %' THEN lease.last_run \
            ELSE jsonb_build_array(lease.token, (extract(epoch FROM lease.acquired_at) * 1000000)::int8, NULL, \
                lease.owner, lease.program) END \
    FROM (SELECT namespace, name FROM public.dlock_lease \
        WHERE namespace = $1 AND name = $2 AND expires_at <= clock_timestamp() FOR UPDATE SKIP LOCKED) AS free \
    WHERE lease.namespace = free.namespace AND lease.name = free.name RETURNING lease.token";

const RELEASE_TYPES: &[Type] = &[Type::TEXT, Type::TEXT, Type::TEXT, Type::INT8, Type::INT8];

const POSTGRES_RELEASE: &str = "\
    UPDATE public.dlock_lease AS lease SET owner = CASE WHEN $5 > 0 THEN '#kept ' || owner ELSE '' END, \
        last_run = jsonb_build_array(token, (extract(epoch FROM lease.acquired_at) * 1000000)::int8, \
            (extract(epoch FROM clock_timestamp()) * 1000000)::int8, owner, program), \
        program = CASE WHEN $5 > 0 THEN program ELSE '' END, \
        expires_at = CASE WHEN $5 > 0 \
            THEN clock_timestamp() + $5 * interval '1 microsecond' ELSE to_timestamp(0) END, \
        ttl = CASE WHEN $5 > 0 THEN $5 ELSE ttl END, version = version + 1 \
    WHERE namespace = $1 AND name = $2 AND owner = $3 AND token = $4 AND expires_at > clock_timestamp() \
    RETURNING waiters::text, (extract(epoch FROM clock_timestamp()) * 1000000)::int8";

const MYSQL_NOW: &str = "TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))";

const MYSQL_FREE: &str = "namespace = ? AND name = ? AND expires_at <= {now}";

const MYSQL_SET: &str = "\
    SET last_run = IF(owner = '' OR owner LIKE '#kept %', last_run, \
            JSON_ARRAY(token, acquired_at, NULL, CONVERT(owner USING utf8mb4), program)), \
        token = LAST_INSERT_ID(token + 1), owner = ?, program = ?, readers = '{}', \
        waiters = JSON_REMOVE(waiters, ?), acquired_at = {now}, expires_at = {now} + ?, ttl = ?, \
        version = version + 1";

const MYSQL_RELEASE: &str = "\
    UPDATE dlock_lease SET last_run = JSON_ARRAY(token, acquired_at, {now}, CONVERT(owner USING utf8mb4), program), \
        owner = '', program = '', expires_at = 0, \
        version = version + 1 + 0 * LAST_INSERT_ID(IF(waiters = '{}', 0, 1)) \
    WHERE namespace = ? AND name = ? AND owner = ? AND token = ? AND expires_at > {now}";
