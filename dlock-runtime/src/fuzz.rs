//! Properties of everything that reads what somebody wrote, over many inputs.
//!
//! `cargo test` takes some thousand inputs from a fixed seed, the same in every run; `cargo xtask fuzz` takes a million,
//! from a seed that it prints. Where what is read is private to a room, its properties lie there, in a module of this name.

mod keys;
mod settings;
mod texts;

use proptest::test_runner::{Config, RngSeed};

/// How many inputs, and from which seed: the environment's where it says so (`PROPTEST_CASES`, `PROPTEST_RNG_SEED`).
pub(crate) fn config() -> Config {
    let config = Config {
        failure_persistence: None,
        ..Config::default()
    };
    if std::env::var_os("PROPTEST_CASES").is_some() {
        return config;
    }
    Config {
        cases: 4_000,
        rng_seed: RngSeed::Fixed(0x0064_6c6f_636b),
        ..config
    }
}

/// Fails when a message could not stand in a log: it has to be one line of a bearable length, to show nothing that
/// changes how the text around it is read, and to say what to do.
pub(crate) fn assert_helpful(message: &str) -> Result<(), String> {
    // Each remedy is told with one of these.
    const REMEDIES: &[&str] = &[
        "write",
        "use ",
        "remove",
        "shorten",
        "encode",
        "name ",
        "enable",
        "put ",
        "is always",
        "decrypt",
        " takes ",
        "make ",
    ];
    let is_hostile = |c: char| {
        c.is_control()
            || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}')
    };
    if message.contains(is_hostile) {
        return Err(format!("raw characters in {message:?}"));
    }
    if message.chars().count() > 1_500 {
        return Err(format!("a message of {} bytes", message.len()));
    }
    if !REMEDIES.iter().any(|remedy| message.contains(remedy)) {
        return Err(format!("no remedy in {message:?}"));
    }
    Ok(())
}
