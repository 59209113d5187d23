//! A session that is watched: its heartbeat, its validity, and its end.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time;

use super::driver::{DriverError, Session};
use super::{Limits, gone};
use crate::clock::Moment;
use crate::hold::Vitality;
use crate::key::{Mode, ServerKey};

/// How many statements stand before the heartbeat at most. On a connection that carries one at a time they are
/// answered one behind the other, and all of them have to be within the time that one answer may take.
const AT_ONCE: usize = 32;

/// An open session and what vouches for the locks it holds.
///
/// When its vitality ends, for whatever reason, its connection is closed: a server that still counts the session
/// as alive must not keep locks for it that nobody vouches for. The reverse holds too.
pub(super) struct Live<S> {
    session: S,
    vitality: Arc<Vitality>,
    limits: Limits,
    /// The statements under way, but for the heartbeat.
    turns: Semaphore,
    /// Whether a wait occupies the session: a heartbeat would only stand behind it.
    waiting: AtomicBool,
}

/// No heartbeats while this lives.
pub(super) struct Quiet<'a>(&'a AtomicBool);

impl Drop for Quiet<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl<S: Session> Live<S> {
    /// Watches a session whose settings the server confirmed with a statement sent at `sent`. The watch ends with
    /// the vitality, so every session must be [`lost`](Self::lose) in the end.
    pub(super) fn watch(session: S, sent: Moment, limits: Limits) -> Arc<Live<S>> {
        let live = Arc::new(Live {
            session,
            vitality: Vitality::new(Some(sent.plus(limits.validity()))),
            limits,
            turns: Semaphore::new(AT_ONCE),
            waiting: AtomicBool::new(false),
        });
        tokio::spawn(live.clone().beat());
        live
    }

    pub(super) fn session(&self) -> &S {
        &self.session
    }

    pub(super) fn vitality(&self) -> &Arc<Vitality> {
        &self.vitality
    }

    /// Leaves out the heartbeats during a wait in the server's queue. The end of the wait is a confirmation too.
    pub(super) fn without_heartbeat(&self) -> Quiet<'_> {
        self.waiting.store(true, Ordering::Release);
        Quiet(&self.waiting)
    }

    /// Ends the session: first its holds, then its connection.
    pub(super) fn lose(&self, reason: impl Into<Arc<str>>) {
        self.vitality.lose(reason);
        self.session.close();
    }

    /// Asks, in its turn, what needs no waiting on the server. A session that does not answer, or that ends
    /// meanwhile, is lost.
    pub(super) async fn ask<T>(
        &self,
        statement: impl Future<Output = Result<T, DriverError>>,
    ) -> Result<T, DriverError> {
        // The time in line is not the server's: it does not count as silence.
        let _turn = tokio::select! {
            biased;
            reason = self.vitality.ended() => return Err(gone(&reason)),
            turn = self.turns.acquire() => turn,
        };
        self.ask_now(statement).await
    }

    async fn ask_now<T>(
        &self,
        statement: impl Future<Output = Result<T, DriverError>>,
    ) -> Result<T, DriverError> {
        let answer = tokio::select! {
            biased;
            answer = statement => answer,
            reason = self.vitality.ended() => return Err(gone(&reason)),
            () = time::sleep(self.limits.answer()) => {
                Err(gone("the server has stopped answering"))
            }
        };
        if let Err(DriverError::Gone { reason, .. }) = &answer {
            self.lose(reason.as_str());
        }
        answer
    }

    /// Gives a lock back; the error says why it was not held any more.
    pub(super) async fn unlock(&self, key: &ServerKey, mode: Mode) -> Result<(), Arc<str>> {
        match self.ask(self.session.unlock(key, mode)).await {
            Ok(true) => Ok(()),
            Ok(false) => {
                // A session that lost one lock without a word may have lost them all.
                self.lose("the server says that the session did not hold the lock");
                Err(self.reason())
            }
            Err(DriverError::Gone { .. }) => Err(self.reason()),
            Err(DriverError::Refused { code, message, .. }) => {
                // Whether the lock is still held is unknown; closing the connection frees it for certain.
                self.lose(format!(
                    "the server refused the release: {message} ({code})"
                ));
                Err(self.reason())
            }
        }
    }

    /// The server confirmed this session with a statement sent at `sent`.
    pub(super) fn confirm(&self, sent: Moment) {
        #[cfg(dlock_sabotage)]
        let sent = match crate::sabotage::is_on("validity-from-answer") {
            true => Moment::now(),
            false => sent,
        };
        self.vitality.confirm(sent, self.limits.validity());
    }

    /// Asks the server for a confirmation now.
    pub(super) async fn check(&self) -> Result<(), DriverError> {
        let sent = Moment::now();
        let answer = self.ask_now(self.session.check()).await;
        match &answer {
            Ok(()) => self.confirm(sent),
            Err(DriverError::Gone { .. }) => {}
            Err(DriverError::Refused { code, message, .. }) => {
                self.lose(format!("the heartbeat failed: {message} ({code})"));
            }
        }
        answer
    }

    fn reason(&self) -> Arc<str> {
        let unknown = || Arc::from("the connection was closed");
        self.vitality.lost().unwrap_or_else(unknown)
    }

    /// Lives as long as the session does.
    async fn beat(self: Arc<Self>) {
        let unwatched = Unwatched(&self);
        let reason = tokio::select! {
            reason = self.vitality.ended() => reason,
            reason = self.session.closed() => reason,
            reason = self.heartbeats() => reason,
        };
        unwatched.0.lose(reason);
    }

    async fn heartbeats(&self) -> Arc<str> {
        let mut pause = self.limits.heartbeat;
        loop {
            time::sleep(pause).await;
            if self.waiting.load(Ordering::Acquire) {
                continue;
            }
            tokio::select! {
                answer = self.check() => if answer.is_err() {
                    return self.reason();
                },
                // The validity passes while the server is silent: the vitality itself says so.
                () = self.expiry() => return self.reason(),
            }
            pause = self.limits.heartbeat.min(self.vitality.remaining() / 2);
        }
    }

    /// Completes when the last confirmation no longer counts.
    async fn expiry(&self) {
        loop {
            match self.vitality.remaining() {
                Duration::ZERO => return,
                remaining => time::sleep(remaining).await,
            }
        }
    }
}

/// Ends a session whose watch has ended, be it with a panic: nobody else would tell its holders.
struct Unwatched<'a, S: Session>(&'a Live<S>);

impl<S: Session> Drop for Unwatched<'_, S> {
    fn drop(&mut self) {
        self.0.lose("the heartbeat has ended");
    }
}
