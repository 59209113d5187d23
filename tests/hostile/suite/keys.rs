//! Keys that are made to break statements get a clear error or a working lock, and reach no statement's text.

use std::thread;

use dlock::{Config, Error, Locker};
use xtask::servers::{Kind, Server};

use crate::place::{SOON, admin, on_every_server, until, waiters};

on_every_server! {
    hostile_keys_lock_and_reach_no_statement => hostile_keys;
    hostile_names_of_programs_and_namespaces_reach_no_statement => hostile_names;
}

/// Is in every key and name below. No name that dlock makes has an upper-case letter or a blank.
const MARKER: &str = "DROP TABLE Victims";

/// Texts that have broken programs before; each is a key of its own.
fn texts() -> Vec<String> {
    let around = [
        ("'; ", "; --"),
        ("\"; ", "; --"),
        ("`; ", "; --"),
        ("\\'; ", "; #"),
        ("') OR ('1'='1' ", ""),
        ("%' UNION SELECT $1, ?, :x, @@version; ", "/*"),
        ("$$; ", " $$"),
        ("\u{27}\u{2019}\u{ff07} ", "\u{2028}"),
        ("\r\n\t\u{b}\u{1b}[2J\u{7f}\u{85} ", "\u{8}"),
        ("e\u{301}\u{301}\u{301} ", "\u{301}"),
        ("\u{e9} ", ""),
        ("e\u{301} ", ""),
        ("\u{202e}\u{2066}שלום ", "\u{202c}"),
        ("👩\u{200d}👩\u{200d}👧 🔒 ", "\u{10ffff}"),
        ("\u{feff}\u{200b} ", "\u{fffd}"),
        ("{}{0}%s%n ", "\\0\\x00"),
        ("C:\\temp\\ ", "\\"),
        (" ", " "),
        ("", ""),
    ];
    let mut texts: Vec<String> = around
        .iter()
        .map(|(before, after)| format!("{before}{MARKER}{after}"))
        .collect();
    // At the limit, with a quote where a cut would be.
    texts.push(format!("{MARKER}{}'", "x".repeat(1024 - MARKER.len() - 1)));
    texts.push(format!("{MARKER}{}", "'".repeat(1024 - MARKER.len())));
    texts
}

/// What is no key: with a message that names the rule.
fn no_keys() -> Vec<(String, &'static str)> {
    vec![
        (String::new(), "at least one character"),
        (format!("{MARKER}\0"), "NUL"),
        (format!("\0{MARKER}"), "NUL"),
        (
            format!("{MARKER}{}", "'".repeat(1025 - MARKER.len())),
            "at most 1024 bytes",
        ),
        (MARKER.repeat(1 << 16), "at most 1024 bytes"),
    ]
}

/// From now on the server writes down each statement; the file that it writes to.
fn write_statements_down(server: &Server) -> std::path::PathBuf {
    match server.kind() {
        Kind::Postgres => {
            admin(server, "ALTER SYSTEM SET log_statement = 'all'");
            admin(server, "SELECT pg_reload_conf()");
            until("the log is on", || {
                admin(server, "SHOW log_statement") == [[Some("all".to_owned())]]
            });
            server.log()
        }
        Kind::MariaDb | Kind::MySql => {
            let file = server.log().with_file_name("statements.log");
            admin(
                server,
                &format!("SET GLOBAL general_log_file = '{}'", file.display()),
            );
            admin(server, "SET GLOBAL general_log = ON");
            file
        }
    }
}

/// The statements that sessions run now or have run last, as others see them.
fn statements_seen(server: &Server) -> String {
    let sql = match server.kind() {
        Kind::Postgres => "SELECT query FROM pg_stat_activity WHERE usename = 'dlock'",
        Kind::MariaDb | Kind::MySql => "SHOW FULL PROCESSLIST",
    };
    format!("{:?}", admin(server, sql))
}

