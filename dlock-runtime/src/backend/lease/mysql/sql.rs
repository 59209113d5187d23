//! The statements of MySQL and MariaDB for leases.
//!
//! Times are microseconds since 1970 by the server's clock. The token stands in a unique index and the end of the lease does
//! not: a shared lock on that index's entry keeps takes off, which change it, and no renewal, which changes the row alone.

use mysql_async::Value;

use crate::backend::lease::row::{KEPT, REVOKED};
use crate::config::TableName;

/// The present moment, whatever the session's time zone.
const NOW: &str = "TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))";

/// The last holder that has gone, when the row changes hands: one whose lease ran out is noted only now. Stands first, since what
/// a statement has set counts for what follows.
const LAST_RUN: &str = "IF(owner = '' OR owner LIKE '#kept %', last_run, \
     JSON_ARRAY(token, acquired_at, NULL, CONVERT(owner USING utf8mb4), program))";

const NAMED: &str = "namespace = ? AND name = ?";

/// So long after its end a lease is over also where the clock is doubted: no two clocks of one cluster differ that much.
const DAY: u64 = 24 * 3600 * 1_000_000;

/// The statements of one table.
pub(super) struct Statements {
    table: String,
    /// The clocks are several.
    doubted: bool,
    pub(super) locked: Locked,
}

/// What a statement does about rows that somebody has locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Locked {
    /// Leaves them out. MySQL 8.0.1 is the first that can.
    Skipped,
    /// Fails at once, and changes nothing. MariaDB: what leaves out rows needs a join there, and with it for each statement two
    /// temporary tables, one of them on the disk; to end a session while it opens that one has crashed servers (10.11.19).
    Refused,
    /// Waits for them, a second or two: MySQL before that, and MariaDB before 10.3.
    Waited,
}

impl Statements {
    pub(super) fn new(table: &TableName, doubted: bool, locked: Locked) -> Statements {
        Statements {
            table: table.quoted('`'),
            doubted,
            locked,
        }
    }

    /// From now on for a server that waits for whoever has locked a row.
    pub(super) fn wait_for_rows(&mut self) {
        self.locked = Locked::Waited;
    }

    /// Takes the lock; the token comes with the acknowledgement. Parameters by [`ordered`](Self::ordered): namespace,
    /// name; where the clock is doubted also the version that was seen unchanged; and owner, program, waiter's path, ttl, ttl.
    pub(super) fn take(&self) -> String {
        let free = if self.doubted {
            format!(
                "(owner = '' AND readers = '{{}}' OR expires_at + {DAY} < {NOW} OR version = ?)"
            )
        } else {
            format!("expires_at <= {NOW}")
        };
        // By the index that a fence check locks.
        let set = format!(
            "last_run = {LAST_RUN}, token = LAST_INSERT_ID(token + 1), owner = ?, program = ?, readers = '{{}}', \
             waiters = JSON_REMOVE(waiters, ?), acquired_at = {NOW}, expires_at = {NOW} + ?, ttl = ?, \
             version = version + 1"
        );
        self.update_unlocked("fence", &format!("{NAMED} AND {free}"), 1, &set)
    }

    /// A statement that changes at most so many rows, and does not wait for those that somebody has locked, where the server
    /// can do without: who waits for one row keeps all others waiting. Rows are found, locked and changed in the one statement; the
    /// join goes by the primary key, and touches no row that is not locked already.
    fn update_unlocked(&self, index: &str, which: &str, count: usize, set: &str) -> String {
        let table = &self.table;
        let update = format!("UPDATE {table} FORCE INDEX ({index}) SET {set} WHERE {which}");
        match self.locked {
            Locked::Waited => return update,
            Locked::Refused => {
                return format!("{} {update}", waiting_for(0));
            }
            Locked::Skipped => {}
        }
        format!(
            "UPDATE (SELECT namespace AS its_namespace, name AS its_name FROM {table} FORCE INDEX ({index}) \
             WHERE {which} LIMIT {count} FOR UPDATE SKIP LOCKED) AS unlocked \
             STRAIGHT_JOIN {table} AS lease FORCE INDEX (PRIMARY) ON namespace = its_namespace AND name = its_name \
             SET {set}"
        )
    }

