//! Shared mode: the readers stand in the lock's own row, so that every change of the lock is one statement on one row.
//!
//! Rows of their own for readers would be write skew: a reader and a writer would each see the other's row missing. The new
//! list is made here, and written only if the row is still as it was read.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time;

use super::held::Lease;
use super::row::{KEPT, LastRun, Reader, Row, is_kept, to_json};
use super::store::{Answer, Claim, Released, Store, StoreError, Swap};

/// How often a change is tried that others come before each time.
const TRIES: u32 = 50;

/// Takes the lock in shared mode, if nobody holds it exclusively and no writer waits.
pub(super) async fn take<S: Store>(store: &S, claim: &Claim<'_>) -> Answer<Option<u64>> {
    for tries in 0..TRIES {
        let Some(row) = store.read(claim.name).await? else {
            store.create(claim.name).await?;
            continue;
        };
        let stale = claim.stale == Some(row.version);
        let doubted = store.doubts_clock() && !stale;
        let mut readers = row.readers(doubted);
        let is_mine = readers.contains_key(claim.owner);
        let is_over = stale || row.was_kept() || (!doubted && row.is_free());
        let has_writer = !row.owner.is_empty() && !is_over;
        if has_writer || (!is_mine && row.is_behind_writers(claim.owner, store.doubts_clock())) {
            return Ok(None);
        }
        let token = row.token + 1;
        let ends = row.now.saturating_add(micros(claim.ttl));
        // Whoever steals by watching has to watch for as long as the longest lease of the readers lasts.
        let of_others = if readers.is_empty() {
            Duration::ZERO
        } else {
            Duration::from_micros(u64::try_from(row.ttl).unwrap_or(0))
        };
        readers.insert(
            claim.owner.to_owned(),
            Reader(token, ends, claim.program.to_owned()),
        );
        let swap = change(
            &row,
            claim.owner,
            &readers,
            Some(token),
            claim.ttl.max(of_others),
        );
        if store.swap(claim.name, &swap).await? {
            return Ok(Some(token));
        }
        pause(tries).await;
    }
    Ok(None)
}

/// How a reader's lease ends.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct End {
    /// How long it has lasted, if somebody ran.
    pub(super) held_for: Option<Duration>,
    /// Its place stays taken for so long, and keeps writers out.
    pub(super) kept_for: Option<Duration>,
}

/// Ends a reader's lease.
pub(super) async fn release<S: Store>(store: &S, lease: &Lease) -> Answer<Released> {
    let end = End {
        held_for: Some(lease.held_for()),
        kept_for: lease.vitality().kept_for(),
    };
    release_as(store, &lease.name, &lease.owner, lease.token, end).await
}

/// Ends a reader's lease.
pub(super) async fn release_as<S: Store>(
    store: &S,
    name: &str,
    owner: &str,
    token: u64,
    end: End,
) -> Answer<Released> {
    for tries in 0..TRIES {
        let Some(row) = store.read(name).await? else {
            return Ok(NOT_HELD);
        };
        let doubted = store.doubts_clock();
        let is_wanted = row.is_wanted(doubted);
        let mut readers = row.readers(doubted);
        let held = readers.remove(owner).filter(|reader| reader.0 == token);
        let Some(Reader(_, _, program)) = held else {
            return Ok(NOT_HELD);
        };
        let last_run = end.held_for.and_then(|held_for| {
            let since = row.now.saturating_sub(micros(held_for));
            let (owner, program) = (owner.to_owned(), program.clone());
            LastRun(token, since, Some(row.now), owner, program).to_json()
        });
        let is_last = readers.keys().all(|owner| is_kept(owner));
        if let Some(kept_for) = end.kept_for {
            let ends = row.now.saturating_add(micros(kept_for));
            readers.insert(format!("{KEPT}{owner}"), Reader(token, ends, program));
        }
        let ttl = Duration::from_micros(u64::try_from(row.ttl).unwrap_or(0));
        let swap = Swap {
            last_run,
            ..change(&row, owner, &readers, None, ttl)
        };
        if store.swap(name, &swap).await? {
            return Ok(Released {
                was_held: true,
                is_wanted: is_wanted && is_last,
            });
        }
        pause(tries).await;
    }
    Err(StoreError::Again {
        reason: "others changed the lock's row each time".into(),
    })
}

const NOT_HELD: Released = Released {
    was_held: false,
    is_wanted: false,
};

fn change(
    row: &Row,
    owner: &str,
    readers: &BTreeMap<String, Reader>,
    token: Option<u64>,
    ttl: Duration,
) -> Swap {
    Swap {
        version: row.version,
        token,
        owner: owner.into(),
        readers: to_json(readers),
        expires_at: readers.values().map(|reader| reader.1).max().unwrap_or(0),
        ttl,
        last_run: None,
    }
}

/// The others who change the row are done in a moment.
async fn pause(tries: u32) {
    if tries > 0 {
        let longest = 1 << tries.min(5);
        time::sleep(Duration::from_millis(fastrand::u64(0..=longest))).await;
    }
}

/// Microseconds, the unit of the table's times.
pub(super) fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}
