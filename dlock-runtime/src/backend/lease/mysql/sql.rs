//! The statements of MySQL and MariaDB for leases.
//!
//! Times are microseconds since 1970 by the server's clock. The token stands in a unique index and the end of the lease does
//! not: a shared lock on that index's entry keeps takes off, which change it, and no renewal, which changes the row alone.

use crate::backend::lease::row::REVOKED;
use crate::config::TableName;

/// The present moment, whatever the session's time zone.
const NOW: &str = "TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))";

const NAMED: &str = "namespace = ? AND name = ?";

/// So long after its end a lease is over also where the clock is doubted: no two clocks of one cluster differ that much.
const DAY: u64 = 24 * 3600 * 1_000_000;

/// The statements of one table.
pub(super) struct Statements {
    table: String,
    /// The clocks are several.
    doubted: bool,
}

impl Statements {
    pub(super) fn new(table: &TableName, doubted: bool) -> Statements {
        Statements {
            table: table.quoted('`'),
            doubted,
        }
    }

    /// Takes the lock; the token comes with the acknowledgement. Parameters: owner, program, waiter's path, ttl, ttl,
    /// namespace, name; where the clock is doubted also the version that was seen unchanged.
    pub(super) fn take(&self) -> String {
        let free = if self.doubted {
            format!("owner = '' AND readers = '{{}}' OR expires_at + {DAY} < {NOW} OR version = ?")
        } else {
            format!("expires_at <= {NOW}")
        };
        format!(
            "UPDATE {} SET token = LAST_INSERT_ID(token + 1), owner = ?, program = ?, readers = '{{}}', \
             waiters = JSON_REMOVE(waiters, ?), acquired_at = {NOW}, expires_at = {NOW} + ?, ttl = ?, \
             version = version + 1 WHERE {NAMED} AND ({free})",
            self.table
        )
    }

    /// Parameters: namespace, name.
    pub(super) fn exists(&self) -> String {
        format!("SELECT 1 FROM {} WHERE {NAMED}", self.table)
    }

    /// Makes the row, free and with the token of the floor. Parameters: namespace, name, namespace.
    pub(super) fn create(&self) -> String {
        let table = &self.table;
        format!(
            "INSERT INTO {table} (namespace, name, token, owner, program, readers, waiters, acquired_at, expires_at, ttl, version) \
             SELECT ?, ?, COALESCE(MAX(token), 0), '', '', '{{}}', '{{}}', {NOW}, 0, 0, 0 FROM {table} \
             WHERE namespace = ? AND name = ''"
        )
    }

    /// Parameters: namespace, name.
    pub(super) fn read(&self) -> String {
        format!(
            "SELECT token, owner, program, readers, waiters, version, expires_at, ttl, {NOW} FROM {} WHERE {NAMED}",
            self.table
        )
    }

    /// Those that somebody holds or was announced for. Parameters: namespace, and the name of the one that is asked for.
    pub(super) fn list(&self, one: bool) -> String {
        let one = if one { "AND name = ? " } else { "" };
        format!(
            "SELECT token, owner, program, readers, waiters, version, expires_at, ttl, {NOW}, name, acquired_at FROM {} \
             WHERE namespace = ? AND name <> '' {one}AND (expires_at > {NOW} OR waiters <> '{{}}') ORDER BY name",
            self.table
        )
    }

    /// Parameters: namespace, name, version.
    pub(super) fn revoke(&self) -> String {
        format!(
            "UPDATE {} SET owner = '{REVOKED}', readers = '{{}}', token = token + 1, version = version + 1 \
             WHERE {NAMED} AND version = ? AND expires_at > {NOW}",
            self.table
        )
    }

    /// Parameters: the token, if it counts up; readers, waiter's path, end, ttl, namespace, name, version.
    pub(super) fn swap(&self, counts: bool) -> String {
        let token = if counts { "token = ?, " } else { "" };
        format!(
            "UPDATE {} SET {token}owner = '', program = '', readers = ?, waiters = JSON_REMOVE(waiters, ?), \
             acquired_at = {NOW}, expires_at = ?, ttl = ?, version = version + 1 WHERE {NAMED} AND version = ?",
            self.table
        )
    }

