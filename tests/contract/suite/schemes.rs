//! Keys whose locks are those of other libraries.

use std::hash::{BuildHasher, RandomState};

use dlock::{AdvisoryKey, Error, Guard, Key, KeyNaming, KeyScheme, KeyValue, Locker};
use sha2::{Digest, Sha512};

use crate::place::{Family, Place};
use crate::site::Site;

/// A number that no other run uses.
fn any() -> u64 {
    RandomState::new().hash_one(0)
}

fn try_lock(
    locker: &Locker,
    key: impl Into<Key>,
    scheme: &KeyScheme,
) -> Result<Option<Guard>, Error> {
    locker
        .lock(key)
        .key_scheme(scheme.clone())
        .try_acquire_blocking()
}

/// Keys of each scheme, and the locks that the other library would ask for, as the arguments of the server's function.
fn shared_locks(site: &Site) -> Vec<(KeyScheme, Key, String)> {
    let tag = site.tag();
    let (large, small) = (any().cast_signed(), (any() >> 34).cast_signed());
    let small32 = i32::try_from(small).expect("30 bits");
    match site.family() {
        Family::Postgres => vec![
            (KeyScheme::Raw, large.into(), format!("{large}")),
            (
                KeyScheme::Raw,
                format!("{large}").into(),
                format!("{large}"),
            ),
            (
                KeyScheme::Raw,
                (small32, -7).into(),
                format!("{small32}, -7"),
            ),
            (KeyScheme::SqlalchemyDlock, large.into(), format!("{large}")),
            (
                KeyScheme::SqlalchemyDlockCrc64,
                large.into(),
                format!("{large}"),
            ),
            (
                KeyScheme::Sqlx,
                (-7, small32).into(),
                format!("-7, {small32}"),
            ),
            (
                KeyScheme::with_advisory_lock("9 lives"),
                small.into(),
                format!("{small}, 9"),
            ),
            (
                KeyScheme::DistributedLockNet,
                format!("{large:016x}").into(),
                format!("{large}"),
            ),
            (
                KeyScheme::DistributedLockNet,
                format!("{small32:08X},ffffffff").into(),
                format!("{small32}, -1"),
            ),
        ],
        Family::MySql => vec![
            (
                KeyScheme::Raw,
                format!("Ä {tag}").into(),
                format!("'Ä {tag}'"),
            ),
            (KeyScheme::Raw, large.into(), format!("'{large}'")),
            (
                KeyScheme::PyMysqlLock,
                format!("{tag}.Py").into(),
                format!("'{tag}.Py'"),
            ),
            (
                KeyScheme::SqlalchemyDlock,
                format!("{tag} bytes").into_bytes().into(),
                format!("'{tag} bytes'"),
            ),
            (
                KeyScheme::with_advisory_lock("App/"),
                tag.into(),
                format!("'App/{tag}'"),
            ),
            (
                KeyScheme::DistributedLockNet,
                tag.into(),
                format!("'{tag}'"),
            ),
            (
                KeyScheme::DistributedLockNet,
                tag.to_uppercase().into(),
                format!("'{tag}{}'", dotnet_hash(&tag.to_uppercase())),
            ),
        ],
    }
}

/// As .NET does it, bit by bit.
fn dotnet_hash(text: &str) -> String {
    let digest = Sha512::digest(text);
    let bit = |index: usize| digest[index / 8] >> (index % 8) & 1;
    let digit = |first: usize| (0..5).fold(0, |digit, index| digit | bit(first + index) << index);
    let digits =
        (0..32).map(|index| b"abcdefghijklmnopqrstuvwxyz234567"[usize::from(digit(5 * index))]);
    digits.map(char::from).collect()
}

