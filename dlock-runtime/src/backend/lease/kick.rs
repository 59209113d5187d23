//! Revoking the leases of others.

use std::time::Duration;

use tokio::time;

use super::list;
use super::row::REVOKED;
use super::store::{Store, StoreError};
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
    for tries in 0..TRIES {
        let mut rows = store.list(Some(name)).await.map_err(Untold::from)?;
        let Some(stamped) = rows.pop() else {
            return Ok(Vec::new());
        };
        let version = stamped.row.version;
        let is_revoked = stamped.row.owner == REVOKED;
        let holders = list::info(stamped, mark, store.doubts_clock()).map(|lock| lock.holders);
        let holders = holders.unwrap_or_default();
        if holders.is_empty() || is_revoked {
            return Ok(Vec::new());
        }
        if holders.iter().any(|holder| holder.who.this_process) {
            return Err(NotKicked::Own);
        }
        if !warrant.serve() {
            return Err(NotKicked::Withdrawn);
        }
        match store.revoke(name, version).await {
            Ok(true) => return Ok(holders),
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
