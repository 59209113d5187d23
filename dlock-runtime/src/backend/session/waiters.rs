//! The connections that wait in the server's queue.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{self, Instant};

use super::Limits;
use super::driver::{ConnectError, Driver, Session};
use super::keeper::{self, Failures};
use super::live::Live;

/// How long a connection that waits for nothing stays open.
const IDLE: Duration = Duration::from_secs(10);

const ELSEWHERE: &str =
    "the connection has reached another server than the one that keeps the locks";

/// The right to wait on the server.
pub(super) type Permit = OwnedSemaphorePermit;

/// The waiters of one locker: at most `max_waiters` wait at a time, and a connection that was used is kept for a
/// while for the next.
pub(super) struct Waiters<D: Driver> {
    driver: Arc<D>,
    limits: Limits,
    permits: Arc<Semaphore>,
    /// For tries on connections of their own, as many at a time as may wait.
    tries: Arc<Semaphore>,
    pool: Mutex<Pool<D::Session>>,
    /// The attempts to open one that failed: a server that has no connection left is not asked for one by every
    /// errand at every try.
    failures: Mutex<Failures>,
}

struct Pool<S> {
    /// The identity of the server that the keeper's locks are on.
    server: Arc<str>,
    /// The longest idle first.
    idle: Vec<(Instant, Arc<Live<S>>)>,
    /// Every connection that was handed out and has not come back, to be closed with the rest.
    out: Vec<std::sync::Weak<Live<S>>>,
    swept: bool,
    closed: Option<Arc<str>>,
}

impl<D: Driver> Waiters<D> {
    pub(super) fn new(driver: Arc<D>, limits: Limits, server: &str) -> Arc<Waiters<D>> {
        Arc::new(Waiters {
            driver,
            limits,
            permits: Arc::new(Semaphore::new(limits.max_waiters)),
            tries: Arc::new(Semaphore::new(limits.max_waiters)),
            failures: Mutex::new(Failures::none()),
            pool: Mutex::new(Pool {
                server: server.into(),
                idle: Vec::new(),
                out: Vec::new(),
                swept: false,
                closed: None,
            }),
        })
    }

    /// The right to wait, in the order of asking.
    pub(super) async fn permit(&self) -> Permit {
        permit_of(&self.permits).await
    }

    /// The right to try on a connection that is checked out for that, in the order of asking.
    pub(super) async fn permit_to_try(&self) -> Permit {
        permit_of(&self.tries).await
    }

    /// The right to use one at once, if nobody is in line for it.
    pub(super) fn permit_now(&self) -> Option<Permit> {
        self.permits.clone().try_acquire_owned().ok()
    }

    /// The right to use one for a moment, at once, on which nobody waits for a lock. Of those for tries, while there are some:
    /// who waits in the server's queue may find that there is but one.
    pub(super) fn permit_aside(&self) -> Option<Permit> {
        let try_of = |permits: &Arc<Semaphore>| permits.clone().try_acquire_owned().ok();
        try_of(&self.tries).or_else(|| try_of(&self.permits))
    }

    /// A connection that holds nothing.
    pub(super) async fn check_out(&self) -> Result<Arc<Live<D::Session>>, ConnectError> {
        let idle = {
            let mut pool = self.pool();
            std::iter::from_fn(|| pool.idle.pop()).find(|(_, live)| live.vitality().stands())
        };
        let live = match idle {
            Some((_, live)) => live,
            None => self.open().await?,
        };
        if !self.are_on(live.session().identity()) {
            // What is locked there excludes nobody here. The keeper finds out which server is the one.
            live.lose(ELSEWHERE);
            return Err(ConnectError::Unreachable {
                reason: ELSEWHERE.to_owned(),
                source: None,
            });
        }
        let mut pool = self.pool();
        if let Some(reason) = &pool.closed {
            live.lose(reason.clone());
        }
        pool.out.retain(|out| out.strong_count() > 0);
        pool.out.push(Arc::downgrade(&live));
        Ok(live)
    }

