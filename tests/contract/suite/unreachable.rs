//! A server that cannot be asked is unavailable, and never busy.

use std::thread;
use std::time::{Duration, Instant};

use dlock::{Error, InitError, Lock, Locker};
use xtask::proxy::Proxy;

use crate::site::{SOON, Site};

const PATIENCE: Duration = Duration::from_millis(1200);

/// How much later than its deadline a caller may hear of it: a second for the question who holds the lock, and a
/// busy machine.
const LATE: Duration = Duration::from_secs(5);

fn through(site: &Site, proxy: &Proxy) -> Locker {
    let mut config = site
        .config_via(proxy)
        .connect_timeout(Duration::from_secs(2));
    if site.place().is_lease() {
        // A statement that the network kept back can take the lock when nobody is there to hear of it: that lasts for a
        // ttl, which must end before the test's patience.
        config = config.ttl(Duration::from_secs(15));
    }
    site.locker_of(config)
}

fn is_unavailable(lock: &Lock, patience: Duration) {
    let start = Instant::now();
    let error = lock.clone().timeout(patience).acquire_blocking();
    let waited = start.elapsed();
    unavailable(&error.expect_err("the server is out of reach"));
    assert!(waited >= patience, "{waited:?} instead of {patience:?}");
    assert!(
        waited < patience + LATE,
        "{waited:?} instead of {patience:?}"
    );
}

fn one_try_is_unavailable(lock: &Lock) {
    let start = Instant::now();
    let errors = [
        lock.try_acquire_blocking().map(drop),
        lock.clone().timeout(0).acquire_blocking().map(drop),
    ];
    for error in errors {
        unavailable(&error.expect_err("the server is out of reach"));
    }
    assert!(start.elapsed() < 2 * (Duration::from_secs(2) + LATE));
}

fn unavailable(error: &Error) {
    assert!(error.is_unavailable(), "unavailable, not: {error}");
}

fn works_again(lock: &Lock) {
    let guard = lock.clone().timeout(SOON).acquire_blocking();
    let guard = guard.expect("the server is back");
    assert!(guard.is_held());
    guard.release_blocking().expect("held to the end");
}

pub(crate) fn a_refusing_network_is_unavailable(site: &Site) {
    let mut proxy = site.proxy();
    let lock = site.lock(&through(site, &proxy), "refused");
    proxy.refuse();
    is_unavailable(&lock, PATIENCE);
    one_try_is_unavailable(&lock);
    proxy.accept_again().expect("the same port");
    works_again(&lock);
}

pub(crate) fn a_stalled_network_is_unavailable(site: &Site) {
    let proxy = site.proxy();
    let lock = site.lock(&through(site, &proxy), "stalled");
    proxy.stall();
    is_unavailable(&lock, PATIENCE);
    one_try_is_unavailable(&lock);
    proxy.resume();
    works_again(&lock);
}

pub(crate) fn a_network_refused_during_the_wait_is_unavailable(site: &Site) {
    let mut proxy = site.proxy();
    break_during_the_wait(site, &through(site, &proxy), || proxy.refuse());
    proxy.accept_again().expect("the same port");
}

pub(crate) fn a_network_stalled_during_the_wait_is_unavailable(site: &Site) {
    let proxy = site.proxy();
    break_during_the_wait(site, &through(site, &proxy), || proxy.stall());
    proxy.resume();
}

fn break_during_the_wait(site: &Site, locker: &Locker, break_it: impl FnOnce()) {
    let direct = site.locker();
    let guard = site.lock(&direct, "broken").acquire_blocking().unwrap();
    let lock = site.lock(locker, "broken");
    thread::scope(|scope| {
        let waiting = scope.spawn(|| is_unavailable(&lock, Duration::from_secs(2)));
        site.until_waiting(1);
        assert!(!waiting.is_finished());
        break_it();
        waiting.join().unwrap();
    });
    guard.release_blocking().expect("held to the end");
}

pub(crate) fn a_cut_during_the_wait_does_not_end_it(site: &Site) {
    let proxy = site.proxy();
    let (direct, locker) = (site.locker(), through(site, &proxy));
    let guard = site.lock(&direct, "cut").acquire_blocking().unwrap();
    let lock = site.lock(&locker, "cut").timeout(60);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| lock.acquire_blocking());
        site.until_waiting(1);
        let before = site.waiters();
        proxy.cut();
        crate::site::until("another session waits", || {
            let now = site.waiters();
            now.iter().any(|session| !before.contains(session))
        });
        guard.release_blocking().expect("held to the end");
        let guard = waiting.join().unwrap().expect("its turn");
        assert!(guard.is_held());
    });
}

pub(crate) fn a_frozen_server_is_unavailable(site: &Site) {
    let quick = site.config().connect_timeout(Duration::from_secs(2));
    let locker = site.locker_of(quick);
    let lock = site.lock(&locker, "frozen");
    site.server().freeze().expect("it runs");
    is_unavailable(&lock, PATIENCE);
    one_try_is_unavailable(&lock);
    site.server().thaw().expect("it runs");
    works_again(&lock);
}

pub(crate) fn a_server_out_of_reach_fails_the_start(site: &Site) {
    let mut proxy = site.proxy();
    let config = site.config_via(&proxy).connect_timeout(PATIENCE);
    proxy.stall();
    let start = Instant::now();
    let stalled = Locker::connect_blocking(config.clone());
    assert!(start.elapsed() < PATIENCE + LATE);
    proxy.resume();
    proxy.refuse();
    let start = Instant::now();
    let refused = Locker::connect_blocking(config.clone());
    assert!(start.elapsed() < PATIENCE + LATE);
    for error in [stalled, refused].map(Result::unwrap_err) {
        let InitError::Unreachable { endpoint, .. } = &error else {
            panic!("unreachable, not: {error}");
        };
        assert!(endpoint.contains(&proxy.addr().port().to_string()));
        assert!(!format!("{error} {error:?}").contains("secret"));
    }
    proxy.accept_again().expect("the same port");
    // The short time-out was for the server out of reach; a busy machine may need longer for one that answers.
    drop(Locker::connect_blocking(config.connect_timeout(SOON)).expect("the server is back"));
}
