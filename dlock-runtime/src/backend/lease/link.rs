//! A connection that is opened anew when it is lost.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{self, Instant};

use super::store::{Answer, StoreError};
use crate::error::InitError;

/// The first pause after a failed attempt to connect, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// Opens connections of one kind.
pub(crate) trait Opener: Send + Sync + 'static {
    type Connection: Connection;

    /// Opens a connection, within the time that the configuration allows.
    fn open(&self) -> impl Future<Output = Result<Self::Connection, InitError>> + Send;
}

/// A connection; dropping the last reference closes it.
pub(crate) trait Connection: Send + Sync + 'static {
    fn is_closed(&self) -> bool;

    fn close(&self);
}

/// One connection, while there is one.
pub(crate) struct Link<O: Opener> {
    opener: O,
    present: Mutex<Present<O::Connection>>,
    /// Whoever holds this is connecting; the others wait for the outcome.
    connecting: tokio::sync::Mutex<Failures>,
}

enum Present<C> {
    Open(Arc<C>),
    None,
    Closed(Arc<str>),
}

/// The attempts that failed since the last connection.
struct Failures {
    last: Option<InitError>,
    pause: Duration,
    not_before: Instant,
}

impl<O: Opener> Link<O> {
    pub(crate) fn new(opener: O) -> Link<O> {
        Link {
            opener,
            present: Mutex::new(Present::None),
            connecting: tokio::sync::Mutex::new(Failures::none()),
        }
    }

    /// The connection, if it stands.
    fn present(&self) -> Option<Arc<O::Connection>> {
        match &*self.lock() {
            Present::Open(connection) if !connection.is_closed() => Some(connection.clone()),
            _ => None,
        }
    }

    #[cfg(feature = "mysql")]
    pub(crate) fn opener(&self) -> &O {
        &self.opener
    }

    /// Whether there is a connection at present.
    pub(crate) fn is_open(&self) -> bool {
        self.present().is_some()
    }

    /// The connection, opened anew if need be. One attempt at a time, whoever asks; after a failure everybody gets that
    /// failure until the pause is over.
    pub(crate) async fn get(&self) -> Answer<Arc<O::Connection>> {
        if let Some(connection) = self.present() {
            return Ok(connection);
        }
        self.open().await.map_err(|error| match self.closed() {
            // For good: trying again is of no use.
            Some(reason) => StoreError::Refused {
                code: "closed".to_owned(),
                message: reason.to_string(),
                source: None,
            },
            None => StoreError::Unreachable {
                reason: error.to_string(),
                source: None,
            },
        })
    }

    fn closed(&self) -> Option<Arc<str>> {
        match &*self.lock() {
            Present::Closed(reason) => Some(reason.clone()),
            _ => None,
        }
    }

    /// As [`get`](Self::get), with the error for who starts.
    pub(crate) async fn open(&self) -> Result<Arc<O::Connection>, InitError> {
        let mut failures = self.connecting.lock().await;
        if let Some(connection) = self.present() {
            return Ok(connection);
        }
        if let Some(error) = &failures.last
            && Instant::now() < failures.not_before
        {
            return Err(error.clone());
        }
        if let Present::Closed(reason) = &*self.lock() {
            return Err(closed(reason));
        }
        match self.opener.open().await {
            Ok(connection) => {
                *failures = Failures::none();
                let connection = Arc::new(connection);
                let mut present = self.lock();
                if let Present::Closed(reason) = &*present {
                    return Err(closed(reason));
                }
                *present = Present::Open(connection.clone());
                Ok(connection)
            }
            Err(error) => {
                failures.add(error.clone());
                Err(error)
            }
        }
    }

    /// Closes a connection whose state is in doubt.
    pub(crate) fn drop_connection(&self, connection: &Arc<O::Connection>) {
        connection.close();
        let mut present = self.lock();
        if matches!(&*present, Present::Open(open) if Arc::ptr_eq(open, connection)) {
            *present = Present::None;
        }
    }

    /// Waits until another attempt makes sense.
    pub(crate) async fn pause(&self) {
        let not_before = self.connecting.lock().await.not_before;
        time::sleep_until(not_before.max(Instant::now() + PAUSE.0 / 2)).await;
    }

    /// Closes the connection, and ends every attempt to open another.
    pub(crate) fn close(&self, reason: &str) {
        let before = std::mem::replace(&mut *self.lock(), Present::Closed(reason.into()));
        if let Present::Open(connection) = before {
            connection.close();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Present<O::Connection>> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Failures {
    fn none() -> Failures {
        Failures {
            last: None,
            pause: PAUSE.0,
            not_before: Instant::now(),
        }
    }

    fn add(&mut self, error: InitError) {
        let jitter = 0.5 + fastrand::f64() / 2.0;
        self.not_before = Instant::now() + self.pause.mul_f64(jitter);
        self.pause = (self.pause * 2).min(PAUSE.1);
        self.last = Some(error);
    }
}

fn closed(reason: &str) -> InitError {
    InitError::Unreachable {
        endpoint: "the database".to_owned(),
        reason: reason.to_owned(),
        source: None,
    }
}
