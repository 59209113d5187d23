//! Leases: locks as rows of a table, each held until a time.
//!
//! One algorithm for every database. Taking a lock is one statement: it changes the lock's row if the row is free or its
//! lease has expired, and counts the fencing token up. What is held is renewed each third of its ttl, all leases of a locker
//! in one statement. Whoever waits announces itself in the row; a release that finds such an announcement wakes those who
//! wait, where the database has a way to, and elsewhere they ask from time to time.

mod bells;
mod courtesy;
mod doubts;
mod held;
#[cfg(test)]
mod kept;
mod kick;
#[cfg(test)]
mod late;
#[cfg(test)]
mod left;
#[cfg(any(feature = "postgres", feature = "mysql"))]
mod link;
mod list;
#[cfg(feature = "mysql")]
pub(crate) mod mysql;
pub(crate) mod open;
#[cfg(feature = "postgres")]
pub(crate) mod postgres;
mod row;
mod shared;
#[cfg(feature = "sqlite")]
mod sqlite;
mod store;
mod take;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use futures_channel::oneshot;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use super::{
    Backend, Connections, Errand, GivenBack, Grant, Hold, NotKicked, Taken, Trouble, Untold,
    Warrant,
};
use crate::clock::Moment;
use crate::config::LeaseSettings;
use crate::error::{Holder, Unsupported};
use crate::key::{Key, Mode, ServerKey};
use crate::listing::{LockInfo, Party};
use bells::Bells;
use courtesy::Courtesy;
use doubts::Doubts;
use held::{Held, Lease, Renewals};
use row::is_kept;
use store::{Answer, Released, Store, StoreError};

/// How many leases one statement renews at most.
const AT_ONCE: usize = 1000;

/// How long one confirmation counts: the rest of the ttl is for the body to be stopped in.
fn validity(ttl: Duration) -> Duration {
    ttl.mul_f64(0.9)
}

/// How long an answer of the database may take before its connection counts as stalled. A server that is gone is found out
/// within this time, however long leases last.
fn answers_within(ttl: Duration) -> Duration {
    (ttl / 3).min(Duration::from_secs(10))
}

/// Leases in one table.
pub(crate) struct Leases<S: Store> {
    store: Arc<S>,
    settings: LeaseSettings,
    held: Arc<Held>,
    bells: Bells,
    courtesy: Courtesy,
    doubts: Doubts,
    /// The owner of each acquisition is made of these.
    nonce: u64,
    acquisitions: AtomicU64,
    /// The I/O thread's: what has to outlast its caller runs there.
    runtime: Handle,
    keeper: Mutex<Option<AbortHandle>>,
}

impl<S: Store> Leases<S> {
    /// Begins to keep leases. Runs on the I/O thread.
    pub(crate) fn new(store: S, bells: Bells, settings: LeaseSettings) -> Arc<Self> {
        let leases = Arc::new(Leases {
            store: Arc::new(store),
            held: Arc::default(),
            bells,
            courtesy: Courtesy::default(),
            doubts: Doubts::default(),
            nonce: fastrand::u64(..),
            acquisitions: AtomicU64::new(0),
            runtime: Handle::current(),
            keeper: Mutex::new(None),
            settings,
        });
        let renewals = Renewals {
            automatic: leases.settings.auto_renew,
            period: leases.settings.ttl / 3,
        };
        let keeping = held::keep(leases.store.clone(), Arc::downgrade(&leases.held), renewals);
        let unkept = Unkept(Arc::downgrade(&leases));
        let task = tokio::spawn(async move {
            let _unkept = unkept;
            keeping.await;
        });
        *leases.keeper() = Some(task.abort_handle());
        leases
    }

    /// An owner that no other acquisition has, here or elsewhere.
    fn new_owner(&self) -> Arc<str> {
        let number = self.acquisitions.fetch_add(1, Ordering::Relaxed);
        format!("{}#{:016x}.{number}", self.settings.owner, self.nonce).into()
    }

    /// A take of this owner was lost, and the owner given up.
    fn doubt(&self, name: &Arc<str>, owner: &Arc<str>) {
        let ttl = self.settings.ttl;
        self.doubts
            .watch(&self.runtime, &self.store, name, owner, ttl);
    }

