//! Ruby's `with_advisory_lock`.

use crc::{CRC_32_ISO_HDLC, Crc};

use super::AdvisoryKey;
use crate::key::{Key, KeyValue};

const CRC_32: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);

const KINDS: &str = "with_advisory_lock has names and integers: no bytes and no pairs";

/// On PostgreSQL: what identifies the name, and the number that the prefix begins with, 31 bits of each.
pub(super) fn pair(prefix: &str, key: &Key) -> Result<AdvisoryKey, &'static str> {
    let name = match key.value() {
        KeyValue::Text(text) => low_bits(CRC_32.checksum(text.as_bytes()).into()),
        KeyValue::Integer(number) => low_bits(number),
        KeyValue::Bytes(_) | KeyValue::Pair(..) => return Err(KINDS),
    };
    Ok(AdvisoryKey::Pair(name, low_bits(to_i(prefix)?)))
}

/// On MySQL and MariaDB: prefix and name.
pub(super) fn name(prefix: &str, key: &Key) -> Result<String, &'static str> {
    match key.value() {
        KeyValue::Text(_) | KeyValue::Integer(_) => Ok(format!("{prefix}{}", key.text())),
        KeyValue::Bytes(_) | KeyValue::Pair(..) => Err(KINDS),
    }
}

/// `number & 0x7fffffff`, as Ruby does it with integers of any size.
fn low_bits(number: i128) -> i32 {
    i32::try_from(number & 0x7fff_ffff).unwrap_or_default()
}

/// `String#to_i`: the decimal number that the text begins with, `_` allowed between two digits; else 0.
fn to_i(text: &str) -> Result<i128, &'static str> {
    let text = text.trim_start_matches([' ', '\t', '\n', '\x0b', '\x0c', '\r']);
    let (sign, digits) = match text.as_bytes().first() {
        Some(b'-') => (-1, &text[1..]),
        Some(b'+') => (1, &text[1..]),
        _ => (1, text),
    };
    let mut number: i128 = 0;
    let mut after_digit = false;
    for character in digits.chars() {
        match character.to_digit(10) {
            Some(digit) => {
                number = number
                    .checked_mul(10)
                    .and_then(|number| number.checked_add(digit.into()))
                    .ok_or("the number that the prefix begins with has too many digits")?;
                after_digit = true;
            }
            None if character == '_' && after_digit => after_digit = false,
            None => break,
        }
    }
    Ok(sign * number)
}
