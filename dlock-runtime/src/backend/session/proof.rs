//! The proof of exclusion, which needs no list of servers: two connections, one lock under a random key.
//!
//! A takes the lock; B must not get it; A gives it back; B must get it. A transaction pooler fails, since the
//! statements of both connections meet in the same session of the server, or those of one in two. So does a server
//! whose lock functions do nothing, and a name that leads to several servers.
//!
//! It costs one connection, which becomes the first waiter, and six round trips on PostgreSQL, eight on MySQL and
//! MariaDB, whose driver prepares one statement at a time.

use std::sync::Arc;

use futures_util::future::{join, try_join};

use super::driver::{AnotherSession, ConnectError, Driver, DriverError, Session};
use super::keeper::open;
use super::live::Live;
use super::{Limits, gone};
use crate::hazard::{Hazard, Hazards};
use crate::key::{Mode, ServerKey};

const SESSION_MODE: &str = "connect to the server itself, or through a pooler in session mode, or keep the locks as rows with \
    strategy=lease";
const ONE_SERVER: &str = "connect to one server, under a name of its own";
const ROOM: &str = "free a connection, or raise the limit of the server or of this account: dlock needs two to start";

/// What the proof has brought.
pub(super) struct Proof<S: Session> {
    /// The second connection, which holds nothing.
    pub(super) second: Option<Fresh<S>>,
    /// What was found and is allowed.
    pub(super) found: Option<Hazard>,
}

/// A session that ends unless it is kept. Its watch would outlive whoever opened it and gave up.
pub(super) struct Fresh<S: Session>(Option<Arc<Live<S>>>);

impl<S: Session> Fresh<S> {
    pub(super) fn keep(mut self) -> Option<Arc<Live<S>>> {
        self.0.take()
    }

    pub(super) fn get(&self) -> Option<&Arc<Live<S>>> {
        self.0.as_ref()
    }
}

impl<S: Session> From<Arc<Live<S>>> for Fresh<S> {
    fn from(live: Arc<Live<S>>) -> Self {
        Fresh(Some(live))
    }
}

impl<S: Session> Drop for Fresh<S> {
    fn drop(&mut self) {
        if let Some(live) = &self.0 {
            live.lose("no longer needed");
        }
    }
}

/// Opens a second session and proves that it and `first` exclude each other.
pub(super) async fn prove<D: Driver>(
    driver: &D,
    limits: Limits,
    allowed: &Hazards,
    first: &Live<D::Session>,
) -> Result<Proof<D::Session>, ConnectError> {
    let second = match open(driver, limits).await {
        Ok(second) => second,
        Err(ConnectError::TooMany { .. }) if allowed.contains(Hazard::Unproved) => {
            return Ok(Proof {
                second: None,
                found: Some(Hazard::Unproved),
            });
        }
        Err(ConnectError::TooMany { reason, .. }) => {
            return Err(ConnectError::Unsafe {
                reason: format!(
                    "the server has no second connection for the proof that its locks exclude: {reason}"
                ),
                remedy: Hazard::Unproved.remedy(ROOM),
            });
        }
        Err(error) => return Err(error),
    };
    let kept = Fresh::from(second.clone());
    let key = driver.server_key(&format!("dlock-proof:{:032x}", fastrand::u128(..)));
    let mut outcome = exclusion(first, &second, &key).await;
    if let Err(Flaw::Error(error)) = &outcome
        && let Some(mistaken) = [first, &*second]
            .into_iter()
            .find(|live| live.is_mistaken())
    {
        // A heartbeat has found out meanwhile, and closed the connection.
        let seen = mistaken.vitality().lost();
        outcome = Err(not_one_session(
            &seen.map_or_else(|| error.to_string(), |seen| seen.as_ref().to_owned()),
        ));
    }
    match outcome {
        Ok(()) => Ok(Proof {
            second: Some(kept),
            found: None,
        }),
        Err(Flaw::NoExclusion { .. }) if allowed.contains(Hazard::NoExclusion) => {
            // Nobody knows who holds it; whoever does not is told so.
            let _ = join(
                first.ask(first.session().unlock(&key, Mode::Exclusive)),
                second.ask(second.session().unlock(&key, Mode::Exclusive)),
            )
            .await;
            Ok(Proof {
                second: None,
                found: Some(Hazard::NoExclusion),
            })
        }
        Err(Flaw::NoExclusion { seen, better }) => Err(ConnectError::Unsafe {
            reason: seen,
            remedy: Hazard::NoExclusion.remedy(better),
        }),
        Err(Flaw::Error(DriverError::Gone { reason, source })) => {
            Err(ConnectError::Unreachable { reason, source })
        }
        Err(Flaw::Error(error @ DriverError::Refused { .. })) => Err(ConnectError::Unsafe {
            reason: format!(
                "the server refused a statement of the proof that its locks exclude: {error}"
            ),
            remedy: SESSION_MODE.to_owned(),
        }),
    }
}

