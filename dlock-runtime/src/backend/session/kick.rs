//! Ending the sessions of others for one of their locks.

use std::sync::Arc;

use super::driver::{Driver, DriverError, Listed, Session};
use super::keeper::Keeper;
use super::live::Live;
use super::waiters::Waiters;
use crate::backend::{NotKicked, Trouble, Untold};
use crate::error::Unsupported;
use crate::key::ServerKey;
use crate::listing::{LockInfo, Party};

/// The locks in use, or the one of that name.
pub(super) async fn list<S: Session>(
    live: &Live<S>,
    only: Option<&ServerKey>,
    mut own: Vec<i64>,
) -> Result<Vec<LockInfo>, Untold> {
    let untold = |remedy| {
        Err(Untold::Unsupported(Unsupported {
            what: format!("a list of the locks on {}", live.session().server()),
            remedy,
        }))
    };
    own.push(live.session().id());
    match live.ask(live.session().list(only, &own)).await {
        Ok(Listed::Locks(locks)) => Ok(locks),
        Ok(Listed::Untold { remedy }) => untold(remedy),
        Err(DriverError::Refused { code, message, .. }) => {
            untold(format!("the server refused it: {message} ({code})"))
        }
        Err(DriverError::Gone { reason, source }) => {
            Err(Untold::Trouble(Trouble { reason, source }))
        }
    }
}

/// Ends the sessions that hold the lock. Without `force` only those that hold nothing else.
pub(super) async fn kick<D: Driver>(
    keeper: Arc<Keeper<D>>,
    waiters: Arc<Waiters<D>>,
    key: ServerKey,
    force: bool,
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
    for session in holders.iter().filter_map(|holder| holder.who.session) {
        match live.ask(live.session().kill(session, &key)).await {
            Ok(()) => {}
            Err(DriverError::Refused {
                code,
                message,
                source,
            }) => {
                return Err(NotKicked::Refused {
                    code,
                    message,
                    source,
                });
            }
            Err(DriverError::Gone { reason, source }) => {
                return Err(Untold::Trouble(Trouble { reason, source }).into());
            }
        }
    }
    Ok(holders)
}
