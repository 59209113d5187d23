//! Properties of DSNs over many inputs; see `crate::fuzz`.

mod written;

use std::sync::LazyLock;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::fuzz::{assert_helpful, config};

/// What a DSN is made of, and what breaks one apart.
const PIECES: &[&str] = &[
    "postgres",
    "postgresql",
    "mysql",
    "mariadb",
    "memory",
    "redis",
    "://",
    ":",
    "/",
    "//",
    "?",
    "&",
    "=",
    "@",
    "#",
    "%",
    ",",
    "+",
    ".",
    "[",
    "]",
    "[::1]",
    "::1",
    "fe80::1%25eth0",
    "localhost",
    "127.0.0.1",
    "h",
    "db.example.com",
    "%2Ftmp",
    "/tmp",
    "/run/s",
    "5432",
    "0",
    "65536",
    "99999999999999999999",
    "-1",
    "1e3",
    "inf",
    "%00",
    "%ff",
    "%2F",
    "%40",
    "%c3%a9",
    "%e2%80%ae",
    " ",
    "\t",
    "\n",
    "\0",
    "\u{1b}",
    "é",
    "🔒",
    "\u{202e}",
    "e\u{301}",
    "\\",
    "'",
    "\"",
    "user",
    "u",
    "db",
    "x",
    "none",
    "500ms",
    "2.5",
    "30",
    "1h",
    "session",
    "lease",
    "standby",
    "no-exclusion",
    "disable",
    "prefer",
    "require",
    "verify-ca",
    "verify-full",
    "system",
    "DISABLED",
    "VERIFY_CA",
    "read-write",
    "utf8mb4",
    "UTF8",
    "pass",
];

/// The names of all options, those that are refused with a remedy too.
static OPTIONS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let mut names: Vec<String> = [
        "password",
        "sslpassword",
        "passfile",
        "require_ssl",
        "pool_max",
        "useSSL",
        "service",
        "ssl",
        "nope",
    ]
    .map(str::to_owned)
    .into();
    // A new option is in the message, and with that here.
    for scheme in ["postgres", "mysql"] {
        let message = parse(&format!("{scheme}://h?nope=1"))
            .expect_err("no such option")
            .to_string();
        let (_, list) = message.split_once(" takes ").expect("the list");
        names.extend(list.split(", ").map(str::to_owned));
    }
    assert!(names.len() > 40, "{names:?}");
    names
});

fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        12 => prop::sample::select(PIECES).prop_map(str::to_owned),
        3 => prop::sample::select(OPTIONS.as_slice()),
        1 => any::<char>().prop_map(String::from),
    ]
}

fn pieces(most: usize) -> impl Strategy<Value = String> {
    prop::collection::vec(piece(), 0..=most).prop_map(|pieces| pieces.concat())
}

/// A scheme, and a text that need not have anything to do with it.
fn soup() -> impl Strategy<Value = String> {
    let scheme = prop::sample::select(vec![
        "",
        "postgres://",
        "mysql://",
        "memory:",
        "mariadb://u@h/db?",
        "postgres://u:p@h/db?",
    ]);
    (scheme, pieces(14)).prop_map(|(scheme, rest)| format!("{scheme}{rest}"))
}

/// A marker, bare or with one letter encoded, in the midst of whatever else the password has.
fn secret() -> impl Strategy<Value = String> {
    let marker = prop::sample::select(vec!["hunter2", "hunt%65r2", "%68unter2"]);
    (pieces(3), marker, pieces(3))
        .prop_map(|(before, marker, after)| format!("{before}{marker}{after}"))
}

/// A password where one belongs, or where somebody puts it who has not read the documentation. Nothing in it is encoded.
fn with_secret() -> impl Strategy<Value = String> {
    let scheme = prop::sample::select(vec![
        "postgres",
        "postgresql",
        "mysql",
        "mariadb",
        "MySQL",
        "redis",
    ]);
    let name = prop::sample::select(vec![
        "password",
        "sslpassword",
        "pass",
        "passwd",
        "Password",
        "pgpassword",
        "passfile",
    ]);
    (scheme, secret(), pieces(2), pieces(6), name, 0..4_u8).prop_map(
        |(scheme, secret, middle, rest, name, form)| {
            // Marks of the end of a password are the user's to encode; one in `middle` would make it a piece of another part.
            let middle = middle.replace('@', "");
            match form {
                0 | 1 => format!("{scheme}://user:{secret}@{middle}{rest}"),
                2 => format!("{scheme}://user@h/db?{middle}&{name}={secret}"),
                // The host was forgotten: where the port would be is the password, and is not shown. What a '/' or a '?'
                // in it makes another part of cannot be told from one.
                3 => format!("{scheme}://user:hunter2{}", rest.replace('@', "")),
                _ => format!("{scheme}://user@h/db?{name}={secret}&{rest}"),
            }
        },
    )
}

fn shows_secret(text: &str) -> bool {
    ["hunter2", "hunt%65r2", "%68unter2"]
        .iter()
        .any(|marker| text.contains(marker))
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_text_is_read_or_refused_with_a_remedy(text in soup()) {
        match parse(&text) {
            Ok((endpoint, _)) => {
                let _ = endpoint.check(Duration::from_secs(30));
            }
            Err(error) => assert_helpful(&error.to_string()).map_err(TestCaseError::fail)?,
        }
    }

    #[test]
    fn no_password_is_shown(text in with_secret()) {
        let shown = match parse(&text) {
            Ok(parsed) => format!("{parsed:?}"),
            Err(error) => format!("{error}\n{error:?}"),
        };
        prop_assert!(!shows_secret(&shown), "{}\n{}", text, shown);
        if let Ok(config) = crate::config::Config::from_dsn(&text) {
            // The files that it may name do not exist, and a message says so.
            let told = config.endpoint().map_err(|error| error.to_string());
            prop_assert!(!shows_secret(&format!("{config:?} {told:?}")), "{}", text);
        }
    }

    #[test]
    fn a_duration_is_read_exactly(seconds in any::<u64>(), nanoseconds in 0..1_000_000_000_u32, short in 0..2_000_000_u32) {
        for duration in [Duration::new(seconds, nanoseconds), Duration::from_millis(short.into())] {
            let (whole, nanoseconds) = (duration.as_secs(), duration.subsec_nanos());
            let milliseconds = duration.as_millis();
            prop_assert_eq!(options::duration(&format!("{whole}.{nanoseconds:09}")), Some(duration));
            prop_assert_eq!(options::duration(&format!("{milliseconds}.{:06}ms", nanoseconds % 1_000_000)), Some(duration));
        }
        let hours = Duration::from_secs(u64::from(short) * 3600);
        prop_assert_eq!(options::duration(&format!("{short}h")), Some(hours));
    }

    #[test]
    fn a_duration_that_is_read_can_be_written(text in "[0-9.]{0,24}(ms|s|m|h|d|)") {
        if let Some(duration) = options::duration(&text) {
            let again = format!("{}.{:09}s", duration.as_secs(), duration.subsec_nanos());
            prop_assert_eq!(options::duration(&again), Some(duration), "{}", text);
        }
    }
}
