//! What `docs/grants.md` says an account needs: accounts with that and nothing more.

mod of_keys;
mod of_leases;

use std::time::Duration;

use dlock::{Busy, Config, Error, Holder, InitError, Locker};
use xtask::servers::{self, DATABASE, Kind, Server};

use of_keys::key_table;
use of_leases::leases;

use crate::place::{SOON, admin, connect, create_account, dsn, on_every_server, until, waiters};

on_every_server! {
    session_locks_need_a_login_and_nothing_else => session_locks;
    the_holder_is_named_as_far_as_the_account_may_see => the_holder;
    a_list_and_a_kick_need_what_the_page_says => list_and_kick;
    fencing_tokens_need_a_table_and_say_so => fencing_tokens;
    the_table_of_keys_needs_two_rights_and_says_so => key_table;
    leases_need_a_table_and_three_rights_in_it => leases;
}

/// Takes from everybody what servers give to everybody.
fn harden(server: &Server) {
    if server.kind() == Kind::Postgres {
        admin(
            server,
            &format!("REVOKE ALL ON DATABASE {DATABASE} FROM PUBLIC"),
        );
        admin(server, "REVOKE ALL ON SCHEMA public FROM PUBLIC");
        admin(
            server,
            "REVOKE SELECT ON ALL TABLES IN SCHEMA information_schema FROM PUBLIC",
        );
    }
}

/// With TLS the driver does not hand the names of programs to MySQL.
const PLAIN: &str = "ssl-mode=DISABLED";

/// A DSN that an account without rights can connect with: MySQL and MariaDB let it into no database.
fn bare_dsn(server: &Server, account: &str) -> String {
    match server.kind() {
        Kind::Postgres => dsn(server, "127.0.0.1", account, DATABASE, "limit=3"),
        _ => dsn(
            server,
            "127.0.0.1",
            account,
            "",
            &format!("limit=3&namespace={DATABASE}&{PLAIN}"),
        ),
    }
}

fn session_locks(server: &mut Server) {
    harden(server);
    create_account(server, "bare", "");
    if server.kind() == Kind::Postgres {
        // Not even to the database: the message says which right is missing.
        let Err(InitError::LoginRefused { reason, .. }) = connect(&bare_dsn(server, "bare")) else {
            panic!("without CONNECT nobody gets in");
        };
        assert!(
            reason.contains("CONNECT") || reason.contains("permission denied"),
            "{reason}"
        );
        admin(
            server,
            &format!("GRANT CONNECT ON DATABASE {DATABASE} TO bare"),
        );
    } else {
        let with_database = dsn(server, "127.0.0.1", "bare", DATABASE, "");
        let Err(InitError::LoginRefused { reason, .. }) = connect(&with_database) else {
            panic!("an account without rights in a database does not get into it");
        };
        assert!(
            reason.contains("1044") && reason.contains(DATABASE),
            "{reason}"
        );
    }
    let one = connect(&bare_dsn(server, "bare")).expect("a login suffices");
    let other = connect(&bare_dsn(server, "bare")).expect("a login suffices");
    // A try, a wait that is granted, one that times out, one that is called off, the release.
    let guard = one
        .lock("a")
        .try_acquire_blocking()
        .expect("may")
        .expect("free");
    assert!(
        other
            .lock("a")
            .try_acquire_blocking()
            .expect("may")
            .is_none()
    );
    let busy = other
        .lock("a")
        .timeout(Duration::from_millis(100))
        .acquire_blocking();
    assert!(busy.expect_err("held").is_busy());
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let lock = other.lock("a");
        let waiting = tokio::spawn(async move { lock.acquire().await });
        until("a session waits", || waiters(server, "bare") == 1);
        waiting.abort();
    });
    until("the wait was called off", || waiters(server, "bare") == 0);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| other.lock("a").timeout(SOON).acquire_blocking());
        until("a session waits", || waiters(server, "bare") == 1);
        guard.release_blocking().expect("held to the end");
        waiting
            .join()
            .expect("no panic")
            .expect("granted")
            .release_blocking()
            .expect("held to the end");
    });
    if server.kind() == Kind::Postgres {
        let reader = one
            .lock("b")
            .shared()
            .try_acquire_blocking()
            .expect("may")
            .expect("free");
        let second = other
            .lock("b")
            .shared()
            .try_acquire_blocking()
            .expect("may")
            .expect("shared");
        second.release_blocking().expect("held to the end");
        reader.release_blocking().expect("held to the end");
    }
    // Sessions of the account itself need no right to be told of.
    let guard = one.lock("a").acquire_blocking().expect("free");
    let seen = told(&other);
    let client = seen.client.expect("where it comes from");
    assert!(client.starts_with("bare@127.0.0.1"), "{client}");
    assert_eq!(seen.program.is_some(), server.kind() != Kind::MariaDb);
    guard.release_blocking().expect("held to the end");
    // Over several heartbeats, which are half a second apart here.
    let guard = one.lock("c").acquire_blocking().expect("free");
    std::thread::sleep(Duration::from_secs(4));
    guard.check().expect("confirmed all the time");
    guard.release_blocking().expect("held to the end");
    // The same lock as for an account that may do more.
    let rich = Config::from_dsn(&server.url())
        .and_then(Locker::connect_blocking)
        .expect("a locker");
    let guard = one.lock("a").acquire_blocking().expect("free");
    assert!(
        rich.lock("a")
            .try_acquire_blocking()
            .expect("may")
            .is_none()
    );
    guard.release_blocking().expect("held to the end");
}

