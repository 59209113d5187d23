//! Renewing leases by hand.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use smallvec::SmallVec;

use super::frame::Locked;
use crate::clock::Moment;
use crate::error::{Error, unsupported};
use crate::key::KeyText;
use crate::queue::lost;

/// The shortest time that a lease may last, and the longest.
pub(crate) const MIN_TTL: Duration = Duration::from_secs(1);
pub(crate) const MAX_TTL: Duration = Duration::from_secs(24 * 3600);

type Renewing = BoxFuture<'static, Result<(), Arc<str>>>;

/// Renews the leases of some locks. They are on their way when this returns.
pub(crate) fn renew_all<'a>(
    locks: impl Iterator<Item = &'a Locked>,
    ttl: Duration,
) -> impl Future<Output = Result<(), Error>> + Send + 'static {
    let mut renewing = SmallVec::<[(KeyText, Renewing); 1]>::new();
    let mut refused = None;
    if !(MIN_TTL..=MAX_TTL).contains(&ttl) {
        refused = Some(unsupported(
            format!("a lease of {ttl:?}"),
            "a lease lasts from 1 s to 24 h",
        ));
    }
    for locked in locks {
        if refused.is_some() {
            break;
        }
        match locked.vitality.renew(ttl) {
            Some(renewal) => renewing.push((locked.key.clone(), renewal)),
            None => {
                refused = Some(unsupported(
                    "renewing a lock that is no lease".to_owned(),
                    "leave it out: a session lock is kept as long as its connection lives, or use strategy=lease",
                ));
            }
        }
    }
    async move {
        if let Some(error) = refused {
            return Err(error);
        }
        let mut result = Ok(());
        for (key, renewal) in renewing {
            let renewed = renewal.await.map_err(|reason| lost(&key, &reason));
            result = result.and(renewed);
        }
        result
    }
}

/// Lets leases last until then, whatever becomes of this process. What is no lease is left out.
pub(crate) fn promise_all<'a>(
    locks: impl Iterator<Item = &'a Locked>,
    until: Moment,
) -> impl Future<Output = Result<(), Error>> + Send + 'static {
    let promise = |locked: &'a Locked| Some((locked.key.clone(), locked.vitality.promise(until)?));
    let promising: SmallVec<[(KeyText, Renewing); 1]> = locks.filter_map(promise).collect();
    async move {
        for (key, promise) in promising {
            promise.await.map_err(|reason| lost(&key, &reason))?;
        }
        Ok(())
    }
}
