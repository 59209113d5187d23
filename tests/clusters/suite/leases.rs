//! Leases where session locks do not hold: behind a pooler, on a cluster, and with wrong clocks.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use dlock::lease::Fence;
use dlock::{Config, Error, Guard, Locker, Strategy, db_locked};
use xtask::servers::{FakeClock, Galera, Kind, PgBouncer, Pooling, Server, Setup, rows, value};

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

/// Whoever cancels the wait for a standby is told success by the server, and a failover would undo it.
#[test]
fn a_lease_that_no_standby_has_confirmed_is_not_held() {
    let server = Server::start(Kind::Postgres).unwrap();
    let admin = server.admin_url();
    let (one, other) = (locker(&server.url()), locker(&server.url()));
    // The row is there.
    drop(one.lock("k").acquire_blocking().unwrap());
    until_free(&other);
    rows(
        &admin,
        "ALTER SYSTEM SET synchronous_standby_names = 'nobody'",
    )
    .unwrap();
    rows(&admin, "SELECT pg_reload_conf()").unwrap();
    let (ended, cancelled) = (AtomicBool::new(false), AtomicU64::new(0));
    let taken = thread::scope(|scope| {
        scope.spawn(|| {
            let cancel =
                "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
            while !ended.load(Ordering::SeqCst) {
                let waits = rows(&admin, cancel).unwrap().len();
                cancelled.fetch_add(waits as u64, Ordering::SeqCst);
                thread::sleep(Duration::from_millis(20));
            }
        });
        // The server takes the setting over in its own time: from then on a commit waits until it is cancelled.
        while cancelled.load(Ordering::SeqCst) == 0 {
            rows(&admin, "COMMENT ON SCHEMA public IS 'written'").unwrap();
        }
        let lock = one.lock("k").timeout(Duration::from_secs(4));
        let taken = lock.acquire_blocking();
        ended.store(true, Ordering::SeqCst);
        taken
    });
    assert!(taken.is_err(), "taken, and no standby knows of it");
    assert!(cancelled.load(Ordering::SeqCst) > 1, "it waited for none");
    rows(&admin, "ALTER SYSTEM RESET synchronous_standby_names").unwrap();
    rows(&admin, "SELECT pg_reload_conf()").unwrap();
    // What it had taken nevertheless goes back.
    until_free(&other);
}

