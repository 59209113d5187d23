//! Keys: what the user writes, and what each server compares.
//!
//! # The native scheme, version 1
//!
//! Everything follows from one digest:
//!
//! ```text
//! digest = SHA-256("dlock/1" ‖ 0x00 ‖ namespace ‖ 0x00 ‖ key)
//! ```
//!
//! Namespace and key are UTF-8 and contain no NUL, so no two pairs share the same input. Nothing is folded or trimmed:
//! case, accents and blanks count.
//!
//! - **PostgreSQL**: the first 8 bytes of the digest as a big-endian signed 64-bit integer, the argument of
//!   `pg_advisory_lock(bigint)`. Two texts can share a number; they then exclude each other too much, never too little.
//! - **MySQL, MariaDB**: `dlock:` ‖ *prefix* ‖ `:` ‖ *hash*, the argument of `GET_LOCK`. *prefix* is for human eyes: the
//!   first 25 characters of the key, ASCII letters in lower case, digits and `-_./` as they are, every other character
//!   replaced by one `_`. *hash* is the first 160 bits of the digest in RFC 4648 base32, lower case, without padding: 32
//!   characters. The name has at most 64 characters, all of them ASCII without upper case, which both servers compare alike.
//!
//! The scheme is frozen: programs of different versions meet under these names. A change is a new version, with another
//! first part of the input. `docs/keys.md` has test vectors for other languages.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

use data_encoding::{BASE32_NOPAD, HEXLOWER};
use sha2::{Digest, Sha256};

use crate::error::{Error, InvalidKey};

/// Whether others may hold the lock at the same time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Nobody else holds the lock.
    #[default]
    Exclusive,
    /// Others may hold it too, all of them shared.
    Shared,
}

/// A lock's name as its server compares it: the identity under which requests meet.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum ServerKey {
    /// PostgreSQL's advisory locks.
    Number(i64),
    /// PostgreSQL's advisory locks again, the space of two 32-bit numbers: no number is a pair.
    Pair(i32, i32),
    /// MySQL's and MariaDB's named locks, and the memory backend.
    Name(KeyText),
    /// Not a server's at all: the turn of the nested bodies under a hold. The number is the enclosing body's, the
    /// second is its lock's.
    Turn(u64, usize),
}

impl ServerKey {
    /// The name as text: a number, two with a comma in between, or the name itself.
    pub(crate) fn to_text(&self) -> Arc<str> {
        match self {
            ServerKey::Number(number) => number.to_string().into(),
            ServerKey::Pair(first, second) => format!("{first}, {second}").into(),
            ServerKey::Name(name) => name.to_shared(),
            ServerKey::Turn(..) => "".into(),
        }
    }
}

/// Text that is written in the program, or was made while it runs: a literal key costs no allocation.
#[derive(Clone)]
pub enum KeyText {
    /// A literal.
    Literal(&'static str),
    /// Made at run time.
    Made(Arc<str>),
    /// Given as something else than text.
    Typed(Arc<Typed>),
}

/// A key that was not given as text, with the text that shows it.
#[derive(Debug)]
pub struct Typed {
    text: Arc<str>,
    value: TypedValue,
}

#[derive(Debug, PartialEq, Eq, Hash)]
enum TypedValue {
    Integer(i128),
    Pair(i32, i32),
    Bytes(Box<[u8]>),
}

impl KeyText {
    /// The text, shared.
    pub(crate) fn to_shared(&self) -> Arc<str> {
        match self {
            KeyText::Literal(text) => (*text).into(),
            KeyText::Made(text) => text.clone(),
            KeyText::Typed(typed) => typed.text.clone(),
        }
    }

    fn typed(text: String, value: TypedValue) -> KeyText {
        KeyText::Typed(Arc::new(Typed {
            text: text.into(),
            value,
        }))
    }
}

impl Deref for KeyText {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            KeyText::Literal(text) => text,
            KeyText::Made(text) => text,
            KeyText::Typed(typed) => &typed.text,
        }
    }
}

