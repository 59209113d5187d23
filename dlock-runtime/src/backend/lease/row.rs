//! One row of the table: all that is known of one lock, its readers included.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::shared::micros;

/// A row, read at one moment. Times are microseconds of the database's clock.
#[derive(Clone, Debug, Default)]
pub(crate) struct Row {
    /// Raised with each take.
    pub(crate) token: u64,
    /// Who holds the lock exclusively; empty: nobody does.
    pub(crate) owner: String,
    pub(crate) program: String,
    /// By owner.
    pub(crate) readers: BTreeMap<String, Reader>,
    pub(crate) waiters: BTreeMap<String, Waiter>,
    /// Raised with each change but announcements.
    pub(crate) version: u64,
    /// The end of the last lease.
    pub(crate) expires_at: i64,
    /// How long the last lease that was given or renewed lasts.
    pub(crate) ttl: i64,
    /// When the row was read.
    pub(crate) now: i64,
}

/// The owner of a lease that was taken away, until its time has passed. No acquisition has this name.
pub(crate) const REVOKED: &str = "#revoked";

/// What the owner of a lock begins with that was released, and stays taken until `min_hold` has passed; the owner that it had
/// follows. No owner begins so.
pub(crate) const KEPT: &str = "#kept ";

/// Whether a lock of this owner was released, and stays taken for a while.
pub(crate) fn is_kept(owner: &str) -> bool {
    owner.starts_with(KEPT)
}

/// Whether this owner held the lock until its lease ran out, or was revoked: nobody has noted its end.
pub(crate) fn is_forgotten(owner: &str) -> bool {
    !owner.is_empty() && !is_kept(owner)
}

/// A row of a list.
#[derive(Clone, Debug)]
pub(crate) struct Stamped {
    pub(crate) name: String,
    /// When the present holder took the lock, if it holds it exclusively.
    pub(crate) acquired_at: i64,
    pub(crate) last_run: Option<LastRun>,
    pub(crate) row: Row,
}

/// The last holder that has gone: token, when it took the lock, when it gave it back (`None`: its lease ran out, or was
/// revoked), owner and program, an array of JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LastRun(
    pub(crate) u64,
    pub(crate) i64,
    pub(crate) Option<i64>,
    pub(crate) String,
    pub(crate) String,
);

impl LastRun {
    /// Reads the column. What is not of our making counts as none.
    pub(crate) fn parse(text: Option<&str>) -> Option<LastRun> {
        serde_json::from_str(text?).ok()
    }

    pub(crate) fn to_json(&self) -> Option<String> {
        serde_json::to_string(self).ok()
    }
}

/// Somebody who holds the lock in shared mode: token, end and program, an array of JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reader(pub(crate) u64, pub(crate) i64, pub(crate) String);

/// Somebody who waits: since when, until when the announcement counts, and whether exclusively (1) or not (0).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Waiter(pub(crate) i64, pub(crate) i64, pub(crate) u8);

/// How long an announcement counts at most where the clock is doubted.
pub(crate) const DOUBTED_NOTICE: Duration = Duration::from_secs(15);

impl Waiter {
    /// Whether somebody waits, as far as the announcement tells. Where the clock is doubted, one that counts for longer than any
    /// was made by another clock: whoever made it may have been killed, and must not keep readers out for hours.
    fn is_present(&self, now: i64, doubted: bool) -> bool {
        self.1 > now && !(doubted && self.is_ahead(now))
    }

    /// Whether the announcement can be taken out of the row. Whoever waits after all makes it again.
    pub(crate) fn has_gone(&self, now: i64, doubted: bool) -> bool {
        if doubted {
            self.is_ahead(now) || self.1.saturating_add(micros(DOUBTED_NOTICE)) <= now
        } else {
            self.1 <= now
        }
    }

    fn is_ahead(&self, now: i64) -> bool {
        self.1 > now.saturating_add(micros(DOUBTED_NOTICE))
    }
}

impl Row {
    /// Whether nobody holds the lock.
    pub(crate) fn is_free(&self) -> bool {
        self.expires_at <= self.now
    }

    /// Whether the lock was released, and the time for which it stayed taken has passed. No body runs under it, so the clock
    /// is good enough also where it is doubted.
    pub(crate) fn was_kept(&self) -> bool {
        self.is_free() && is_kept(&self.owner)
    }

    /// Whether everybody who held the lock has given it back, whatever the clock is worth.
    pub(crate) fn is_given_back(&self) -> bool {
        (self.owner.is_empty() || self.was_kept()) && self.readers(true).is_empty()
    }

    /// The readers whose leases have not expired; where the clock is doubted, all of them.
    pub(crate) fn readers(&self, doubted: bool) -> BTreeMap<String, Reader> {
        let mut readers = self.readers.clone();
        readers.retain(|owner, reader| reader.1 > self.now || (doubted && !is_kept(owner)));
        readers
    }

    /// Those who wait, as far as their announcements tell.
    pub(crate) fn present(&self, doubted: bool) -> impl Iterator<Item = (&String, &Waiter)> {
        let waiters = self.waiters.iter();
        waiters.filter(move |(_, waiter)| waiter.is_present(self.now, doubted))
    }

    /// Whether somebody waits.
    pub(crate) fn is_wanted(&self, doubted: bool) -> bool {
        self.present(doubted).next().is_some()
    }

    /// Those whose announcements have been left behind.
    pub(crate) fn gone(&self, doubted: bool) -> impl Iterator<Item = &String> {
        let waiters = self.waiters.iter();
        let gone = waiters.filter(move |(_, waiter)| waiter.has_gone(self.now, doubted));
        gone.map(|(owner, _)| owner)
    }

    /// Whether a reader has to let others pass: those who wait for the lock exclusively, and began before it did.
    pub(crate) fn is_behind_writers(&self, reader: &str, doubted: bool) -> bool {
        let since = self.waiters.get(reader).map(|waiter| waiter.0);
        self.present(doubted)
            .any(|(_, waiter)| waiter.2 == 1 && since.is_none_or(|since| waiter.0 <= since))
    }
}

/// Whether somebody among those who wait is still there.
pub(crate) fn any_waits(waiters: &str, now: i64) -> bool {
    // The usual case, without a parser.
    waiters != "{}"
        && parse::<Waiter>(waiters)
            .values()
            .any(|waiter| waiter.is_present(now, false))
}

/// Reads a column. What is not of our making is left out.
pub(crate) fn parse<T: for<'a> Deserialize<'a>>(text: &str) -> BTreeMap<String, T> {
    let entries: BTreeMap<String, Value> = serde_json::from_str(text).unwrap_or_default();
    let entries = entries.into_iter();
    entries
        .filter_map(|(owner, entry)| Some((owner, serde_json::from_value(entry).ok()?)))
        .collect()
}

/// Writes a column.
pub(crate) fn to_json<T: Serialize>(entries: &BTreeMap<String, T>) -> String {
    serde_json::to_string(entries).unwrap_or_else(|_| "{}".to_owned())
}