    /// Parameters: waiter's path, how long it counts, mode, namespace, name. `since`: as an earlier announcement told.
    pub(super) fn announce(&self, since: Option<i64>) -> String {
        let since = since.map_or_else(|| NOW.to_owned(), |since| since.to_string());
        let held = if self.doubted {
            "NOT (owner = '' AND readers = '{}')".to_owned()
        } else {
            format!("expires_at > {NOW}")
        };
        format!(
            "UPDATE {} SET waiters = JSON_SET(waiters, ?, JSON_ARRAY({since}, {NOW} + ?, ?)) WHERE {NAMED} AND {held}",
            self.table
        )
    }

    /// Parameters: waiter's path, namespace, name, waiter's path.
    pub(super) fn retract(&self) -> String {
        format!(
            "UPDATE {} SET waiters = JSON_REMOVE(waiters, ?) WHERE {NAMED} AND JSON_CONTAINS_PATH(waiters, 'one', ?)",
            self.table
        )
    }

    /// Renews so many exclusive leases. No renewal brings an end nearer: one that was on its way for long may come behind
    /// a longer one. Parameters: ttl, ttl, and those of [`some`](Self::some).
    pub(super) fn renew(&self, count: usize) -> String {
        format!(
            "UPDATE {} SET expires_at = GREATEST(expires_at, {NOW} + ?), ttl = GREATEST(ttl, ?), version = version + 1 WHERE {} AND expires_at > {NOW}",
            self.table,
            some(count)
        )
    }

    /// Those of so many leases that stand.
    pub(super) fn standing(&self, count: usize) -> String {
        format!(
            "SELECT name, owner, token FROM {} WHERE {} AND expires_at > {NOW}",
            self.table,
            some(count)
        )
    }

    /// Those of them that nobody has locked.
    pub(super) fn unlocked(&self, count: usize) -> String {
        format!("{} FOR UPDATE SKIP LOCKED", self.standing(count))
    }

    /// Renews one reader's lease. Parameters: path of its end, ttl, ttl, ttl, namespace, name, path of its token, token, path
    /// of its end.
    pub(super) fn renew_reader(&self) -> String {
        format!(
            "UPDATE {} SET readers = JSON_SET(readers, ?, {NOW} + ?), expires_at = GREATEST(expires_at, {NOW} + ?), \
             ttl = GREATEST(ttl, ?), version = version + 1 WHERE {NAMED} AND CAST(JSON_EXTRACT(readers, ?) AS SIGNED) = ? \
             AND CAST(JSON_EXTRACT(readers, ?) AS SIGNED) > {NOW}",
            self.table
        )
    }

    /// Ends a lease; whether somebody waits comes with the acknowledgement. Parameters: namespace, name, owner, token.
    pub(super) fn release(&self) -> String {
        let held = if self.doubted {
            String::new()
        } else {
            format!(" AND expires_at > {NOW}")
        };
        format!(
            "UPDATE {} SET owner = '', program = '', expires_at = 0, \
             version = version + 1 + 0 * LAST_INSERT_ID(IF(waiters = '{{}}', 0, 1)) \
             WHERE {NAMED} AND owner = ? AND token = ?{held}",
            self.table
        )
    }
}

/// Parameters: namespace, so many names, so many pairs of owner and token.
fn some(count: usize) -> String {
    let names = vec!["?"; count].join(", ");
    let pairs = vec!["(?, ?)"; count].join(", ");
    format!("namespace = ? AND name IN ({names}) AND (owner, token) IN ({pairs})")
}

/// Makes the table, unless it exists. Names are compared byte by byte.
pub(crate) fn create_table(table: &TableName) -> String {
    format!(
        "CREATE TABLE IF NOT EXISTS {} (
    namespace VARBINARY(1024) NOT NULL,
    name VARBINARY(1024) NOT NULL,
    token BIGINT NOT NULL,
    owner VARBINARY(255) NOT NULL,
    program VARCHAR(255) CHARACTER SET utf8mb4 NOT NULL,
    readers LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
    waiters LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
    acquired_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    ttl BIGINT NOT NULL,
    version BIGINT NOT NULL,
    PRIMARY KEY (namespace, name),
    UNIQUE KEY fence (namespace, name, token)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC
",
        table.quoted('`')
    )
}

/// Whether a token is the newest of its key. Until the transaction ends nobody can take the lock: the entry of the index
/// alone is locked, which a take changes and a renewal does not.
pub(crate) fn assert_fence(table: &TableName) -> String {
    format!(
        "SELECT token FROM {} FORCE INDEX (fence) WHERE {NAMED} AND token = ? LOCK IN SHARE MODE",
        table.quoted('`')
    )
}
