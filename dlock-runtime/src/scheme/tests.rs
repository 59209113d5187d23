use std::collections::HashSet;

use proptest::prelude::*;

use super::*;
use crate::config::Config;

/// Computed by the libraries themselves, or from their sources; not by this crate.
const VECTORS: &str = include_str!("../../scheme_vectors.txt");

/// What a row of the table says.
fn unescaped(text: &str) -> String {
    if let Some((character, count)) = text
        .strip_prefix("repeat:")
        .and_then(|rest| rest.split_once(':'))
    {
        return character.repeat(count.parse().expect("a count"));
    }
    let mut result = String::new();
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        result.push(match character {
            '\\' => match characters.next().expect("an escape") {
                't' => '\t',
                'n' => '\n',
                'r' => '\r',
                '0' => '\0',
                'x' => {
                    let digits: String = characters.by_ref().take(2).collect();
                    char::from(u8::from_str_radix(&digits, 16).expect("hexadecimal"))
                }
                other => other,
            },
            other => other,
        });
    }
    result
}

fn key(field: &str) -> Key {
    match field.split_once(':').expect("a kind") {
        ("int", digits) => digits.parse::<i128>().expect("an integer").into(),
        ("bytes", hex) => data_encoding::HEXLOWER
            .decode(hex.as_bytes())
            .expect("hexadecimal")
            .into(),
        (_, text) => unescaped(text).into(),
    }
}

#[test]
fn every_key_has_the_lock_that_the_other_library_gives_it() {
    let mut schemes = HashSet::new();
    let mut count = 0;
    for line in VECTORS.lines().filter(|line| !line.starts_with('#')) {
        let fields: Vec<&str> = line.split('\t').collect();
        let [name, server, field, expected] = *fields else {
            panic!("four columns: {line}")
        };
        let scheme = KeyScheme::parse(name).expect("a scheme");
        let key = key(field);
        let lock = match server {
            "postgresql" => scheme.postgres(&key).map(|key| match key {
                AdvisoryKey::Number(number) => number.to_string(),
                AdvisoryKey::Pair(first, second) => format!("{first},{second}"),
            }),
            _ => scheme.mysql(&key),
        };
        match expected {
            "error" => assert!(lock.is_err(), "{line}: {lock:?}"),
            _ => assert_eq!(lock.as_deref(), Ok(&*unescaped(expected)), "{line}"),
        }
        schemes.insert(name);
        count += 1;
    }
    assert_eq!((schemes.len(), count), (5, 165));
}

#[test]
fn with_advisory_lock_counts_the_number_that_its_prefix_begins_with() {
    let second = |prefix: &str| match KeyScheme::with_advisory_lock(prefix).postgres(&"a".into()) {
        Ok(AdvisoryKey::Pair(_, second)) => second,
        other => panic!("a pair, not {other:?}"),
    };
    // What Ruby says to `prefix.to_i & 0x7fffffff`.
    for (prefix, number) in [
        ("", 0),
        ("app", 0),
        ("42", 42),
        ("42app", 42),
        ("  7", 7),
        ("+7", 7),
        ("-1", 0x7fff_ffff),
        ("1_000", 1000),
        ("1__0", 1),
        ("_1", 0),
        ("4294967297", 1),
        ("4.9", 4),
    ] {
        assert_eq!(second(prefix), number, "{prefix:?}");
    }
    assert!(
        KeyScheme::with_advisory_lock("9".repeat(50))
            .postgres(&"a".into())
            .is_err()
    );
    let scheme = KeyScheme::with_advisory_lock("app/");
    assert_eq!(scheme.mysql(&"report".into()).as_deref(), Ok("app/report"));
    assert_eq!(scheme.mysql(&7.into()).as_deref(), Ok("app/7"));
    // Ruby: `lock_name.to_i & 0x7fffffff` for what is Numeric.
    assert_eq!(
        scheme.postgres(&(-1).into()),
        Ok(AdvisoryKey::Pair(0x7fff_ffff, 0))
    );
    assert_ne!(scheme.postgres(&7.into()), scheme.postgres(&"7".into()));
}

