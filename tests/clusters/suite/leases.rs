//! Leases where session locks do not hold: behind a pooler, on a cluster, and with wrong clocks.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use dlock::{Config, Guard, Locker, Strategy};
use xtask::servers::{Galera, Kind, PgBouncer, Pooling, Server, Setup};

use crate::{SOON, is_told_lost};

/// How long a lease outlives its holder in these tests.
const TTL: Duration = Duration::from_secs(6);

fn leasing(url: &str) -> Config {
    Config::from_dsn(url)
        .expect("the server's URL")
        .strategy(Strategy::Lease)
        .ttl(TTL)
}

fn locker(url: &str) -> Locker {
    Locker::connect_blocking(leasing(url)).expect("a locker with leases")
}

fn token(guard: &Guard) -> u64 {
    guard.fencing_token().expect("a lease has a token")
}

/// What the bodies of a test write to: it is held by nobody or by one, and each of them has a greater token.
#[derive(Default)]
struct Critical {
    inside: AtomicBool,
    last: AtomicU64,
    entered: AtomicU64,
}

impl Critical {
    /// What the body of a lock does.
    fn enter(&self, guard: &Guard) {
        assert!(!self.inside.swap(true, Ordering::SeqCst), "two holders");
        let last = self.last.swap(token(guard), Ordering::SeqCst);
        assert!(last < token(guard), "token {} after {last}", token(guard));
        self.entered.fetch_add(1, Ordering::SeqCst);
        thread::sleep(Duration::from_millis(2));
        // A holder that was told of a loss has left by then: nobody counts it as inside any more.
        let was = self.inside.swap(false, Ordering::SeqCst);
        assert!(was || !guard.is_held(), "somebody else left");
    }
}

/// Several lockers, each as another process, take turns.
fn take_turns(lockers: &[Locker], rounds: u64) {
    let critical = Critical::default();
    thread::scope(|scope| {
        for locker in lockers {
            let critical = &critical;
            scope.spawn(move || {
                for _ in 0..rounds {
                    let lock = locker.lock("turns").timeout(SOON * 2);
                    let guard = lock.acquire_blocking().expect("its turn");
                    critical.enter(&guard);
                    guard.release_blocking().expect("held to the end");
                }
            });
        }
    });
    let entered = critical.entered.load(Ordering::SeqCst);
    assert_eq!(entered, rounds * lockers.len() as u64);
}

#[test]
fn behind_pgbouncer_in_transaction_mode_leases_exclude() {
    let server = Server::start(Kind::Postgres).unwrap();
    let pooler = PgBouncer::start(&server, Pooling::Transaction).unwrap();
    let lockers = [&pooler.url(), &pooler.url(), &server.url()].map(|url| locker(url));
    assert_eq!(lockers[0].capabilities().strategy, Strategy::Lease);
    take_turns(&lockers, 20);
}

#[test]
fn a_frozen_pooler_is_told_before_the_next_holder_comes() {
    let server = Server::start(Kind::Postgres).unwrap();
    let pooler = PgBouncer::start(&server, Pooling::Transaction).unwrap();
    let (through, direct) = (locker(&pooler.url()), locker(&server.url()));
    let guard = through.lock("k").acquire_blocking().unwrap();
    let old = token(&guard);
    pooler.freeze().unwrap();
    let next = direct.lock("k").timeout(SOON).acquire_blocking().unwrap();
    // Not a moment later: what the old holder looks at is its own clock.
    assert!(!guard.is_held(), "two holders");
    assert!(token(&next) > old);
    pooler.thaw().unwrap();
    is_told_lost(guard);
    assert!(next.is_held());
    next.release_blocking().unwrap();
}