pub(crate) fn a_scheme_takes_the_lock_of_another_library(site: &Site) {
    let locker = site.locker();
    let (take, give) = match site.family() {
        Family::Postgres => ("pg_try_advisory_lock", "pg_advisory_unlock"),
        Family::MySql => ("GET_LOCK", "RELEASE_LOCK"),
    };
    let ask = |function: &str, arguments: &str| {
        let wait = if function == "GET_LOCK" { ", 0" } else { "" };
        let rows = site
            .admin()
            .rows(&format!("SELECT {function}({arguments}{wait})"));
        let answer = rows.expect("an answer")[0][0].clone().expect("a value");
        matches!(&*answer, "t" | "1")
    };
    for (scheme, key, arguments) in shared_locks(site) {
        let what = format!("{key} by {scheme}");
        let guard = try_lock(&locker, key.clone(), &scheme)
            .unwrap()
            .expect("free");
        assert!(
            !ask(take, &arguments),
            "the other library finds {what} busy"
        );
        guard.release_blocking().expect("held to the end");
        assert!(ask(take, &arguments), "the other library takes {what}");
        assert!(
            try_lock(&locker, key.clone(), &scheme).unwrap().is_none(),
            "{what} is busy"
        );
        let lock = locker
            .lock(key)
            .key_scheme(scheme)
            .timeout(std::time::Duration::from_millis(20));
        let Err(Error::Busy(busy)) = lock.acquire_blocking() else {
            panic!("{what} is busy")
        };
        assert!(
            busy.holder
                .as_ref()
                .is_some_and(|holder| holder.session.is_some()),
            "{busy:?}"
        );
        assert!(ask(give, &arguments));
        drop(lock.acquire_blocking().expect("free again"));
    }
}

/// A session is re-entrant: were they two lines, the second would be granted too.
pub(crate) fn keys_that_meet_on_the_server_meet_in_the_line(site: &Site) {
    let locker = site.locker();
    let tag = site.tag();
    let raw = KeyScheme::Raw;
    let pairs: Vec<(Key, KeyScheme, Key, KeyScheme)> = match site.place() {
        Place::Postgres => {
            let native = site.key("native");
            let number: i64 = site.name("native").parse().expect("a number");
            vec![
                (native.into(), KeyScheme::Native, number.into(), raw.clone()),
                (
                    number.into(),
                    KeyScheme::Sqlx,
                    number.into(),
                    KeyScheme::SqlalchemyDlock,
                ),
            ]
        }
        place => {
            let native = site.key("native");
            let name = site.name("native");
            let mut pairs = vec![
                (
                    Key::from(native),
                    KeyScheme::Native,
                    name.into(),
                    raw.clone(),
                ),
                (
                    format!("{tag}\0a").into(),
                    raw.clone(),
                    format!("{tag}\0b").into(),
                    raw.clone(),
                ),
                (
                    1.into(),
                    KeyScheme::SqlalchemyDlock,
                    "1".into(),
                    KeyScheme::SqlalchemyDlock,
                ),
            ];
            if place == Place::MySql {
                let (upper, lower) = (format!("{tag}Éa"), format!("{tag}éA"));
                pairs.push((
                    upper.into(),
                    raw.clone(),
                    lower.into(),
                    KeyScheme::PyMysqlLock,
                ));
            }
            pairs
        }
    };
    for (one, its_scheme, other, others_scheme) in pairs {
        let what = format!("{one:?} by {its_scheme} and {other:?} by {others_scheme}");
        let guard = try_lock(&locker, one.clone(), &its_scheme)
            .unwrap()
            .expect("free");
        assert!(
            try_lock(&locker, other.clone(), &others_scheme)
                .unwrap()
                .is_none(),
            "{what}"
        );
        guard.release_blocking().expect("held to the end");
        let guard = try_lock(&locker, other, &others_scheme)
            .unwrap()
            .expect("free");
        assert!(
            try_lock(&locker, one, &its_scheme).unwrap().is_none(),
            "{what}"
        );
        guard.release_blocking().expect("held to the end");
    }
    if site.place() == Place::MariaDb {
        let guard = try_lock(&locker, format!("{tag}A"), &raw).unwrap();
        assert!(guard.is_some());
        assert!(
            try_lock(&locker, format!("{tag}a"), &raw)
                .unwrap()
                .is_some(),
            "MariaDB folds nothing"
        );
    }
}

