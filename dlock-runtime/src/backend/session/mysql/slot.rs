//! The place of the one connection, which carries one statement at a time and can be closed at any moment.

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Either, select};
use mysql_async::Conn;

use super::errors;
use crate::backend::session::driver::DriverError;
use crate::backend::session::ending::Ending;

/// The connection. Whoever runs a statement takes it out for that time: a future that is dropped half-way takes the
/// connection with it, and nobody reads the answer to somebody else's statement.
pub(super) struct Slot {
    content: Mutex<Content>,
    /// Held while a statement runs.
    turn: tokio::sync::Mutex<()>,
    ending: Ending,
}

enum Content {
    Idle(Conn),
    /// Taken out for a statement.
    Busy,
    Closed,
}

impl Slot {
    pub(super) fn new(conn: Conn) -> Self {
        Slot {
            content: Mutex::new(Content::Idle(conn)),
            turn: tokio::sync::Mutex::new(()),
            ending: Ending::new(),
        }
    }

    /// Runs a statement when its turn has come.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future while the statement runs closes the connection.
    pub(super) async fn run<T, F>(&self, statement: F) -> Result<T, DriverError>
    where
        F: for<'c> FnOnce(&'c mut Conn) -> BoxFuture<'c, Result<T, mysql_async::Error>>,
    {
        let _turn = self.turn.lock().await;
        let mut conn = self.take()?;
        let taken = Taken { slot: self };
        let outcome = {
            let ended = pin!(self.ending.ended());
            match select(ended, statement(&mut conn)).await {
                Either::Left((reason, _)) => Err(gone(&reason)),
                Either::Right((Ok(value), _)) => Ok(value),
                Either::Right((Err(error), _)) => Err(errors::statement(error)),
            }
        };
        match &outcome {
            Err(DriverError::Gone { reason, .. }) => {
                self.ending.end(reason);
                quit(conn);
            }
            _ => taken.put_back(conn),
        }
        outcome
    }

    pub(super) fn close(&self) {
        self.ending.end("closed by this process");
        // A statement that is under way hears of the end and drops its connection.
        if let Content::Idle(conn) = std::mem::replace(&mut *self.content(), Content::Closed) {
            quit(conn);
        }
    }

    pub(super) async fn ended(&self) -> Arc<str> {
        self.ending.ended().await
    }

    fn take(&self) -> Result<Conn, DriverError> {
        let mut content = self.content();
        match std::mem::replace(&mut *content, Content::Busy) {
            Content::Idle(conn) => Ok(conn),
            Content::Busy | Content::Closed => {
                *content = Content::Closed;
                Err(gone(
                    &self
                        .ending
                        .reason()
                        .unwrap_or_else(|| "the session is closed".into()),
                ))
            }
        }
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        // Nothing panics while the content is locked; the content is a plain value in any case.
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.close();
    }
}

/// Marks the time in which the connection is out of its slot.
struct Taken<'s> {
    slot: &'s Slot,
}

impl Taken<'_> {
    fn put_back(self, conn: Conn) {
        let mut content = self.slot.content();
        if let Content::Busy = *content {
            *content = Content::Idle(conn);
        } else {
            drop(content);
            quit(conn);
        }
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let mut content = self.slot.content();
        if let Content::Busy = *content {
            *content = Content::Closed;
            drop(content);
            self.slot.ending.end("a statement was given up half-way");
        }
    }
}

/// Says goodbye, so that the server does not log an aborted connection, and closes the socket, both without waiting.
/// Merely dropped, an idle connection of this driver would wait for its goodbye in a task of its own. One whose
/// statement was given up half-way says nothing more, and closes its socket at once.
fn quit(conn: Conn) {
    let _ = conn.disconnect().now_or_never();
}

fn gone(reason: &str) -> DriverError {
    DriverError::Gone {
        reason: reason.to_owned(),
        source: None,
    }
}