#[test]
fn a_lease_survives_a_restart_of_its_server() {
    for kind in [Kind::Postgres, Kind::MariaDb] {
        let mut server = Server::start(kind).unwrap();
        let (one, other) = (locker(&server.url()), locker(&server.url()));
        let guard = one.lock("k").acquire_blocking().unwrap();
        let start = Instant::now();
        server.restart().unwrap();
        let back = start.elapsed();
        let busy = other.lock("k").timeout(Duration::from_secs(2));
        let busy = busy.acquire_blocking();
        if back < TTL / 2 {
            assert!(busy.is_err_and(|error| !error.is_lost()), "{kind}");
            thread::sleep(TTL);
            assert!(guard.is_held(), "{kind}: renewed after the restart");
            guard.release_blocking().unwrap();
        } else {
            // A machine so busy that the lease ran out: then nobody may hold it twice.
            assert!(busy.is_err() || !guard.is_held(), "{kind}: two holders");
        }
    }
}

#[test]
fn on_a_cluster_leases_exclude_whatever_node_fails() {
    let mut cluster = Galera::start().unwrap();
    let lockers = [0, 1, 2].map(|node| locker(&cluster.url(node)));
    take_turns(&lockers, 10);

    // The holder's node is stopped: its lease cannot be renewed, and is free when its time is over.
    let guard = lockers[2].lock("k").acquire_blocking().unwrap();
    let old = token(&guard);
    cluster.stop(2).unwrap();
    let next = lockers[0].lock("k").timeout(SOON).acquire_blocking();
    let next = next.expect("free after its time");
    assert!(!guard.is_held(), "two holders");
    assert!(token(&next) > old);
    is_told_lost(guard);
    cluster.start_again(2).unwrap();
    assert!(
        lockers[2]
            .lock("k")
            .try_acquire_blocking()
            .unwrap()
            .is_none()
    );
    next.release_blocking().unwrap();
    let guard = lockers[2].lock("k").timeout(SOON).acquire_blocking();
    guard.unwrap().release_blocking().unwrap();

    // The holder's node is frozen.
    let guard = lockers[1].lock("k").acquire_blocking().unwrap();
    let old = token(&guard);
    cluster.freeze(1).unwrap();
    let next = lockers[0].lock("k").timeout(SOON).acquire_blocking();
    let next = next.expect("free after its time");
    assert!(!guard.is_held(), "two holders");
    assert!(token(&next) > old);
    cluster.thaw(1).unwrap();
    is_told_lost(guard);
    assert!(next.is_held());
    cluster.wait_until_synced(1).unwrap();

    // No majority: nobody is granted anything, and the holder learns in time that it is none any more.
    cluster.freeze(1).unwrap();
    cluster.freeze(2).unwrap();
    cluster.wait_for_quorum_loss(0).unwrap();
    is_told_lost(next);
    let alone = lockers[0].lock("k").timeout(Duration::from_secs(2));
    let error = alone.acquire_blocking().unwrap_err();
    assert!(error.is_unavailable() || error.is_busy(), "{error}");
    for node in [1, 2] {
        cluster.thaw(node).unwrap();
    }
    for node in 0..3 {
        cluster.wait_until_synced(node).unwrap();
    }
    take_turns(&lockers, 3);
}

/// Rule L2: the clock of the database decides, so another one's is of no account; and a leap of it shows as a loss, or as
/// nothing, but never as two holders.
#[test]
fn l2_a_server_whose_clock_is_wrong_or_leaps_never_has_two_holders() {
    for kind in [Kind::Postgres, Kind::MariaDb] {
        let server = Setup::new(kind).clock(-86_400).start().unwrap();
        let (one, other) = (locker(&server.url()), locker(&server.url()));
        take_turns(&[one.clone(), other.clone()], 5);
        let guard = one.lock("k").acquire_blocking().unwrap();
        thread::sleep(TTL);
        assert!(
            guard.is_held(),
            "{kind}: a wrong clock is as good as a right one"
        );
        assert!(other.lock("k").try_acquire_blocking().unwrap().is_none());
        guard.release_blocking().unwrap();
    }
}