fn until_free(locker: &Locker) {
    let guard = locker.lock("k").timeout(SOON).acquire_blocking().unwrap();
    guard.release_blocking().unwrap();
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

#[db_locked(key = "kept", timeout = 0, min_hold = "2s", locker = locker)]
fn short(locker: &Locker) -> Result<(), Error> {
    Ok(())
}

#[db_locked(key = "kept", mode = shared, timeout = 0, min_hold = "2s", locker = locker)]
fn short_reader(locker: &Locker) -> Result<(), Error> {
    Ok(())
}

/// Whoever died has to be watched there; whoever has released the lock has not.
#[test]
fn b7_on_a_cluster_one_try_gets_a_row_that_is_kept_no_longer() {
    let cluster = Galera::start().unwrap();
    let lockers = [0, 1].map(|node| locker(&cluster.url(node)));
    let bodies: [fn(&Locker) -> Result<(), Error>; 2] = [short, short_reader];
    for body in bodies {
        let start = Instant::now();
        body(&lockers[0]).unwrap();
        let lock = lockers[1].lock("kept");
        let guard = loop {
            if let Some(guard) = lock.try_acquire_blocking().unwrap() {
                break guard;
            }
            assert!(start.elapsed() < SOON);
            thread::sleep(Duration::from_millis(50));
        };
        assert!(start.elapsed() >= Duration::from_secs(2));
        // Dropped, it would go back some time later, and the next body makes one try.
        guard.release_blocking().unwrap();
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

/// A server's clock that leaps ahead ends the leases: then another gets the lock, with a greater token, and who had it is
/// told with its next renewal. One that leaps back ends nothing.
#[test]
fn a_leap_of_the_servers_clock_ahead_is_told_and_one_back_changes_nothing() {
    for kind in [Kind::Postgres, Kind::MariaDb] {
        let server = Setup::new(kind).clock(0).start().unwrap();
        let (one, other) = (locker(&server.url()), locker(&server.url()));
        let guard = one.lock("k").acquire_blocking().unwrap();
        let leap = Instant::now();
        server.set_clock(-3600).unwrap();
        while leap.elapsed() < TTL {
            let second = other.lock("k").try_acquire_blocking().unwrap();
            assert!(second.is_none(), "{kind}: two holders");
            thread::sleep(Duration::from_millis(50));
        }
        assert!(guard.is_held(), "{kind}");
        server.set_clock(0).unwrap();
        // Renewed in time by luck, it is still held; else it is another's now.
        match other.lock("k").try_acquire_blocking().unwrap() {
            None => drop(guard),
            Some(second) => {
                assert!(token(&second) > token(&guard), "{kind}");
                is_told_lost(guard);
                assert!(second.is_held(), "{kind}");
            }
        }
    }
}

/// The other side of the next test: holds the lock until it is killed.
#[test]
#[ignore = "runs as the child of another test"]
fn child_that_holds_a_lease() {
    let url = std::env::var("DLOCK_CHILD_URL").expect("the parent's server");
    let locker = locker(&url);
    let guard = locker.lock("k").acquire_blocking().unwrap();
    println!("held");
    while guard.is_held() {
        thread::sleep(Duration::from_millis(20));
    }
    println!("lost");
}

/// Rule L2: the clock of a client is of no account.
#[test]
fn l2_a_client_whose_clock_is_wrong_holds_and_frees_like_any_other() {
    let server = Server::start(Kind::Postgres).unwrap();
    let other = locker(&server.url());
    for ahead in [86_400, -86_400] {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child
            .args(["--ignored", "--exact", "--nocapture"])
            .arg("leases::child_that_holds_a_lease")
            .env("DLOCK_CHILD_URL", server.url())
            .stdout(Stdio::piped());
        FakeClock::ahead(ahead).unwrap().show_to(&mut child);
        let mut child = child.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let held = lines
            .map_while(Result::ok)
            .any(|line| line.ends_with("held"));
        assert!(held, "the child has the lock");
        let start = Instant::now();
        while start.elapsed() < TTL + Duration::from_secs(1) {
            let busy = other.lock("k").try_acquire_blocking().unwrap();
            assert!(busy.is_none(), "two holders");
            thread::sleep(Duration::from_millis(50));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let guard = other.lock("k").timeout(SOON).acquire_blocking();
        guard
            .expect("free after its time")
            .release_blocking()
            .unwrap();
    }
}

/// Rule L5: what the old holder still sends is refused, in the transaction that would write it.
#[test]
fn l5_the_writes_of_a_holder_who_was_paused_are_refused_by_its_token() {
    let server = Server::start(Kind::Postgres).unwrap();
    let pooler = PgBouncer::start(&server, Pooling::Transaction).unwrap();
    let (through, direct) = (locker(&pooler.url()), locker(&server.url()));
    let ledger = "CREATE TABLE ledger (total int); INSERT INTO ledger VALUES (0) RETURNING total";
    assert_eq!(value(&server.url(), ledger).unwrap(), "0");
    let guard = through.lock("ledger").acquire_blocking().unwrap();
    let old = token(&guard);
    assert_eq!(book(&server, old), Some(1), "the holder writes");
    pooler.freeze().unwrap();
    let next = direct.lock("ledger").timeout(SOON).acquire_blocking();
    let next = next.expect("free after its time");
    assert_eq!(book(&server, old), None, "the old holder wrote");
    assert_eq!(
        book(&server, token(&next)),
        Some(2),
        "the new holder writes"
    );
    pooler.thaw().unwrap();
    is_told_lost(guard);
    assert_eq!(book(&server, old), None, "the old holder wrote");
}

/// Adds one to the ledger in a transaction that checks the token; `None` when it was refused.
fn book(server: &Server, token: u64) -> Option<i64> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let (mut client, connection) =
            tokio_postgres::connect(&server.url(), tokio_postgres::NoTls)
                .await
                .unwrap();
        tokio::spawn(connection);
        let transaction = client.transaction().await.unwrap();
        let fence = Fence::default();
        if !fence
            .check_postgres(&transaction, "ledger", token)
            .await
            .unwrap()
        {
            return None;
        }
        let booked = "UPDATE ledger SET total = total + 1 RETURNING total::bigint";
        let total = transaction.query_one(booked, &[]).await.unwrap().get(0);
        transaction.commit().await.unwrap();
        Some(total)
    })
}
