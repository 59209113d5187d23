//! Session locks: advisory locks of PostgreSQL, named locks of MySQL and MariaDB.
//!
//! One algorithm for every database. The *keeper*, a single connection, tries locks without waiting and holds
//! them. Only when a try fails and somebody is willing to wait does a *waiter*, a connection of its own, wait in
//! the server's queue; what it is granted it holds, and no longer counts as a waiter. A session that holds never
//! waits. At the start, the first two connections prove that they exclude each other. A lock with a fencing token is
//! held by a connection of its own from the beginning, which counts the token (`take/fenced`). Where there is a table for them, the
//! texts of keys are written a moment after the grant, for the readers of lists (`names`).

mod batch;
pub(crate) mod driver;
mod ending;
mod held;
mod keeper;
mod kick;
mod live;
#[cfg(feature = "mysql")]
pub(crate) mod mysql;
mod names;
#[cfg(feature = "postgres")]
pub(crate) mod postgres;
mod proof;
mod take;
#[cfg(test)]
mod tests;
mod waiters;

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::{
    Backend, Connections, Errand, GivenBack, Grant, Hold, NotKicked, Offered, Taken, Trouble,
    Untold, Warrant,
};
use crate::capabilities::{Capabilities, Strategy};
use crate::error::{Holder, Unsupported};
use crate::hazard::{Hazard, Hazards};
use crate::hold::Vitality;
use crate::key::{Key, KeyText, Mode, ServerKey};
use crate::listing::{LockInfo, Party};
use crate::scheme::KeyScheme;
use driver::{ConnectError, Driver, DriverError, Session};
use held::{Held, Room};
use keeper::Keeper;
use live::Live;
use names::Names;
use proof::Fresh;
use waiters::{Permit, Waiters};

/// How long a session is vouched for, and how that is kept up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// After this much silence the server ends a session of ours.
    pub(crate) limit: Duration,
    /// The time between two heartbeats.
    pub(crate) heartbeat: Duration,
    /// How many sessions may wait at a time.
    pub(crate) max_waiters: usize,
    /// How many locks may be held at a time; `None`: a share of what the server has room for.
    pub(crate) max_held: Option<usize>,
}

impl Limits {
    /// How long one confirmation counts: the rest of the limit is for the clocks to differ in, and for the body to
    /// be stopped.
    fn validity(&self) -> Duration {
        self.limit.mul_f64(0.9)
    }

    /// The longest wait that is asked of the server at once. An endless one would pin PostgreSQL's xmin, and a
    /// waiter whose process has died would be granted the lock in its turn.
    fn wait(&self) -> Duration {
        self.limit / 3
    }

    /// The longest time a statement that does not wait may take, before its session counts as stalled.
    fn answer(&self) -> Duration {
        self.limit / 3
    }
}

/// Session locks on one server.
pub(crate) struct SessionLocks<D: Driver> {
    driver: Arc<D>,
    limits: Limits,
    keeper: Arc<Keeper<D>>,
    waiters: Arc<Waiters<D>>,
    capabilities: Capabilities,
    held: Arc<Held>,
    /// The table of keys, where there is one.
    names: Option<Arc<Names<D>>>,
}

impl<D: Driver> SessionLocks<D> {
    /// Connects the keeper and the first waiter, and proves that they exclude each other. Runs on the I/O thread.
    pub(crate) async fn connect(
        driver: D,
        limits: Limits,
        allowed: &Hazards,
    ) -> Result<Arc<Self>, ConnectError> {
        let driver = Arc::new(driver);
        let first = keeper::open(&*driver, limits).await?;
        // Given up from here on, it ends.
        let kept = Fresh::from(first.clone());
        let proof = proof::prove(&*driver, limits, allowed, &first).await?;
        let key_table = driver.key_table();
        if let Some(table) = &key_table {
            // The first holds nothing yet that somebody who has locked the table could keep from its heartbeats.
            let second = proof.second.as_ref().and_then(Fresh::get);
            names::prove(second.unwrap_or(&first), table).await?;
        }
        let capabilities = capabilities(&*driver, limits, allowed, first.session(), proof.found);
        let held = Held::new(limits.max_held, first.session().capacity());
        let waiters = Waiters::new(driver.clone(), limits, first.session().identity());
        if let Some(second) = proof.second.and_then(Fresh::keep) {
            waiters.put_back(second);
        }
        drop(kept.keep());
        let keeper = Keeper::new(
            driver.clone(),
            limits,
            allowed.clone(),
            waiters.clone(),
            first,
        );
        let names = key_table.map(|table| Names::new(waiters.clone(), table.connect_timeout));
        Ok(Arc::new(SessionLocks {
            driver,
            limits,
            keeper: Arc::new(keeper),
            waiters,
            capabilities,
            held,
            names,
        }))
    }

