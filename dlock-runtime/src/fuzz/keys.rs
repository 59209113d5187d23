//! Keys become names that servers take as they are, and distinct keys distinct names.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Mutex;

use once_cell::sync::Lazy;
use proptest::prelude::*;

use super::config;
use super::texts::hostile;
use crate::key::{mysql_name, postgres_key};

/// A way from a namespace and a key to what the server compares.
struct Scheme {
    name: &'static str,
    /// `None`: the scheme cannot express this key, and says so.
    of: fn(&str, &str) -> Option<Vec<u8>>,
    /// Whether two keys never share a name (by more than the chance of a 64-bit digest). Not so of schemes that send the
    /// user's text to servers which fold it.
    is_injective: bool,
}

/// A new scheme is a line here.
const SCHEMES: &[Scheme] = &[
    Scheme {
        name: "native on PostgreSQL",
        of: |space, key| Some(postgres_key(space, key).to_be_bytes().into()),
        is_injective: true,
    },
    Scheme {
        name: "native on MySQL",
        of: |space, key| Some(mysql_name(space, key).to_lowercase().into()),
        is_injective: true,
    },
];

/// For each name so far the digest of what it was made from.
static SEEN: Lazy<(RandomState, Mutex<HashMap<u64, u64>>)> = Lazy::new(Default::default);

/// Fails when the name was made from something else before.
fn remember(scheme: &Scheme, space: &str, key: &str, name: &[u8]) -> Result<(), TestCaseError> {
    let (hasher, seen) = &*SEEN;
    let source = hasher.hash_one((scheme.name, space, key));
    let mut seen = seen
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let first = *seen
        .entry(hasher.hash_one((scheme.name, name)))
        .or_insert(source);
    prop_assert_eq!(
        first,
        source,
        "{}: {:?} in {:?} has a name that another key has",
        scheme.name,
        key,
        space
    );
    Ok(())
}

/// A namespace and a key, and a second pair that a careless scheme confuses with it.
fn neighbours() -> impl Strategy<Value = [(String, String); 2]> {
    let text = || hostile().prop_map(|text| text.replace('\0', "0"));
    (text(), text(), any::<prop::sample::Index>(), 0..7_u8).prop_map(|(space, key, at, change)| {
        let at = at.index(key.len() + 1);
        let at = (0..=at)
            .rev()
            .find(|at| key.is_char_boundary(*at))
            .unwrap_or(0);
        let (before, after) = key.split_at(at);
        let other = match change {
            0 => (space.clone(), key.to_uppercase()),
            1 => (space.clone(), format!("{key} ")),
            2 => (space.clone(), format!("{before}\u{301}{after}")),
            // The boundary between the two moves.
            3 => (format!("{space}{before}"), after.to_owned()),
            4 => (key.clone(), space.clone()),
            5 => (space.clone(), format!("{before}\\{after}")),
            _ => (space.clone(), after.to_owned()),
        };
        [(space, key), other]
    })
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn distinct_keys_have_distinct_names(pairs in neighbours()) {
        for scheme in SCHEMES {
            for (space, key) in &pairs {
                let name = (scheme.of)(space, key);
                prop_assert_eq!(&name, &(scheme.of)(space, key), "{}", scheme.name);
                if let (Some(name), true) = (name, scheme.is_injective) {
                    remember(scheme, space, key, &name)?;
                }
            }
        }
    }

    #[test]
    fn a_native_name_is_harmless_in_every_statement_and_log(pairs in neighbours()) {
        for (space, key) in &pairs {
            let name = mysql_name(space, key);
            prop_assert!(name.len() <= 64);
            prop_assert!(
                name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'/' | b':')),
                "{}", name
            );
        }
    }
}
