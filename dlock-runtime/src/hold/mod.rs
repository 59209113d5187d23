//! Whether a hold can still be vouched for, and what runs under it.

mod current;
pub(crate) mod frame;
mod renewing;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use once_cell::sync::OnceCell;
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

pub(crate) use renewing::{MAX_TTL, MIN_TTL, promise_all, renew_all};

pub use current::{Current, assert_locked, check, current};

use crate::clock::Moment;

/// What vouches for holds: one for each server session, shared by every lock that the session holds.
///
/// It ends in one of two ways, and never comes back: somebody calls [`lose`](Self::lose), or the last confirmation
/// grows too old. The second needs no thread to notice it: every look compares the clock, so that a process that
/// was stopped finds its holds lost before it does anything else.
pub(crate) struct Vitality {
    life: Arc<Life>,
    /// The fencing token of the one hold that this vouches for.
    token: Option<u64>,
    /// Of a lease alone.
    lease: Option<LeaseHold>,
}

/// What ends, once for all who share it.
struct Life {
    /// Until when the last confirmation counts, on [`clock`](crate::clock), in nanoseconds.
    valid_until: AtomicU64,
    lost: OnceCell<Arc<str>>,
    bell: Arc<Notify>,
    /// Of a session alone: the server, and what of it the names of its locks belong to.
    place: Option<Arc<str>>,
}

/// What a lease has besides: a way to be lengthened, and `min_hold`.
#[derive(Default)]
struct LeaseHold {
    renew: OnceCell<Renew>,
    /// Until when its row has to last whatever becomes of this process, on [`clock`](crate::clock), in nanoseconds.
    promised: AtomicU64,
    /// Until when its row stays taken after the release. A body that has begun asked for it.
    kept: AtomicU64,
}

/// Renews a lease: for that long, from now on, or, if it is `None`, so that it lasts as long as was promised. `Err` says why
/// it did not go.
pub(crate) type Renew =
    Box<dyn Fn(Option<Duration>) -> BoxFuture<'static, Result<(), Arc<str>>> + Send + Sync>;

impl Life {
    fn new(valid_until: u64, place: Option<Arc<str>>) -> Arc<Life> {
        Arc::new(Life {
            valid_until: AtomicU64::new(valid_until),
            lost: OnceCell::new(),
            bell: Arc::default(),
            place,
        })
    }
}

impl Vitality {
    /// Vouched for until `valid_until`; without limit when there is none.
    pub(crate) fn new(valid_until: Option<Moment>) -> Arc<Vitality> {
        Arc::new(Vitality {
            life: Life::new(valid_until.map_or(u64::MAX, Moment::as_nanos), None),
            token: None,
            lease: None,
        })
    }

    /// Of one session.
    #[cfg(any(feature = "postgres", feature = "mysql"))]
    pub(crate) fn of_session(valid_until: Moment, place: &str) -> Arc<Vitality> {
        Arc::new(Vitality {
            life: Life::new(valid_until.as_nanos(), Some(place.into())),
            token: None,
            lease: None,
        })
    }

    /// Of one lease.
    pub(crate) fn of_lease(valid_until: Moment, token: u64) -> Arc<Vitality> {
        Arc::new(Vitality {
            life: Life::new(valid_until.as_nanos(), None),
            token: Some(token),
            lease: Some(LeaseHold::default()),
        })
    }

    /// The same, for one hold that has a token: both end together. The session may hold other locks later, and what is
    /// left of this hold must not see their tokens.
    pub(crate) fn fenced(&self, token: u64) -> Arc<Vitality> {
        Arc::new(Vitality {
            life: self.life.clone(),
            token: Some(token),
            lease: None,
        })
    }

    /// A number that those have in common that end together, and no others, as long as one of them exists.
    pub(crate) fn life(&self) -> usize {
        Arc::as_ptr(&self.life).addr()
    }

    /// Where the locks of a session are: two of one name are the same lock only in the same place.
    #[cfg(any(feature = "postgres", feature = "mysql"))]
    pub(crate) fn place(&self) -> Option<&str> {
        self.life.place.as_deref()
    }

    /// How the lease is renewed; once.
    pub(crate) fn renew_with(&self, renew: Renew) {
        if let Some(lease) = &self.lease {
            let _ = lease.renew.set(renew);
        }
    }

    /// The fencing token, where there is one.
    pub(crate) fn token(&self) -> Option<u64> {
        self.token
    }

