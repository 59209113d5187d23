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

pub(crate) use renewing::{MAX_TTL, MIN_TTL, renew_all};

pub use current::{Current, assert_locked, check, current};

use crate::clock::Moment;

/// What vouches for holds: one for each server session, shared by every lock that the session holds.
///
/// It ends in one of two ways, and never comes back: somebody calls [`lose`](Self::lose), or the last confirmation
/// grows too old. The second needs no thread to notice it: every look compares the clock, so that a process that
/// was stopped finds its holds lost before it does anything else.
pub(crate) struct Vitality {
    /// Until when the last confirmation counts, on [`clock`](crate::clock), in nanoseconds.
    valid_until: AtomicU64,
    lost: OnceCell<Arc<str>>,
    bell: Arc<Notify>,
    /// Of a session alone: the server, and what of it the names of its locks belong to.
    place: Option<Arc<str>>,
    /// Of a lease alone.
    lease: Option<LeaseHold>,
}

/// What a lease has besides: a token, and a way to be lengthened.
struct LeaseHold {
    token: u64,
    renew: OnceCell<Renew>,
}

/// Renews a lease: for that long, from now on. `Err` says why it did not go.
pub(crate) type Renew =
    Box<dyn Fn(Duration) -> BoxFuture<'static, Result<(), Arc<str>>> + Send + Sync>;

impl Vitality {
    /// Vouched for until `valid_until`; without limit when there is none.
    pub(crate) fn new(valid_until: Option<Moment>) -> Arc<Vitality> {
        Arc::new(Vitality {
            valid_until: AtomicU64::new(valid_until.map_or(u64::MAX, Moment::as_nanos)),
            lost: OnceCell::new(),
            bell: Arc::default(),
            place: None,
            lease: None,
        })
    }

    /// Of one session.
    #[cfg(any(feature = "postgres", feature = "mysql"))]
    pub(crate) fn of_session(valid_until: Moment, place: &str) -> Arc<Vitality> {
        Arc::new(Vitality {
            valid_until: AtomicU64::new(valid_until.as_nanos()),
            lost: OnceCell::new(),
            bell: Arc::default(),
            place: Some(place.into()),
            lease: None,
        })
    }

    /// Of one lease.
    pub(crate) fn of_lease(valid_until: Moment, token: u64) -> Arc<Vitality> {
        Arc::new(Vitality {
            valid_until: AtomicU64::new(valid_until.as_nanos()),
            lost: OnceCell::new(),
            bell: Arc::default(),
            place: None,
            lease: Some(LeaseHold {
                token,
                renew: OnceCell::new(),
            }),
        })
    }

    /// Where the locks of a session are: two of one name are the same lock only in the same place.
    #[cfg(any(feature = "postgres", feature = "mysql"))]
    pub(crate) fn place(&self) -> Option<&str> {
        self.place.as_deref()
    }

    /// How the lease is renewed; once.
    pub(crate) fn renew_with(&self, renew: Renew) {
        if let Some(lease) = &self.lease {
            let _ = lease.renew.set(renew);
        }
    }

    /// The fencing token, where there is one.
    pub(crate) fn token(&self) -> Option<u64> {
        self.lease.as_ref().map(|lease| lease.token)
    }

    /// Renews the lease. `None`: it is none.
    pub(crate) fn renew(&self, ttl: Duration) -> Option<BoxFuture<'static, Result<(), Arc<str>>>> {
        let renew = self.lease.as_ref()?.renew.get()?;
        Some(renew(ttl))
    }

    /// Takes back what was vouched for beyond `lasts` from `sent` on.
    pub(crate) fn shorten(&self, sent: Moment, lasts: Duration) {
        self.valid_until
            .fetch_min(sent.plus(lasts).as_nanos(), Ordering::AcqRel);
    }

    /// The server confirmed the session with a statement that was sent at `sent`.
    pub(crate) fn confirm(&self, sent: Moment, lasts: Duration) {
        self.valid_until
            .fetch_max(sent.plus(lasts).as_nanos(), Ordering::AcqRel);
    }

    /// Ends it, once: the first reason stays.
    pub(crate) fn lose(&self, reason: impl Into<Arc<str>>) {
        if self.lost.set(reason.into()).is_ok() {
            self.bell.notify_waiters();
        }
    }

    /// Wakes everybody who listens, without ending anything: they look for themselves.
    pub(crate) fn ring(&self) {
        self.bell.notify_waiters();
    }

    /// Why it ended, or `None` while it stands.
    pub(crate) fn lost(&self) -> Option<Arc<str>> {
        if let Some(reason) = self.lost.get() {
            return Some(reason.clone());
        }
        if !self.has_run_out() {
            return None;
        }
        self.lose("the server has not confirmed the hold in time: the process, the network or the server was stalled");
        self.lost.get().cloned()
    }

    /// Whether it stands, without a word to those who wait for its end: for whoever holds a mutex, under which no
    /// foreign waker may run.
    pub(crate) fn stands_quietly(&self) -> bool {
        self.lost.get().is_none() && !self.has_run_out()
    }

    fn has_run_out(&self) -> bool {
        #[cfg(dlock_sabotage)]
        if crate::sabotage::is_on("no-validity") {
            return false;
        }
        let valid_until = self.valid_until.load(Ordering::Acquire);
        valid_until != u64::MAX && Moment::now() >= Moment::from_nanos(valid_until)
    }

    /// Whether it stands.
    pub(crate) fn stands(&self) -> bool {
        self.lost().is_none()
    }

    /// How long the last confirmation still counts.
    pub(crate) fn remaining(&self) -> Duration {
        Moment::from_nanos(self.valid_until.load(Ordering::Acquire)).since(Moment::now())
    }

    /// Rings when it ends. Look at [`lost`](Self::lost) after the bell was made and polled once, not before.
    pub(crate) fn bell(&self) -> OwnedNotified {
        self.bell.clone().notified_owned()
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