    /// Opens one, or says at once why it is too early for another attempt.
    async fn open(&self) -> Result<Arc<Live<D::Session>>, ConnectError> {
        if let Some(error) = self.failures().still() {
            return Err(error.clone());
        }
        let opened = keeper::open(&*self.driver, self.limits).await;
        match &opened {
            Ok(_) => *self.failures() = Failures::none(),
            Err(error) => self.failures().add(error.clone()),
        }
        opened
    }

    fn failures(&self) -> MutexGuard<'_, Failures> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this is the identity of the server that the keeper's locks are on.
    pub(super) fn are_on(&self, server: &str) -> bool {
        *self.pool().server == *server
    }

    /// The keeper's locks are on this server from now on: what was taken elsewhere is lost.
    pub(super) fn move_to(&self, server: &str) {
        let mut pool = self.pool();
        pool.server = server.into();
        let idle = pool.idle.iter().map(|(_, live)| live.clone());
        let out = pool.out.iter().filter_map(std::sync::Weak::upgrade);
        let elsewhere: Vec<_> = idle
            .chain(out)
            .filter(|live| live.session().identity() != server)
            .collect();
        pool.idle
            .retain(|(_, live)| live.session().identity() == server);
        drop(pool);
        for live in elsewhere {
            live.lose("another server has taken over");
        }
    }

    /// The server's numbers for the connections that wait, or hold what they waited for.
    pub(super) fn out(&self) -> Vec<i64> {
        let pool = self.pool();
        let out = pool.out.iter().filter_map(std::sync::Weak::upgrade);
        out.map(|live| live.session().id()).collect()
    }

    /// How many connections there are, idle or not.
    pub(super) fn count(&self) -> usize {
        let pool = self.pool();
        let out = pool.out.iter().filter_map(std::sync::Weak::upgrade);
        let idle = pool.idle.iter().map(|(_, live)| live.clone());
        out.chain(idle)
            .filter(|live| live.vitality().stands_quietly())
            .count()
    }

    /// A connection comes back; it holds nothing.
    pub(super) fn put_back(self: &Arc<Self>, live: Arc<Live<D::Session>>) {
        let mut pool = self.pool();
        pool.out.retain(|out| out.as_ptr() != Arc::as_ptr(&live));
        if pool.closed.is_some() || pool.idle.len() >= self.limits.max_waiters {
            drop(pool);
            live.lose("no longer needed");
            return;
        }
        pool.idle.push((Instant::now(), live));
        if !std::mem::replace(&mut pool.swept, true) {
            tokio::spawn(sweep(Arc::downgrade(self)));
        }
    }

    /// Ends the connections that nobody uses.
    pub(super) fn close_idle(&self, reason: &str) {
        let idle = std::mem::take(&mut self.pool().idle);
        for (_, live) in idle {
            live.lose(reason);
        }
    }

    /// Ends every connection.
    pub(super) fn close(&self, reason: &str) {
        let mut pool = self.pool();
        pool.closed = Some(reason.into());
        let idle = std::mem::take(&mut pool.idle);
        let out = std::mem::take(&mut pool.out);
        drop(pool);
        for (_, live) in idle {
            live.lose(reason);
        }
        for live in out.iter().filter_map(std::sync::Weak::upgrade) {
            live.lose(reason);
        }
    }

    fn pool(&self) -> MutexGuard<'_, Pool<D::Session>> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn permit_of(permits: &Arc<Semaphore>) -> Permit {
    match permits.clone().acquire_owned().await {
        Ok(permit) => permit,
        // The semaphores are never closed.
        Err(_) => std::future::pending().await,
    }
}

/// Closes connections that were idle for too long, until none is left.
async fn sweep<D: Driver>(waiters: std::sync::Weak<Waiters<D>>) {
    loop {
        time::sleep(IDLE / 2).await;
        let Some(waiters) = waiters.upgrade() else {
            return;
        };
        let mut pool = waiters.pool();
        let fresh = pool
            .idle
            .iter()
            .position(|(since, _)| since.elapsed() < IDLE)
            .unwrap_or(pool.idle.len());
        let old: Vec<_> = pool.idle.drain(..fresh).collect();
        pool.swept = !pool.idle.is_empty();
        let done = !pool.swept;
        drop(pool);
        for (_, live) in old {
            live.lose("no longer needed");
        }
        if done {
            return;
        }
    }
}
