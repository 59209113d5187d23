//! Taking one lock: try on the keeper, then wait on a waiter.

mod fenced;

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time;

use super::driver::{Driver, DriverError, Session, Wait};
use super::held::Room;
use super::live::Live;
use super::{Permit, SessionLocks, gone, hold, to_its_end};
use crate::backend::{Errand, Progress, Taken, Trouble};
use crate::clock::Moment;

/// The pause between two tries while every waiter is busy: drawn anew each time, so that processes do not try in
/// step.
const BETWEEN_TRIES: (u64, u64) = (50, 150);

/// How soon the server must end a wait by itself for an interruption not to be worth a message.
const ENDS_BY_ITSELF: Duration = Duration::from_millis(20);

/// How long an interruption may take before the connection is closed.
const INTERRUPTED_WITHIN: Duration = Duration::from_secs(2);

/// How long locks that are only tried may take up the last room: longer than that it is taken up by waits, which may last.
const TRIED_WITHIN: Duration = Duration::from_millis(500);

/// MySQL waits for whole seconds only, and rounds up.
const ROUNDED_UP_BY: Duration = Duration::from_secs(1);

/// One step's outcome: the errand has ended, or goes on.
type Step<T> = Result<T, Taken>;

/// Takes the lock of an errand, or ends without it.
pub(super) async fn take<D: Driver>(locks: &SessionLocks<D>, errand: &Errand) -> Taken {
    let mut attempt = Attempt {
        locks,
        errand,
        reconnected: false,
        was_busy: false,
    };
    loop {
        if let Err(taken) = attempt.round().await {
            return taken;
        }
    }
}

struct Attempt<'a, D: Driver> {
    locks: &'a SessionLocks<D>,
    errand: &'a Errand,
    /// Whether a connection was found dead and no reconnection has failed or succeeded since: the first death only
    /// means that the server closed the connection some time ago.
    reconnected: bool,
    /// Whether the server has said that somebody else holds the lock: whoever waits for that is not told that this locker
    /// holds too many, which may have changed by the time that the lock is free.
    was_busy: bool,
}

