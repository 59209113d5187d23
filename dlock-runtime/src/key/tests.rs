use std::collections::HashSet;
use std::path::Path;

use proptest::prelude::*;

use super::*;

/// Computed with Python's hashlib and base64, not by this crate.
const VECTORS: &str = include_str!("../../key_vectors.txt");

struct Vector {
    namespace: String,
    key: String,
    number: i64,
    name: &'static str,
    line: &'static str,
}

fn vectors() -> Vec<Vector> {
    VECTORS
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|line| {
            let fields: Vec<&'static str> = line.split('\t').collect();
            let [namespace, key, number, name] = fields[..] else {
                panic!("not four fields: {line}")
            };
            Vector {
                namespace: text(namespace),
                key: text(key),
                number: number.parse().expect("a number"),
                name,
                line,
            }
        })
        .collect()
}

/// Reads `"…"` with `\u{…}`, or `repeat:<character>:<times>`.
fn text(field: &str) -> String {
    if let Some(repeat) = field.strip_prefix("repeat:") {
        let (what, times) = repeat.split_once(':').expect("repeat:what:times");
        return what.repeat(times.parse().expect("times"));
    }
    let mut rest = field
        .strip_prefix('"')
        .and_then(|f| f.strip_suffix('"'))
        .expect("quoted");
    let mut text = String::new();
    while let Some((before, after)) = rest.split_once("\\u{") {
        let (code, after) = after.split_once('}').expect("closed escape");
        text.push_str(before);
        text.push(char::from_u32(u32::from_str_radix(code, 16).expect("hex")).expect("scalar"));
        rest = after;
    }
    text + rest
}

#[test]
fn the_published_vectors_hold() {
    let vectors = vectors();
    assert!(vectors.len() >= 15);
    for vector in vectors {
        let Vector {
            namespace,
            key,
            number,
            name,
            line,
        } = vector;
        assert_eq!(postgres_key(&namespace, &key), number, "{line}");
        assert_eq!(mysql_name(&namespace, &key), name, "{line}");
    }
}

#[test]
fn the_documentation_shows_the_same_vectors() {
    // The page lies outside the package: it is absent where the tests run from the published crate.
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    if !repository.join("dlock-macros").exists() {
        return;
    }
    let page = std::fs::read_to_string(repository.join("docs/keys.md")).expect("docs/keys.md");
    for vector in vectors() {
        let row = format!("| `{}` |", vector.line.replace('\t', "` | `"));
        assert!(page.contains(&row), "docs/keys.md lacks {row}");
    }
}

#[test]
fn a_key_has_1_to_1024_bytes_and_no_nul() {
    for good in ["a", " ", "🔒", "a b", &"x".repeat(1024)] {
        assert_eq!(&**Key::new(good.to_owned()).expect("a key").text(), good);
    }
    for (bad, rule) in [
        ("", "at least one"),
        (&"x".repeat(1025) as &str, "at most 1024 bytes"),
        (&"é".repeat(513), "at most 1024 bytes"),
        ("a\0b", "no NUL"),
    ] {
        let Err(Error::InvalidKey(error)) = Key::new(bad.to_owned()) else {
            panic!("{bad:?} was taken as a key")
        };
        assert!(error.rule.contains(rule), "{error:?}");
        assert!(
            error.key.chars().count() <= 64 && bad.starts_with(&error.key),
            "{error:?}"
        );
    }
}

#[test]
fn texts_that_servers_confuse_are_distinct_locks() {
    let long = "k".repeat(1024);
    let texts = [
        "a",
        "A",
        "á",
        "a\u{301}",
        "ä",
        "a ",
        " a",
        "a\t",
        "ａ",
        "ß",
        "ss",
        "🔒",
        "🔓",
        "1",
        "01",
        &long,
        &long[1..],
        "Straße",
        "STRASSE",
    ];
    let numbers: HashSet<i64> = texts.iter().map(|text| postgres_key("", text)).collect();
    let names: HashSet<String> = texts
        .iter()
        .map(|text| mysql_name("", text).to_lowercase())
        .collect();
    assert_eq!((numbers.len(), names.len()), (texts.len(), texts.len()));
}

/// Any key: mostly short ones, some at the limit.
fn any_key() -> impl Strategy<Value = String> {
    prop_oneof![
        "[aA bB]{1,4}",
        "[^\0]{1,40}",
        "[a-z]{1000,1024}",
        "🔒{1,256}"
    ]
}

proptest! {
    #[test]
    fn distinct_texts_are_distinct_locks(a in any_key(), b in any_key(), namespace in "[^\0]{0,8}") {
        prop_assume!(a != b);
        prop_assert_ne!(postgres_key(&namespace, &a), postgres_key(&namespace, &b));
        prop_assert_ne!(mysql_name(&namespace, &a), mysql_name(&namespace, &b));
    }

    #[test]
    fn distinct_namespaces_are_distinct_locks(key in any_key(), a in "[^\0]{0,8}", b in "[^\0]{0,8}") {
        prop_assume!(a != b);
        prop_assert_ne!(postgres_key(&a, &key), postgres_key(&b, &key));
        prop_assert_ne!(mysql_name(&a, &key), mysql_name(&b, &key));
    }

    #[test]
    fn every_name_is_one_that_every_server_takes_as_it_is(key in any_key(), namespace in "[^\0]{0,8}") {
        let name = mysql_name(&namespace, &key);
        prop_assert!(name.len() <= 64);
        prop_assert!(name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'/' | b':')));
        prop_assert_eq!(name, mysql_name(&namespace, &key));
    }
}