pub(crate) fn an_integer_is_its_digits_where_a_scheme_knows_only_text(site: &Site) {
    let locker = site.locker();
    let guard = site.lock(&locker, "42").acquire_blocking().unwrap();
    assert!(locker.lock(42).try_acquire_blocking().unwrap().is_none());
    assert_eq!(locker.lock(42).key(), "42");
    guard.release_blocking().expect("held to the end");
    for key in [Key::from((1, 2)), Key::from(b"bytes")] {
        let error = locker.lock(key).acquire_blocking().unwrap_err();
        let Error::InvalidKey(invalid) = &error else {
            panic!("an invalid key, not: {error}")
        };
        assert!(invalid.rule.contains("native scheme is text"), "{error}");
    }
}

/// A scheme of one's own.
struct Rows;

impl KeyNaming for Rows {
    fn name(&self) -> &'static str {
        "rows"
    }

    fn postgres(&self, key: &Key) -> Result<AdvisoryKey, &'static str> {
        match key.value() {
            KeyValue::Integer(row) => i32::try_from(row)
                .map(|row| AdvisoryKey::Pair(7, row))
                .map_err(|_| "a row's number has 32 bits"),
            _ => Err("a row has a number"),
        }
    }

    fn mysql(&self, key: &Key) -> Result<String, &'static str> {
        self.postgres(key).map(|_| format!("rows/{key}"))
    }
}

pub(crate) fn a_scheme_of_ones_own_serves_a_whole_locker(site: &Site) {
    let scheme = KeyScheme::custom(Rows);
    let config = site.config_without_namespace().key_scheme(scheme.clone());
    let (locker, plain) = (site.locker_of(config), site.locker());
    let row = i32::try_from(any() >> 34).expect("30 bits");
    let guard = locker.lock(row).acquire_blocking().unwrap();
    let raw: Key = match site.family() {
        Family::Postgres => (7, row).into(),
        Family::MySql => format!("rows/{row}").into(),
    };
    assert!(try_lock(&plain, raw, &KeyScheme::Raw).unwrap().is_none());
    assert!(try_lock(&plain, row, &scheme).unwrap().is_none());
    guard.release_blocking().expect("held to the end");
    let error = locker.lock("text").acquire_blocking().unwrap_err();
    assert!(error.to_string().contains("a row has a number"), "{error}");
    // Both locks of one call, in the order of the server's names.
    drop(
        locker
            .lock_all([row, row + 1, row])
            .acquire_blocking()
            .unwrap(),
    );
}

pub(crate) fn what_a_scheme_cannot_express_is_refused_by_its_rule(site: &Site) {
    let locker = site.locker();
    let none = match site.family() {
        Family::Postgres => (KeyScheme::PyMysqlLock, "only"),
        Family::MySql => (KeyScheme::Sqlx, "only"),
    };
    let long = "x".repeat(65);
    let mut refused = vec![(none.0, Key::from("a"), none.1)];
    match site.place() {
        Place::Postgres => refused.extend([
            (KeyScheme::Raw, "text".into(), "64-bit integer"),
            (
                KeyScheme::SqlalchemyDlock,
                (1i128 << 63).into(),
                "64-bit integer",
            ),
            (
                KeyScheme::with_advisory_lock(""),
                b"bytes".into(),
                "no bytes",
            ),
        ]),
        Place::MySql => refused.extend([
            (KeyScheme::Raw, long.into(), "at most 64 characters"),
            (KeyScheme::Raw, "🔒".into(), "U+FFFF"),
            (KeyScheme::PyMysqlLock, "".into(), "at least one character"),
        ]),
        _ => refused.extend([
            (
                KeyScheme::SqlalchemyDlock,
                long.into(),
                "at most 64 characters",
            ),
            (KeyScheme::Raw, "x".repeat(193).into(), "at most 192 bytes"),
            (KeyScheme::PyMysqlLock, "".into(), "at least one character"),
        ]),
    }
    for (scheme, key, rule) in refused {
        let error = try_lock(&locker, key, &scheme).unwrap_err();
        assert!(matches!(error, Error::InvalidKey(_)), "{error}");
        assert!(error.to_string().contains(rule), "{error}");
    }
}
