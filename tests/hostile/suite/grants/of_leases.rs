//! What leases need: a table, and three rights in it.

use std::time::Duration;

use dlock::lease::{self, Fence};
use dlock::{Error, InitError, Locker};
use xtask::servers::{self, DATABASE, Kind, Server};

use super::{bare_dsn, harden};
use crate::place::{SOON, admin, connect, create_account, dsn, until};

const TTL: Duration = Duration::from_secs(1);

pub(super) fn leases(server: &mut Server) {
    harden(server);
    create_account(server, "bare", "");
    let postgres = server.kind() == Kind::Postgres;
    let (table, schema) = if postgres {
        admin(
            server,
            &format!("GRANT CONNECT ON DATABASE {DATABASE} TO bare"),
        );
        admin(server, "CREATE SCHEMA locks");
        admin(server, "GRANT USAGE ON SCHEMA locks TO bare");
        let schema = lease::postgres_schema(Some("locks.leases"));
        ("locks.leases".to_owned(), schema)
    } else {
        let table = format!("{DATABASE}.leases");
        let schema = lease::mysql_schema(Some(&table));
        (table, schema)
    };
    let options = format!("strategy=lease&table={table}&namespace=app&ttl=1");
    let bare = bare_dsn(server, "bare");
    let (bare, _) = bare.split_once('?').expect("options");
    let bare = if postgres {
        format!("{bare}?{options}")
    } else {
        format!("{bare}?{options}&{}", super::PLAIN)
    };
    let refused = |remedy: &str| match connect(&bare) {
        Err(InitError::UnsafeServer {
            reason,
            remedy: say,
            ..
        }) => {
            let said = format!("{reason} {say}");
            assert!(said.contains(&table) && said.contains(remedy), "{said}");
        }
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("without a table there are no leases"),
    };
    // MySQL and MariaDB do not tell a stranger that there is no such table.
    refused(if postgres { "postgres_schema" } else { "GRANT" });
    for statement in schema.expect("a name").split_inclusive(';') {
        if !statement.trim().is_empty() {
            admin(server, statement.trim().trim_end_matches(';'));
        }
    }
    refused("GRANT SELECT, INSERT, UPDATE");
    let account = if postgres { "bare" } else { "'bare'@'%'" };
    admin(
        server,
        &format!("GRANT SELECT, INSERT, UPDATE ON {table} TO {account}"),
    );
    let [one, other] = [0, 1].map(|_| connect(&bare).expect("the three suffice"));
    takes_and_renews(&one, &other);
    checks(server, &one, &table);
    lists_and_kicks(&one, &other);
}

/// A take, renewals, a wait that ends and one that is granted, readers.
fn takes_and_renews(one: &Locker, other: &Locker) {
    let guard = one.lock("a").acquire_blocking().expect("free");
    std::thread::sleep(3 * TTL);
    guard.check().expect("renewed all the time");
    let busy = other.lock("a").timeout(Duration::from_millis(100));
    assert!(busy.acquire_blocking().expect_err("held").is_busy());
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| other.lock("a").timeout(SOON).acquire_blocking());
        until("somebody waits", || {
            let seen = one.inspect_blocking("a").expect("told").expect("held");
            !seen.waiters.is_empty()
        });
        guard.release_blocking().expect("held to the end");
        let granted = waiting.join().expect("no panic").expect("granted");
        granted.release_blocking().expect("held to the end");
    });
    let readers = [one, other].map(|locker| {
        let reader = locker.lock("b").shared().acquire_blocking();
        reader.expect("readers hold together")
    });
    std::thread::sleep(2 * TTL);
    for reader in readers {
        reader
            .release_blocking()
            .expect("renewed, and held to the end");
    }
}

/// A transaction of the account's own checks a token.
fn checks(server: &Server, locker: &Locker, table: &str) {
    let guard = locker.lock("c").acquire_blocking().expect("free");
    let token = guard.fencing_token().expect("a lease").to_string();
    let fence = Fence::default().namespace("app").table(table);
    let fence = fence.expect("a name");
    let values = ["'app'", "'c'", &token];
    let mut sql = match server.kind() {
        Kind::Postgres => fence.postgres_sql(),
        Kind::MariaDb | Kind::MySql => fence.mysql_sql(),
    };
    for (number, value) in (1..).zip(values) {
        sql = match server.kind() {
            Kind::Postgres => sql.replace(&format!("${number}"), value),
            Kind::MariaDb | Kind::MySql => sql.replacen('?', value, 1),
        };
    }
    let url = dsn(server, "127.0.0.1", "bare", DATABASE, "");
    let url = url.trim_end_matches('?');
    let rows = servers::rows(url, &sql).expect("the three suffice");
    assert_eq!(rows.len(), 1, "{sql}");
    guard.release_blocking().expect("held to the end");
}

/// Every row is visible to whoever may read the table, and whoever may change it may revoke.
fn lists_and_kicks(holder: &Locker, other: &Locker) {
    let guard = holder.lock("d").acquire_blocking().expect("free");
    let listed = other.list_blocking().expect("told");
    assert!(
        listed.iter().any(|lock| !lock.holders.is_empty()),
        "{listed:?}"
    );
    assert!(matches!(other.lock("d").try_acquire_blocking(), Ok(None)));
    let kicked = other.kick_blocking("d").expect("the three suffice");
    assert_eq!(kicked.len(), 1);
    until("the holder is told", || !guard.is_held());
    assert!(matches!(guard.release_blocking(), Err(Error::Lost(_))));
}
