//! dlock's own options.

use std::time::Duration;

use super::lease;
use super::query::Query;
use crate::config::{LeaseOptions, TABLE_RULE, TableName};
use crate::error::InitError;
use crate::hazard::{Hazard, Hazards};
use crate::scheme::KeyScheme;
use crate::timeout::Timeout;

/// What the DSN says about dlock's behaviour; `None` where it says nothing.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) timeout: Option<Timeout>,
    pub(crate) namespace: Option<String>,
    pub(crate) connect_timeout: Option<Duration>,
    pub(crate) limit: Option<Duration>,
    pub(crate) heartbeat: Option<Duration>,
    pub(crate) max_waiters: Option<usize>,
    pub(crate) max_held: Option<usize>,
    pub(crate) application_name: Option<String>,
    pub(crate) hand_over: Option<u32>,
    pub(crate) hand_over_time: Option<Duration>,
    pub(crate) allow: Option<Hazards>,
    pub(crate) key_scheme: Option<KeyScheme>,
    pub(crate) fencing: Option<bool>,
    pub(crate) fencing_table: Option<String>,
    pub(crate) key_table: Option<String>,
    pub(crate) lease: LeaseOptions,
    pub(crate) status_file: Option<String>,
}

impl Options {
    /// The options that every server takes, for messages.
    pub(super) const OF_SERVER: &[&str] = &[
        "timeout",
        "namespace",
        "connect_timeout",
        "limit",
        "heartbeat",
        "max_waiters",
        "max_held",
        "application_name",
        "hand_over",
        "hand_over_time",
        "strategy",
        "allow",
        "key_scheme",
        "status_file",
        "fencing",
        "fencing_table",
        "key_table",
    ];

    /// The options that leases take besides, for messages.
    pub(super) const OF_LEASES: &[&str] = lease::NAMES;

    /// The options that a file of SQLite takes besides those of leases, for messages.
    #[cfg(feature = "sqlite")]
    pub(super) const OF_SQLITE: &[&str] = &[
        "timeout",
        "namespace",
        "connect_timeout",
        "application_name",
        "strategy",
        "status_file",
        "fencing",
    ];

    /// The options that have an effect without a server.
    pub(super) const OF_MEMORY: &[&[&str]] = &[&["timeout", "namespace", "status_file", "fencing"]];

    /// Takes the options that every server has.
    pub(super) fn of_server(query: &mut Query) -> Result<Options, InitError> {
        let options = Options {
            lease: lease::take(query)?,
            connect_timeout: query.take_as(&["connect_timeout"], DURATION, duration)?,
            limit: query.take_as(&["limit"], DURATION, duration)?,
            heartbeat: query.take_as(&["heartbeat"], DURATION, duration)?,
            max_waiters: query.take_as(&["max_waiters"], "a whole number from 1", whole)?,
            max_held: query.take_as(&["max_held"], "a whole number from 1", whole)?,
            application_name: query.take(&["application_name"])?,
            hand_over: query.take_as(&["hand_over"], "a whole number from 0", whole)?,
            hand_over_time: query.take_as(&["hand_over_time"], DURATION, duration)?,
            allow: query.take_as(&["allow"], &hazards(), Hazards::parse)?,
            key_scheme: query.take_as(&["key_scheme"], &schemes(), KeyScheme::parse)?,
            fencing_table: query.take_as(&["fencing_table"], TABLE_RULE, table)?,
            key_table: query.take_as(&["key_table"], TABLE_RULE, table)?,
            ..Options::of_memory(query)?
        };
        lease::check(&options)?;
        Ok(options)
    }

    /// Takes the options that a file of SQLite has.
    #[cfg(feature = "sqlite")]
    pub(super) fn of_sqlite(query: &mut Query) -> Result<Options, InitError> {
        Ok(Options {
            lease: lease::take(query)?,
            connect_timeout: query.take_as(&["connect_timeout"], DURATION, duration)?,
            application_name: query.take(&["application_name"])?,
            ..Options::of_memory(query)?
        })
    }

    /// Takes the options that have an effect without a server.
    pub(super) fn of_memory(query: &mut Query) -> Result<Options, InitError> {
        Ok(Options {
            timeout: query.take_as(&["timeout"], TIMEOUT, timeout)?,
            namespace: query.take(&["namespace"])?,
            status_file: query.take_as(&["status_file"], "the path of a file", path)?,
            fencing: query.take_as(&["fencing"], "true or false", switch)?,
            ..Options::default()
        })
    }
}

pub(super) const DURATION: &str = "seconds (10, 2.5) or a number with a unit (500ms, 2s, 1m, 1h)";
const TIMEOUT: &str =
    "seconds (10, 2.5; 0 is one try), a number with a unit (500ms, 2s, 1m, 1h), or none";

fn hazards() -> String {
    let names = Hazard::ALL.map(Hazard::name).join(", ");
    format!("one or more of {names}, separated by commas")
}

fn schemes() -> String {
    format!(
        "one of {} (a prefix for with-advisory-lock follows after a colon)",
        KeyScheme::NAMES.join(", ")
    )
}

fn path(text: &str) -> Option<String> {
    (!text.is_empty() && !text.contains('\0')).then(|| text.to_owned())
}

pub(super) fn switch(text: &str) -> Option<bool> {
    match text {
        "true" | "1" => Some(true),
        "false" | "0" => Some(false),
        _ => None,
    }
}

/// The name of a table.
pub(super) fn table(text: &str) -> Option<String> {
    TableName::parse(text).map(|_| text.to_owned())
}

fn timeout(text: &str) -> Option<Timeout> {
    match text {
        "none" => Some(Timeout::NONE),
        text => duration(text).map(Timeout::from),
    }
}

/// Reads a duration, exactly: no floating point on the way. What is finer than a nanosecond is cut off.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit: u128 = match unit {
        "ms" => 1_000_000,
        "" | "s" => SECOND,
        "m" => 60 * SECOND,
        "h" => 3600 * SECOND,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let whole: u128 = if whole.is_empty() {
        0
    } else {
        whole.parse().ok()?
    };
    // More digits than these do not make a nanosecond, also of an hour.
    let fraction = fraction.get(..18).unwrap_or(fraction);
    let scale = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    let parts = fraction.parse::<u128>().unwrap_or(0) * unit / scale;
    let total = whole.checked_mul(unit)?.checked_add(parts)?;
    Some(Duration::new(
        u64::try_from(total / SECOND).ok()?,
        u32::try_from(total % SECOND).ok()?,
    ))
}

const SECOND: u128 = 1_000_000_000;

/// Reads a whole number without a sign.
pub(super) fn whole<T: std::str::FromStr>(text: &str) -> Option<T> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_exact() {
        for (text, milliseconds) in [
            ("0", 0),
            ("10", 10_000),
            ("2.5", 2_500),
            ("0.333", 333),
            ("500ms", 500),
            ("1.5m", 90_000),
            ("2s", 2_000),
            ("1h", 3_600_000),
        ] {
            assert_eq!(
                duration(text),
                Some(Duration::from_millis(milliseconds)),
                "{text}"
            );
        }
        for text in [
            "",
            ".",
            "s",
            "-1",
            "+1",
            "1e3",
            "inf",
            "nan",
            "1 s",
            "1d",
            "1.2.3",
            "1S",
            "1ss",
            &"9".repeat(40),
        ] {
            assert_eq!(duration(text), None, "{text}");
        }
    }
}
