//! What leases need: a table, and three rights in it.

use std::time::Duration;

use dlock::lease::{self, Fence};
use dlock::{Error, InitError, Locker};
use xtask::servers::{self, DATABASE, Kind, Server};

use super::{bare_dsn, harden};
use crate::place::{SOON, admin, connect, create_account, dsn, until};

/// A busy server's answer has to come within a third of it.
const TTL: Duration = Duration::from_secs(3);

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
    let ttl = TTL.as_secs();
    let options = format!("strategy=lease&table={table}&namespace=app&ttl={ttl}");
    let bare = bare_dsn(server, "bare");
    let (bare, _) = bare.split_once('?').expect("options");
    let bare = if postgres {
        format!("{bare}?{options}")
    } else {
        format!("{bare}?{options}&{}", super::PLAIN)
    };
    // MySQL and MariaDB do not tell a stranger that there is no such table.
    if postgres {
        refused(&bare, &[&table, "does not exist"], "postgres_schema");
    } else {
        refused(&bare, &[&table], RIGHTS);
    }
    for statement in schema.expect("a name").split_inclusive(';') {
        if !statement.trim().is_empty() {
            admin(server, statement.trim().trim_end_matches(';'));
        }
    }
    refused(&bare, &[&table], RIGHTS);
    grant(server, RIGHTS, &table, "bare");
    // With one right missing the start says which, and not the first lock that needs it.
    for right in ["SELECT", "INSERT", "UPDATE"] {
        let account = named(server, "bare");
        admin(server, &format!("REVOKE {right} ON {table} FROM {account}"));
        // Of a table that may not be read, PostgreSQL says no more than that.
        let told = if postgres && right == "SELECT" {
            "permission denied"
        } else {
            right
        };
        refused(&bare, &[&table, told], RIGHTS);
        grant(server, right, &table, "bare");
    }
    if postgres {
        admin(server, "REVOKE USAGE ON SCHEMA locks FROM bare");
        refused(&bare, &[&table, "schema"], "USAGE on its schema");
        admin(server, "GRANT USAGE ON SCHEMA locks TO bare");
    }
    let [one, other] = [0, 1].map(|_| connect(&bare).expect("the three suffice"));
    takes_and_renews(&one, &other);
    checks(server, &one, &table);
    lists_and_kicks(&one, &other);
}

/// What an account needs on the table.
const RIGHTS: &str = "SELECT, INSERT, UPDATE";

/// The start fails, and says why, and what to do.
fn refused(dsn: &str, why: &[&str], what_to_do: &str) {
    let error = connect(dsn).expect_err("without the table and three rights there are no leases");
    let InitError::UnsafeServer { reason, remedy, .. } = &error else {
        panic!("{error:?}");
    };
    for word in why {
        assert!(reason.contains(word), "{word}: {error}");
    }
    assert!(remedy.contains(what_to_do), "{what_to_do}: {error}");
}

fn grant(server: &Server, rights: &str, table: &str, account: &str) {
    let account = named(server, account);
    admin(server, &format!("GRANT {rights} ON {table} TO {account}"));
}

/// An account as grants name it.
fn named(server: &Server, account: &str) -> String {
    match server.kind() {
        Kind::Postgres => account.to_owned(),
        Kind::MariaDb | Kind::MySql => format!("'{account}'@'%'"),
    }
}

/// A take, renewals, a wait that ends and one that is granted, readers.
fn takes_and_renews(one: &Locker, other: &Locker) {
    let guard = one.lock("a").acquire_blocking().expect("free");
    std::thread::sleep(TTL * 3 / 2);
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
    std::thread::sleep(TTL * 3 / 2);
    for reader in readers {
        reader
            .release_blocking()
            .expect("renewed, and held to the end");
    }
}

/// A transaction checks a token: of the account's own, and of another that takes no lock.
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
    let check = |account: &str| {
        let url = dsn(server, "127.0.0.1", account, DATABASE, "");
        servers::rows(url.trim_end_matches('?'), &sql)
    };
    assert_eq!(check("bare").expect("the three suffice").len(), 1, "{sql}");
    create_account(server, "ledger", "");
    if server.kind() == Kind::Postgres {
        let connect = format!("GRANT CONNECT ON DATABASE {DATABASE} TO ledger");
        admin(server, &connect);
        admin(server, "GRANT USAGE ON SCHEMA locks TO ledger");
    }
    grant(server, "SELECT", table, "ledger");
    // What locks a row there has to be allowed to change something of it.
    if server.kind() == Kind::Postgres {
        check("ledger").expect_err("reading does not suffice");
        grant(server, "UPDATE (program)", table, "ledger");
    }
    assert_eq!(check("ledger").expect("as the page says").len(), 1, "{sql}");
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