/// Who is said to hold the lock `a`.
fn told(locker: &Locker) -> Holder {
    let tried = locker
        .lock("a")
        .timeout(Duration::from_millis(1))
        .acquire_blocking();
    let Err(Error::Busy(busy)) = tried else {
        panic!("the lock is held");
    };
    let Busy { holder, .. } = &*busy;
    holder
        .clone()
        .expect("the server tells the session at least")
}

fn the_holder(server: &mut Server) {
    harden(server);
    create_account(server, "bare", "");
    if server.kind() == Kind::Postgres {
        admin(
            server,
            &format!("GRANT CONNECT ON DATABASE {DATABASE} TO bare"),
        );
    }
    let url = match server.kind() {
        Kind::Postgres => server.url(),
        _ => format!("{}?{PLAIN}", server.url()),
    };
    let holder = Config::from_dsn(&url)
        .expect("a DSN")
        .application_name("the holder");
    let holder = Locker::connect_blocking(holder).expect("a locker");
    let guard = holder.lock("a").acquire_blocking().expect("free");
    let told_to_bare =
        |server: &Server| told(&connect(&bare_dsn(server, "bare")).expect("a login suffices"));
    let seen = told_to_bare(server);
    assert!(seen.session.is_some());
    let (program, client) = (seen.program.as_deref(), seen.client.as_deref());
    match server.kind() {
        Kind::Postgres => {
            assert_eq!((program, client), (Some("the holder"), Some("dlock")));
            admin(server, "GRANT pg_read_all_stats TO bare");
            let client = told_to_bare(server).client;
            assert_eq!(client.as_deref(), Some("dlock@127.0.0.1"));
        }
        Kind::MariaDb | Kind::MySql => {
            assert_eq!((program, client), (None, None));
            admin(server, "GRANT PROCESS ON *.* TO 'bare'@'%'");
            let seen = told_to_bare(server);
            let client = seen.client.expect("where it comes from");
            assert!(client.starts_with("dlock@127.0.0.1:"), "{client}");
            assert_eq!(seen.program, None);
        }
    }
    if server.kind() == Kind::MySql {
        admin(
            server,
            "GRANT SELECT ON performance_schema.session_connect_attrs TO 'bare'@'%'",
        );
        let program = told_to_bare(server).program.expect("its name");
        assert!(program.starts_with("the holder"), "{program}");
    }
    guard.release_blocking().expect("held to the end");
}

fn list_and_kick(server: &mut Server) {
    harden(server);
    create_account(server, "bare", "");
    if server.kind() == Kind::Postgres {
        admin(
            server,
            &format!("GRANT CONNECT ON DATABASE {DATABASE} TO bare"),
        );
    }
    let holder = Config::from_dsn(&server.url())
        .and_then(Locker::connect_blocking)
        .expect("a locker");
    let bare = connect(&bare_dsn(server, "bare")).expect("a login suffices");
    let guard = holder.lock("a").acquire_blocking().expect("free");
    // One lock's holder everybody is told; all of them not everywhere.
    let seen = bare.inspect_blocking("a").expect("told").expect("held");
    assert!(seen.holders[0].who.session.is_some());
    match (server.kind(), bare.list_blocking()) {
        (Kind::Postgres, Ok(locks)) => {
            assert_eq!(locks.len(), 1, "{locks:?}");
            assert_eq!(locks[0].holders, seen.holders);
        }
        (Kind::MySql, Err(Error::Unsupported(why))) => {
            assert!(
                why.remedy
                    .contains("SELECT on performance_schema.metadata_locks"),
                "{why:?}"
            );
            for table in ["metadata_locks", "threads"] {
                admin(
                    server,
                    &format!("GRANT SELECT ON performance_schema.{table} TO 'bare'@'%'"),
                );
            }
            assert_eq!(bare.list_blocking().expect("granted").len(), 1);
        }
        (Kind::MariaDb, Err(Error::Unsupported(why))) => {
            assert!(why.remedy.contains("metadata_lock_info"), "{why:?}");
        }
        (_, other) => panic!("{other:?}"),
    }
    // The sessions of others are ended by whoever may do that, and by nobody else.
    let refused = bare.kick_session_blocking("a");
    assert!(matches!(refused, Err(Error::Refused(_))), "{refused:?}");
    guard.check().expect("nobody was kicked");
    admin(
        server,
        match server.kind() {
            Kind::Postgres => "GRANT pg_signal_backend TO bare",
            Kind::MariaDb => "GRANT CONNECTION ADMIN ON *.* TO 'bare'@'%'",
            Kind::MySql => "GRANT CONNECTION_ADMIN ON *.* TO 'bare'@'%'",
        },
    );
    // Rights of the whole server count from the next login on.
    let bare = connect(&bare_dsn(server, "bare")).expect("a login suffices");
    let kicked = bare.kick_session_blocking("a").expect("granted");
    assert_eq!(kicked.len(), 1);
    until("the holder is told", || !guard.is_held());
}

