//! Revoking the leases of others.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time;

use super::list;
use super::row::{REVOKED, Row, is_kept, to_json};
use super::store::{Store, StoreError, Swap};
use crate::backend::{NotKicked, Untold, Warrant};
use crate::listing::Party;

/// How often a row is tried that is changed or locked each time.
const TRIES: u32 = 20;

/// Takes the lease away from whoever holds it. The row stays until the lease would have expired: until then the holder, who is
/// told at its next renewal, may believe that it holds the lock.
pub(super) async fn kick<S: Store>(
    store: &S,
    name: &str,
    mark: &str,
    warrant: &Warrant,
) -> Result<Vec<Party>, NotKicked> {
    let mut last = None;
    // Whose locks only stayed taken: nobody has to be told, and they are free at once.
    let mut kept = Vec::new();
    for tries in 0..TRIES {
        let mut rows = store.list(Some(name)).await.map_err(Untold::from)?;
        let Some(stamped) = rows.pop() else {
            return Ok(kept);
        };
        let version = stamped.row.version;
        if let Some(free) = without_kept(&stamped.row) {
            let parties = list::info(stamped, mark, store.doubts_clock()).map(|lock| lock.holders);
            if !warrant.serve() {
                return Err(NotKicked::Withdrawn);
            }
            match store.swap(name, &free).await {
                Ok(true) => kept.extend(
                    parties
                        .into_iter()
                        .flatten()
                        .filter(|party| party.who.kept_for.is_some()),
                ),
                Ok(false) => last = None,
                Err(error @ StoreError::Again { .. }) => last = Some(error),
                Err(error) => return Err(Untold::from(error).into()),
            }
            // Whoever waits learns of it now, and who runs is kicked next.
            store.wake(name).await;
            continue;
        }
        let is_revoked = stamped.row.owner == REVOKED;
        let holders = list::info(stamped, mark, store.doubts_clock()).map(|lock| lock.holders);
        let holders = holders.unwrap_or_default();
        if holders.is_empty() || is_revoked {
            return Ok(kept);
        }
        if holders.iter().any(|holder| holder.who.this_process) {
            return Err(NotKicked::Own);
        }
        if !warrant.serve() {
            return Err(NotKicked::Withdrawn);
        }
        match store.revoke(name, version).await {
            Ok(true) => {
                kept.extend(holders);
                return Ok(kept);
            }
            // Renewed or released meanwhile.
            Ok(false) => last = None,
            Err(error @ StoreError::Again { .. }) => last = Some(error),
            Err(error) => return Err(Untold::from(error).into()),
        }
        time::sleep(Duration::from_millis(5) * tries.min(10)).await;
    }
    let error = last.unwrap_or(StoreError::Again {
        reason: "others changed the lock's row each time".into(),
    });
    Err(Untold::from(error).into())
}

/// The row without those who have released the lock, if there are some.
fn without_kept(row: &Row) -> Option<Swap> {
    let (kept, readers): (BTreeMap<_, _>, BTreeMap<_, _>) = row
        .readers(true)
        .into_iter()
        .partition(|(owner, _)| is_kept(owner));
    let is_kept = !row.is_free() && is_kept(&row.owner);
    if !is_kept && kept.is_empty() {
        return None;
    }
    Some(Swap {
        version: row.version,
        token: None,
        owner: "".into(),
        expires_at: readers.values().map(|reader| reader.1).max().unwrap_or(0),
        readers: to_json(&readers),
        ttl: Duration::from_micros(u64::try_from(row.ttl).unwrap_or(0)),
        last_run: None,
    })
}
