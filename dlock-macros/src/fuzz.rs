//! Properties of what the attribute reads, over many inputs.
//!
//! `cargo test` takes some thousand inputs from a fixed seed, the same in every run; `cargo xtask fuzz` takes a million,
//! from a seed that it prints. The properties of keys lie in `key::fuzz`.

use std::time::Duration;

use proc_macro2::TokenStream;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed};

use crate::duration;
use crate::expand::expand;

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

/// With every unit that it needs, as a person would write it.
fn written(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let nanoseconds = duration.subsec_nanos();
    format!(
        "{}d {}h{}m {} s{}ms{}us{}ns",
        seconds / 86_400,
        seconds / 3600 % 24,
        seconds / 60 % 60,
        seconds % 60,
        nanoseconds / 1_000_000,
        nanoseconds / 1000 % 1000,
        nanoseconds % 1000
    )
}

/// What the literal's tokens evaluate to.
fn evaluated(tokens: &TokenStream) -> Option<Duration> {
    let call: syn::ExprCall = syn::parse2(tokens.clone()).ok()?;
    let mut numbers = call.args.iter().map(|argument| match argument {
        syn::Expr::Lit(syn::ExprLit {
            lit: syn::Lit::Int(number),
            ..
        }) => number.base10_parse::<u64>().ok(),
        _ => None,
    });
    let (seconds, nanoseconds) = (numbers.next()??, numbers.next()??);
    Some(Duration::new(seconds, u32::try_from(nanoseconds).ok()?))
}

fn assert_helpful(message: &str) -> Result<(), TestCaseError> {
    let helps = [
        "write",
        "none of",
        "cannot be",
        "finer than",
        "leave the argument out",
        "written without",
    ];
    prop_assert!(
        helps.iter().any(|help| message.contains(help)),
        "no remedy: {}",
        message
    );
    Ok(())
}

const ARGUMENTS: &[&str] = &[
    "key",
    "keys",
    "timeout",
    "mode",
    "min_hold",
    "max_hold",
    "ttl",
    "on_busy",
    "on_error",
    "on_lost",
    "fencing",
    "reentrant",
    "init",
    "locker",
    "crate",
    "skip",
    "nope",
    "=",
    "=",
    "=",
    "=",
    ",",
    ",",
    ",",
    "\"a/{x}\"",
    "\"{self.id}\"",
    "\"{x\"",
    "\"\"",
    "[\"a\", \"b\"]",
    "[]",
    "10",
    "-1",
    "2.5",
    "\"500ms\"",
    "\"1x\"",
    "exclusive",
    "shared",
    "error",
    "skip",
    "panic",
    "cancel",
    "finish",
    "true",
    "false",
    "x",
    "x.y()",
    "|e| e",
    "::a::b",
    "{ }",
    "( )",
    "#",
    "'a",
    "!",
    "==",
    "r#key",
    "async",
    "é",
];

const ITEMS: &[&str] = &[
    "fn locked(x: u64) -> Result<(), E> { Ok(()) }",
    "pub async fn locked(&self, x: u64) -> Option<u8> { None }",
    "unsafe extern \"C\" fn locked() { }",
    "const fn locked() -> ! { loop {} }",
    "fn locked<'a, T: ?Sized + 'a>(mut x: &'a T, (a, b): (u8, u8)) -> impl Future<Output = ()> + use<'a, T> where T: X { async move { } }",
    "fn locked(x: u64) -> Pin<Box<dyn Future<Output = ()> + Send>> { Box::pin(async move { x }) }",
    "fn locked() { tokio::runtime::Builder::new().block_on(async { 1 }) }",
    "impl T for S { const A: u8 = 1; #[db_locked(skip)] fn locked(self: Arc<Self>) { } async fn b(&mut self) { } }",
    "struct locked;",
    "fn locked();",
    "fn locked(x: ) { }",
    "",
];

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_duration_that_is_written_is_read(seconds in any::<u64>(), nanoseconds in 0..1_000_000_000_u32, decimals in 0..19_usize) {
        let duration = Duration::new(seconds, nanoseconds);
        prop_assert_eq!(duration::text(&written(duration)), Ok(duration));
        // As a literal: with and without digits at the end that say nothing.
        let literal = format!("{seconds}.{nanoseconds:09}{}", "0".repeat(decimals));
        let read = duration::literal(&syn::parse_str(&literal).expect("a literal"));
        prop_assert_eq!(read, Some(Ok(duration)), "{}", literal);
        prop_assert_eq!(evaluated(&duration::tokens(duration)), Some(duration));
    }

    #[test]
    fn a_duration_that_is_read_can_be_written(text in "( ?[0-9._]{0,21} ?(d|h|m|min|s|ms|us|ns|µs|S|-|\\PC)?){0,4}") {
        match duration::text(&text) {
            Ok(duration) => prop_assert_eq!(duration::text(&written(duration)), Ok(duration), "{}", text),
            Err(message) => assert_helpful(&message)?,
        }
    }

    #[test]
    fn a_literal_is_read_or_refused_with_a_remedy(text in "-{0,2}\\(?[0-9_]{0,21}\\.?[0-9_e]{0,12}(s|ms|u64|f64|u8|f32|x)?\\)?") {
        let Ok(value) = syn::parse_str(&text) else {
            return Ok(());
        };
        match duration::literal(&value) {
            Some(Ok(duration)) => prop_assert_eq!(evaluated(&duration::tokens(duration)), Some(duration)),
            Some(Err(message)) => assert_helpful(&message)?,
            None => {}
        }
    }

    #[test]
    fn the_item_is_there_whatever_the_arguments_are(
        words in prop::collection::vec(prop::sample::select(ARGUMENTS), 0..14),
        item in prop::sample::select(ITEMS),
    ) {
        let (Ok(args), Ok(tokens)) = (words.join(" ").parse::<TokenStream>(), item.parse::<TokenStream>()) else {
            return Ok(());
        };
        let expanded = expand(args, tokens.clone());
        if syn::parse2::<syn::File>(tokens).is_ok() {
            prop_assert!(syn::parse2::<syn::File>(expanded.clone()).is_ok(), "not Rust: {}", expanded);
        }
        prop_assert!(item.is_empty() || expanded.to_string().contains("locked") || item.contains("impl"), "gone: {}", expanded);
    }
}
