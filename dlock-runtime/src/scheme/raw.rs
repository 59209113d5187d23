//! What the servers themselves have.

use super::{AdvisoryKey, int64};
use crate::key::{Key, KeyValue};

/// An integer or a pair, also written in decimal digits.
pub(super) fn advisory_key(key: &Key) -> Result<AdvisoryKey, &'static str> {
    const RULE: &str = "a raw key on PostgreSQL is a signed 64-bit integer, or two signed 32-bit integers with a comma in between";
    match key.value() {
        KeyValue::Integer(number) => int64(number),
        KeyValue::Pair(first, second) => Ok(AdvisoryKey::Pair(first, second)),
        KeyValue::Text(text) => text_key(text).ok_or(RULE),
        KeyValue::Bytes(_) => Err(RULE),
    }
}

fn text_key(text: &str) -> Option<AdvisoryKey> {
    let key = match text.split_once(',') {
        Some((first, second)) => AdvisoryKey::Pair(first.parse().ok()?, second.parse().ok()?),
        None => AdvisoryKey::Number(text.parse().ok()?),
    };
    // One way to write it: `+42` and `042` are more likely mistakes than numbers.
    let written = match key {
        AdvisoryKey::Number(number) => number.to_string(),
        AdvisoryKey::Pair(first, second) => format!("{first},{second}"),
    };
    (written == text).then_some(key)
}

/// The exact name: text, an integer's digits, bytes that are UTF-8.
pub(super) fn name(key: &Key) -> Result<String, &'static str> {
    match key.value() {
        KeyValue::Text(_) | KeyValue::Integer(_) => Ok(key.text().to_string()),
        KeyValue::Bytes(bytes) => str::from_utf8(bytes)
            .map(str::to_owned)
            .map_err(|_| "a name on MySQL and MariaDB is text, and these bytes are not UTF-8"),
        KeyValue::Pair(..) => Err("a name on MySQL and MariaDB is text: pairs are PostgreSQL's"),
    }
}
