//! Other releases of PostgreSQL, and servers whose clock is wrong.

use dlock::{Hazard, Locker};
use xtask::servers::{Kind, Release, Setup};

use crate::{SOON, is_told_lost, refusal, watchful};

fn works_on(url: &str) {
    let [one, other] = [url; 2].map(|url| Locker::connect_blocking(watchful(url)).unwrap());
    let guard = one.lock("k").acquire_blocking().unwrap();
    assert!(other.lock("k").try_acquire_blocking().unwrap().is_none());
    let waiting = std::thread::spawn(move || other.lock("k").timeout(SOON).acquire_blocking());
    guard.release_blocking().unwrap();
    let guard = waiting.join().unwrap().unwrap();
    guard.release_blocking().unwrap();
}

#[test]
fn the_oldest_and_the_newest_postgres_keep_locks_and_tell_of_a_loss() {
    for release in [Release::Postgres14, Release::Postgres18] {
        let mut server = Setup::new(Kind::Postgres).release(release).start().unwrap();
        works_on(&server.url());
        let locker = Locker::connect_blocking(watchful(&server.url())).unwrap();
        let guard = locker.lock("k").acquire_blocking().unwrap();
        server.restart().unwrap();
        is_told_lost(guard);
        let guard = locker.lock("k").timeout(SOON).acquire_blocking();
        assert!(guard.unwrap().is_held());
    }
}

/// Rule S1.
#[test]
fn s1_a_postgres_without_an_idle_limit_is_refused_unless_allowed() {
    let server = Setup::new(Kind::Postgres)
        .release(Release::Postgres13)
        .start()
        .unwrap();
    let told = refusal(&server.url());
    assert!(told.contains("no-idle-limit"), "{told}");
    let config = watchful(&server.url()).allow(Hazard::NoIdleLimit);
    let locker = Locker::connect_blocking(config).unwrap();
    assert_eq!(locker.capabilities().found, [Hazard::NoIdleLimit]);
    assert_eq!(locker.capabilities().limit, None);
}

/// Session locks know no time of the day: neither a wrong clock nor a leap of it ends a hold or makes it last.
#[test]
fn a_server_whose_clock_leaps_keeps_the_locks() {
    for kind in [Kind::Postgres, Kind::MariaDb] {
        let server = Setup::new(kind).clock(86_400).start().unwrap();
        works_on(&server.url());
        let locker = Locker::connect_blocking(watchful(&server.url())).unwrap();
        let other = Locker::connect_blocking(watchful(&server.url())).unwrap();
        let guard = locker.lock("leap").acquire_blocking().unwrap();
        for ahead in [-86_400, 86_400, 0] {
            server.set_clock(ahead).unwrap();
            assert!(guard.is_held(), "{kind}, {ahead}");
            let busy = other.lock("leap").try_acquire_blocking().unwrap();
            assert!(busy.is_none(), "{kind}, {ahead}");
        }
        guard.release_blocking().unwrap();
    }
}