fn assert_harmless(statements: &str) {
    assert!(
        !statements.contains(MARKER) && !statements.contains("Victims"),
        "a text of the user is in a statement:\n{statements}"
    );
}

fn locker(server: &Server, settings: impl FnOnce(Config) -> Config) -> Locker {
    let config = Config::from_dsn(&server.url()).expect("a DSN");
    Locker::connect_blocking(settings(config)).expect("a locker")
}

fn hostile_keys(server: &mut Server) {
    let log = write_statements_down(server);
    let (one, other) = (
        locker(server, |config| config),
        locker(server, |config| config),
    );
    for key in texts() {
        let guard = one.lock(&*key).try_acquire_blocking().expect("a key");
        let guard = guard.expect("free");
        assert_eq!(guard.key(), key);
        let tried = other.lock(&*key).try_acquire_blocking().expect("a key");
        assert!(tried.is_none(), "{key:?} is held");
        assert_harmless(&statements_seen(server));
        // While somebody waits on the server.
        thread::scope(|scope| {
            let waiting = scope.spawn(|| other.lock(&*key).timeout(SOON).acquire_blocking());
            until("a session waits", || waiters(server, "dlock") == 1);
            assert_harmless(&statements_seen(server));
            guard.release_blocking().expect("held to the end");
            let guard = waiting.join().expect("no panic").expect("granted");
            guard.release_blocking().expect("held to the end");
        });
    }
    // Busy, with the key in the message: on one line, and nothing in it that turns the text around.
    let key = format!("\u{202e}\n\u{1b}[31m'{MARKER}");
    let guard = one.lock(&*key).acquire_blocking().expect("free");
    let busy = other
        .lock(&*key)
        .timeout(std::time::Duration::from_millis(50))
        .acquire_blocking();
    let message = busy.expect_err("held").to_string();
    assert!(message.contains("busy"), "{message}");
    assert!(
        !message.contains(['\n', '\u{1b}', '\u{202e}']),
        "{message:?}"
    );
    guard.release_blocking().expect("held to the end");

    for (key, rule) in no_keys() {
        let error = one.lock(&*key).try_acquire_blocking().expect_err("no key");
        assert!(matches!(error, Error::InvalidKey(_)), "{error}");
        let message = error.to_string();
        assert!(message.contains(rule) && message.len() < 500, "{message}");
        assert!(!message.contains('\0'));
    }
    let written = std::fs::read_to_string(log).expect("the statements");
    let count = written.matches(match server.kind() {
        Kind::Postgres => "pg_try_advisory_lock($1",
        Kind::MariaDb | Kind::MySql => "GET_LOCK(",
    });
    assert!(count.count() > 50, "the log is empty");
    assert_harmless(&written);
}

fn hostile_names(server: &mut Server) {
    let log = write_statements_down(server);
    // Each of them takes four logins.
    for text in texts().into_iter().step_by(2) {
        let settings = |config: Config| config.namespace(&*text).application_name(&*text);
        let (one, other) = (
            locker(server, settings),
            locker(server, |config| config.namespace(&*text)),
        );
        let guard = one.lock("k").try_acquire_blocking().expect("a key");
        let guard = guard.expect("free");
        let tried = other.lock("k").try_acquire_blocking().expect("a key");
        assert!(
            tried.is_none(),
            "the namespace {text:?} is the same for both"
        );
        let busy = other
            .lock("k")
            .timeout(std::time::Duration::from_millis(1))
            .acquire_blocking();
        let message = busy.expect_err("held").to_string();
        assert!(
            !message.contains(['\n', '\u{1b}', '\u{202e}', '\u{8}']),
            "{message:?}"
        );
        guard.release_blocking().expect("held to the end");
        for locker in [one, other] {
            locker.shutdown_blocking(SOON);
        }
    }
    assert_harmless(&std::fs::read_to_string(log).expect("the statements"));
}
