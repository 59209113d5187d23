//! The one connection that tries and holds.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{self, Instant};

use super::Limits;
use super::driver::{ConnectError, Driver, Session};
use super::live::Live;
use super::proof::{Fresh, prove};
use super::waiters::Waiters;
use crate::backend::Trouble;
use crate::clock::Moment;
use crate::hazard::Hazards;

/// The first pause after a failed attempt to connect, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// The keeper's connection, opened anew when it is lost.
pub(super) struct Keeper<D: Driver> {
    driver: Arc<D>,
    limits: Limits,
    allowed: Hazards,
    waiters: Arc<Waiters<D>>,
    present: Mutex<Present<D::Session>>,
    /// Whoever holds this is connecting; the others wait for the outcome.
    connecting: tokio::sync::Mutex<Failures>,
}

enum Present<S> {
    Open(Arc<Live<S>>),
    Closed(Arc<str>),
}

/// The attempts that failed since the last connection.
pub(super) struct Failures {
    last: Option<ConnectError>,
    pause: Duration,
    not_before: Instant,
}

impl<D: Driver> Keeper<D> {
    /// `first` is the connection, on a server that was proven.
    pub(super) fn new(
        driver: Arc<D>,
        limits: Limits,
        allowed: Hazards,
        waiters: Arc<Waiters<D>>,
        first: Arc<Live<D::Session>>,
    ) -> Keeper<D> {
        Keeper {
            driver,
            limits,
            allowed,
            waiters,
            present: Mutex::new(Present::Open(first)),
            connecting: tokio::sync::Mutex::new(Failures::none()),
        }
    }

    /// The connection, if it stands.
    pub(super) fn present(&self) -> Option<Arc<Live<D::Session>>> {
        let live = match &*self.lock() {
            Present::Open(live) => live.clone(),
            Present::Closed(_) => return None,
        };
        // Who finds the validity over tells those who wait for that: not under the mutex.
        live.vitality().stands().then_some(live)
    }

    /// Whether there is a connection. Wakes nobody.
    pub(super) fn is_open(&self) -> bool {
        matches!(&*self.lock(), Present::Open(live) if live.vitality().stands_quietly())
    }

    /// The connection, opened anew if need be.
    ///
    /// The attempt is a task of its own: it goes on when the caller gives up, so that callers with little patience
    /// do not start over for ever.
    pub(super) async fn get(self: &Arc<Self>) -> Result<Arc<Live<D::Session>>, Trouble> {
        if let Some(live) = self.present() {
            return Ok(live);
        }
        let keeper = self.clone();
        let attempt = tokio::spawn(async move { keeper.reconnect().await });
        attempt
            .await
            .unwrap_or_else(|_| Err(closed("the I/O thread of dlock panicked")))
    }

    /// One attempt at a time, whoever asks; after a failure everybody gets that failure until the pause is over.
    async fn reconnect(&self) -> Result<Arc<Live<D::Session>>, Trouble> {
        let mut failures = self.connecting.lock().await;
        if let Some(live) = self.present() {
            return Ok(live);
        }
        if let Some(error) = failures.still() {
            return Err(error.clone().into());
        }
        if let Present::Closed(reason) = &*self.lock() {
            return Err(closed(reason));
        }
        match self.open_proven().await {
            Ok(live) => {
                *failures = Failures::none();
                let mut present = self.lock();
                if let Present::Closed(reason) = &*present {
                    live.lose(reason.clone());
                    return Err(closed(reason));
                }
                *present = Present::Open(live.clone());
                Ok(live)
            }
            Err(error) => {
                failures.add(error.clone());
                Err(error.into())
            }
        }
    }

    /// A connection to the server that was proven, or to another that is proven now. Behind a pooler, which may have
    /// been set up anew, it is proven each time.
    async fn open_proven(&self) -> Result<Arc<Live<D::Session>>, ConnectError> {
        let live = open(&*self.driver, self.limits).await?;
        let session = live.session();
        if self.waiters.are_on(session.identity()) && session.behind_pooler() != Some(true) {
            return Ok(live);
        }
        let kept = Fresh::from(live.clone());
        let proof = prove(&*self.driver, self.limits, &self.allowed, &live).await?;
        drop(kept.keep());
        self.waiters.move_to(session.identity());
        if let Some(second) = proof.second.and_then(Fresh::keep) {
            self.waiters.put_back(second);
        }
        Ok(live)
    }

    /// Waits until another attempt makes sense.
    pub(super) async fn pause(&self) {
        let not_before = self.connecting.lock().await.not_before;
        let least = Instant::now() + PAUSE.0 / 2;
        time::sleep_until(not_before.max(least)).await;
    }

    /// Ends the connection, and every attempt to open another.
    pub(super) fn close(&self, reason: &str) {
        let before = std::mem::replace(&mut *self.lock(), Present::Closed(reason.into()));
        if let Present::Open(live) = before {
            live.lose(reason);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Present<D::Session>> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Opens a session and watches it. The driver keeps to the connect time-out.
pub(super) async fn open<D: Driver>(
    driver: &D,
    limits: Limits,
) -> Result<Arc<Live<D::Session>>, ConnectError> {
    let sent = Moment::now();
    // The drivers' futures are large.
    let session = Box::pin(driver.connect()).await?;
    Ok(Live::watch(session, sent, limits))
}

impl Failures {
    pub(super) fn none() -> Failures {
        Failures {
            last: None,
            pause: PAUSE.0,
            not_before: Instant::now(),
        }
    }

    /// The last failure, while it is too early for another attempt.
    pub(super) fn still(&self) -> Option<&ConnectError> {
        self.last
            .as_ref()
            .filter(|_| Instant::now() < self.not_before)
    }

    pub(super) fn add(&mut self, error: ConnectError) {
        self.last = Some(error);
        self.not_before = Instant::now() + self.pause.mul_f64(0.5 + fastrand::f64() / 2.0);
        self.pause = PAUSE.1.min(self.pause * 2);
    }
}

fn closed(reason: &str) -> Trouble {
    Trouble {
        reason: reason.to_owned(),
        source: None,
    }
}
