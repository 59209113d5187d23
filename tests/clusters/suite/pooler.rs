//! PgBouncer.

use std::time::Duration;

use dlock::{Hazard, Locker};
use xtask::servers::{Kind, PgBouncer, Pooling, Server};

use crate::{SOON, is_told_lost, refusal, watchful};

#[test]
fn in_transaction_mode_it_is_refused_by_the_proof() {
    let server = Server::start(Kind::Postgres).unwrap();
    let pooler = PgBouncer::start(&server, Pooling::Transaction).unwrap();
    for _ in 0..5 {
        let told = refusal(&pooler.url());
        assert!(told.contains("transaction pooler"), "{told}");
        assert!(told.contains("session mode"), "{told}");
        assert!(told.contains("strategy=lease"), "{told}");
    }
}

#[test]
fn in_session_mode_it_is_noted_and_locks_exclude() {
    let server = Server::start(Kind::Postgres).unwrap();
    let pooler = PgBouncer::start(&server, Pooling::Session).unwrap();
    let through = Locker::connect_blocking(watchful(&pooler.url())).unwrap();
    let direct = Locker::connect_blocking(watchful(&server.url())).unwrap();
    assert_eq!(through.capabilities().behind_pooler, Some(true));
    assert_eq!(direct.capabilities().behind_pooler, Some(false));
    assert!(through.capabilities().proved);

    let guard = through.lock("k").acquire_blocking().unwrap();
    assert!(direct.lock("k").try_acquire_blocking().unwrap().is_none());
    guard.release_blocking().unwrap();
    let guard = direct.lock("k").timeout(SOON).acquire_blocking().unwrap();
    let waiting = {
        let through = through.clone();
        std::thread::spawn(move || through.lock("k").timeout(SOON).acquire_blocking())
    };
    std::thread::sleep(Duration::from_millis(200));
    assert!(!waiting.is_finished());
    guard.release_blocking().unwrap();
    let guard = waiting.join().unwrap().unwrap();
    assert!(guard.is_held());
}

#[test]
fn its_end_loses_the_holds() {
    let server = Server::start(Kind::Postgres).unwrap();
    let mut pooler = PgBouncer::start(&server, Pooling::Session).unwrap();
    let through = Locker::connect_blocking(watchful(&pooler.url())).unwrap();
    let direct = Locker::connect_blocking(watchful(&server.url())).unwrap();
    let guard = through.lock("k").acquire_blocking().unwrap();
    pooler.kill().unwrap();
    is_told_lost(guard);
    let guard = direct.lock("k").timeout(SOON).acquire_blocking();
    assert!(guard.unwrap().is_held());
}

/// Frequent heartbeats may find out during the start already that the sessions are not one's own.
#[test]
fn in_transaction_mode_allowed_by_name_it_is_reported_as_a_hazard() {
    let server = Server::start(Kind::Postgres).unwrap();
    let pooler = PgBouncer::start(&server, Pooling::Transaction).unwrap();
    let config = watchful(&pooler.url());
    let locker = Locker::connect_blocking(config.allow(Hazard::NoExclusion)).unwrap();
    let capabilities = locker.capabilities();
    assert!(
        capabilities.found.contains(&Hazard::NoExclusion),
        "{capabilities:?}"
    );
    assert!(!capabilities.proved);
}