    /// Renews the lease. `None`: it is none.
    pub(crate) fn renew(&self, ttl: Duration) -> Option<BoxFuture<'static, Result<(), Arc<str>>>> {
        let renew = self.lease.as_ref()?.renew.get()?;
        Some(renew(Some(ttl)))
    }

    /// A body is to begin that keeps the lock until then. The answer comes when the lease lasts as long, also if the process
    /// is killed. `None`: it is no lease.
    pub(crate) fn promise(
        &self,
        until: Moment,
    ) -> Option<BoxFuture<'static, Result<(), Arc<str>>>> {
        let lease = self.lease.as_ref()?;
        let renew = lease.renew.get()?;
        lease.promised.fetch_max(until.as_nanos(), Ordering::AcqRel);
        Some(renew(None))
    }

    /// The body has begun: from now on a release leaves the lock taken until then. `false`: it is no lease, and whoever
    /// keeps the lock has to hold it.
    pub(crate) fn keep(&self, until: Moment) -> bool {
        let Some(lease) = &self.lease else {
            return false;
        };
        lease.kept.fetch_max(until.as_nanos(), Ordering::AcqRel);
        true
    }

    /// How long a lease has to last besides what it is renewed for.
    pub(crate) fn promised(&self) -> Moment {
        let promised = |lease: &LeaseHold| lease.promised.load(Ordering::Acquire);
        Moment::from_nanos(self.lease.as_ref().map_or(0, promised))
    }

    /// How long the lock stays taken when it is released now.
    pub(crate) fn kept_for(&self) -> Option<Duration> {
        let kept = self.lease.as_ref()?.kept.load(Ordering::Acquire);
        let rest = Moment::from_nanos(kept).since(Moment::now());
        (!rest.is_zero()).then_some(rest)
    }

    /// Takes back what was vouched for beyond `lasts` from `sent` on.
    pub(crate) fn shorten(&self, sent: Moment, lasts: Duration) {
        self.life
            .valid_until
            .fetch_min(sent.plus(lasts).as_nanos(), Ordering::AcqRel);
    }

    /// The server confirmed the session with a statement that was sent at `sent`.
    pub(crate) fn confirm(&self, sent: Moment, lasts: Duration) {
        self.life
            .valid_until
            .fetch_max(sent.plus(lasts).as_nanos(), Ordering::AcqRel);
    }

    /// Ends it, once: the first reason stays.
    pub(crate) fn lose(&self, reason: impl Into<Arc<str>>) {
        if self.life.lost.set(reason.into()).is_ok() {
            self.life.bell.notify_waiters();
        }
    }

    /// Wakes everybody who listens, without ending anything: they look for themselves.
    pub(crate) fn ring(&self) {
        self.life.bell.notify_waiters();
    }

    /// Why it ended, or `None` while it stands.
    pub(crate) fn lost(&self) -> Option<Arc<str>> {
        if let Some(reason) = self.life.lost.get() {
            return Some(reason.clone());
        }
        if !self.has_run_out() {
            return None;
        }
        self.lose("the server has not confirmed the hold in time: the process, the network or the server was stalled");
        self.life.lost.get().cloned()
    }

    /// Whether it stands, without a word to those who wait for its end: for whoever holds a mutex, under which no
    /// foreign waker may run.
    pub(crate) fn stands_quietly(&self) -> bool {
        self.life.lost.get().is_none() && !self.has_run_out()
    }

    fn has_run_out(&self) -> bool {
        #[cfg(dlock_sabotage)]
        if crate::sabotage::is_on("no-validity") {
            return false;
        }
        let valid_until = self.life.valid_until.load(Ordering::Acquire);
        valid_until != u64::MAX && Moment::now() >= Moment::from_nanos(valid_until)
    }

    /// Whether it stands.
    pub(crate) fn stands(&self) -> bool {
        self.lost().is_none()
    }

    /// How long the last confirmation still counts.
    pub(crate) fn remaining(&self) -> Duration {
        Moment::from_nanos(self.life.valid_until.load(Ordering::Acquire)).since(Moment::now())
    }

    /// As [`remaining`](Self::remaining); `None`: without limit.
    pub(crate) fn vouched_for(&self) -> Option<Duration> {
        let is_bounded = self.life.valid_until.load(Ordering::Acquire) != u64::MAX;
        #[cfg(dlock_sabotage)]
        if is_bounded && crate::sabotage::is_on("boasted-validity") {
            return Some(self.remaining() + Duration::from_secs(2));
        }
        is_bounded.then(|| self.remaining())
    }

    /// Rings when it ends. Look at [`lost`](Self::lost) after the bell was made and polled once, not before.
    pub(crate) fn bell(&self) -> OwnedNotified {
        self.life.bell.clone().notified_owned()
    }

    /// Completes when it ends, with the reason.
    pub(crate) async fn ended(&self) -> Arc<str> {
        loop {
            let mut bell = std::pin::pin!(self.bell());
            bell.as_mut().enable();
            if let Some(reason) = self.lost() {
                return reason;
            }
            bell.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::park::block_on;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_first_reason_stays() {
        let vitality = Vitality::new(None);
        assert!(vitality.stands());
        vitality.lose("first");
        vitality.lose("second");
        assert_eq!(vitality.lost().as_deref(), Some("first"));
    }

    #[test]
    fn a_confirmation_counts_from_the_moment_it_was_asked_for() {
        let long_ago = Moment::from_nanos(0);
        let vitality = Vitality::new(Some(long_ago));
        vitality.confirm(long_ago, SECOND);
        assert!(!vitality.stands());
    }

    #[test]
    fn b7_a_lease_that_was_lengthened_for_a_body_that_never_began_is_not_kept() {
        let until = Moment::now().plus(60 * SECOND);
        let vitality = Vitality::of_lease(until, 1);
        vitality.renew_with(Box::new(|_| Box::pin(std::future::ready(Ok(())))));
        assert!(vitality.promise(until).is_some());
        assert_eq!(vitality.promised(), until);
        assert_eq!(vitality.kept_for(), None);
        assert!(vitality.keep(until));
        assert!(vitality.kept_for().is_some_and(|kept| kept <= 60 * SECOND));
        assert!(vitality.keep(Moment::now()), "the longest counts");
        assert!(vitality.kept_for().is_some());
        let session = Vitality::new(None);
        assert!(!session.keep(until) && session.promise(until).is_none());
    }

    #[test]
    fn what_has_ended_cannot_be_confirmed() {
        let vitality = Vitality::new(Some(Moment::from_nanos(0)));
        assert!(!vitality.stands());
        vitality.confirm(Moment::now(), 60 * SECOND);
        assert!(!vitality.stands());
    }

    #[test]
    fn the_end_wakes_who_waits_for_it() {
        let vitality = Vitality::new(Some(Moment::now().plus(60 * SECOND)));
        let other = vitality.clone();
        let waiter = std::thread::spawn(move || block_on(other.ended()));
        vitality.lose("killed");
        assert_eq!(&*waiter.join().expect("the waiting thread"), "killed");
    }
}
