//! Taking one lease: try, announce oneself, wait to be woken or for a while, try again.

use std::sync::Arc;
use std::time::Duration;

use tokio::time;

use super::bells::Bell;
use super::row::DOUBTED_NOTICE;
use super::store::{Answer, Claim, Notice, Store, StoreError};
use super::{Leases, doubts, name_of, shared};
use crate::backend::{Errand, Progress, Taken};
use crate::clock::Moment;
use crate::key::Mode;

/// The longest pause between two tries of who is woken by releases, and of who has to ask.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_millis(200));

/// The first pause of who has to ask; it doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(4);

/// How long others have to take a lock that was just released, where they are woken; and at most, where they have to ask.
const COURTESY: (Duration, Duration) = (Duration::from_millis(15), Duration::from_secs(5));

/// One step's outcome: the errand has ended, or goes on.
type Step<T> = Result<T, Taken>;

/// Takes the lock of an errand, or ends without it.
pub(super) async fn take<S: Store>(leases: &Arc<Leases<S>>, errand: &Errand) -> Taken {
    let name = name_of(&errand.key);
    let bell = leases.bells.hang(&name);
    let mut attempt = Attempt {
        leases,
        errand,
        owner: leases.new_owner(),
        name,
        bell,
        announced: None,
        free_at: None,
        in_doubt: false,
        lost_once: false,
        tries: 0,
        seen: None,
    };
    let taken = attempt.run().await;
    if !matches!(taken, Taken::Held(_)) {
        attempt.withdraw();
    }
    taken
}

struct Attempt<'a, S: Store> {
    leases: &'a Arc<Leases<S>>,
    errand: &'a Errand,
    name: Arc<str>,
    owner: Arc<str>,
    bell: Bell,
    announced: Option<Announcement>,
    /// When the lock becomes free, as far as the last announcement told: nobody says so when a lease just ends.
    free_at: Option<Moment>,
    /// A statement of this owner was lost that may take the lock.
    in_doubt: bool,
    /// A connection was found dead since the last answer: the first death only means that the server closed it some time ago.
    lost_once: bool,
    /// Failed tries in a row.
    tries: u32,
    /// Where the clock is doubted: the row as it was seen first, and when.
    seen: Option<Seen>,
}

struct Announcement {
    since: i64,
    /// `None`: under an owner that was given up.
    made: Option<Moment>,
}

#[derive(Clone, Copy)]
struct Seen {
    version: u64,
    ttl: Duration,
    since: Moment,
}