    /// What the owners of this locker's acquisitions have in them, and no others.
    fn mark(&self) -> String {
        format!("#{:016x}.", self.nonce)
    }

    /// A lease that was taken with a statement sent at `sent`.
    fn hold(
        self: &Arc<Self>,
        errand: &Errand,
        name: &Arc<str>,
        owner: &Arc<str>,
        token: u64,
        sent: Moment,
    ) -> Hold {
        let lease = Lease::new(
            name,
            owner,
            token,
            errand.want.mode,
            self.settings.ttl,
            sent,
        );
        let vitality = lease.vitality().clone();
        let (leases, renewed) = (Arc::downgrade(self), Arc::downgrade(&lease));
        vitality.renew_with(Box::new(move |ttl| renew(&leases, &renewed, ttl)));
        let id = self.held.add(&lease);
        Hold {
            vitality,
            grant: Box::new(LeaseGrant {
                leases: self.clone(),
                lease: Some(lease),
                id,
            }),
        }
    }

    /// Gives a lease back; the error says why it was not held any more.
    async fn give_back(&self, lease: &Lease, id: u64) -> Result<(), Arc<str>> {
        lease.stop().await;
        let result = self.release(lease).await;
        self.held.remove(id);
        result
    }

    async fn release(&self, lease: &Lease) -> Result<(), Arc<str>> {
        let vitality = lease.vitality();
        // Whether an earlier attempt may have been carried out.
        let mut unknown = false;
        loop {
            if let Some(reason) = vitality.lost() {
                return Err(reason);
            }
            match release_once(&*self.store, lease).await {
                Ok(Released {
                    was_held: true,
                    is_wanted,
                }) => {
                    self.has_released(&lease.name, is_wanted);
                    return Ok(());
                }
                // While it is vouched for nobody can have taken it, unless it was released before.
                Ok(_) if unknown && vitality.stands() => return Ok(()),
                Ok(_) => {
                    vitality
                        .lose("the table says that the lease had another owner, or had expired");
                }
                Err(StoreError::Refused { code, message, .. }) => {
                    vitality.lose(format!(
                        "the server refused the release: {message} ({code})"
                    ));
                }
                Err(error) => {
                    unknown |= matches!(error, StoreError::Gone { .. });
                    self.store.pause().await;
                }
            }
        }
    }

    /// A lock of ours was released: wakes those who wait, apart from the release. Also where it stays taken for a while, so
    /// that they learn for how long.
    fn has_released(&self, name: &Arc<str>, is_wanted: bool) {
        self.courtesy.released(name, is_wanted);
        if is_wanted && self.store.wakes() {
            let (store, name) = (self.store.clone(), name.clone());
            self.runtime.spawn(async move { store.wake(&name).await });
        }
    }

    fn keeper(&self) -> std::sync::MutexGuard<'_, Option<AbortHandle>> {
        self.keeper.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Store> Backend for Leases<S> {
    fn server_key(&self, key: &Key) -> ServerKey {
        ServerKey::Name(key.text().clone())
    }

    fn shared_mode(&self) -> Result<(), Unsupported> {
        Ok(())
    }

    fn take(self: Arc<Self>, errand: Arc<Errand>) -> BoxFuture<'static, Taken> {
        async move { take::take(&self, &errand).await }.boxed()
    }

    fn admits_reader<'a>(&'a self, key: &'a ServerKey) -> BoxFuture<'a, bool> {
        let (store, name) = (self.store.clone(), name_of(key));
        let doubted = store.doubts_clock();
        let asked = self.runtime.spawn(async move { store.read(&name).await });
        async move {
            match asked.await {
                Ok(Ok(Some(row))) => !row.is_behind_writers("", doubted),
                _ => false,
            }
        }
        .boxed()
    }

