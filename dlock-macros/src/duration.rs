//! Durations as literals: `10`, `2.5`, `"500ms"`, `"1m30s"`. Exact: no floating point on the way.

use std::time::Duration;

use proc_macro2::{Span, TokenStream};
use quote::quote;
use syn::spanned::Spanned;
use syn::{Error, Expr, ExprLit, ExprUnary, Lit, UnOp};

/// The units of a text, largest first, with their nanoseconds.
const UNITS: [(&str, u128); 8] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("min", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

const SECOND: u128 = 1_000_000_000;

/// A duration as an argument: known now, or when the function is called.
pub(crate) enum Length {
    Literal(Duration, Span),
    Expression(Expr),
}

impl Length {
    pub(crate) fn parse(value: Expr) -> Result<Self, Error> {
        match literal(&value) {
            Some(Ok(duration)) => Ok(Length::Literal(duration, value.span())),
            Some(Err(problem)) => Err(Error::new_spanned(value, problem)),
            None => Ok(Length::Expression(value)),
        }
    }

    /// The value and its place, where it is known.
    pub(crate) fn known(&self) -> Option<(Duration, Span)> {
        match self {
            Length::Literal(duration, span) => Some((*duration, *span)),
            Length::Expression(_) => None,
        }
    }
}

/// The value of a literal, or why it is none; `None` when `value` is an expression that only the compiler can judge.
pub(crate) fn literal(value: &Expr) -> Option<Result<Duration, String>> {
    match value {
        Expr::Lit(ExprLit { lit, .. }) => Some(match lit {
            Lit::Int(lit) => match lit.suffix() {
                "" | "u64" => number(lit.base10_digits(), SECOND),
                suffix => Err(suffixed(lit.base10_digits(), suffix)),
            },
            Lit::Float(lit) => match lit.suffix() {
                "" | "f64" => number(lit.base10_digits(), SECOND),
                suffix => Err(suffixed(lit.base10_digits(), suffix)),
            },
            Lit::Str(lit) => text(&lit.value()),
            _ => Err("not a duration: write seconds (`10`, `2.5`), a text with a unit (`\"500ms\"`) or an expression"
                .to_owned()),
        }),
        Expr::Unary(ExprUnary { op: UnOp::Neg(_), expr, .. }) if matches!(**expr, Expr::Lit(_)) => {
            Some(Err("a duration cannot be negative".to_owned()))
        }
        Expr::Group(group) => literal(&group.expr),
        Expr::Paren(paren) => literal(&paren.expr),
        _ => None,
    }
}

/// The tokens of a `Duration`.
pub(crate) fn tokens(duration: Duration) -> TokenStream {
    let (seconds, nanoseconds) = (duration.as_secs(), duration.subsec_nanos());
    quote!(::core::time::Duration::new(#seconds, #nanoseconds))
}

/// Parses one or more numbers with units, each unit smaller than the one before: `1.5s`, `1h 30m`.
pub(crate) fn text(text: &str) -> Result<Duration, String> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(
            "an empty text is not a duration: write a number and a unit, such as `\"500ms\"`"
                .to_owned(),
        );
    }
    if rest.starts_with('-') {
        return Err(format!("{text:?} is negative: a duration cannot be"));
    }
    let mut sum = Duration::ZERO;
    let mut smaller_than = u128::MAX;
    while !rest.is_empty() {
        let (digits, behind) = split(rest, |c| c.is_ascii_digit() || c == '.' || c == '_');
        if digits.is_empty() {
            return Err(format!(
                "{text:?} is not a duration: write a number and a unit, such as `\"500ms\"`"
            ));
        }
        let (unit, behind) = split(behind.trim_start(), char::is_alphabetic);
        if unit.is_empty() && behind.is_empty() && digits.len() == text.trim().len() {
            return Err(format!(
                "{text:?} is ambiguous without a unit: write `{digits}` for seconds, or `\"{digits}ms\"`"
            ));
        }
        let Some((_, nanoseconds)) = UNITS.iter().find(|(name, _)| *name == unit) else {
            return Err(format!(
                "{text:?} has the unit {unit:?}, which is none of `d`, `h`, `m`, `s`, `ms`, `us`, `ns`"
            ));
        };
        if *nanoseconds >= smaller_than {
            return Err(format!(
                "{text:?} is out of order: write larger units first, each once, such as `\"1m30s\"`"
            ));
        }
        smaller_than = *nanoseconds;
        sum = sum
            .checked_add(number(digits, *nanoseconds)?)
            .ok_or_else(|| too_long(text))?;
        rest = behind.trim_start();
    }
    Ok(sum)
}

/// `digits` (with at most one point) times `unit` nanoseconds.
fn number(digits: &str, unit: u128) -> Result<Duration, String> {
    let clean = digits.replace('_', "");
    let (whole, fraction) = clean.split_once('.').unwrap_or((&clean, ""));
    let is_number = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(whole) || !is_number(fraction) || (whole.is_empty() && fraction.is_empty()) {
        return Err(format!(
            "`{digits}` is not a plain decimal number: write it like `10` or `2.5`"
        ));
    }
    let fraction = fraction.trim_end_matches('0');
    if fraction.len() > 18 {
        return Err(format!(
            "`{digits}` is finer than a nanosecond, the smallest step of a duration"
        ));
    }
    let whole: u128 = match whole.trim_start_matches('0') {
        "" => 0,
        whole if whole.len() > 20 => return Err(too_long(digits)),
        whole => whole.parse().map_err(|_| too_long(digits))?,
    };
    let parts = fraction.parse::<u128>().unwrap_or(0) * unit;
    let scale = 10_u128.pow(u32::try_from(fraction.len()).unwrap_or(0));
    if !parts.is_multiple_of(scale) {
        return Err(format!(
            "`{digits}` is finer than a nanosecond, the smallest step of a duration"
        ));
    }
    let total = whole * unit + parts / scale;
    let seconds = u64::try_from(total / SECOND).map_err(|_| too_long(digits))?;
    let nanoseconds = u32::try_from(total % SECOND).unwrap_or(0);
    Ok(Duration::new(seconds, nanoseconds))
}

fn suffixed(digits: &str, suffix: &str) -> String {
    if UNITS.iter().any(|(unit, _)| *unit == suffix) {
        format!(
            "`{digits}{suffix}` is not a number: write the unit in a text, `\"{digits}{suffix}\"`"
        )
    } else {
        format!("seconds are written without the suffix `{suffix}`: `{digits}`")
    }
}

fn too_long(digits: &str) -> String {
    format!("`{digits}` is longer than a duration can be; leave the argument out to have no limit")
}

fn split(text: &str, belongs: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !belongs(c)).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use syn::parse_quote;

    use super::*;

    fn of(value: &Expr) -> Result<Duration, String> {
        literal(value).expect("a literal")
    }

    #[test]
    fn numbers_are_seconds() {
        assert_eq!(of(&parse_quote!(10)), Ok(Duration::from_secs(10)));
        assert_eq!(of(&parse_quote!(2.5)), Ok(Duration::from_millis(2500)));
        assert_eq!(of(&parse_quote!(0)), Ok(Duration::ZERO));
        assert_eq!(of(&parse_quote!(1_000)), Ok(Duration::from_secs(1000)));
        assert_eq!(of(&parse_quote!(0.1)), Ok(Duration::from_millis(100)));
        assert_eq!(
            of(&parse_quote!(18446744073709551615)),
            Ok(Duration::from_secs(u64::MAX))
        );
    }

    #[test]
    fn texts_have_units() {
        assert_eq!(text("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(text(" 1.5 s "), Ok(Duration::from_millis(1500)));
        assert_eq!(text("1h 30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(
            text("1d2h3m4s5ms6us7ns"),
            Ok(Duration::new(93_784, 5_006_007))
        );
    }

    #[test]
    fn what_is_not_a_duration_is_named_with_the_remedy() {
        for (value, expected) in [
            ("", "an empty text"),
            ("10", "ambiguous without a unit: write `10` for seconds"),
            ("10 parsecs", "the unit \"parsecs\", which is none of"),
            ("-1s", "negative"),
            ("NaN", "write a number and a unit"),
            ("inf", "write a number and a unit"),
            ("1.2.3s", "not a plain decimal number"),
            ("1s1m", "larger units first"),
            ("1m1min", "each once"),
            ("99999999999999999999999d", "longer than a duration can be"),
            ("0.1ns", "finer than a nanosecond"),
        ] {
            let message = text(value).expect_err(value);
            assert!(message.contains(expected), "{value:?}: {message}");
        }
        for (value, expected) in [
            (parse_quote!(-1), "cannot be negative"),
            (parse_quote!(-1.5), "cannot be negative"),
            (parse_quote!(10s), "`\"10s\"`"),
            (parse_quote!(10u32), "without the suffix `u32`"),
            (parse_quote!(1e400), "not a plain decimal number"),
            (
                parse_quote!(18446744073709551616),
                "longer than a duration can be",
            ),
            (parse_quote!(true), "not a duration"),
        ] {
            let message = of(&value).expect_err(expected);
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn expressions_are_left_to_the_compiler() {
        assert!(literal(&parse_quote!(LIMIT)).is_none());
        assert!(literal(&parse_quote!(2 * 60)).is_none());
        assert!(literal(&parse_quote!(-limit)).is_none());
    }

    proptest! {
        #[test]
        fn no_text_panics(value in ".{0,40}") {
            let _ = text(&value);
        }

        #[test]
        fn whole_units_are_exact(number in 0_u64..1_000_000_000, unit in 0..UNITS.len()) {
            let (name, nanoseconds) = UNITS[unit];
            let parsed = text(&format!("{number}{name}")).unwrap();
            prop_assert_eq!(parsed.as_nanos(), u128::from(number) * nanoseconds);
        }

        #[test]
        fn decimals_are_exact(seconds in any::<u64>(), millis in 0_u32..1000) {
            let parsed = text(&format!("{seconds}.{millis:03}s")).unwrap();
            prop_assert_eq!(parsed, Duration::new(seconds, millis * 1_000_000));
        }
    }
}
