//! A session that is watched: its heartbeat, its validity, and its end.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time;

use super::batch::{self, Gathered};
use super::driver::{Act, AnotherSession, DriverError, Offer, Session};
use super::{Limits, gone};
use crate::clock::Moment;
use crate::hold::Vitality;
use crate::key::{Mode, ServerKey};

/// An open session and what vouches for the locks it holds.
///
/// When its vitality ends, for whatever reason, its connection is closed: a server that still counts the session
/// as alive must not keep locks for it that nobody vouches for. The reverse holds too.
pub(super) struct Live<S> {
    session: S,
    vitality: Arc<Vitality>,
    limits: Limits,
    /// Tries and releases for which the connection has no room yet.
    gathered: Gathered,
    /// Whether a wait occupies the session: a heartbeat would only stand behind it.
    waiting: AtomicBool,
    /// Whether another session of the server has answered in its place.
    mistaken: AtomicBool,
    silence: Silence,
}

/// Since when the server owes an answer.
struct Silence {
    /// The statements that are sent, and not answered.
    open: AtomicUsize,
    /// When the last answer came, or the first of the open statements was sent, in nanoseconds of the clock.
    since: AtomicU64,
}

/// A statement that was sent: dropped when its answer has come, or nobody waits for it any more.
struct Open<'a>(&'a Silence);

impl Silence {
    fn open(&self) -> Open<'_> {
        if self.open.fetch_add(1, Ordering::AcqRel) == 0 {
            self.begin();
        }
        Open(self)
    }

    fn begin(&self) {
        self.since
            .store(Moment::now().as_nanos(), Ordering::Release);
    }

    /// How long the server has owed an answer without giving any.
    fn lasts(&self) -> Duration {
        // Read before the count: a statement that is sent in between is counted as one that was open before, and its
        // time would begin with the last one's.
        let since = self.since.load(Ordering::Acquire);
        match self.open.load(Ordering::Acquire) {
            0 => Duration::ZERO,
            _ => Moment::now().since(Moment::from_nanos(since)),
        }
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.begin();
        self.0.open.fetch_sub(1, Ordering::AcqRel);
    }
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
        let valid_until = sent.plus(limits.validity());
        let live = Arc::new(Live {
            vitality: Vitality::of_session(valid_until, session.identity()),
            session,
            limits,
            gathered: Gathered::default(),
            waiting: AtomicBool::new(false),
            mistaken: AtomicBool::new(false),
            silence: Silence {
                open: AtomicUsize::new(0),
                since: AtomicU64::new(0),
            },
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

    pub(super) fn gathered(&self) -> &Gathered {
        &self.gathered
    }

    /// Tries a lock without waiting. `true`: this session holds it.
    pub(super) async fn try_lock(
        self: &Arc<Self>,
        key: &ServerKey,
        mode: Mode,
    ) -> Result<bool, DriverError> {
        batch::ask(self, Act::Try, key, mode).await
    }

    /// Asks what needs no waiting on the server. A session that does not answer, or that ends meanwhile, is lost; with
    /// its connection, every statement under way ends.
    pub(super) async fn ask<T>(
        &self,
        statement: impl Future<Output = Result<T, DriverError>>,
    ) -> Result<T, DriverError> {
        if let Some(reason) = self.vitality.lost() {
            return Err(gone(&reason));
        }
        let open = self.silence.open();
        let answer = statement.await;
        drop(open);
        if let Err(error @ DriverError::Gone { reason, .. }) = &answer {
            if AnotherSession::is_behind(error) {
                // Before the end of the connection, by which other statements fail for a reason that says less.
                self.mistaken.store(true, Ordering::Release);
            }
            self.lose(reason.as_str());
        }
        answer
    }

    /// Whether another session of the server has answered in place of this one.
    pub(super) fn is_mistaken(&self) -> bool {
        self.mistaken.load(Ordering::Acquire)
    }

    /// Gives a lock back; the error says why it was not held any more.
    pub(super) async fn unlock(
        self: &Arc<Self>,
        key: &ServerKey,
        mode: Mode,
    ) -> Result<(), Arc<str>> {
        let answer = batch::ask(self, Act::Release, key, mode).await;
        self.has_released(answer)
    }

    /// Gives a lock back and tries it again. `true`: this session holds it, since a statement sent after the call.
    pub(super) async fn offer(
        self: &Arc<Self>,
        key: &ServerKey,
        mode: Mode,
    ) -> Result<bool, Arc<str>> {
        let sent = Moment::now();
        let answer = batch::offer(self, key, mode).await;
        let kept = matches!(answer, Ok(Offer::Kept));
        self.has_released(answer.map(|offer| offer != Offer::NotHeld))?;
        if kept {
            self.confirm(sent);
        }
        Ok(kept)
    }

    /// What an answer to a release means: whether the session held the lock.
    fn has_released(&self, answer: Result<bool, DriverError>) -> Result<(), Arc<str>> {
        match answer {
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
        let answer = self.ask(self.session.check()).await;
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
            reason = self.silence() => reason,
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

    /// Completes when the server has owed answers for too long and given none. One watch for all statements: a timer
    /// for each would cost more than the rest of a try.
    async fn silence(&self) -> Arc<str> {
        let longest = self.limits.answer();
        loop {
            time::sleep(longest / 8).await;
            if self.silence.lasts() >= longest {
                return "the server has stopped answering".into();
            }
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
