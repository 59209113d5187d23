//! What a locker waits for and holds at one moment, as JSON.

use std::fmt::Write;
use std::time::{Duration, Instant, SystemTime};

use super::post::redacted;
use super::status::millis;
use crate::key::{KeyText, Mode};

/// The longest time for which the file of a locker that holds something stays as it is, and the shortest.
const REWRITTEN: (Duration, Duration) = (Duration::from_secs(10), Duration::from_millis(500));

/// All requests that are under way, and all holds, the oldest first.
#[derive(Default)]
pub(super) struct Snapshot {
    pub(super) waits: Vec<Entry>,
    pub(super) holds: Vec<Entry>,
}

/// One of them.
pub(super) struct Entry {
    pub(super) request: u64,
    pub(super) key: KeyText,
    pub(super) mode: Mode,
    pub(super) since: Instant,
    pub(super) token: Option<u64>,
    /// How long a hold is still vouched for by the last confirmation; `None`: without limit.
    pub(super) remaining: Option<Duration>,
}

impl Snapshot {
    /// In the order of the requests.
    pub(super) fn of(entries: impl Iterator<Item = (bool, Entry)>) -> Snapshot {
        let mut snapshot = Snapshot::default();
        for (is_held, entry) in entries {
            let side = if is_held {
                &mut snapshot.holds
            } else {
                &mut snapshot.waits
            };
            side.push(entry);
        }
        for side in [&mut snapshot.waits, &mut snapshot.holds] {
            side.sort_by_key(|entry| entry.request);
        }
        snapshot
    }

    /// After what time the file would be wrong, though nothing happens: what vouches for the holds has moved on by then.
    pub(super) fn changes_within(&self) -> Option<Duration> {
        let first = self.holds.iter().filter_map(|hold| hold.remaining).min()?;
        Some((first / 2).clamp(REWRITTEN.1, REWRITTEN.0))
    }

    /// `head`: the members that stand first, written already.
    pub(super) fn to_json(&self, head: &[(&str, String)], redact: bool) -> String {
        let now = SystemTime::now();
        let mut text = String::from("{\n");
        for (name, value) in head {
            let _ = writeln!(text, "  \"{name}\": {value},");
        }
        let _ = writeln!(text, "  \"written_at\": {},", millis(now));
        let waits = self.waits.iter().map(|wait| wait.to_json(now, redact, ""));
        let _ = writeln!(text, "  \"waits\": {},", list(waits));
        let holds = self.holds.iter().map(|hold| {
            let token = or_null(hold.token);
            let valid_until = hold.remaining.and_then(|rest| now.checked_add(rest));
            let valid_until = or_null(valid_until.map(millis));
            let of_holds = format!(", \"token\": {token}, \"valid_until\": {valid_until}");
            hold.to_json(now, redact, &of_holds)
        });
        let _ = writeln!(text, "  \"holds\": {}\n}}", list(holds));
        text
    }
}

impl Entry {
    fn to_json(&self, now: SystemTime, redact: bool, details: &str) -> String {
        let key = if redact {
            redacted(&self.key)
        } else {
            self.key.to_shared()
        };
        let mode = match self.mode {
            Mode::Exclusive => "exclusive",
            Mode::Shared => "shared",
        };
        let since = now.checked_sub(self.since.elapsed()).unwrap_or(now);
        format!(
            "{{\"key\": {}, \"mode\": \"{mode}\", \"since\": {}{details}}}",
            quoted(&key),
            millis(since)
        )
    }
}

fn list(entries: impl Iterator<Item = String>) -> String {
    let entries: Vec<String> = entries.collect();
    if entries.is_empty() {
        return "[]".to_owned();
    }
    format!("[\n    {}\n  ]", entries.join(",\n    "))
}

fn or_null(number: Option<u64>) -> String {
    number.map_or_else(|| "null".to_owned(), |number| number.to_string())
}

/// A text as JSON has it.
pub(super) fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c < ' ' => {
                let _ = write!(quoted, "\\u{:04x}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
