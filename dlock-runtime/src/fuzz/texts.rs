//! Texts that the user chooses: each is taken, or refused with a message that helps.

use proptest::prelude::*;

use super::{assert_helpful, config};
use crate::config::Config;
use crate::key::Key;

/// What becomes of a text: `Err` with the message.
type Check = fn(&str) -> Result<(), String>;

/// A new check is a line here.
const CHECKS: &[(&str, Check)] = &[
    ("key", |text| told(Key::new(text.to_owned()))),
    ("namespace", |text| told(memory().namespace(text).check())),
    ("application_name", |text| {
        told(memory().application_name(text).check())
    }),
    ("DSN", |text| told(Config::from_dsn(text))),
];

fn told<T>(result: Result<T, impl ToString>) -> Result<(), String> {
    result.map(drop).map_err(|error| error.to_string())
}

fn memory() -> Config {
    Config::from_dsn("memory:").expect("the shortest DSN")
}

/// What has broken programs before: quotes, statements, escapes, characters that no screen shows, lengths at a limit.
pub(super) fn hostile() -> impl Strategy<Value = String> {
    const PIECES: &[&str] = &[
        "'",
        "\"",
        "`",
        "\\",
        ";",
        "--",
        "/*",
        "*/",
        "%",
        "_",
        "$1",
        "?",
        ":x",
        "{}",
        "{0}",
        "' OR '1'='1",
        "'); DROP TABLE t; --",
        "\0",
        "\n",
        "\r\n",
        "\t",
        "\u{1b}[31m",
        "\u{7f}",
        "\u{85}",
        "\u{202e}",
        "\u{2066}",
        "\u{200b}",
        "\u{feff}",
        "\u{fffd}",
        "é",
        "e\u{301}",
        "\u{301}",
        "ß",
        "İ",
        "ı",
        "ﬁ",
        "שלום",
        "🔒",
        "👩\u{200d}👩\u{200d}👧",
        "\u{10ffff}",
        " ",
        "a",
        "A",
        "0",
        "/",
        "public",
        "pg_temp",
    ];
    let piece = prop_oneof![
        8 => prop::sample::select(PIECES).prop_map(str::to_owned),
        2 => any::<char>().prop_map(String::from),
        1 => (prop::sample::select(PIECES), prop_oneof![Just(63_usize), Just(64), Just(512), Just(1024), Just(1025)])
            .prop_map(|(piece, length)| piece.repeat(length / piece.len().max(1) + 1)),
    ];
    prop::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_text_is_taken_or_refused_with_a_remedy(text in hostile()) {
        for (name, check) in CHECKS {
            if let Err(message) = check(&text) {
                assert_helpful(&message).map_err(|problem| TestCaseError::fail(format!("{name}: {problem}")))?;
            }
            prop_assert_eq!(check(&text), check(&text), "{} is not sure", name);
        }
    }

    #[test]
    fn keys_are_what_the_documentation_says(text in hostile()) {
        let allowed = !text.is_empty() && text.len() <= 1024 && !text.contains('\0');
        prop_assert_eq!(Key::new(text.clone()).is_ok(), allowed);
    }
}