    fn holder<'a>(&'a self, key: &'a ServerKey) -> BoxFuture<'a, Result<Option<Holder>, Untold>> {
        let (store, name) = (self.store.clone(), name_of(key));
        // To its end, also when the caller gives up.
        let asked = self.runtime.spawn(async move {
            let mut tries = 1;
            loop {
                match store.read(&name).await {
                    Err(StoreError::Again { .. }) if tries < TRIES => {
                        tries += 1;
                        store.pause().await;
                    }
                    row => return row,
                }
            }
        });
        async move {
            let row = asked.await.map_err(|_| panicked())??;
            let Some(row) = row.filter(|row| !row.is_free()) else {
                return Ok(None);
            };
            let readers = row.readers(false);
            // Somebody who runs, before somebody who has run.
            let mut readers = readers.iter();
            let kept = readers.clone().next();
            let reader = readers.find(|(owner, _)| !is_kept(owner)).or(kept);
            let (owner, program, ends) = match reader {
                Some((owner, reader)) if row.owner.is_empty() => (owner, &reader.2, reader.1),
                _ => (&row.owner, &row.program, row.expires_at),
            };
            let kept_for = list::kept_for(owner, row.now, ends);
            let ours = self.mark();
            let others = row
                .present(self.store.doubts_clock())
                .filter(|(owner, _)| !owner.contains(&ours));
            Ok(Some(Holder {
                waiting: u64::try_from(others.count()).ok(),
                kept_for,
                ..list::holder(owner, program, &ours)
            }))
        }
        .boxed()
    }

    fn list<'a>(
        &'a self,
        only: Option<&'a ServerKey>,
    ) -> BoxFuture<'a, Result<Vec<LockInfo>, Untold>> {
        let (store, one, only) = (self.store.clone(), only.is_some(), only.map(name_of));
        // To its end, also when the caller gives up.
        let asked = self
            .runtime
            .spawn(async move { store.list(only.as_deref()).await });
        async move {
            let rows = asked.await.map_err(|_| panicked())??;
            let (mark, doubted) = (self.mark(), self.store.doubts_clock());
            let infos = rows.into_iter();
            let infos = infos.filter_map(|row| list::info(row, &mark, doubted));
            // Of all that there are, those that nobody uses are no news.
            Ok(infos.filter(|lock| one || lock.is_in_use()).collect())
        }
        .boxed()
    }

    fn kick<'a>(
        &'a self,
        key: &'a ServerKey,
        _: bool,
        warrant: Arc<Warrant>,
    ) -> BoxFuture<'a, Result<Vec<Party>, NotKicked>> {
        let (store, name, mark) = (self.store.clone(), name_of(key), self.mark());
        let asked = self
            .runtime
            .spawn(async move { kick::kick(&*store, &name, &mark, &warrant).await });
        async move { asked.await.map_err(|_| panicked())? }.boxed()
    }

    fn connections(&self) -> Connections {
        Connections {
            keepers: self.store.connections(),
            waiters: 0,
        }
    }

    fn close(&self, reason: &str) {
        // Before the keeper ends: with its last breath it would lose them itself, and nobody would free them.
        let lost = self.held.lose_all(reason);
        if let Some(keeper) = self.keeper().take() {
            keeper.abort();
        }
        let store = self.store.clone();
        if lost.is_empty() {
            return store.close(reason);
        }
        // Nobody vouches for them any more: the others need not wait for their end.
        let reason: Arc<str> = reason.into();
        self.runtime.spawn(async move {
            for lease in lost {
                let _ = release_early(&*store, &lease).await;
            }
            store.close(&reason);
        });
    }
}

/// Ends the leases whose keeper has ended, be it with a panic: nobody else would renew them.
struct Unkept<S: Store>(Weak<Leases<S>>);

impl<S: Store> Drop for Unkept<S> {
    fn drop(&mut self) {
        if let Some(leases) = self.0.upgrade() {
            leases.held.lose_all("the renewals have ended");
        }
    }
}

