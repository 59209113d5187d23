//! The table of leases, as the administrator reads it: by `docs/leases.md` and not by the library.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::admin::Admin;

/// One row.
pub(crate) struct Row {
    key: String,
    owner: String,
    token: i64,
    readers: Value,
    waiters: Value,
    expires_at: i64,
    now: i64,
}

/// The tokens of those who hold a key.
pub(crate) fn tokens(rows: &[Row], key: &str) -> Vec<i64> {
    let held = rows
        .iter()
        .filter(|row| row.key == key && row.expires_at > row.now);
    let mut tokens = Vec::new();
    for row in held {
        if !row.owner.is_empty() {
            tokens.push(row.token);
        }
        let readers = row.readers.as_object().expect("an object");
        for reader in readers
            .values()
            .filter(|reader| number(reader, 1) > row.now)
        {
            tokens.push(number(reader, 0));
        }
    }
    tokens
}

/// How long a key stays taken by somebody who has released it.
pub(crate) fn kept_for(rows: &[Row], key: &str) -> Option<Duration> {
    let row = rows.iter().find(|row| row.key == key)?;
    let readers = row.readers.as_object().expect("an object");
    let is_kept = |owner: &str| owner.starts_with("#kept ");
    let is_kept = is_kept(&row.owner) || readers.keys().any(|owner| is_kept(owner));
    let rest = u64::try_from(row.expires_at - row.now).ok()?;
    is_kept.then_some(Duration::from_micros(rest))
}

/// Since when each of those waits who wait for these keys.
pub(crate) fn waiters(rows: &[Row]) -> Vec<i64> {
    let mut since = Vec::new();
    for row in rows {
        let waiters = row.waiters.as_object().expect("an object");
        let live = waiters
            .values()
            .filter(|waiter| number(waiter, 1) > row.now);
        since.extend(live.map(|waiter| number(waiter, 0)));
    }
    since
}

fn number(entry: &Value, index: usize) -> i64 {
    entry[index].as_i64().expect("a number")
}

/// The rows of a namespace in a file of SQLite; none where the table was not made yet.
pub(crate) fn in_file(file: &Path, namespace: &str) -> Vec<Row> {
    let connection = rusqlite::Connection::open(file).expect("the file");
    let patience = connection.busy_timeout(Duration::from_secs(10));
    patience.expect("a setting");
    let mut select = connection
        .prepare(
            "SELECT name, owner, token, readers, waiters, expires_at FROM dlock_lease WHERE namespace = ?1",
        )
        .expect("the table of leases");
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = i64::try_from(now.expect("after 1970").as_micros()).expect("a time");
    let json = |text: String| serde_json::from_str(&text).expect("JSON");
    let rows = select.query_map([namespace], |row| {
        Ok(Row {
            key: row.get(0)?,
            owner: row.get(1)?,
            token: row.get(2)?,
            readers: json(row.get(3)?),
            waiters: json(row.get(4)?),
            expires_at: row.get(5)?,
            now,
        })
    });
    let rows: rusqlite::Result<_> = rows.and_then(Iterator::collect);
    rows.expect("rows of leases")
}

/// The rows of a namespace on a server.
pub(crate) fn on_server(admin: &Admin, namespace: &str) -> Vec<Row> {
    let rows = admin.lease_rows(namespace).expect("the table of leases");
    let row = |row: &crate::admin::Row| {
        let text = |column: usize| row[column].clone().unwrap_or_default();
        let number = |column: usize| text(column).parse().expect("a number");
        let json = |column: usize| serde_json::from_str(&text(column)).expect("JSON");
        Row {
            key: text(0),
            owner: text(1),
            token: number(2),
            readers: json(3),
            waiters: json(4),
            expires_at: number(5),
            now: number(6),
        }
    };
    rows.iter().map(row).collect()
}
