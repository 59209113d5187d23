//! The table of keys.

use dlock::InitError;
use xtask::servers::{DATABASE, Kind, Server};

use super::{bare_dsn, harden};
use crate::place::{admin, connect, create_account, until};

/// Without the table, without a right to it, and with the two rights that the page names.
pub(super) fn key_table(server: &mut Server) {
    harden(server);
    create_account(server, "bare", "");
    let (table, schema) = if server.kind() == Kind::Postgres {
        admin(
            server,
            &format!("GRANT CONNECT ON DATABASE {DATABASE} TO bare"),
        );
        admin(server, "CREATE SCHEMA locks");
        admin(server, "GRANT USAGE ON SCHEMA locks TO bare");
        let table = "locks.key_texts".to_owned();
        let schema = dlock::key_table::postgres_schema(&table);
        (table, schema)
    } else {
        let table = format!("{DATABASE}.key_texts");
        let schema = dlock::key_table::mysql_schema(&table);
        (table, schema)
    };
    let dsn = format!("{}&key_table={table}", bare_dsn(server, "bare"));
    let refused = || {
        let Err(InitError::UnsafeServer { reason, remedy, .. }) = connect(&dsn) else {
            panic!("the table cannot be written");
        };
        assert!(reason.contains(&table), "{reason}");
        assert!(reason.contains("denied"), "the server's words: {reason}");
        for word in [&*table, "GRANT SELECT, INSERT", "_schema", "key_table"] {
            assert!(remedy.contains(word), "{remedy}");
        }
    };
    refused();
    admin(
        server,
        schema.expect("a name").trim_end().trim_end_matches(';'),
    );
    refused();
    let account = match server.kind() {
        Kind::Postgres => "bare",
        _ => "'bare'@'%'",
    };
    // Whoever only writes needs no more; lists are without texts then.
    admin(server, &format!("GRANT INSERT ON {table} TO {account}"));
    let locker = connect(&dsn).expect("it may write");
    let guard = locker.lock("a").acquire_blocking().expect("free");
    until("the key is written", || {
        let rows = admin(server, &format!("SELECT key_text FROM {table}"));
        rows == [[Some("a".to_owned())]]
    });
    if server.kind() == Kind::Postgres {
        let reader = connect(&dsn).expect("it may write");
        let key = || {
            let mut locks = reader.list_blocking().expect("a list");
            locks.pop().expect("held").key
        };
        assert_eq!(key(), None);
        admin(server, &format!("GRANT SELECT ON {table} TO {account}"));
        assert_eq!(key().as_deref(), Some("a"));
    }
    guard.release_blocking().expect("held to the end");
    if server.kind() != Kind::Postgres {
        // No database in the DSN, and none in the name.
        let dsn = format!("{}&key_table=key_texts", bare_dsn(server, "bare"));
        let Err(InitError::UnsafeServer { reason, remedy, .. }) = connect(&dsn) else {
            panic!("there is no such table");
        };
        assert!(reason.contains("1046"), "{reason}");
        assert!(remedy.contains("key_table=database.table"), "{remedy}");
    }
}
