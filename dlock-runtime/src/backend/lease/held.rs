//! The leases that this locker holds, and how they are kept alive.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time;

use super::store::{Renewal, Renewed, Store, StoreError};
use super::{AT_ONCE, validity};
use crate::clock::Moment;
use crate::hold::Vitality;
use crate::key::Mode;

/// One lease, from the take to the release.
pub(super) struct Lease {
    pub(super) name: Arc<str>,
    pub(super) owner: Arc<str>,
    pub(super) token: u64,
    pub(super) mode: Mode,
    taken: Moment,
    vitality: Arc<Vitality>,
    state: Mutex<State>,
    /// Rings when a renewal has ended.
    settled: Notify,
}

struct State {
    ttl: Duration,
    phase: Phase,
    /// When the last confirming statement was sent.
    confirmed: Moment,
    /// When the next renewal is to be sent, other than a third of the ttl later.
    again: Option<Moment>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Held,
    /// A renewal is on its way.
    Renewing,
    /// It goes back: no more renewals.
    Ending,
}

impl Lease {
    pub(super) fn new(
        name: &Arc<str>,
        owner: &Arc<str>,
        token: u64,
        mode: Mode,
        ttl: Duration,
        sent: Moment,
    ) -> Arc<Lease> {
        Arc::new(Lease {
            name: name.clone(),
            owner: owner.clone(),
            token,
            mode,
            taken: sent,
            vitality: Vitality::of_lease(sent.plus(validity(ttl)), token),
            state: Mutex::new(State {
                ttl,
                phase: Phase::Held,
                confirmed: sent,
                again: None,
            }),
            settled: Notify::new(),
        })
    }

    pub(super) fn vitality(&self) -> &Arc<Vitality> {
        &self.vitality
    }

    /// Stops the renewals, and waits for one that is on its way: it must not come after the release.
    pub(super) async fn stop(&self) {
        self.settle(Phase::Ending).await;
    }

    /// Enters a phase once no renewal is on its way. `false`: it goes back already.
    async fn settle(&self, next: Phase) -> bool {
        loop {
            let mut settled = std::pin::pin!(self.settled.notified());
            settled.as_mut().enable();
            {
                let mut state = self.lock();
                match state.phase {
                    Phase::Ending => return false,
                    Phase::Held => {
                        state.phase = next;
                        return true;
                    }
                    Phase::Renewing => {}
                }
            }
            settled.await;
        }
    }

    /// Begins a renewal, unless one is on its way or the lease goes back.
    fn begin(&self) -> Option<Renewal> {
        let mut state = self.lock();
        if state.phase != Phase::Held || !self.vitality.stands_quietly() {
            return None;
        }
        state.phase = Phase::Renewing;
        Some(self.renewal(state.ttl))
    }

    /// How long it lasts from now on. The readers of a process share one lease: what the longest was given counts for all.
    fn lasts(&self, asked: Duration) -> Duration {
        let mut state = self.lock();
        state.ttl = match self.mode {
            Mode::Exclusive => asked,
            Mode::Shared => state.ttl.max(asked),
        };
        state.ttl
    }

    fn renewal(&self, ttl: Duration) -> Renewal {
        Renewal {
            name: self.name.clone(),
            owner: self.owner.clone(),
            token: self.token,
            mode: self.mode,
            // What was promised has to be in the row when this process dies; nobody vouches for it.
            ttl: ttl.max(self.vitality.promised().since(Moment::now())),
        }
    }

    /// How long it has lasted.
    pub(super) fn held_for(&self) -> Duration {
        Moment::now().since(self.taken)
    }

    /// How long a confirmation lets it last.
    pub(super) fn ttl(&self) -> Duration {
        self.lock().ttl
    }

    /// Whether the row lasts as long as was promised, without one more renewal.
    pub(super) fn lasts_as_promised(&self) -> bool {
        let state = self.lock();
        state.confirmed.plus(state.ttl) >= self.vitality.promised()
    }

