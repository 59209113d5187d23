//! The names of locks on the server, computed from `docs/keys.md` and not by the library.

use sha2::{Digest, Sha256};

use crate::place::Family;

/// The name under which the server knows a key, as it is written in SQL.
pub(crate) fn on_server(family: Family, namespace: &str, key: &str) -> String {
    let mut input = b"dlock/1\0".to_vec();
    input.extend(namespace.as_bytes());
    input.push(0);
    input.extend(key.as_bytes());
    let digest = Sha256::digest(&input);
    match family {
        Family::Postgres => {
            let first: [u8; 8] = digest[..8].try_into().expect("eight bytes");
            i64::from_be_bytes(first).to_string()
        }
        Family::MySql => {
            let prefix: String = key
                .chars()
                .take(25)
                .map(|c| match c.to_ascii_lowercase() {
                    c @ ('a'..='z' | '0'..='9' | '-' | '_' | '.' | '/') => c,
                    _ => '_',
                })
                .collect();
            let hash = data_encoding::BASE32_NOPAD.encode(&digest[..20]);
            format!("dlock:{prefix}:{}", hash.to_ascii_lowercase())
        }
    }
}
