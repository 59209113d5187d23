//! What the two servers make of a name.
//!
//! Both cut it at the first NUL. MariaDB then compares its bytes. MySQL folds case first, by the table of its collation
//! `utf8mb3_general_ci`: one letter for one, as Unicode was around its third version. Collations do not change, since
//! indexes are sorted by them. A test compares the table with the server's, letter by letter.
//!
//! What is sent is the folded name: texts that meet on the server meet in this process.

use super::settings::Flavor;
use crate::key::ServerKey;

/// The lock that a name stands for, or the rule of the server that the name breaks.
pub(crate) fn lock(name: &str, flavor: Flavor) -> Result<ServerKey, &'static str> {
    let cut = name.split('\0').next().unwrap_or_default();
    if cut.is_empty() {
        return Err("a name on MySQL and MariaDB has at least one character, and is cut at a NUL");
    }
    match flavor {
        Flavor::MySql => {
            if name.chars().count() > 64 {
                return Err("MySQL takes names of at most 64 characters");
            }
            if name.chars().any(|character| u32::from(character) > 0xffff) {
                return Err("MySQL takes no characters beyond U+FFFF in a name");
            }
            let folded: String = cut.chars().map(fold).collect();
            Ok(ServerKey::Name(folded.into()))
        }
        Flavor::MariaDb => {
            if name.len() > 192 {
                return Err("MariaDB takes names of at most 192 bytes");
            }
            Ok(ServerKey::Name(cut.to_owned().into()))
        }
    }
}

/// A letter as MySQL compares it.
pub(crate) fn fold(character: char) -> char {
    if character.is_ascii() {
        return character.to_ascii_lowercase();
    }
    if character == '\u{130}' {
        return 'i';
    }
    if !FOLDED
        .iter()
        .any(|(first, last)| (*first..=*last).contains(&character))
    {
        return character;
    }
    let mut lower = character.to_lowercase();
    match (lower.next(), lower.next()) {
        (Some(lower), None) => lower,
        _ => character,
    }
}

/// The ranges in which every letter is folded that Unicode has a small one for; elsewhere no letter is.
const FOLDED: [(char, char); 47] = [
    ('\u{c0}', '\u{de}'),
    ('\u{100}', '\u{12e}'),
    ('\u{132}', '\u{136}'),
    ('\u{139}', '\u{147}'),
    ('\u{14a}', '\u{17d}'),
    ('\u{181}', '\u{18b}'),
    ('\u{18e}', '\u{198}'),
    ('\u{19c}', '\u{1a9}'),
    ('\u{1ac}', '\u{1b8}'),
    ('\u{1bc}', '\u{1bc}'),
    ('\u{1c4}', '\u{1db}'),
    ('\u{1de}', '\u{1ee}'),
    ('\u{1f1}', '\u{21e}'),
    ('\u{222}', '\u{232}'),
    ('\u{386}', '\u{3ab}'),
    ('\u{3da}', '\u{3ee}'),
    ('\u{400}', '\u{42f}'),
    ('\u{460}', '\u{480}'),
    ('\u{48c}', '\u{4be}'),
    ('\u{4c1}', '\u{4c3}'),
    ('\u{4c7}', '\u{4c7}'),
    ('\u{4cb}', '\u{4cb}'),
    ('\u{4d0}', '\u{4f4}'),
    ('\u{4f8}', '\u{4f8}'),
    ('\u{531}', '\u{556}'),
    ('\u{1e00}', '\u{1e94}'),
    ('\u{1ea0}', '\u{1ef8}'),
    ('\u{1f08}', '\u{1f0f}'),
    ('\u{1f18}', '\u{1f1d}'),
    ('\u{1f28}', '\u{1f2f}'),
    ('\u{1f38}', '\u{1f3f}'),
    ('\u{1f48}', '\u{1f4d}'),
    ('\u{1f59}', '\u{1f5f}'),
    ('\u{1f68}', '\u{1f6f}'),
    ('\u{1f88}', '\u{1f8f}'),
    ('\u{1f98}', '\u{1f9f}'),
    ('\u{1fa8}', '\u{1faf}'),
    ('\u{1fb8}', '\u{1fbc}'),
    ('\u{1fc8}', '\u{1fcc}'),
    ('\u{1fd8}', '\u{1fdb}'),
    ('\u{1fe8}', '\u{1fec}'),
    ('\u{1ff8}', '\u{1ffc}'),
    ('\u{2126}', '\u{2126}'),
    ('\u{212a}', '\u{212b}'),
    ('\u{2160}', '\u{216f}'),
    ('\u{24b6}', '\u{24cf}'),
    ('\u{ff21}', '\u{ff3a}'),
];
