//! The orderly end.

use std::thread;
use std::time::Duration;

use dlock::{Error, Locker};
use futures_util::FutureExt;

use crate::site::{SOON, Site, run, until};

fn is_shut_down<T>(outcome: Result<T, Error>) {
    match outcome {
        Err(Error::ShutDown) => {}
        Err(error) => panic!("shut down, not: {error}"),
        Ok(_) => panic!("shut down, and yet a lock was granted"),
    }
}

fn nothing_is_connected(site: &Site, lockers: usize) {
    if site.place().kind().is_some() {
        until("only the other lockers are connected", || {
            site.sessions().len() == lockers * site.place().idle_connections()
        });
    }
}

pub(crate) fn b6_shutdown_sends_the_waiters_away(site: &Site) {
    let (holder, locker) = (site.locker(), site.locker());
    let guard = site.lock(&holder, "wait").acquire_blocking().unwrap();
    run(async {
        let lock = site.lock(&locker, "wait");
        let mut first = Box::pin(lock.acquire());
        let mut second = Box::pin(lock.acquire());
        assert!((&mut first).now_or_never().is_none());
        assert!((&mut second).now_or_never().is_none());
        site.until_waiting(1);
        // Whoever waited is gone from the server, too: nothing is left that the patience could be for.
        let shutdown = locker.shutdown(10 * SOON);
        let report = tokio::time::timeout(SOON, shutdown).await;
        let report = report.expect("nothing is held");
        assert_eq!(report.cut, 0);
        is_shut_down(first.await);
        is_shut_down(second.await);
        is_shut_down(lock.acquire().await);
        is_shut_down(lock.try_acquire().await);
        is_shut_down(site.lock(&locker, "another").acquire().await);
    });
    site.until_waiting(0);
    nothing_is_connected(site, 1);
    assert!(guard.is_held(), "the other locker goes on");
    guard.release_blocking().expect("held to the end");
}

pub(crate) fn b6_shutdown_waits_for_the_holders(site: &Site) {
    let locker = site.locker();
    let guard = site.lock(&locker, "held").acquire_blocking().unwrap();
    thread::scope(|scope| {
        let shutdown = scope.spawn(|| locker.shutdown_blocking(2 * SOON));
        until("new requests are refused", || {
            let refused = site.lock(&locker, "new").timeout(0).acquire_blocking();
            matches!(refused, Err(Error::ShutDown))
        });
        assert!(!shutdown.is_finished());
        assert!(guard.is_held());
        guard.release_blocking().expect("held to the end");
        assert_eq!(shutdown.join().unwrap().cut, 0);
    });
    nothing_is_connected(site, 0);
}

pub(crate) fn s7_shutdown_cuts_who_holds_for_too_long(site: &Site) {
    let (locker, other) = (site.locker(), site.locker());
    let guard = site.lock(&locker, "stuck").acquire_blocking().unwrap();
    let report = locker.shutdown_blocking(Duration::from_millis(100));
    assert_eq!(report.cut, 1);
    assert!(!guard.is_held());
    let error = run(async { tokio::time::timeout(SOON, guard.lost()).await });
    let error = error.expect("the holder is told");
    assert!(error.is_lost(), "{error}");
    nothing_is_connected(site, 1);
    if site.place().kind().is_some() {
        // Memory keeps the lock until the guard is gone: nobody else could free it for certain.
        let lock = site.lock(&other, "stuck").timeout(SOON);
        drop(lock.acquire_blocking().expect("freed with the connection"));
    }
    assert!(guard.release_blocking().is_err_and(|error| error.is_lost()));
    let lock = site.lock(&other, "stuck").timeout(SOON);
    drop(lock.acquire_blocking().expect("free"));
}

/// The release is answered before the connections are closed: nothing else frees the row of a lease.
pub(crate) fn b6_shutdown_waits_for_releases_that_nobody_awaits(site: &Site) {
    let other = site.locker();
    for _ in 0..10 {
        let locker = site.locker();
        drop(site.lock(&locker, "dropped").acquire_blocking().unwrap());
        assert_eq!(locker.shutdown_blocking(SOON).cut, 0);
        let tried = site.lock(&other, "dropped").try_acquire_blocking();
        assert!(tried.unwrap().is_some(), "free after the shutdown");
    }
}

pub(crate) fn shutdown_can_be_repeated(site: &Site) {
    let locker = site.locker();
    let clone = locker.clone();
    drop(site.lock(&locker, "again").acquire_blocking().unwrap());
    for locker in [&locker, &clone, &locker] {
        assert_eq!(locker.shutdown_blocking(SOON).cut, 0);
        is_shut_down(site.lock(locker, "again").acquire_blocking());
    }
    nothing_is_connected(site, 0);
    let another = Locker::connect_blocking(site.config()).expect("a new locker");
    drop(site.lock(&another, "again").acquire_blocking().unwrap());
}
