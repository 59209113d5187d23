//! Ending the sessions of others for one of their locks.

use std::sync::Arc;

use super::driver::{Driver, Listed, Session};
use super::keeper::Keeper;
use super::live::Live;
use super::waiters::Waiters;
use crate::backend::{NotKicked, Untold, Warrant};
use crate::error::Unsupported;
use crate::key::ServerKey;
use crate::listing::{LockInfo, Party};

/// The locks in use, or the one of that name.
pub(super) async fn list<S: Session>(
    live: &Live<S>,
    only: Option<&ServerKey>,
    mut own: Vec<i64>,
) -> Result<Vec<LockInfo>, Untold> {
    own.push(live.session().id());
    match live.ask(live.session().list(only, &own)).await? {
        Listed::Locks(locks) => Ok(locks),
        Listed::Untold { remedy } => Err(Untold::Unsupported(Unsupported {
            what: format!("a list of the locks on {}", live.session().server()),
            remedy,
        })),
    }
}

/// Ends the sessions that hold the lock, and says which. Without `force` only those that hold nothing else.
pub(super) async fn kick<D: Driver>(
    keeper: Arc<Keeper<D>>,
    waiters: Arc<Waiters<D>>,
    key: ServerKey,
    force: bool,
    warrant: Arc<Warrant>,
) -> Result<Vec<Party>, NotKicked> {
    let live = keeper.get().await.map_err(Untold::Trouble)?;
    // Whoever forces it need not see what else ends.
    let locks = list(&live, force.then_some(&key), waiters.out()).await?;
    let (wanted, others): (Vec<_>, Vec<_>) =
        locks.into_iter().partition(|lock| lock.server_key == key);
    let holders: Vec<Party> = wanted.into_iter().flat_map(|lock| lock.holders).collect();
    // Looked at again: a session of ours may have been granted the lock since the question was sent.
    let mut own = waiters.out();
    own.push(live.session().id());
    let is_own = |holder: &Party| {
        let session = holder.who.session;
        holder.who.this_process || session.is_some_and(|session| own.contains(&session))
    };
    if holders.iter().any(is_own) {
        return Err(NotKicked::Own);
    }
    // Nor would it become free if those were ended that are there beside it.
    if holders.iter().any(|holder| holder.who.session.is_none()) {
        return Err(NotKicked::from(Untold::Unsupported(Unsupported {
            what: "kicking a prepared transaction, which has no session that could be ended,".into(),
            remedy: "commit it or roll it back: COMMIT PREPARED or ROLLBACK PREPARED, with its name from pg_prepared_xacts"
                .into(),
        })));
    }
    let is_one = |party: &Party| {
        let session = party.who.session;
        holders.iter().any(|holder| holder.who.session == session)
    };
    let others: Vec<LockInfo> = others
        .into_iter()
        .filter(|lock| lock.holders.iter().any(is_one))
        .collect();
    if !(force || others.is_empty()) {
        return Err(NotKicked::HoldsMore(others));
    }
    let mut kicked = Vec::new();
    for holder in holders {
        let Some(session) = holder.who.session else {
            continue;
        };
        if !warrant.serve() {
            return Err(NotKicked::Withdrawn);
        }
        let ended = live.ask(live.session().kill(session, &key)).await;
        if ended.map_err(Untold::from)? {
            kicked.push(holder);
        }
    }
    Ok(kicked)
}