impl<D: Driver> Attempt<'_, D> {
    /// A try, and where that fails a wait.
    async fn round(&mut self) -> Step<()> {
        let Some(permit) = self.try_until_permitted().await? else {
            return Ok(());
        };
        let locks = self.locks;
        let mut opening = pin!(locks.waiters.check_out());
        // Opening may take as long as the connect time-out, and the lock can be free long before.
        let waiter = loop {
            tokio::select! {
                biased;
                () = self.errand.called_off() => return Err(Taken::CalledOff),
                waiter = &mut opening => break waiter,
                () = time::sleep(jitter()) => {
                    if !self.try_once().await? {
                        return Ok(());
                    }
                }
            }
        };
        if let Ok(waiter) = waiter {
            return self.wait(waiter, permit).await;
        }
        // No connection to be had: tries on the keeper have to do, and the permit serves others.
        drop(permit);
        self.pause_between_tries().await
    }

    /// Tries on the keeper, and again from time to time while too many others wait. `None`: the server could not
    /// be asked; start anew.
    async fn try_until_permitted(&mut self) -> Step<Option<Permit>> {
        let mut permit = pin!(self.locks.waiters.permit());
        loop {
            if !self.try_once().await? {
                return Ok(None);
            }
            // Whoever came for one try has the answer: without a pause for the queue to read it, an idle waiter would
            // stand in the server's queue before the errand is called off, and keep others out for that moment.
            tokio::task::yield_now().await;
            if self.errand.is_called_off() {
                return Err(Taken::CalledOff);
            }
            tokio::select! {
                biased;
                () = self.errand.called_off() => return Err(Taken::CalledOff),
                permit = &mut permit => return Ok(Some(permit)),
                () = time::sleep(jitter()) => {}
            }
        }
    }

    /// One try on the keeper. `true`: somebody else holds the lock.
    async fn try_once(&mut self) -> Step<bool> {
        let keeper = tokio::select! {
            biased;
            () = self.errand.called_off() => return Err(Taken::CalledOff),
            keeper = self.locks.keeper.get() => keeper,
        };
        let keeper = match keeper {
            Ok(keeper) => keeper,
            Err(trouble) => {
                self.trouble(trouble).await?;
                return Ok(false);
            }
        };
        if self.errand.want.fenced {
            // The keeper is asked for all the same: it knows which server is the one, and ends a wait.
            return self.try_apart().await;
        }
        let room = self.room().await?;
        // From here the try runs to its end, also when the errand is called off: an answer that nobody reads
        // could be a lock that nobody knows of.
        let sent = Moment::now();
        match keeper
            .try_lock(&self.errand.key, self.errand.want.mode)
            .await
        {
            Ok(true) => {
                keeper.confirm(sent);
                // The answer may have come while this process was stopped, and the server has ended the session
                // since.
                if let Some(reason) = keeper.vitality().lost() {
                    keeper.lose(reason.clone());
                    self.failed(gone(&reason)).await?;
                    return Ok(false);
                }
                let vitality = keeper.vitality().clone();
                Err(hold::<D>(keeper, vitality, self.errand, None, room))
            }
            Ok(false) => {
                self.reconnected = false;
                self.was_busy = true;
                self.errand.report(Progress::Busy);
                Ok(true)
            }
            Err(error) => {
                self.failed(error).await?;
                Ok(false)
            }
        }
    }

    /// Room for one more lock, or the end of the errand.
    async fn room(&self) -> Step<Room> {
        let held = &self.locks.held;
        if let Some(room) = held.room_now() {
            return Ok(room);
        }
        let since = Moment::now();
        let mut room = pin!(held.room());
        loop {
            let is_over = held.is_full() || Moment::now().since(since) > TRIED_WITHIN;
            if is_over && !self.was_busy {
                return Err(Taken::TooMany { most: held.most() });
            }
            tokio::select! {
                biased;
                room = &mut room => return Ok(room),
                () = self.errand.called_off() => return Err(Taken::CalledOff),
                () = time::sleep(jitter()) => {}
            }
        }
    }

    /// Waits in the server's queue, for a while.
    async fn wait(&mut self, waiter: Arc<Live<D::Session>>, permit: Permit) -> Step<()> {
        let errand = self.errand;
        let room = match self.room().await {
            Ok(room) => room,
            Err(ended) => {
                self.locks.waiters.put_back(waiter);
                return Err(ended);
            }
        };
        let at_most = self.longest_wait();
        let overdue = at_most + ROUNDED_UP_BY + self.locks.limits.answer();
        let sent = Moment::now();
        let answer = {
            let _quiet = waiter.without_heartbeat();
            let session = waiter.session();
            let mut waiting = pin!(session.wait_lock(&errand.key, errand.want.mode, at_most));
            tokio::select! {
                biased;
                answer = &mut waiting => answer,
                reason = waiter.vitality().ended() => Err(gone(&reason)),
                () = time::sleep(overdue) => Err(gone("the server did not end a wait in time")),
                () = errand.called_off() => {
                    let left = at_most.saturating_sub(Moment::now().since(sent));
                    return self.end_wait(&waiter, waiting, sent, left, room).await;
                }
            }
        };
        drop(permit);
        match answer {
            Ok(Wait::Granted) => self.granted(waiter, sent, room).await,
            Ok(Wait::TimedOut) => {
                waiter.confirm(sent);
                self.locks.waiters.put_back(waiter);
                Ok(())
            }
            // Nobody of ours has interrupted it: another interruption may be on its way.
            Ok(Wait::Interrupted) => {
                waiter.lose("somebody else interrupted the wait");
                self.pause_between_tries().await
            }
            Err(error) => {
                waiter.lose(format!("the wait failed: {error}"));
                match error {
                    DriverError::Refused { .. } => self.failed(error).await,
                    // Whether the server can be asked is the keeper's to find out. What closes the waits, be it
                    // something on the way, may close the next one as soon as it is opened.
                    DriverError::Gone { .. } => self.pause_between_tries().await,
                }
            }
        }
    }

    /// The errand was called off while the server waits: ends the wait, and leaves nothing behind.
    async fn end_wait(
        &mut self,
        waiter: &Arc<Live<D::Session>>,
        mut waiting: Pin<&mut impl Future<Output = Result<Wait, DriverError>>>,
        sent: Moment,
        left: Duration,
        room: Room,
    ) -> Step<()> {
        #[cfg(dlock_sabotage)]
        if crate::sabotage::is_on("forgotten-wait") {
            return Err(Taken::CalledOff);
        }
        if left < ENDS_BY_ITSELF
            && let Ok(ended) = time::timeout(2 * ENDS_BY_ITSELF, &mut waiting).await
        {
            match ended {
                // Somebody may have joined the line meanwhile; the queue knows.
                Ok(Wait::Granted) => return self.granted(waiter.clone(), sent, room).await,
                Ok(Wait::TimedOut) => self.locks.waiters.put_back(waiter.clone()),
                Ok(Wait::Interrupted) => waiter.lose("somebody else interrupted the wait"),
                Err(error) => waiter.lose(format!("the wait failed: {error}")),
            }
            return Err(Taken::CalledOff);
        }
        let interrupted = async {
            self.interrupt(waiter).await?;
            waiting.await
        };
        match time::timeout(INTERRUPTED_WITHIN, interrupted).await {
            Ok(Ok(Wait::Interrupted)) => self.locks.waiters.put_back(waiter.clone()),
            Ok(Ok(Wait::Granted)) => {
                // The interruption came too late, and would hit the next statement. Closing the connection frees
                // the lock, but only some time later; this process's next request must find it free.
                let _ = waiter.unlock(&self.errand.key, self.errand.want.mode).await;
                waiter.lose("an interruption came too late");
            }
            Ok(Ok(Wait::TimedOut)) => waiter.lose("an interruption came too late"),
            Ok(Err(_)) | Err(_) => waiter.lose("a wait could not be interrupted"),
        }
        Err(Taken::CalledOff)
    }

    /// Interrupts the wait of a waiter, with the keeper's help.
    async fn interrupt(&self, waiter: &Arc<Live<D::Session>>) -> Result<(), DriverError> {
        let keeper = self.locks.keeper.present();
        let keeper = keeper.ok_or_else(|| gone("the keeper is not connected"))?;
        let waiter = waiter.clone();
        to_its_end(async move { waiter.session().interrupt(keeper.session()).await }).await
    }

    /// A connection of its own was granted the lock.
    async fn granted(
        &mut self,
        waiter: Arc<Live<D::Session>>,
        sent: Moment,
        room: Room,
    ) -> Step<()> {
        waiter.confirm(sent);
        // Who was stopped during the wait looks again before the body starts, and so does who might not get to the
        // next heartbeat.
        let limits = &self.locks.limits;
        let late = Moment::now().since(sent) > limits.wait() + ROUNDED_UP_BY
            || waiter.vitality().remaining() < 2 * limits.heartbeat;
        if late && let Err(error) = waiter.check().await {
            return self.failed(error).await;
        }
        if let Some(reason) = waiter.vitality().lost() {
            waiter.lose(reason.clone());
            return self.failed(gone(&reason)).await;
        }
        if self.errand.want.fenced {
            return self.count(waiter, room).await;
        }
        let vitality = waiter.vitality().clone();
        let home = Some(self.locks.waiters.clone());
        Err(hold(waiter, vitality, self.errand, home, room))
    }

    /// A statement failed: the errand ends where the server refused it, and goes on where the connection is gone.
    async fn failed(&mut self, error: DriverError) -> Step<()> {
        match error {
            DriverError::Refused {
                code,
                message,
                source,
            } => Err(Taken::Refused {
                code,
                message,
                source,
            }),
            DriverError::Gone { .. } if !self.reconnected => {
                self.reconnected = true;
                Ok(())
            }
            DriverError::Gone { reason, source } => self.trouble(Trouble { reason, source }).await,
        }
    }

    /// The server cannot be asked: says so, and waits until the next attempt makes sense.
    async fn trouble(&mut self, trouble: Trouble) -> Step<()> {
        self.errand.report(Progress::Trouble(trouble));
        tokio::select! {
            biased;
            () = self.errand.called_off() => Err(Taken::CalledOff),
            () = self.locks.keeper.pause() => Ok(()),
        }
    }

    async fn pause_between_tries(&self) -> Step<()> {
        tokio::select! {
            biased;
            () = self.errand.called_off() => Err(Taken::CalledOff),
            () = time::sleep(jitter()) => Ok(()),
        }
    }

    /// As long as somebody wants to wait, within the bound.
    fn longest_wait(&self) -> Duration {
        let bound = self.locks.limits.wait();
        match self.errand.patience() {
            Some(deadline) => deadline
                .saturating_duration_since(Instant::now())
                .clamp(Duration::from_millis(1), bound),
            None => bound,
        }
    }
}

fn jitter() -> Duration {
    Duration::from_millis(fastrand::u64(BETWEEN_TRIES.0..BETWEEN_TRIES.1))
}