    /// What the server is and can do.
    pub(crate) fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }
}

impl<D: Driver> Backend for SessionLocks<D> {
    fn server_key(&self, key: &Key) -> ServerKey {
        self.driver.server_key(key.text())
    }

    fn foreign_key(&self, key: &Key, scheme: &KeyScheme) -> Result<ServerKey, &'static str> {
        self.driver.foreign_key(key, scheme)
    }

    fn shared_mode(&self) -> Result<(), Unsupported> {
        if self.driver.has_shared_mode() {
            return Ok(());
        }
        Err(Unsupported {
            what: format!("shared mode on {}", self.capabilities.server),
            remedy: "its named locks are exclusive; take the lock exclusively, or keep shared locks on PostgreSQL"
                .into(),
        })
    }

    fn take(self: Arc<Self>, errand: Arc<Errand>) -> BoxFuture<'static, Taken> {
        async move { take::take(&self, &errand).await }.boxed()
    }

    fn admits_reader<'a>(&'a self, key: &'a ServerKey) -> BoxFuture<'a, bool> {
        let (waiters, key) = (self.waiters.clone(), key.clone());
        let asked = async move {
            // The keeper is no help: its own lock would let it in.
            let Some(_permit) = waiters.permit_now() else {
                return false;
            };
            let Ok(waiter) = waiters.check_out().await else {
                return false;
            };
            match waiter.ask(waiter.session().admits_reader(&key)).await {
                Ok(admits) => {
                    waiters.put_back(waiter);
                    admits
                }
                // Half-way it holds the lock.
                Err(error) => {
                    waiter.lose(format!("a question failed: {error}"));
                    false
                }
            }
        };
        to_its_end(asked).boxed()
    }

    fn holder<'a>(&'a self, key: &'a ServerKey) -> BoxFuture<'a, Result<Option<Holder>, Untold>> {
        async move {
            let keeper = self
                .keeper
                .present()
                .ok_or_else(|| gone("the connection is lost"))?;
            let key = key.clone();
            let mut own = self.waiters.out();
            own.push(keeper.session().id());
            let asked = async move { keeper.ask(keeper.session().holder(&key, &own)).await };
            Ok(to_its_end(asked).await?)
        }
        .boxed()
    }

    fn list<'a>(
        &'a self,
        only: Option<&'a ServerKey>,
    ) -> BoxFuture<'a, Result<Vec<LockInfo>, Untold>> {
        let (keeper, waiters, only) = (self.keeper.clone(), self.waiters.clone(), only.cloned());
        let names = self.names.clone();
        let asked = async move {
            let live = keeper.get().await.map_err(Untold::Trouble)?;
            let mut locks = kick::list(&live, only.as_ref(), waiters.out()).await?;
            // Whoever asks for one lock has its key.
            if let (Some(names), None) = (names, only) {
                names.tell(&mut locks).await;
            }
            Ok(locks)
        };
        to_its_end(asked).boxed()
    }

    fn kick<'a>(
        &'a self,
        key: &'a ServerKey,
        force: bool,
        warrant: Arc<Warrant>,
    ) -> BoxFuture<'a, Result<Vec<Party>, NotKicked>> {
        let (keeper, waiters) = (self.keeper.clone(), self.waiters.clone());
        let (key, names) = (key.clone(), self.names.clone());
        let kicked = async move {
            let mut kicked = kick::kick(keeper, waiters, key, force, warrant).await;
            if let (Some(names), Err(NotKicked::HoldsMore(others))) = (names, &mut kicked) {
                names.tell(others).await;
            }
            kicked
        };
        to_its_end(kicked).boxed()
    }

    fn granted(&self, key: &ServerKey, text: &KeyText) {
        if let Some(names) = &self.names {
            names.note(key, text);
        }
    }

    fn connections(&self) -> Connections {
        Connections {
            keepers: usize::from(self.keeper.is_open()),
            waiters: self.waiters.count(),
        }
    }

    fn close(&self, reason: &str) {
        if let Some(names) = &self.names {
            names.close();
        }
        self.keeper.close(reason);
        self.waiters.close(reason);
    }
}

fn capabilities<D: Driver>(
    driver: &D,
    limits: Limits,
    allowed: &Hazards,
    session: &D::Session,
    found: Option<Hazard>,
) -> Capabilities {
    let server = session.server();
    let mut hazards = Hazards::default();
    for hazard in session.hazards().iter().copied().chain(found) {
        hazards.insert(hazard);
    }
    Capabilities {
        server: server.to_owned(),
        version: server
            .split_once(' ')
            .map(|(_, version)| version.to_owned()),
        strategy: Strategy::Session,
        shared_mode: driver.has_shared_mode(),
        reach: driver.reach(),
        limit: (!hazards.contains(Hazard::NoIdleLimit)).then_some(limits.limit),
        behind_pooler: session.behind_pooler(),
        proved: found.is_none(),
        allowed: allowed.to_vec(),
        found: hazards.to_vec(),
    }
}

