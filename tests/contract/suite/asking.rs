//! Questions about a lock, and waits for one that nobody wants to hold.

use std::thread;
use std::time::Duration;

use dlock::Error;

use crate::site::{Site, run, until};

pub(crate) fn locked_tells_of_holders_everywhere(site: &Site) {
    let (one, other) = (site.locker(), site.locker());
    let locks = [site.lock(&one, "k"), site.lock(&other, "k")];
    for lock in &locks {
        assert!(!lock.locked_blocking().unwrap());
    }
    let guard = locks[0].acquire_blocking().unwrap();
    for lock in &locks {
        assert!(lock.locked_blocking().unwrap());
        assert!(run(lock.locked()).unwrap());
    }
    let both = other.lock_all([site.key("free"), site.key("k")]);
    assert!(both.locked_blocking().unwrap());
    guard.release_blocking().expect("held to the end");
    for lock in locks.iter().chain([&both]) {
        assert!(!lock.locked_blocking().unwrap());
        // It was asked for, not taken. Not dropped: a drop does not wait for the server, and the next question is another locker's.
        let guard = lock.try_acquire_blocking().unwrap().expect("free");
        guard.release_blocking().expect("held to the end");
    }
}

pub(crate) fn locked_needs_no_connection_that_lives(site: &Site) {
    let locker = site.locker();
    let lock = site.lock(&locker, "k");
    for session in site.sessions() {
        site.admin().kill(session);
    }
    until("the sessions are gone", || site.sessions().is_empty());
    assert!(!lock.locked_blocking().unwrap());
    let guard = lock.acquire_blocking().unwrap();
    assert!(lock.locked_blocking().unwrap());
    drop(guard);
}

pub(crate) fn wait_free_waits_and_holds_nothing(site: &Site) {
    let (one, other) = (site.locker(), site.locker());
    let (held, waited) = (site.lock(&one, "k"), site.lock(&other, "k"));
    waited.wait_free_blocking().unwrap();
    let guard = held.acquire_blocking().unwrap();
    let timed = waited.clone().timeout(Duration::from_millis(50));
    assert!(matches!(timed.wait_free_blocking(), Err(Error::Busy(_))));
    assert!(matches!(run(timed.wait_free()), Err(Error::Busy(_))));
    thread::scope(|scope| {
        let waiting = scope.spawn(|| waited.wait_free_blocking());
        site.until_waiting(1);
        guard.release_blocking().expect("held to the end");
        waiting.join().expect("no panic").unwrap();
    });
    assert!(!held.locked_blocking().unwrap());
}
