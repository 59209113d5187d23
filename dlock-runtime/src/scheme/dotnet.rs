//! .NET's `DistributedLock`.

use data_encoding::{BitOrder, Encoding, Specification};
use sha1::Sha1;
use sha2::{Digest, Sha512};

use super::{AdvisoryKey, int64};
use crate::key::{Key, KeyValue};

/// The most UTF-16 units of a name.
const NAME_MAX: usize = 64;
/// The characters of a hash.
const HASH_CHARS: usize = 32;
/// So many bytes give these characters.
const HASH_BYTES: usize = HASH_CHARS * 5 / 8;

const NO_BYTES: &str = "DistributedLock has names and, on PostgreSQL, integers: no bytes";

/// `PostgresAdvisoryLockKey`: of up to nine ASCII characters nothing is lost; a number in hexadecimal digits is that number;
/// other names are hashed.
pub(super) fn advisory_key(key: &Key) -> Result<AdvisoryKey, &'static str> {
    match key.value() {
        KeyValue::Integer(number) => int64(number),
        KeyValue::Pair(first, second) => Ok(AdvisoryKey::Pair(first, second)),
        KeyValue::Text(text) => Ok(of_ascii(text)
            .or_else(|| of_hexadecimal(text))
            .unwrap_or_else(|| hash(text))),
        KeyValue::Bytes(_) => Err(NO_BYTES),
    }
}

/// Seven bits for each character, from the top; then a 0, then ones to the end.
fn of_ascii(text: &str) -> Option<AdvisoryKey> {
    const CHARS: usize = 9;
    if text.len() > CHARS || !text.is_ascii() {
        return None;
    }
    let packed = text
        .bytes()
        .fold(0, |number, byte| number << 7 | u64::from(byte));
    let padding = 7 * (CHARS - text.len());
    let packed = packed << 1 << padding | ((1 << padding) - 1);
    Some(AdvisoryKey::Number(packed.cast_signed()))
}

/// 16 digits, or twice 8 with a comma in between.
fn of_hexadecimal(text: &str) -> Option<AdvisoryKey> {
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
    match text.split_once(',') {
        Some((first, second))
            if first.len() == 8 && second.len() == 8 && digits(first) && digits(second) =>
        {
            let number = |text| u32::from_str_radix(text, 16).ok().map(u32::cast_signed);
            Some(AdvisoryKey::Pair(number(first)?, number(second)?))
        }
        None if text.len() == 16 && digits(text) => {
            let number = u64::from_str_radix(text, 16).ok()?;
            Some(AdvisoryKey::Number(number.cast_signed()))
        }
        _ => None,
    }
}

fn hash(text: &str) -> AdvisoryKey {
    let digest: [u8; 20] = Sha1::digest(text).into();
    let number = digest.iter().take(8).rev();
    AdvisoryKey::Number(number.fold(0, |number, byte| number << 8 | i64::from(*byte)))
}

/// The names of `MySqlDistributedLock`: what is valid is taken as it is; anything else is made valid, and gets a hash that
/// keeps it apart.
pub(super) fn name(key: &Key) -> Result<String, &'static str> {
    let name: &str = match key.value() {
        KeyValue::Text(_) | KeyValue::Integer(_) => key.text(),
        KeyValue::Bytes(_) | KeyValue::Pair(..) => {
            return Err("DistributedLock has names on MySQL: no bytes and no pairs");
        }
    };
    let valid = if name.is_empty() {
        "__empty__".to_owned()
    } else {
        name.chars().map(lower).collect::<Result<String, _>>()?
    };
    if valid == name && units(&valid) <= NAME_MAX {
        return Ok(valid);
    }
    let mut safe = String::new();
    let mut left = NAME_MAX - HASH_CHARS;
    for character in valid.chars() {
        match left.checked_sub(character.len_utf16()) {
            Some(rest) => left = rest,
            // .NET would cut the character in half.
            None if left > 0 => {
                return Err("DistributedLock would cut this name inside a character beyond U+FFFF");
            }
            None => break,
        }
        safe.push(character);
    }
    let digest = Sha512::digest(name);
    let (hashed, _) = digest.split_at(HASH_BYTES);
    safe.push_str(&base32()?.encode(hashed));
    Ok(safe)
}

fn units(text: &str) -> usize {
    text.chars().map(char::len_utf16).sum()
}

/// .NET's invariant lower case: one character for one, and `İ` stays.
fn lower(character: char) -> Result<char, &'static str> {
    let mut lower = character.to_lowercase();
    match (lower.next(), lower.next()) {
        (Some(lower), None) if lower == character => Ok(character),
        (Some(lower), None) if u32::from(character) <= 0xffff => Ok(lower),
        (Some(_), None) => Err(
            "versions of .NET differ in the lower case of letters beyond U+FFFF: write it in lower case",
        ),
        _ => Ok(character),
    }
}

fn base32() -> Result<Encoding, &'static str> {
    let mut specification = Specification::new();
    specification
        .symbols
        .push_str("abcdefghijklmnopqrstuvwxyz234567");
    specification.bit_order = BitOrder::LeastSignificantFirst;
    specification
        .encoding()
        .map_err(|_| "the alphabet of the hash is none")
}
