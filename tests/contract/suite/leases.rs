//! The table of leases, as the administrator reads it: by `docs/leases.md` and not by the library.

use serde_json::Value;

use crate::admin::Admin;

/// One row.
struct Row {
    key: String,
    owner: String,
    token: i64,
    readers: Value,
    waiters: Value,
    expires_at: i64,
    now: i64,
}

/// The tokens of those who hold a key.
pub(crate) fn tokens(admin: &Admin, namespace: &str, key: &str) -> Vec<i64> {
    let rows = rows(admin, namespace);
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

/// Since when each of those waits who wait for keys of a namespace.
pub(crate) fn waiters(admin: &Admin, namespace: &str) -> Vec<i64> {
    let mut since = Vec::new();
    for row in rows(admin, namespace) {
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

fn rows(admin: &Admin, namespace: &str) -> Vec<Row> {
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