impl From<&'static str> for KeyText {
    fn from(text: &'static str) -> KeyText {
        KeyText::Literal(text)
    }
}

impl From<String> for KeyText {
    fn from(text: String) -> KeyText {
        KeyText::Made(text.into())
    }
}

impl From<Arc<str>> for KeyText {
    fn from(text: Arc<str>) -> KeyText {
        KeyText::Made(text)
    }
}

impl PartialEq for KeyText {
    fn eq(&self, other: &KeyText) -> bool {
        **self == **other
    }
}

impl Eq for KeyText {}

impl Hash for KeyText {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

impl PartialOrd for KeyText {
    fn partial_cmp(&self, other: &KeyText) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for KeyText {
    fn cmp(&self, other: &KeyText) -> std::cmp::Ordering {
        (**self).cmp(&**other)
    }
}

impl fmt::Display for KeyText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

impl fmt::Debug for KeyText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

/// A lock's name as the program gives it: text, an integer, bytes, or a pair of 32-bit integers.
///
/// Text is made of `&str`, `String` and their kin, and is what almost every program needs. The other kinds serve locks
/// that are shared with programs in other languages, whose libraries tell `42` from `"42"`: see [`KeyScheme`]. Where a
/// scheme knows only text, an integer is its decimal digits.
///
/// What is a valid key is for the scheme to say. The native one takes 1 to 1024 bytes of UTF-8 without NUL.
///
/// ```
/// use dlock_runtime::{Key, KeyValue};
///
/// assert_eq!(Key::from("report/nightly").value(), KeyValue::Text("report/nightly"));
/// assert_eq!(Key::from(42).value(), KeyValue::Integer(42));
/// assert_eq!(Key::from(b"\x01\xff").to_string(), "0x01ff");
/// assert_ne!(Key::from(42), Key::from("42"));
/// ```
///
/// [`KeyScheme`]: crate::KeyScheme
#[derive(Clone, Debug)]
pub struct Key(pub(crate) KeyText);

/// What a [`Key`] was given as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeyValue<'k> {
    /// Text.
    Text(&'k str),
    /// An integer. Wider than any server's, because the rule for what is too large is a scheme's.
    Integer(i128),
    /// Two integers, as PostgreSQL's second space of advisory locks has them.
    Pair(i32, i32),
    /// Bytes.
    Bytes(&'k [u8]),
}

impl Key {
    /// The most bytes that a key of the native scheme may have.
    pub(crate) const MAX_BYTES: usize = 1024;

    /// Checks the text by the rules of the native scheme.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidKey`] with the rule that the text breaks.
    #[cfg(test)]
    pub(crate) fn new(text: impl Into<KeyText>) -> Result<Key, Error> {
        let key = Key(text.into());
        match key.broken_rule() {
            Some(rule) => Err(key.invalid(rule)),
            None => Ok(key),
        }
    }

    /// The rule of the native scheme that the key breaks.
    pub(crate) fn broken_rule(&self) -> Option<&'static str> {
        let text = &self.0;
        if matches!(self.value(), KeyValue::Pair(..) | KeyValue::Bytes(_)) {
            Some(
                "a key of the native scheme is text; encode bytes and pairs, for instance as hexadecimal",
            )
        } else if text.is_empty() {
            Some("a key has at least one character; name the lock")
        } else if text.len() > Key::MAX_BYTES {
            Some("a key has at most 1024 bytes; shorten it, or use a digest of it")
        } else if text.contains('\0') {
            Some("a key has no NUL character; encode binary data, for instance as hexadecimal")
        } else {
            None
        }
    }

    /// The error that names a rule that the key breaks.
    pub(crate) fn invalid(&self, rule: &'static str) -> Error {
        Error::InvalidKey(Arc::new(InvalidKey {
            key: self.0.chars().take(64).collect(),
            rule,
        }))
    }

    /// The text that shows it: the text itself, the digits of an integer, two of them with a comma in between, or `0x`
    /// and hexadecimal digits.
    pub(crate) fn text(&self) -> &KeyText {
        &self.0
    }

    /// What the key was given as.
    pub fn value(&self) -> KeyValue<'_> {
        match &self.0 {
            KeyText::Typed(typed) => match &typed.value {
                TypedValue::Integer(number) => KeyValue::Integer(*number),
                TypedValue::Pair(first, second) => KeyValue::Pair(*first, *second),
                TypedValue::Bytes(bytes) => KeyValue::Bytes(bytes),
            },
            text => KeyValue::Text(text),
        }
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Key) -> bool {
        self.value() == other.value()
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.value().hash(state);
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<(i32, i32)> for Key {
    fn from((first, second): (i32, i32)) -> Key {
        let text = format!("{first},{second}");
        Key(KeyText::typed(text, TypedValue::Pair(first, second)))
    }
}

impl From<Vec<u8>> for Key {
    fn from(bytes: Vec<u8>) -> Key {
        let text = format!("0x{}", HEXLOWER.encode(&bytes));
        Key(KeyText::typed(text, TypedValue::Bytes(bytes.into())))
    }
}

impl From<&[u8]> for Key {
    fn from(bytes: &[u8]) -> Key {
        bytes.to_vec().into()
    }
}

impl<const N: usize> From<&[u8; N]> for Key {
    fn from(bytes: &[u8; N]) -> Key {
        bytes.to_vec().into()
    }
}

macro_rules! keys_of_text {
    ($($text:ty),+) => {$(
        impl From<$text> for Key {
            fn from(text: $text) -> Key {
                Key(KeyText::Made(text.into()))
            }
        }
    )+};
}

keys_of_text!(&str, String, Arc<str>, Box<str>, std::borrow::Cow<'_, str>);

macro_rules! keys_of_integers {
    ($($integer:ty),+) => {$(
        impl From<$integer> for Key {
            fn from(number: $integer) -> Key {
                let text = number.to_string();
                Key(KeyText::typed(text, TypedValue::Integer(number.into())))
            }
        }
    )+};
}

keys_of_integers!(i8, i16, i32, i64, i128, u8, u16, u32, u64);

/// The number of a lock on PostgreSQL.
pub(crate) fn postgres_key(namespace: &str, key: &str) -> i64 {
    let digest = digest(namespace, key);
    digest
        .iter()
        .take(8)
        .fold(0, |number, byte| number << 8 | i64::from(*byte))
}

/// The name of a lock on MySQL and MariaDB.
pub(crate) fn mysql_name(namespace: &str, key: &str) -> String {
    let digest = digest(namespace, key);
    let (hashed, _) = digest.split_at(HASHED_BYTES);
    let mut name = String::with_capacity(MYSQL_NAME_MAX);
    name.push_str("dlock:");
    name.extend(key.chars().take(PREFIX_CHARS).map(readable));
    name.push(':');
    name.push_str(&BASE32_NOPAD.encode(hashed).to_ascii_lowercase());
    name
}

/// The most characters that Oracle MySQL takes in a name.
const MYSQL_NAME_MAX: usize = 64;
const PREFIX_CHARS: usize = 25;
/// 160 bits: 32 characters of base32.
const HASHED_BYTES: usize = 20;

fn digest(namespace: &str, key: &str) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for part in ["dlock/1", "\0", namespace, "\0", key] {
        hasher.update(part);
    }
    hasher.finalize().into()
}

fn readable(character: char) -> char {
    match character {
        'a'..='z' | '0'..='9' | '-' | '_' | '.' | '/' => character,
        'A'..='Z' => character.to_ascii_lowercase(),
        _ => '_',
    }
}

#[cfg(test)]
mod tests;