/// Why there is no proof.
enum Flaw {
    NoExclusion { seen: String, better: &'static str },
    Error(DriverError),
}

impl From<DriverError> for Flaw {
    fn from(error: DriverError) -> Flaw {
        if AnotherSession::is_behind(&error) {
            return not_one_session(&error.to_string());
        }
        Flaw::Error(error)
    }
}

fn not_one_session(seen: &str) -> Flaw {
    no_exclusion(&format!(
        "a connection is not one session of the server ({seen}): \
         a transaction pooler such as PgBouncer in transaction mode"
    ))
}

fn no_exclusion(seen: &str) -> Flaw {
    Flaw::NoExclusion {
        seen: seen.to_owned(),
        better: SESSION_MODE,
    }
}

async fn exclusion<S: Session>(a: &Live<S>, b: &Live<S>, key: &ServerKey) -> Result<(), Flaw> {
    if a.session().identity() != b.session().identity() {
        return Err(Flaw::NoExclusion {
            seen: "two connections have reached two different servers, whose locks do not exclude each other"
                .to_owned(),
            better: ONE_SERVER,
        });
    }
    try_join(a.ask(a.session().prepare()), b.ask(b.session().prepare())).await?;
    if !try_lock(a, key).await? {
        return Err(no_exclusion(
            "a lock under a random key, which nobody can hold, was not granted",
        ));
    }
    if try_lock(b, key).await? {
        return Err(no_exclusion(
            "two connections were granted the same lock: a transaction pooler such as PgBouncer in transaction mode, \
             or a server without session locks",
        ));
    }
    if !unlock(a, key).await? {
        return Err(no_exclusion(
            "a connection was granted a lock, and then did not hold it: a transaction pooler such as PgBouncer in \
             transaction mode, or a server without session locks",
        ));
    }
    if !try_lock(b, key).await? {
        return Err(no_exclusion(
            "a lock that was given back stayed taken: a transaction pooler such as PgBouncer in transaction mode",
        ));
    }
    // Both at once: a pooler cannot answer them from the same session.
    let (unlocked, checked) = join(unlock(b, key), a.check()).await;
    if !unlocked? {
        return Err(no_exclusion(
            "a connection was granted a lock, and then did not hold it: a transaction pooler such as PgBouncer in \
             transaction mode, or a server without session locks",
        ));
    }
    Ok(checked?)
}

async fn try_lock<S: Session>(live: &Live<S>, key: &ServerKey) -> Result<bool, DriverError> {
    let granted = live
        .ask(live.session().try_lock(key, Mode::Exclusive))
        .await?;
    stands(live)?;
    Ok(granted)
}

async fn unlock<S: Session>(live: &Live<S>, key: &ServerKey) -> Result<bool, DriverError> {
    let held = live
        .ask(live.session().unlock(key, Mode::Exclusive))
        .await?;
    stands(live)?;
    Ok(held)
}

/// What was seen while this process stood still for longer than the limit proves nothing: the server has ended the
/// session and freed the lock.
fn stands<S: Session>(live: &Live<S>) -> Result<(), DriverError> {
    live.vitality()
        .lost()
        .map_or(Ok(()), |reason| Err(gone(&reason)))
}
