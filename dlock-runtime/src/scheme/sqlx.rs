//! Rust's sqlx, `PgAdvisoryLock`.

use hkdf::Hkdf;
use sha2::Sha256;

use super::{AdvisoryKey, int64};
use crate::key::{Key, KeyValue};

/// HKDF without a salt; `PgAdvisoryLock::with_key` takes integers and pairs as they are.
pub(super) fn number(key: &Key) -> Result<AdvisoryKey, &'static str> {
    match key.value() {
        KeyValue::Integer(number) => int64(number),
        KeyValue::Pair(first, second) => Ok(AdvisoryKey::Pair(first, second)),
        KeyValue::Text(text) => {
            let mut derived = [0; 8];
            Hkdf::<Sha256>::new(None, text.as_bytes())
                .expand(b"SQLx (Rust) Postgres advisory lock", &mut derived)
                // It can give 8160 bytes.
                .map_err(|_| "the hash of the key has too few bytes")?;
            Ok(AdvisoryKey::Number(i64::from_le_bytes(derived)))
        }
        KeyValue::Bytes(_) => Err("sqlx has keys of text, one integer or two: no bytes"),
    }
}
