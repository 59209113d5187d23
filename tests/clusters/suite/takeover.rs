//! A standby takes the primary's place, behind the same name.

use dlock::{Hazard, Locker};
use xtask::proxy::Proxy;
use xtask::servers::{Kind, Server};

use crate::{SOON, is_told_lost, refusal, watchful};

#[test]
fn a_standby_is_refused_until_it_is_promoted() {
    let mut primary = Server::start(Kind::Postgres).unwrap();
    let standby = primary.standby().unwrap();
    let told = refusal(&standby.url());
    assert!(told.contains("standby"), "{told}");
    let config = watchful(&standby.url()).allow(Hazard::Standby);
    let locker = Locker::connect_blocking(config).unwrap();
    assert_eq!(locker.capabilities().found, [Hazard::Standby]);
    primary.stop().unwrap();
    standby.promote().unwrap();
    Locker::connect_blocking(watchful(&standby.url())).unwrap();
}

/// Rule S2: the name leads to another server now, and what was held on the old one is lost.
#[test]
fn s2_holds_of_the_old_primary_are_lost_when_the_standby_takes_over() {
    let mut primary = Server::start(Kind::Postgres).unwrap();
    let standby = primary.standby().unwrap();
    let mut name = Proxy::start(primary.address()).unwrap();
    let url = name.url(&primary.url());
    let locker = Locker::connect_blocking(watchful(&url)).unwrap();
    let guard = locker.lock("k").acquire_blocking().unwrap();

    primary.kill().unwrap();
    standby.promote().unwrap();
    name.lead_to(standby.address()).unwrap();
    is_told_lost(guard);
    let guard = locker.lock("k").timeout(SOON).acquire_blocking().unwrap();
    let other = Locker::connect_blocking(watchful(&standby.url())).unwrap();
    assert!(other.lock("k").try_acquire_blocking().unwrap().is_none());
    guard.release_blocking().unwrap();
}

/// The worst kind: the old primary lives on, and still has the session with the lock. New sessions reach the new one.
#[test]
fn s2_a_session_that_reaches_the_new_primary_ends_what_is_held_on_the_old() {
    let primary = Server::start(Kind::Postgres).unwrap();
    let standby = primary.standby().unwrap();
    let mut name = Proxy::start(primary.address()).unwrap();
    let locker = Locker::connect_blocking(watchful(&name.url(&primary.url()))).unwrap();
    let guard = locker.lock("k").acquire_blocking().unwrap();
    standby.promote().unwrap();
    // Cuts the sessions: the keeper opens another, and it reaches the new primary.
    name.lead_to(standby.address()).unwrap();
    is_told_lost(guard);
    let guard = locker.lock("k").timeout(SOON).acquire_blocking().unwrap();
    let new = Locker::connect_blocking(watchful(&standby.url())).unwrap();
    assert!(new.lock("k").try_acquire_blocking().unwrap().is_none());
    drop(guard);
}