/// Renews one lease, on the I/O thread, also when the caller gives up.
fn renew<S: Store>(
    leases: &Weak<Leases<S>>,
    lease: &Weak<Lease>,
    ttl: Option<Duration>,
) -> BoxFuture<'static, Result<(), Arc<str>>> {
    let gone = || Err::<(), Arc<str>>("the lock was released".into());
    let (Some(leases), Some(lease)) = (leases.upgrade(), lease.upgrade()) else {
        return std::future::ready(gone()).boxed();
    };
    if ttl.is_none() && lease.lasts_as_promised() {
        return std::future::ready(Ok(())).boxed();
    }
    let ttl = ttl.unwrap_or_else(|| lease.ttl());
    let (reply, answer) = oneshot::channel();
    let runtime = leases.runtime.clone();
    runtime.spawn(async move {
        let _ = reply.send(held::renew_one(&*leases.store, &leases.held, &lease, ttl).await);
    });
    async move {
        let stopped = || Err::<(), Arc<str>>("the I/O thread of dlock has stopped".into());
        answer.await.unwrap_or_else(|_| stopped())
    }
    .boxed()
}

/// A lease that is held.
struct LeaseGrant<S: Store> {
    leases: Arc<Leases<S>>,
    /// Empty once it is on its way back.
    lease: Option<Arc<Lease>>,
    id: u64,
}

impl<S: Store> Grant for LeaseGrant<S> {
    fn give_back(mut self: Box<Self>) -> GivenBack {
        let Some(lease) = self.lease.take() else {
            return GivenBack::Now(Ok(()));
        };
        let (leases, id) = (self.leases.clone(), self.id);
        if let Some(reason) = lease.vitality().lost() {
            leases.held.remove(id);
            leases.abandon(lease);
            return GivenBack::Now(Err(reason));
        }
        GivenBack::Later(async move { leases.give_back(&lease, id).await }.boxed())
    }
}

impl<S: Store> Drop for LeaseGrant<S> {
    fn drop(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease
                .vitality()
                .lose("a lock was dropped without being given back");
            self.leases.held.remove(self.id);
            self.leases.abandon(lease);
        }
    }
}

impl<S: Store> Leases<S> {
    /// A lease that nobody vouches for any more is freed before its time, if that can be done.
    fn abandon(&self, lease: Arc<Lease>) {
        let store = self.store.clone();
        self.runtime.spawn(async move {
            lease.stop().await;
            let released = release_early(&*store, &lease).await;
            if released.is_ok_and(|released| released.is_wanted) {
                store.wake(&lease.name).await;
            }
        });
    }
}

async fn release_once<S: Store>(store: &S, lease: &Lease) -> Answer<Released> {
    match lease.mode {
        Mode::Exclusive => {
            let (name, owner) = (&lease.name, &lease.owner);
            let kept_for = lease.vitality().kept_for();
            store.release(name, owner, lease.token, kept_for).await
        }
        Mode::Shared => shared::release(store, lease).await,
    }
}

fn panicked() -> Untold {
    Untold::Trouble(Trouble {
        reason: "the I/O thread of dlock panicked".into(),
        source: None,
    })
}

/// How often a statement is tried that others' get in the way of.
const TRIES: u32 = 10;

/// Frees a lease that nobody vouches for any more, before its time. What fails is left to its end.
async fn release_early<S: Store>(store: &S, lease: &Lease) -> Answer<Released> {
    let mut tries = 1;
    loop {
        match release_once(store, lease).await {
            Err(StoreError::Again { .. }) if tries < TRIES => {
                tries += 1;
                store.pause().await;
            }
            released => return released,
        }
    }
}

fn name_of(key: &ServerKey) -> Arc<str> {
    match key {
        ServerKey::Name(name) => name.to_shared(),
        // No other kind is ours.
        other => format!("{other:?}").into(),
    }
}

impl From<StoreError> for Untold {
    fn from(error: StoreError) -> Untold {
        match error {
            StoreError::Refused {
                code,
                message,
                source,
            } => Untold::Refused {
                code,
                message,
                source,
            },
            error => Untold::Trouble(error.into()),
        }
    }
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Trouble {
        let reason = error.to_string();
        match error {
            StoreError::Gone { source, .. }
            | StoreError::Unreachable { source, .. }
            | StoreError::Refused { source, .. } => Trouble { reason, source },
            StoreError::Again { .. } => Trouble {
                reason,
                source: None,
            },
        }
    }
}
