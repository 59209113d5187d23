//! The thread that talks to SQLite: its calls block, and the I/O thread has every other lock to look after.

use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use futures_channel::oneshot;
use tokio::time::timeout;

use super::session::Session;
use crate::backend::lease::store::{Answer, StoreError};
use crate::error::InitError;

type Job = Box<dyn FnOnce(&mut Session) + Send>;

/// A thread with a connection of its own. It ends when the desk is closed or dropped, after what it was asked before.
pub(super) struct Desk {
    jobs: Mutex<Result<mpsc::Sender<Job>, String>>,
}

impl Desk {
    /// Starts the thread.
    pub(super) fn start(mut session: Session) -> Result<Desk, InitError> {
        let (sender, jobs) = mpsc::channel::<Job>();
        thread::Builder::new()
            .name("dlock-sqlite".to_owned())
            .spawn(move || {
                for job in jobs {
                    job(&mut session);
                }
            })
            .map_err(|error| InitError::Thread {
                reason: error.to_string(),
            })?;
        Ok(Desk {
            jobs: Mutex::new(Ok(sender)),
        })
    }

    /// Has something done on the thread, in its turn. What has not begun when nobody waits for it any more is left out.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        within: Duration,
        work: impl FnOnce(&mut Session) -> T + Send + 'static,
    ) -> Answer<T> {
        let (reply, answer) = oneshot::channel();
        self.send(Box::new(move |session| {
            if !reply.is_canceled() {
                let _ = reply.send(work(session));
            }
        }))?;
        match timeout(within, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(gone("the thread that talks to SQLite has ended")),
            Err(_) => Err(gone("the file of SQLite has stopped answering")),
        }
    }

    /// Takes no more jobs; the connection closes after the last.
    pub(super) fn close(&self, reason: &str) {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        if jobs.is_ok() {
            *jobs = Err(reason.to_owned());
        }
    }

    fn send(&self, job: Job) -> Answer<()> {
        let jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        match &*jobs {
            Ok(sender) => sender
                .send(job)
                .map_err(|_| gone("the thread that talks to SQLite has ended")),
            // For good: trying again is of no use.
            Err(reason) => Err(StoreError::Refused {
                code: "closed".to_owned(),
                message: reason.clone(),
                source: None,
            }),
        }
    }
}

pub(super) fn gone(reason: &str) -> StoreError {
    StoreError::Gone {
        reason: reason.to_owned(),
        source: None,
    }
}