#[test]
fn raw_keys_are_the_servers_own() {
    let raw = |key: Key| KeyScheme::Raw.postgres(&key);
    for number in [i64::MIN, -1, 0, i64::MAX] {
        assert_eq!(raw(number.into()), Ok(AdvisoryKey::Number(number)));
        assert_eq!(
            raw(number.to_string().into()),
            Ok(AdvisoryKey::Number(number))
        );
    }
    for pair in [(i32::MIN, i32::MAX), (0, -1)] {
        let lock = AdvisoryKey::Pair(pair.0, pair.1);
        assert_eq!(raw(pair.into()), Ok(lock));
        assert_eq!(raw(format!("{},{}", pair.0, pair.1).into()), Ok(lock));
    }
    for wrong in [
        "",
        "a",
        "+1",
        "01",
        "-0",
        " 1",
        "1.0",
        "1, 2",
        "1,2,3",
        "9223372036854775808",
        "2147483648,0",
    ] {
        let rule = raw(wrong.into()).expect_err(wrong);
        assert!(rule.contains("64-bit"), "{rule}");
    }
    assert!(raw((1i128 << 63).into()).is_err());
    assert!(raw(b"1".into()).is_err());
    let name = |key: Key| KeyScheme::Raw.mysql(&key);
    assert_eq!(name("Ä b".into()).as_deref(), Ok("Ä b"));
    assert_eq!(name(7.into()).as_deref(), Ok("7"));
    assert_eq!(name("Ä".as_bytes().into()).as_deref(), Ok("Ä"));
    assert!(name(b"\xff".into()).is_err());
    assert!(name((1, 2).into()).is_err());
}

#[test]
fn a_kind_of_key_that_the_library_does_not_have_is_refused_by_name() {
    let (bytes, pair) = (Key::from(b"a"), Key::from((1, 2)));
    for (scheme, library, keys) in [
        (KeyScheme::SqlalchemyDlock, "sqlalchemy-dlock", vec![&pair]),
        (
            KeyScheme::SqlalchemyDlockCrc64,
            "sqlalchemy-dlock",
            vec![&pair],
        ),
        (
            KeyScheme::with_advisory_lock(""),
            "with_advisory_lock",
            vec![&bytes, &pair],
        ),
        (KeyScheme::Sqlx, "sqlx", vec![&bytes]),
        (
            KeyScheme::DistributedLockNet,
            "DistributedLock",
            vec![&bytes],
        ),
        (KeyScheme::PyMysqlLock, "PyMySQLLock", vec![&Key::from("a")]),
    ] {
        for key in keys {
            let rule = scheme.postgres(key).expect_err(library);
            assert!(rule.contains(library), "{rule}");
        }
    }
    let rule = KeyScheme::Sqlx
        .mysql(&"a".into())
        .expect_err("sqlx has no MySQL");
    assert!(rule.contains("sqlx"), "{rule}");
}

#[test]
fn dotnet_makes_long_and_empty_names_valid_without_losing_what_tells_them_apart() {
    let name = |key: &str| KeyScheme::DistributedLockNet.mysql(&key.into());
    assert!(name("").expect("a name").starts_with("__empty__"));
    // One letter for one, at the end of a word too, and no dot is lost.
    assert!(name("ΟΔΟΣ").expect("a name").starts_with("οδοσ"));
    assert!(name("\u{130}").as_deref() == Ok("\u{130}"));
    // 32 units of UTF-16: 16 characters of two, and a half one is refused.
    let locks = "🔒".repeat(40);
    assert_eq!(name(&locks).expect("a name").chars().count(), 16 + 32);
    assert!(name(&format!("a{locks}")).is_err());
    assert!(name("\u{10400}").is_err());
    // 64 units are valid: 32 such characters, not 33.
    assert_eq!(name(&"🔒".repeat(32)), Ok("🔒".repeat(32)));
    assert_ne!(name(&"🔒".repeat(33)), Ok("🔒".repeat(33)));
}

