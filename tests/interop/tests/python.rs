//! The libraries of Python, on every server that they know.

use std::hash::{BuildHasher, RandomState};

use dlock::{Config, Key, KeyScheme, Locker};
use dlock_interop::Python;

const POSTGRES: &str = "DLOCK_TEST_POSTGRES_URL";
const MYSQL: &str = "DLOCK_TEST_MYSQL_URL";
const MARIADB: &str = "DLOCK_TEST_MARIADB_URL";

/// The newest versions, and sqlalchemy-dlock 0.1.2.
const NEW: &str = "DLOCK_INTEROP_PYTHON";
const OLD: &str = "DLOCK_INTEROP_PYTHON_OLD";

fn any() -> u64 {
    RandomState::new().hash_one(0)
}

/// The kind and the text of a key as the program of Python reads them, and the same key here.
fn keys() -> Vec<(&'static str, String, Key)> {
    let number = any();
    let signed = number.cast_signed();
    let name = format!("Interop/é {number:x}");
    let bytes: String = name.bytes().map(|byte| format!("{byte:02x}")).collect();
    vec![
        ("text", name.clone(), name.clone().into()),
        ("text", format!("🔒{number}"), format!("🔒{number}").into()),
        ("int", signed.to_string(), signed.into()),
        ("int", (-signed).to_string(), (-signed).into()),
        ("bytes", format!("00{bytes}"), {
            let mut all = vec![0];
            all.extend(name.bytes());
            all.into()
        }),
        ("bytes", bytes, format!("{name}").into_bytes().into()),
    ]
}

/// Each holds the lock in turn, and the other finds it busy.
fn exclude_each_other(
    python: &str,
    library: &str,
    scheme: &KeyScheme,
    server: &str,
    keys: Vec<(&str, String, Key)>,
) {
    let url = std::env::var(server).expect("the server's URL");
    let locker =
        Locker::connect_blocking(Config::from_dsn(&url).expect("a DSN")).expect("a locker");
    let mut python = Python::start(python).expect("the program of Python");
    for (kind, text, key) in keys {
        let what = format!("{kind} {text} by {scheme} on {server}");
        let lock = locker.lock(key).key_scheme(scheme.clone());
        assert!(
            python.take(library, &url, kind, &text).expect(&what),
            "{what}: free"
        );
        assert!(
            lock.try_acquire_blocking().expect(&what).is_none(),
            "{what}: held by Python"
        );
        python.release().expect(&what);
        let guard = lock.try_acquire_blocking().expect(&what).expect(&what);
        assert!(
            !python.take(library, &url, kind, &text).expect(&what),
            "{what}: held by dlock"
        );
        guard.release_blocking().expect(&what);
        assert!(
            python.take(library, &url, kind, &text).expect(&what),
            "{what}: free again"
        );
        python.release().expect(&what);
    }
}

#[test]
fn sqlalchemy_dlock_on_postgresql() {
    exclude_each_other(
        NEW,
        "sqlalchemy-dlock",
        &KeyScheme::SqlalchemyDlock,
        POSTGRES,
        keys(),
    );
}

#[test]
fn sqlalchemy_dlock_0_1_2_on_postgresql() {
    exclude_each_other(
        OLD,
        "sqlalchemy-dlock",
        &KeyScheme::SqlalchemyDlockCrc64,
        POSTGRES,
        keys(),
    );
}

/// Without what the server refuses: characters beyond U+FFFF, and names that begin with NUL.
fn names() -> Vec<(&'static str, String, Key)> {
    let plain = |(kind, text, _): &(&str, String, Key)| {
        !text.contains('🔒') && !(*kind == "bytes" && text.starts_with("00"))
    };
    keys().into_iter().filter(plain).collect()
}

#[test]
fn sqlalchemy_dlock_on_mysql() {
    exclude_each_other(
        NEW,
        "sqlalchemy-dlock",
        &KeyScheme::SqlalchemyDlock,
        MYSQL,
        names(),
    );
}

#[test]
fn sqlalchemy_dlock_on_mariadb() {
    exclude_each_other(
        NEW,
        "sqlalchemy-dlock",
        &KeyScheme::SqlalchemyDlock,
        MARIADB,
        names(),
    );
}

#[test]
fn py_mysql_lock_on_both_servers() {
    let texts = || {
        names()
            .into_iter()
            .filter(|(kind, ..)| *kind == "text")
            .collect::<Vec<_>>()
    };
    exclude_each_other(
        NEW,
        "py-mysql-lock",
        &KeyScheme::PyMysqlLock,
        MYSQL,
        texts(),
    );
    exclude_each_other(
        NEW,
        "py-mysql-lock",
        &KeyScheme::PyMysqlLock,
        MARIADB,
        texts(),
    );
}
