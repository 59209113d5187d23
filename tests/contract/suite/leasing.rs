//! What leases have and sessions have not: tokens, a ttl, and a life beyond the connection.

use std::time::{Duration, Instant};

use dlock::{Error, Guard};

use crate::site::{SOON, Site, run, until};

const TTL: Duration = Duration::from_secs(3);

pub(crate) fn busy_names_the_owner_of_the_lease(site: &Site) {
    let mut worker = site.worker_with("owner=accounts%20on%20web-1");
    let locker = site.locker();
    let key = site.key("named");
    assert_eq!(worker.ask(&format!("try {key}")), "held");
    let error = site.lock(&locker, &key).timeout(0).acquire_blocking();
    let Err(Error::Busy(busy)) = error else {
        panic!("busy, not: {error:?}");
    };
    let holder = busy.holder.as_ref().expect("the table can tell");
    let program = holder.program.as_deref().expect("a program");
    assert!(program.contains(".worker0"), "{program}");
    assert_eq!(holder.client.as_deref(), Some("owner accounts on web-1"));
    assert!(!holder.this_process);
    assert_eq!(worker.ask(&format!("release {key}")), "released");
}

/// An owner's name is no way in: neither for its other threads nor for its other processes.
pub(crate) fn the_same_owner_does_not_enter_again(site: &Site) {
    let locker = || site.locker_of(site.config().owner("jobs on web-1"));
    let (one, other) = (locker(), locker());
    let guard = site.lock(&one, "k").acquire_blocking().unwrap();
    let token = site.holders("k");
    for locker in [&one, &other] {
        let tried = site.lock(locker, "k").try_acquire_blocking();
        assert!(tried.unwrap().is_none());
    }
    let Err(Error::Busy(busy)) = site.lock(&other, "k").timeout(0).acquire_blocking() else {
        panic!("busy");
    };
    let holder = busy.holder.as_ref().expect("the table can tell");
    assert_eq!(holder.client.as_deref(), Some("owner jobs on web-1"));
    assert!(!holder.this_process, "the same name is not the same locker");
    // The other's renewals and releases are none of this one's.
    other.shutdown_blocking(SOON);
    guard.check().expect("nobody has released it");
    assert_eq!(site.holders("k"), token);
    guard.release_blocking().expect("held to the end");
}

pub(crate) fn tokens_grow_with_each_holder(site: &Site) {
    let lockers = [site.locker(), site.locker()];
    let mut last = 0;
    for round in 0..10 {
        let lock = site.lock(&lockers[round % 2], "tokens");
        let guard = if round % 3 == 0 {
            lock.shared().acquire_blocking().unwrap()
        } else {
            lock.acquire_blocking().unwrap()
        };
        let token = guard.fencing_token().expect("leases have tokens");
        assert!(token > last, "{token} after {last}");
        last = token;
        guard.release_blocking().expect("held to the end");
    }
    // Also among the tasks of one process, to which a lock is not handed over without a new token.
    let lock = site.lock(&lockers[0], "tokens");
    let guard = lock.acquire_blocking().unwrap();
    let before = guard.fencing_token();
    std::thread::scope(|scope| {
        let next = scope.spawn(|| lock.acquire_blocking().unwrap());
        until("the other waits", || {
            lock.try_acquire_blocking().unwrap().is_none()
        });
        guard.release_blocking().expect("held to the end");
        let next = next.join().expect("no panic");
        assert!(next.fencing_token() > before);
    });
}

pub(crate) fn a_killed_process_frees_its_leases_after_their_ttl(site: &Site) {
    let (mut holder, mut next) = (site.worker_with("ttl=3"), site.worker());
    let key = site.key("killed");
    assert_eq!(holder.ask(&format!("try {key}")), "held");
    next.tell(&format!("acquire {key} -"));
    site.until_waiting(1);
    let killed = Instant::now();
    holder.kill();
    assert_eq!(next.answer_within(SOON), "held");
    assert!(killed.elapsed() < SOON);
}

pub(crate) fn a_killed_connection_costs_no_lease(site: &Site) {
    let locker = site.locker_of(site.config().ttl(TTL));
    let guard = site.lock(&locker, "kept").acquire_blocking().unwrap();
    let token = site.holders("kept");
    let killed = site.sessions();
    for session in &killed {
        site.admin().kill(*session);
    }
    // Time has to pass here: the lease is renewed on other connections.
    std::thread::sleep(TTL + TTL / 2);
    assert!(guard.is_held(), "{:?}", guard.check());
    assert_eq!(site.holders("kept"), token);
    assert!(
        site.sessions()
            .iter()
            .all(|session| !killed.contains(session))
    );
    guard.release_blocking().expect("held to the end");
}

pub(crate) fn a_restart_of_the_server_costs_no_lease(site: &Site) {
    let locker = site.locker();
    let guard = site.lock(&locker, "kept").acquire_blocking().unwrap();
    site.server().restart().expect("a restart");
    assert!(guard.is_held());
    let tried = site.lock(&site.locker(), "kept").try_acquire_blocking();
    assert!(tried.unwrap().is_none());
    guard.release_blocking().expect("held to the end");
}

