//! Python's sqlalchemy-dlock.

use blake2::digest::consts::U8;
use blake2::{Blake2b, Digest};
use crc::{CRC_64_GO_ISO, Crc};

use super::{AdvisoryKey, bytes, int64};
use crate::key::{Key, KeyValue};

const PAIR: &str =
    "sqlalchemy-dlock has no pairs of integers: its keys are text, bytes or one integer";

const CRC_64: Crc<u64> = Crc::<u64>::new(&CRC_64_GO_ISO);

/// All versions but 0.1.1 to 0.1.3: `BLAKE2b` with a digest of 8 bytes, read as a little-endian number.
pub(super) fn blake2b(key: &Key) -> Result<AdvisoryKey, &'static str> {
    let value = key.value();
    if let KeyValue::Integer(number) = value {
        return int64(number);
    }
    let digest = Blake2b::<U8>::digest(bytes(&value).ok_or(PAIR)?);
    Ok(AdvisoryKey::Number(i64::from_le_bytes(digest.into())))
}

/// Versions 0.1.1 to 0.1.3: CRC-64/ISO. Integers that need the 64th bit wrap round.
pub(super) fn crc64(key: &Key) -> Result<AdvisoryKey, &'static str> {
    let value = key.value();
    if let KeyValue::Integer(number) = value {
        return match (i64::try_from(number), u64::try_from(number)) {
            (Ok(number), _) => Ok(AdvisoryKey::Number(number)),
            (_, Ok(number)) => Ok(AdvisoryKey::Number(number.cast_signed())),
            _ => Err("sqlalchemy-dlock 0.1 takes integers of 64 bits, with or without a sign"),
        };
    }
    let sum = CRC_64.checksum(bytes(&value).ok_or(PAIR)?);
    Ok(AdvisoryKey::Number(sum.cast_signed()))
}

/// On MySQL and MariaDB: the text, an integer's digits, bytes as UTF-8. Here `1` and `"1"` are the same lock.
pub(super) fn name(key: &Key) -> Result<String, &'static str> {
    let name = match key.value() {
        KeyValue::Pair(..) => return Err(PAIR),
        KeyValue::Bytes(bytes) => str::from_utf8(bytes).map_err(
            |_| "sqlalchemy-dlock reads bytes as UTF-8 on MySQL and MariaDB, and these are not",
        )?,
        KeyValue::Text(_) | KeyValue::Integer(_) => key.text(),
    };
    if name.chars().count() > 64 {
        return Err("sqlalchemy-dlock takes at most 64 characters on MySQL and MariaDB");
    }
    Ok(name.to_owned())
}