/// Runs what the keeper was asked to its end, also when whoever asked gives up: half a statement would close the
/// connection, and with it end every hold.
async fn to_its_end<T: Send + 'static>(asked: impl Future<Output = T> + Send + 'static) -> T {
    match tokio::spawn(asked).await {
        Ok(answer) => answer,
        // Nobody cancels the task but the end of the runtime, and with it ends the one that waits here.
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => std::future::pending().await,
        },
    }
}

/// A lock that one of our sessions holds.
struct SessionGrant<D: Driver> {
    /// Empty once the lock is on its way back.
    live: Option<Arc<Live<D::Session>>>,
    key: ServerKey,
    mode: Mode,
    /// Where the session goes when it is not the keeper.
    home: Option<Arc<Waiters<D>>>,
    /// Free again when the lock is.
    room: Option<held::Taken>,
}

impl<D: Driver> Grant for SessionGrant<D> {
    fn give_back(mut self: Box<Self>) -> GivenBack {
        let Some(live) = self.live.take() else {
            return GivenBack::Now(Ok(()));
        };
        if let Some(reason) = live.vitality().lost() {
            // Its connection is closed, or about to be: time alone may have ended it.
            live.lose(reason.clone());
            return GivenBack::Now(Err(reason));
        }
        GivenBack::Later(
            async move {
                live.unlock(&self.key, self.mode).await?;
                if let Some(waiters) = &self.home {
                    waiters.put_back(live);
                }
                Ok(())
            }
            .boxed(),
        )
    }

    fn offer(&mut self) -> Option<BoxFuture<'static, Offered>> {
        // What a waiter was granted goes to the keeper with the next try, and the waiter becomes free.
        if self.home.is_some() {
            return None;
        }
        let live = self.live.take_if(|live| live.vitality().stands_quietly())?;
        // Given up half-way, it ends the session as every grant does that is dropped.
        let mut grant = SessionGrant::<D> {
            live: Some(live.clone()),
            key: self.key.clone(),
            mode: self.mode,
            home: None,
            room: self.room.take(),
        };
        Some(
            async move {
                let kept = live.offer(&grant.key, grant.mode).await;
                let again = matches!(kept, Ok(true)) && live.vitality().stands();
                let given_back = kept.map(|_| ());
                let vitality = live.vitality().clone();
                if !again {
                    grant.live = None;
                    // The answer may have come while this process was stopped: its connection is closed with its time.
                    if let Some(reason) = vitality.lost() {
                        live.lose(reason);
                    }
                }
                Offered {
                    given_back,
                    again: again.then(|| Hold {
                        vitality,
                        grant: Box::new(grant),
                    }),
                }
            }
            .boxed(),
        )
    }
}

impl<D: Driver> Drop for SessionGrant<D> {
    fn drop(&mut self) {
        if let Some(live) = &self.live {
            live.lose("a lock was dropped without being given back");
        }
    }
}

fn hold<D: Driver>(
    live: Arc<Live<D::Session>>,
    vitality: Arc<Vitality>,
    errand: &Errand,
    home: Option<Arc<Waiters<D>>>,
    room: Room,
) -> Taken {
    Taken::Held(Hold {
        vitality,
        grant: Box::new(SessionGrant::<D> {
            live: Some(live),
            key: errand.key.clone(),
            mode: errand.want.mode,
            home,
            room: Some(room.take()),
        }),
    })
}

fn gone(reason: &str) -> DriverError {
    DriverError::Gone {
        reason: reason.to_owned(),
        source: None,
    }
}

impl From<DriverError> for Untold {
    fn from(error: DriverError) -> Untold {
        match error {
            DriverError::Refused {
                code,
                message,
                source,
            } => Untold::Refused {
                code,
                message,
                source,
            },
            DriverError::Gone { reason, source } => Untold::Trouble(Trouble { reason, source }),
        }
    }
}

impl From<ConnectError> for Trouble {
    fn from(error: ConnectError) -> Trouble {
        match error {
            ConnectError::Unreachable { reason, source }
            | ConnectError::TooMany { reason, source }
            | ConnectError::LoginRefused { reason, source } => Trouble { reason, source },
            ConnectError::Unsafe { reason, remedy } => Trouble {
                reason: format!("{reason}; {remedy}"),
                source: None,
            },
        }
    }
}