    /// A renewal that was sent at `sent` has ended. `Err`: its outcome is unknown, or it was not carried out.
    fn end(&self, sent: Moment, outcome: Result<Renewed, ()>) {
        {
            let mut state = self.lock();
            let soon = |part: u32| Some(Moment::now().plus(pause(state.ttl, part)));
            match outcome {
                Ok(Renewed::Yes) => {
                    self.vitality.confirm(sent, validity(state.ttl));
                    state.confirmed = sent;
                    state.again = None;
                }
                Ok(Renewed::Locked) => state.again = soon(60),
                Ok(Renewed::Lost) => {}
                Err(()) => state.again = soon(30),
            }
            if state.phase == Phase::Renewing {
                state.phase = Phase::Held;
            }
        }
        if outcome == Ok(Renewed::Lost) {
            self.vitality
                .lose("the table says that the lease has another owner, or has expired");
        }
        self.settled.notify_waiters();
    }

    /// When the next renewal is due. `None`: one is on its way, or the lease goes back.
    fn due(&self) -> Option<Moment> {
        let state = self.lock();
        let next = || state.confirmed.plus(state.ttl / 3);
        (state.phase == Phase::Held).then(|| state.again.unwrap_or_else(next))
    }

    /// Whether it is worth renewing along with others that are due: the more go together, the fewer statements there are.
    fn may_go_along(&self, now: Moment) -> bool {
        let state = self.lock();
        state.phase == Phase::Held
            && state.again.is_none_or(|again| again <= now)
            && now.since(state.confirmed) >= state.ttl / 12
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn pause(ttl: Duration, part: u32) -> Duration {
    (ttl / part).clamp(Duration::from_millis(10), Duration::from_secs(1))
}

/// All leases of a locker.
#[derive(Default)]
pub(super) struct Held {
    leases: Mutex<HashMap<u64, Arc<Lease>>>,
    next_id: AtomicU64,
    /// When the keeper of the leases looks next, on the clock of holds.
    wakes_at: AtomicU64,
    poke: Notify,
}

impl Held {
    /// Keeps a lease from now on.
    pub(super) fn add(&self, lease: &Arc<Lease>) -> u64 {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        self.lock().insert(id, lease.clone());
        self.look_at(lease);
        id
    }

    pub(super) fn remove(&self, id: u64) {
        self.lock().remove(&id);
    }

    /// Ends every lease, with this reason.
    pub(super) fn lose_all(&self, reason: &str) -> Vec<Arc<Lease>> {
        let leases: Vec<_> = self.lock().drain().map(|(_, lease)| lease).collect();
        for lease in &leases {
            lease.vitality.lose(reason);
        }
        leases
    }

    /// Wakes the keeper, if it would look too late.
    fn look_at(&self, lease: &Lease) {
        let first = lease.due().map_or(0, Moment::as_nanos);
        if first < self.wakes_at.load(Ordering::Acquire) {
            self.poke.notify_one();
        }
    }

    /// Ends what has run out, and says what is due, and when to look again.
    fn look(&self, renewals: Renewals, trouble: Option<&str>) -> (Vec<Arc<Lease>>, Moment) {
        let leases: Vec<_> = self.lock().values().cloned().collect();
        let now = Moment::now();
        // A look now and then, also where nothing is held: a lease that is taken meanwhile then needs to wake nobody.
        let mut next = now.plus(renewals.period);
        let mut any_is_due = false;
        let mut standing = Vec::with_capacity(leases.len());
        for lease in leases {
            let remaining = lease.vitality.remaining();
            if remaining.is_zero()
                && let Some(trouble) = trouble
            {
                lease
                    .vitality
                    .lose(format!("the lease could not be renewed in time: {trouble}"));
            }
            if !lease.vitality.stands() {
                continue;
            }
            next = next.min(now.plus(remaining));
            if renewals.automatic
                && let Some(due) = lease.due()
            {
                any_is_due |= due <= now;
                if due > now {
                    next = next.min(due);
                }
                standing.push(lease);
            }
        }
        let due = |lease: &Arc<Lease>| {
            lease.due().is_some_and(|due| due <= now) || lease.may_go_along(now)
        };
        let due = if any_is_due {
            standing.into_iter().filter(due).collect()
        } else {
            Vec::new()
        };
        (due, next)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Arc<Lease>>> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How leases are kept alive.
#[derive(Clone, Copy)]
pub(super) struct Renewals {
    pub(super) automatic: bool,
    pub(super) period: Duration,
}

/// Renews what is due and ends what has run out, as long as the locker lives. A task of its own.
pub(super) async fn keep<S: Store>(store: Arc<S>, held: Weak<Held>, renewals: Renewals) {
    let mut renewing: Option<futures_util::future::BoxFuture<'static, Option<String>>> = None;
    let mut trouble: Option<String> = None;
    loop {
        let Some(held) = held.upgrade() else {
            return;
        };
        // Whoever is added from here on pokes, or is seen by the look.
        held.wakes_at.store(u64::MAX, Ordering::Release);
        let (due, next) = held.look(renewals, trouble.as_deref());
        held.wakes_at.store(next.as_nanos(), Ordering::Release);
        if renewing.is_none() && !due.is_empty() {
            renewing = Some(Box::pin(renew_all(store.clone(), due)));
        }
        let sleep = next.since(Moment::now());
        tokio::select! {
            ended = ended(&mut renewing) => {
                renewing = None;
                trouble = ended;
            }
            () = held.poke.notified() => {}
            () = time::sleep(sleep) => {}
        }
    }
}

async fn ended(
    renewing: &mut Option<futures_util::future::BoxFuture<'static, Option<String>>>,
) -> Option<String> {
    match renewing {
        Some(renewing) => renewing.await,
        None => std::future::pending().await,
    }
}

/// Renews leases, [`AT_ONCE`] of them in a statement. Says what went wrong, if something did.
async fn renew_all<S: Store>(store: Arc<S>, due: Vec<Arc<Lease>>) -> Option<String> {
    let mut trouble = None;
    for leases in due.chunks(AT_ONCE) {
        let begun: Vec<_> = leases
            .iter()
            .filter_map(|lease| Some((lease.clone(), lease.begin()?)))
            .collect();
        let (leases, renewals): (Vec<_>, Vec<_>) = begun.into_iter().unzip();
        if renewals.is_empty() {
            continue;
        }
        let begun = Begun(leases);
        let sent = Moment::now();
        match store.renew(&renewals).await {
            Ok(outcomes) => begun.end(sent, &outcomes),
            Err(error) => trouble = Some(error.to_string()),
        }
    }
    trouble
}

/// Leases whose renewal is on its way; those that are dropped have an unknown outcome.
struct Begun(Vec<Arc<Lease>>);

impl Begun {
    fn end(mut self, sent: Moment, outcomes: &[Renewed]) {
        let leases = std::mem::take(&mut self.0);
        for (index, lease) in leases.iter().enumerate() {
            // An answer that is missing is no confirmation.
            lease.end(sent, outcomes.get(index).copied().ok_or(()));
        }
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        for lease in &self.0 {
            lease.end(Moment::now(), Err(()));
        }
    }
}

/// Lengthens or shortens one lease now; it is renewed by the new ttl from then on.
pub(super) async fn renew_one<S: Store>(
    store: &S,
    held: &Held,
    lease: &Arc<Lease>,
    ttl: Duration,
) -> Result<(), Arc<str>> {
    if let Some(reason) = lease.vitality.lost() {
        return Err(reason);
    }
    if !lease.settle(Phase::Renewing).await {
        return Err("the lock is being released".into());
    }
    let begun = Begun(vec![lease.clone()]);
    let sent = Moment::now();
    let ttl = lease.lasts(ttl);
    // A shorter lease must not be vouched for beyond its end, whatever becomes of the statement.
    lease.vitality.shorten(sent, validity(ttl));
    let renewal = lease.renewal(ttl);
    let mut outcome = store.renew(std::slice::from_ref(&renewal)).await;
    while matches!(&outcome, Ok(outcomes) if outcomes.first() == Some(&Renewed::Locked))
        || matches!(&outcome, Err(error) if !matches!(error, StoreError::Refused { .. }))
    {
        if let Some(reason) = lease.vitality.lost() {
            return Err(reason);
        }
        time::sleep(pause(ttl, 60)).await;
        outcome = store.renew(std::slice::from_ref(&renewal)).await;
    }
    let result = match outcome {
        Ok(outcomes) => {
            // Counted from the first attempt, which is early enough for each.
            begun.end(sent, &outcomes);
            lease.vitality.lost().map_or(Ok(()), Err)
        }
        Err(error) => Err(error.to_string().into()),
    };
    held.look_at(lease);
    result
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn lease(ttl: Duration) -> Arc<Lease> {
        let (name, owner) = ("key".into(), "owner".into());
        Lease::new(&name, &owner, 1, Mode::Exclusive, ttl, Moment::now())
    }

    #[test]
    fn l3_renewals_are_stopped_and_joined_before_the_release() {
        let lease = lease(Duration::from_secs(30));
        assert!(lease.begin().is_some());
        assert!(lease.begin().is_none(), "one at a time");
        let mut stopping = Box::pin(lease.stop());
        assert!((&mut stopping).now_or_never().is_none(), "it is on its way");
        lease.end(Moment::now(), Ok(Renewed::Yes));
        assert!((&mut stopping).now_or_never().is_some());
        assert!(lease.begin().is_none(), "no renewal after that");
        assert_eq!(lease.due(), None);
    }

    #[test]
    fn l3_a_lost_lease_is_not_vouched_for() {
        let lease = lease(Duration::from_secs(30));
        assert!(lease.begin().is_some());
        lease.end(Moment::now(), Ok(Renewed::Lost));
        assert!(!lease.vitality().stands());
        assert!(lease.begin().is_none());
    }

    #[test]
    fn l3_a_slow_renewal_counts_from_when_it_was_sent() {
        let ago = |seconds: u64| {
            let nanos = Moment::now().as_nanos();
            Moment::from_nanos(nanos.saturating_sub(seconds * 1_000_000_000))
        };
        let (name, owner) = ("key".into(), "owner".into());
        let ttl = Duration::from_secs(30);
        let lease = Lease::new(&name, &owner, 1, Mode::Exclusive, ttl, ago(25));
        assert!(lease.begin().is_some());
        lease.end(ago(20), Ok(Renewed::Yes));
        let left = lease.vitality().remaining();
        assert!(left + Duration::from_secs(20) <= validity(ttl), "{left:?}");
        assert!(lease.due().is_some_and(|due| due <= Moment::now()));
    }

    #[test]
    fn a_reader_that_joins_for_shorter_shortens_nothing() {
        let (long, short) = (Duration::from_secs(60), Duration::from_secs(5));
        let (name, owner) = ("key".into(), "owner".into());
        let lease = |mode| Lease::new(&name, &owner, 1, mode, long, Moment::now());
        assert_eq!(lease(Mode::Shared).lasts(short), long);
        assert_eq!(lease(Mode::Shared).lasts(2 * long), 2 * long);
        // Nobody shares an exclusive lease: it lasts as long as its holder says.
        assert_eq!(lease(Mode::Exclusive).lasts(short), short);
    }

    #[test]
    fn leases_of_different_ages_are_renewed_together() {
        let ttl = Duration::from_secs(30);
        let held = Held::default();
        let now = Moment::now();
        let long_ago = |seconds: u64| {
            let nanos = now.as_nanos().saturating_sub(seconds * 1_000_000_000);
            Moment::from_nanos(nanos)
        };
        let renewals = Renewals {
            automatic: true,
            period: ttl / 3,
        };
        for seconds in [3, 5, 9] {
            let lease = lease(ttl);
            lease.lock().confirmed = long_ago(seconds);
            held.add(&lease);
        }
        assert!(held.look(renewals, None).0.is_empty(), "none is due");
        let oldest = lease(ttl);
        oldest.lock().confirmed = long_ago(11);
        held.add(&oldest);
        held.add(&lease(ttl));
        // All but the one that was taken just now.
        assert_eq!(held.look(renewals, None).0.len(), 4);
    }
}