#[test]
fn names_of_schemes_are_read_as_they_are_shown() {
    for name in KeyScheme::NAMES {
        assert_eq!(
            name.parse::<KeyScheme>().expect("a scheme").to_string(),
            name
        );
    }
    let with_prefix: KeyScheme = "with-advisory-lock:12".parse().expect("a scheme");
    assert_eq!(with_prefix, KeyScheme::with_advisory_lock("12"));
    assert_ne!(with_prefix, KeyScheme::with_advisory_lock(""));
    let error = "redlock"
        .parse::<KeyScheme>()
        .expect_err("no scheme")
        .to_string();
    assert!(
        error.contains("redlock") && error.contains("sqlalchemy-dlock-crc64"),
        "{error}"
    );
}

#[test]
fn a_configuration_refuses_a_scheme_that_the_server_has_no_names_for() {
    for (dsn, says) in [
        ("mysql://u@h/d?key_scheme=sqlx", "sqlx has advisory locks"),
        (
            "postgres://u@h/d?key_scheme=py-mysql-lock",
            "named locks of MySQL",
        ),
        (
            "postgres://u@h/d?key_scheme=sqlx&namespace=n",
            "namespace \"n\" has no effect",
        ),
    ] {
        let error = Config::from_dsn(dsn)
            .expect("a DSN")
            .check()
            .expect_err(dsn)
            .to_string();
        assert!(error.contains(says), "{error}");
    }
    for dsn in [
        "postgres://u@h/d?key_scheme=sqlx",
        "mysql://u@h/d?key_scheme=with-advisory-lock:app",
        "mysql://u@h/d?key_scheme=native&namespace=n",
    ] {
        Config::from_dsn(dsn).expect("a DSN").check().expect(dsn);
    }
    let error = Config::from_dsn("mysql://u@h/d?key_scheme=redlock").expect_err("no scheme");
    assert!(error.to_string().contains("sqlalchemy-dlock"), "{error}");
    assert!(Config::from_dsn("memory:?key_scheme=sqlx").is_err());
}

#[test]
fn a_page_has_every_scheme() {
    let repository = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    if !repository.join("dlock-macros").exists() {
        return;
    }
    let page = std::fs::read_to_string(repository.join("docs/keys.md")).expect("docs/keys.md");
    for name in KeyScheme::NAMES {
        assert!(
            page.contains(&format!("`{name}`")),
            "docs/keys.md lacks {name}"
        );
    }
}

proptest! {
    /// Whatever a user writes: an answer, the same each time, and no panic.
    #[test]
    fn any_key_has_an_answer_in_any_scheme(text in ".{0,80}", bytes in proptest::collection::vec(any::<u8>(), 0..80), number in any::<i128>(), prefix in ".{0,8}") {
        let keys = [Key::from(text), Key::from(bytes), Key::from(number)];
        let schemes = KeyScheme::NAMES.map(|name| KeyScheme::parse(name).expect("a scheme"));
        for scheme in schemes.iter().chain([&KeyScheme::with_advisory_lock(prefix)]) {
            for key in &keys {
                prop_assert_eq!(scheme.postgres(key), scheme.postgres(&key.clone()));
                prop_assert_eq!(scheme.mysql(key), scheme.mysql(&key.clone()));
            }
        }
    }

    /// What .NET takes as a name is one that no server folds.
    #[test]
    fn dotnet_names_are_short_and_lower_case(text in "[ -~]{0,80}") {
        let name = KeyScheme::DistributedLockNet.mysql(&text.into()).expect("ASCII has a name");
        prop_assert!((1..=64).contains(&name.len()));
        prop_assert_eq!(name.to_ascii_lowercase(), name);
    }
}