    /// The parameters of what says which rows are changed, and of what they are set to, as the statements have them.
    pub(super) fn ordered(&self, which: Vec<Value>, set: Vec<Value>) -> Vec<Value> {
        let (mut first, second) = match self.locked {
            Locked::Skipped => (which, set),
            Locked::Refused | Locked::Waited => (set, which),
        };
        first.extend(second);
        first
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

    /// Those that somebody holds or was announced for, or one. Parameters: namespace, and the name of the one.
    pub(super) fn list(&self, one: bool) -> String {
        let which = if one {
            "name = ?".to_owned()
        } else {
            format!("(expires_at > {NOW} OR waiters <> '{{}}')")
        };
        format!(
            "SELECT token, owner, program, readers, waiters, version, expires_at, ttl, {NOW}, name, acquired_at, last_run FROM {} \
             WHERE namespace = ? AND name <> '' AND {which} ORDER BY name",
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

    /// Parameters: the last holder that has gone; the token, if it counts up; readers, waiter's path, end, ttl, namespace, name, version.
    pub(super) fn swap(&self, counts: bool) -> String {
        let token = if counts { "token = ?, " } else { "" };
        format!(
            "UPDATE {} SET last_run = COALESCE(?, {LAST_RUN}), {token}owner = '', program = '', readers = ?, waiters = JSON_REMOVE(waiters, ?), \
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

    /// Renews so many exclusive leases, but what somebody has locked. No renewal brings an end nearer: one that was on its way
    /// for long may come behind a longer one. Parameters by [`ordered`](Self::ordered): those of [`some`]; and ttl, ttl.
    pub(super) fn renew(&self, count: usize) -> String {
        let standing = format!("{} AND expires_at > {NOW}", some(count));
        let set = format!(
            "expires_at = GREATEST(expires_at, {NOW} + ?), ttl = GREATEST(ttl, ?), version = version + 1"
        );
        self.update_unlocked("PRIMARY", &standing, count, &set)
    }

    /// Those of so many leases that stand.
    pub(super) fn standing(&self, count: usize) -> String {
        format!(
            "SELECT name, owner, token FROM {} WHERE {} AND expires_at > {NOW}",
            self.table,
            some(count)
        )
    }

    /// Renews one reader's lease, unless somebody has locked the row. Parameters by [`ordered`](Self::ordered): namespace, name,
    /// path of its token, token, path of its end; and path of its end, path of its end, ttl, ttl, ttl.
    pub(super) fn renew_reader(&self) -> String {
        let standing = format!(
            "{NAMED} AND CAST(JSON_EXTRACT(readers, ?) AS SIGNED) = ? \
             AND CAST(JSON_EXTRACT(readers, ?) AS SIGNED) > {NOW}"
        );
        let set = format!(
            "readers = JSON_SET(readers, ?, GREATEST(CAST(JSON_EXTRACT(readers, ?) AS SIGNED), {NOW} + ?)), \
             expires_at = GREATEST(expires_at, {NOW} + ?), ttl = GREATEST(ttl, ?), version = version + 1"
        );
        self.update_unlocked("PRIMARY", &standing, 1, &set)
    }

    /// Ends a lease; whether somebody waits comes with the acknowledgement. `kept`: the lock stays taken for a while.
    /// Parameters: for how long, twice, if it does; namespace, name, owner, token.
    pub(super) fn release(&self, kept: bool) -> String {
        let held = if self.doubted {
            String::new()
        } else {
            format!(" AND expires_at > {NOW}")
        };
        let given_back = if kept {
            format!("owner = CONCAT('{KEPT}', owner), expires_at = {NOW} + ?, ttl = ?")
        } else {
            "owner = '', program = '', expires_at = 0".to_owned()
        };
        format!(
            "UPDATE {} SET last_run = JSON_ARRAY(token, acquired_at, {NOW}, CONVERT(owner USING utf8mb4), program), \
             {given_back}, \
             version = version + 1 + 0 * LAST_INSERT_ID(IF(waiters = '{{}}', 0, 1)) \
             WHERE {NAMED} AND owner = ? AND token = ?{held}",
            self.table
        )
    }
}

/// Stands before a statement that waits for so many seconds for a row that somebody has locked, and then fails. MariaDB.
pub(super) fn waiting_for(seconds: u64) -> String {
    format!("SET STATEMENT innodb_lock_wait_timeout = {seconds} FOR")
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
    last_run LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NULL,
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