/// Without the table, without a right to it, and with the three rights that the page names.
fn fencing_tokens(server: &mut Server) {
    harden(server);
    create_account(server, "bare", "");
    let (table, schema) = if server.kind() == Kind::Postgres {
        admin(
            server,
            &format!("GRANT CONNECT ON DATABASE {DATABASE} TO bare"),
        );
        admin(server, "CREATE SCHEMA locks");
        admin(server, "GRANT USAGE ON SCHEMA locks TO bare");
        let table = "locks.fences".to_owned();
        let schema = dlock::fencing::postgres_schema(Some(&table));
        (table, schema)
    } else {
        let table = format!("{DATABASE}.fences");
        let schema = dlock::fencing::mysql_schema(Some(&table));
        (table, schema)
    };
    let dsn = format!(
        "{}&fencing=true&fencing_table={table}",
        bare_dsn(server, "bare")
    );
    let locker = connect(&dsn).expect("a login suffices for the start");
    let refused = |words: &[&str]| {
        let error = locker.lock("fenced").timeout(SOON).acquire_blocking();
        let Err(Error::Refused(refused)) = error else {
            panic!("not counted: {error:?}");
        };
        for word in words {
            assert!(refused.message.contains(word), "{}", refused.message);
        }
        // Nobody holds it: it went back.
        let plain = locker.lock("fenced").fencing(false).try_acquire_blocking();
        let plain = plain.expect("may").expect("free");
        plain.release_blocking().expect("held to the end");
    };
    // MySQL and MariaDB do not tell a stranger that there is no such table.
    if server.kind() == Kind::Postgres {
        refused(&[&table, "cannot be made", "postgres_schema"]);
    } else {
        refused(&[&table, "GRANT SELECT, INSERT, UPDATE"]);
    }
    admin(
        server,
        schema.expect("a name").trim_end().trim_end_matches(';'),
    );
    refused(&[&table, "GRANT SELECT, INSERT, UPDATE"]);
    let account = match server.kind() {
        Kind::Postgres => "bare",
        _ => "'bare'@'%'",
    };
    admin(
        server,
        &format!("GRANT SELECT, INSERT, UPDATE ON {table} TO {account}"),
    );
    for token in 1..=2 {
        let guard = locker.lock("fenced").timeout(SOON).acquire_blocking();
        let guard = guard.expect("the three suffice");
        assert_eq!(guard.fencing_token(), Some(token));
        guard.release_blocking().expect("held to the end");
    }
    token_checks(server, &table);
}

/// Another account checks the token in its own transaction: with the two rights that the page names, and not with one.
fn token_checks(server: &Server, table: &str) {
    let fence = dlock::fencing::Fence::session().table(table);
    let fence = fence.expect("a name");
    let postgres = server.kind() == Kind::Postgres;
    let named = format!("(SELECT MAX(name) FROM {table})");
    let sql = if postgres {
        let sql = fence.postgres_sql();
        sql.replace("$1", &named).replace("$2", "2")
    } else {
        let sql = fence.mysql_sql();
        sql.replacen('?', &named, 1).replacen('?', "2", 1)
    };
    create_account(server, "ledger", "");
    let account = if postgres {
        admin(
            server,
            &format!("GRANT CONNECT ON DATABASE {DATABASE} TO ledger"),
        );
        admin(server, "GRANT USAGE ON SCHEMA locks TO ledger");
        "ledger"
    } else {
        "'ledger'@'%'"
    };
    let check = || {
        let url = dsn(server, "127.0.0.1", "ledger", DATABASE, "");
        servers::rows(url.trim_end_matches('?'), &sql)
    };
    check().expect_err("it has no rights");
    admin(server, &format!("GRANT SELECT ON {table} TO {account}"));
    if postgres {
        check().expect_err("reading does not suffice");
    }
    admin(server, &format!("GRANT UPDATE ON {table} TO {account}"));
    assert_eq!(check().expect("as the page says").len(), 1, "{sql}");
}
