//! A store whose takes can be kept back, as a network does that stalls: the test lets them arrive when it wants to.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::row::{Row, Stamped};
use super::store::{
    Announced, Answer, Claim, Notice, Released, Renewal, Renewed, Store, StoreError, Swap,
};
use super::{Leases, bells::Bells};
use crate::backend::{Backend, Errand, GivenBack, Progress, Taken, Want};
use crate::config::LeaseSettings;
use crate::key::{Mode, ServerKey};

const SOON: Duration = Duration::from_secs(20);

/// The store below, reached with or without the delay.
struct Late<S>(Arc<State<S>>);

struct State<S> {
    store: S,
    /// The next take is kept back, and its connection counts as lost.
    keeps_back: AtomicBool,
    /// The owner of the take that was.
    kept_back: Mutex<Option<String>>,
}

impl<S: Store> Late<S> {
    fn new(store: S) -> Late<S> {
        Late(Arc::new(State {
            store,
            keeps_back: AtomicBool::new(false),
            kept_back: Mutex::new(None),
        }))
    }

    /// The statement arrives. It may do so once.
    async fn arrives(&self, name: &str, owner: &str, ttl: Duration) -> Option<u64> {
        let claim = Claim {
            name,
            owner,
            program: "late",
            ttl,
            stale: None,
        };
        self.0.store.take(&claim).await.expect("an answer")
    }

    async fn row(&self, name: &str) -> Row {
        let row = self.0.store.read(name).await.expect("an answer");
        row.expect("a row")
    }
}

impl<S: Store> Store for Late<S> {
    async fn take(&self, claim: &Claim<'_>) -> Answer<Option<u64>> {
        if self.0.keeps_back.swap(false, Ordering::SeqCst) {
            *self.0.kept_back.lock().expect("no panic") = Some(claim.owner.to_owned());
            return Err(StoreError::Gone {
                reason: "the test has cut the connection".to_owned(),
                source: None,
            });
        }
        self.0.store.take(claim).await
    }

    async fn read(&self, name: &str) -> Answer<Option<Row>> {
        self.0.store.read(name).await
    }

    async fn list(&self, only: Option<&str>) -> Answer<Vec<Stamped>> {
        self.0.store.list(only).await
    }

    async fn create(&self, name: &str) -> Answer<()> {
        self.0.store.create(name).await
    }

    async fn swap(&self, name: &str, change: &Swap) -> Answer<bool> {
        self.0.store.swap(name, change).await
    }

    async fn announce(&self, notice: &Notice<'_>) -> Answer<Option<Announced>> {
        self.0.store.announce(notice).await
    }

    async fn retract(&self, name: &str, owner: &str) -> Answer<bool> {
        self.0.store.retract(name, owner).await
    }

    async fn renew(&self, renewals: &[Renewal]) -> Answer<Vec<Renewed>> {
        self.0.store.renew(renewals).await
    }

    async fn release(
        &self,
        name: &str,
        owner: &str,
        token: u64,
        kept_for: Option<Duration>,
    ) -> Answer<Released> {
        self.0.store.release(name, owner, token, kept_for).await
    }

    async fn wake(&self, name: &str) {
        self.0.store.wake(name).await;
    }

    fn wakes(&self) -> bool {
        self.0.store.wakes()
    }

    fn asks_every(&self) -> Option<Duration> {
        self.0.store.asks_every()
    }

    fn doubts_clock(&self) -> bool {
        self.0.store.doubts_clock()
    }

    async fn pause(&self) {
        self.0.store.pause().await;
    }

    fn connections(&self) -> usize {
        self.0.store.connections()
    }

    fn close(&self, reason: &str) {
        self.0.store.close(reason);
    }
}

/// Rule L3: a take that was lost before others had the lock is harmless, whenever it arrives: it changes nothing that is held, and
/// what it takes is given back at once.
pub(super) async fn a_take_that_comes_late_is_given_back<S: Store>(
    store: S,
    settings: LeaseSettings,
) {
    let ttl = settings.ttl;
    let late = Late::new(store);
    let leases = Leases::new(Late(late.0.clone()), Bells::default(), settings);
    for kept in [false, true] {
        let name = if kept { "kept" } else { "called off" };
        let foreign = late.arrives(name, "other", ttl).await.expect("free");
        // The take is lost, and the next one finds the lock busy.
        late.0.keeps_back.store(true, Ordering::SeqCst);
        let key = ServerKey::Name(name.into());
        let errand = Errand::new(key, Want::plain(Mode::Exclusive), None);
        let taking = tokio::spawn(leases.clone().take(errand.clone()));
        soon("the lock is found busy", async || {
            matches!(errand.progress(), Progress::Busy)
        })
        .await;
        let lost = late.0.kept_back.lock().expect("no panic").take();
        let lost = lost.expect("a take was lost");
        if kept {
            let released = late.0.store.release(name, "other", foreign, None).await;
            assert!(released.expect("an answer").was_held);
            leases.bells.ring(name);
            let Taken::Held(hold) = taking.await.expect("no panic") else {
                panic!("it is free");
            };
            // While the lock is held it changes nothing.
            let before = late.row(name).await;
            assert_eq!(late.arrives(name, &lost, ttl / 2).await, None);
            let after = late.row(name).await;
            assert_eq!(after.token, before.token);
            assert_eq!(Some(after.token), hold.vitality.token());
            assert!(after.expires_at >= before.expires_at);
            assert!(after.owner == before.owner && after.owner != lost);
            assert!(hold.vitality.stands());
            match hold.grant.give_back() {
                GivenBack::Later(released) => released.await.expect("held to the end"),
                GivenBack::Now(_) => panic!("it goes back to the server"),
            }
        } else {
            errand.call_off();
            assert!(matches!(taking.await.expect("no panic"), Taken::CalledOff));
            let released = late.0.store.release(name, "other", foreign, None).await;
            assert!(released.expect("an answer").was_held);
        }
        // Now it takes the lock, which nobody wants any more: others get it soon all the same, and not after a ttl.
        assert!(late.arrives(name, &lost, ttl).await.is_some(), "it is free");
        soon("the lock is free again", async || {
            late.row(name).await.owner.is_empty()
        })
        .await;
    }
    leases.close("the test has ended");
}

async fn soon(what: &str, is_so: impl AsyncFn() -> bool) {
    let waiting = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let in_time = tokio::time::timeout(SOON, waiting).await;
    in_time.unwrap_or_else(|_| panic!("not in time: {what}"));
}