impl<S: Store> Attempt<'_, S> {
    async fn run(&mut self) -> Taken {
        if let Err(taken) = self.hold_back().await {
            return taken;
        }
        loop {
            match self.round().await {
                Ok(()) => {}
                Err(taken) => return taken,
            }
        }
    }

    /// After some takes in a row of this process, the others have their turn first.
    async fn hold_back(&self) -> Step<()> {
        let pause = self.leases.turn_of_others();
        match self.leases.courtesy.hold_back(&self.name, pause) {
            Some(rest) if self.any_other_waits().await => self.sleep(rest).await,
            _ => Ok(()),
        }
    }

    /// Where nobody is woken, a release also hears of those who were killed while they waited. Their announcements go, and
    /// nobody holds back for them.
    async fn any_other_waits(&self) -> bool {
        let store = &self.leases.store;
        if store.wakes() {
            return true;
        }
        let Ok(Some(row)) = store.read(&self.name).await else {
            return true;
        };
        let doubted = store.doubts_clock();
        for gone in row.gone(doubted) {
            // What fails here is done by the next one.
            let _ = store.retract(&self.name, gone).await;
        }
        // By a clock that is behind, somebody who waits may seem to have waited long ago.
        let mut waiters = row.waiters.values();
        waiters.any(|waiter| !waiter.has_gone(row.now, doubted))
    }

    async fn round(&mut self) -> Step<()> {
        if self.errand.is_called_off() {
            return Err(Taken::CalledOff);
        }
        if self.in_doubt {
            return self.give_owner_up().await;
        }
        let sent = Moment::now();
        let stale = self.stale();
        // It runs to its end, also when the errand is called off: an answer that nobody reads could be a lock that
        // nobody knows of.
        match self.try_once(stale).await {
            Ok(Some(token)) => self.taken(token, sent),
            Ok(None) => self.busy().await,
            Err(error) => self.failed(error).await,
        }
    }

    async fn try_once(&self, stale: Option<u64>) -> Answer<Option<u64>> {
        let Leases {
            store, settings, ..
        } = &**self.leases;
        let claim = Claim {
            name: &self.name,
            owner: &self.owner,
            program: &settings.program,
            ttl: settings.ttl,
            stale,
        };
        match self.errand.want.mode {
            Mode::Exclusive => store.take(&claim).await,
            Mode::Shared => shared::take(&**store, &claim).await,
        }
    }

    fn taken(&mut self, token: u64, sent: Moment) -> Step<()> {
        let (leases, errand) = (self.leases, self.errand);
        let hold = leases.hold(errand, &self.name, &self.owner, token, sent);
        // The answer may have come while this process was stopped, and others have taken the lock since.
        if !hold.vitality.stands() {
            drop(hold);
            // What is dropped is still on its way back under the old owner.
            self.owner = self.leases.new_owner();
            self.announced = None;
            return Ok(());
        }
        Err(Taken::Held(hold))
    }

    /// A statement was lost. What it has done is undone before the next try, and what it may still do is looked for apart
    /// (see [`doubts`]). It is not taken over: the row says what this server has done, and not whether that would outlast
    /// a failover, for which the lost answer would have vouched.
    async fn give_owner_up(&mut self) -> Step<()> {
        let store = &self.leases.store;
        match doubts::free(&**store, &self.name, &self.owner).await {
            Ok(freed) => {
                if freed.is_wanted {
                    store.wake(&self.name).await;
                }
                if !freed.was_held {
                    self.leases.doubt(&self.name, &self.owner);
                }
                self.owner = self.leases.new_owner();
                self.in_doubt = false;
                if let Some(announced) = &mut self.announced {
                    announced.made = None;
                }
                Ok(())
            }
            Err(error) => self.failed(error).await,
        }
    }

    /// Somebody else has the lock.
    async fn busy(&mut self) -> Step<()> {
        self.lost_once = false;
        self.errand.report(Progress::Busy);
        // Whoever came for one try has the answer: the queue needs a moment to read it.
        tokio::task::yield_now().await;
        if self.errand.is_called_off() {
            return Err(Taken::CalledOff);
        }
        if self.leases.store.doubts_clock() {
            self.observe().await?;
        }
        let remaining = self.announce().await?;
        let pause = self.pause(remaining);
        self.tries = self.tries.saturating_add(1);
        tokio::select! {
            biased;
            () = self.errand.called_off() => Err(Taken::CalledOff),
            () = self.bell.rung() => {
                // Should it be busy all the same, it is so for another time than was told before.
                self.free_at = None;
                Ok(())
            }
            () = time::sleep(pause) => Ok(()),
        }
    }

    /// Says in the row that somebody waits, so that the release wakes. `None`: it is free, or was said already.
    async fn announce(&mut self) -> Step<Option<Duration>> {
        let lasts = 3 * self.leases.longest_pause().max(Duration::from_secs(1));
        let now = Moment::now();
        if let Some(made) = self.announced.as_ref().and_then(|announced| announced.made)
            && now.since(made) < lasts / 3
            && let Some(free_at) = self.free_at
        {
            // It should have been free by now: it was renewed, and the next announcement tells until when.
            let remaining = free_at.since(now);
            return Ok((!remaining.is_zero()).then_some(remaining));
        }
        let notice = Notice {
            name: &self.name,
            owner: &self.owner,
            mode: self.errand.want.mode,
            since: self.announced.as_ref().map(|announced| announced.since),
            lasts,
        };
        match self.leases.store.announce(&notice).await {
            Ok(Some(announced)) => {
                self.announced = Some(Announcement {
                    since: announced.since,
                    made: Some(now),
                });
                self.free_at = Some(now.plus(announced.remaining));
                Ok(Some(announced.remaining))
            }
            // It has become free meanwhile: the next try is due at once.
            Ok(None) => {
                self.free_at = None;
                Ok(Some(Duration::ZERO))
            }
            Err(error) => {
                self.failed(error).await?;
                Ok(None)
            }
        }
    }

    /// How long until the next try.
    fn pause(&self, remaining: Option<Duration>) -> Duration {
        let longest = self.leases.longest_pause();
        let growing = FIRST_PAUSE.saturating_mul(1 << self.tries.min(16));
        let pause = if self.leases.store.wakes() {
            longest
        } else {
            growing.min(longest)
        };
        let jittered = pause.mul_f64(0.5 + fastrand::f64() / 2.0);
        match remaining {
            // Free, and yet it was not to be had: somebody is just taking it, or keeps takes off.
            Some(Duration::ZERO) if self.tries < 2 => Duration::ZERO,
            Some(Duration::ZERO) => growing.min(longest).mul_f64(0.5 + fastrand::f64() / 2.0),
            Some(remaining) => jittered.min(remaining + FIRST_PAUSE),
            None => jittered,
        }
    }

    /// Looks whether the row changes.
    async fn observe(&mut self) -> Step<()> {
        let row = match self.leases.store.read(&self.name).await {
            Ok(row) => row,
            Err(error) => return self.failed(error).await,
        };
        self.seen = row.map(|row| {
            let new = Seen {
                version: row.version,
                ttl: Duration::from_micros(u64::try_from(row.ttl).unwrap_or(0)),
                since: Moment::now(),
            };
            self.seen
                .filter(|seen| seen.version == new.version)
                .unwrap_or(new)
        });
        Ok(())
    }

    /// The version at which the row was seen unchanged for its whole ttl.
    fn stale(&self) -> Option<u64> {
        let seen = self.seen?;
        (Moment::now().since(seen.since) > seen.ttl).then_some(seen.version)
    }

    /// A statement failed: the errand ends where the server refused it, and goes on where it cannot be asked.
    async fn failed(&mut self, error: StoreError) -> Step<()> {
        match error {
            StoreError::Refused {
                code,
                message,
                source,
            } => Err(Taken::Refused {
                code,
                message,
                source,
            }),
            StoreError::Again { .. } => {
                self.tries = self.tries.saturating_add(1);
                let pause = FIRST_PAUSE.mul_f64(fastrand::f64() * f64::from(self.tries.min(16)));
                self.sleep(pause).await
            }
            error => {
                self.in_doubt |= matches!(error, StoreError::Gone { .. });
                if matches!(error, StoreError::Gone { .. }) && !self.lost_once {
                    self.lost_once = true;
                    return Ok(());
                }
                self.errand.report(Progress::Trouble(error.into()));
                let leases = self.leases;
                tokio::select! {
                    biased;
                    () = self.errand.called_off() => Err(Taken::CalledOff),
                    () = leases.store.pause() => Ok(()),
                }
            }
        }
    }

    async fn sleep(&self, pause: Duration) -> Step<()> {
        tokio::select! {
            biased;
            () = self.errand.called_off() => Err(Taken::CalledOff),
            () = time::sleep(pause) => Ok(()),
        }
    }

    /// The errand ends without the lock: nothing of it stays in the row.
    fn withdraw(&mut self) {
        let leases = self.leases;
        if std::mem::take(&mut self.in_doubt) {
            leases.doubt(&self.name, &self.owner);
        } else if self.announced.take().is_some() {
            let (store, name, owner) =
                (leases.store.clone(), self.name.clone(), self.owner.clone());
            let ttl = leases.settings.ttl;
            leases.runtime.spawn(async move {
                let begin = Moment::now();
                while Moment::now().since(begin) < ttl {
                    match store.retract(&name, &owner).await {
                        Ok(true) => return store.wake(&name).await,
                        Ok(false) | Err(StoreError::Refused { .. }) => return,
                        Err(_) => store.pause().await,
                    }
                }
            });
        }
    }
}

impl<S: Store> Leases<S> {
    /// The longest pause between two tries.
    pub(super) fn longest_pause(&self) -> Duration {
        let default = if self.store.wakes() {
            PAUSE.0
        } else {
            self.store.asks_every().unwrap_or(PAUSE.1)
        };
        let longest = self.settings.retry.unwrap_or(default);
        if self.store.doubts_clock() {
            // An announcement counts for three pauses.
            longest.min(DOUBTED_NOTICE / 3)
        } else {
            longest
        }
    }

    /// How long to hold back for others.
    pub(super) fn turn_of_others(&self) -> Duration {
        if self.store.wakes() {
            COURTESY.0
        } else {
            COURTESY.1.min(self.longest_pause() * 3 / 2)
        }
    }
}