pub(crate) fn a_lease_that_is_not_renewed_is_lost_after_its_ttl(site: &Site) {
    let locker = site.locker_of(site.config().ttl(Duration::from_secs(1)).auto_renew(false));
    let guard = site.lock(&locker, "short").acquire_blocking().unwrap();
    let other = site.lock(&site.locker(), "short").timeout(SOON);
    let others = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| other.acquire_blocking().expect("it expires"));
        let error = run(async { tokio::time::timeout(SOON, guard.lost()).await });
        assert!(error.expect("the holder is told").is_lost());
        waiting.join().expect("no panic")
    });
    assert!(!guard.is_held());
    assert!(others.fencing_token() > guard.fencing_token());
    assert!(guard.release_blocking().is_err_and(|error| error.is_lost()));
    // The late release of the one is none of the other's business.
    assert!(others.is_held());
    assert_eq!(site.holders("short").len(), 1);
}

pub(crate) fn a_lease_can_be_renewed_by_hand(site: &Site) {
    let locker = site.locker_of(site.config().ttl(Duration::from_secs(1)).auto_renew(false));
    let guard = site.lock(&locker, "by hand").acquire_blocking().unwrap();
    guard.renew_blocking(Duration::from_secs(60)).expect("held");
    std::thread::sleep(Duration::from_millis(1500));
    assert!(guard.is_held(), "{:?}", guard.check());
    // Shorter again: what was vouched for beyond is taken back.
    run(guard.renew(Duration::from_secs(1))).expect("held");
    let error = run(async { tokio::time::timeout(SOON, guard.lost()).await });
    assert!(error.expect("the holder is told").is_lost());
    assert!(
        guard
            .renew_blocking(TTL)
            .is_err_and(|error| error.is_lost())
    );
    let refused = guard.renew_blocking(Duration::ZERO);
    assert!(matches!(refused, Err(Error::Unsupported(_))), "{refused:?}");
}

pub(crate) fn a_body_can_renew_and_has_a_token(site: &Site) {
    let locker = site.locker();
    let lock = site.lock(&locker, "body");
    let token = lock
        .run_blocking(|| {
            let current = dlock::current().expect("a body");
            current
                .renew_blocking(Duration::from_secs(90))
                .expect("held");
            current.token().expect("leases have tokens")
        })
        .expect("held to the end");
    let later = run(lock.run(async {
        let current = dlock::current().expect("a body");
        current.renew(Duration::from_secs(90)).await.expect("held");
        current.token().expect("leases have tokens")
    }));
    assert!(later.expect("held to the end") > token);
    let shared: Guard = lock.shared().acquire_blocking().unwrap();
    shared.renew_blocking(TTL).expect("readers can renew too");
}

#[dlock::db_locked(key = "own ttl", ttl = 60, fencing, locker = locker)]
async fn lasting(locker: &dlock::Locker) -> Result<u64, Error> {
    // Longer than the configuration's ttl.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    dlock::check()?;
    dlock::current()
        .and_then(|lock| lock.token())
        .ok_or(Error::NotLocked)
}

#[dlock::db_locked(key = "own ttl", ttl = "100ms", locker = locker)]
fn too_short(locker: &dlock::Locker) -> Result<(), Error> {
    Ok(())
}

pub(crate) fn a_function_can_have_a_ttl_of_its_own(site: &Site) {
    let locker = site.locker_of(site.config().ttl(Duration::from_secs(1)).auto_renew(false));
    site.key("own ttl");
    let token = run(lasting(&locker)).expect("held to the end");
    assert!(run(lasting(&locker)).expect("held to the end") > token);
    let refused = too_short(&locker);
    assert!(matches!(refused, Err(Error::Unsupported(_))), "{refused:?}");
}

#[dlock::db_locked(key = "at most", max_hold = "300ms", locker = locker)]
async fn at_most(locker: &dlock::Locker) -> Result<(), Error> {
    std::future::pending().await
}

/// The lease is renewed until then, and its row is freed with the body's end: nobody waits for its ttl.
pub(crate) fn a_lease_goes_back_at_max_hold(site: &Site) {
    let locker = site.locker_of(site.config().ttl(Duration::from_secs(3600)));
    let other = site.locker();
    site.key("at most");
    let ended = run(at_most(&locker));
    assert!(matches!(ended, Err(Error::HoldExceeded(_))), "{ended:?}");
    let next = other.lock("at most").timeout(SOON).acquire_blocking();
    next.expect("free").release_blocking().expect("held");
}

pub(crate) fn a_waiter_is_woken_soon(site: &Site) {
    // With pauses of an hour between the tries, a wait ends in time only when it is woken.
    let (one, other) = (
        site.locker(),
        site.locker_of(site.config().retry(Duration::from_secs(3600))),
    );
    let guard = site.lock(&one, "woken").acquire_blocking().unwrap();
    // Without another lease the row's end would wake it after 30 s, longer than `SOON`.
    let lock = site.lock(&other, "woken").timeout(Duration::from_secs(120));
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| lock.acquire_blocking());
        site.until_waiting(1);
        let released = Instant::now();
        guard.release_blocking().expect("held to the end");
        drop(waiting.join().expect("no panic").expect("its turn"));
        assert!(released.elapsed() < SOON);
    });
}
