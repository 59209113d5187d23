//! How many connections it takes.

use std::time::Duration;

use dlock::{Error, Guard, Hazard, InitError, Lock, Locker, Reach, Strategy};
use xtask::servers::USER;

use crate::place::{Family, Place};
use crate::site::{Site, run, until};

pub(crate) fn a_start_takes_two_connections_and_the_second_is_the_first_waiter(site: &Site) {
    let holder = site.locker();
    let guard = site.lock(&holder, "key").acquire_blocking().expect("free");
    let before = site.sessions();
    let locker = site.locker();
    let mut started = site.sessions();
    started.retain(|session| !before.contains(session));
    assert_eq!(started.len(), 2, "connections for a start");
    let capabilities = locker.capabilities();
    assert!(capabilities.proved);
    assert!(capabilities.found.is_empty(), "{capabilities:?}");
    assert_eq!(capabilities.behind_pooler, Some(false));

    run(async {
        let lock = site.lock(&locker, "key");
        let waiting = tokio::spawn(async move { lock.acquire().await });
        site.until_waiting(1);
        assert!(started.contains(&site.waiters()[0]));
        for session in site.sessions() {
            let known = started.contains(&session) || before.contains(&session);
            assert!(known, "a connection was opened for the wait");
        }
        guard.release().await.expect("held to the end");
        let guard = waiting.await.expect("no panic").expect("its turn");
        guard.release().await.expect("held to the end");
    });
}

pub(crate) fn the_proof_of_a_start_takes_one_connection_and_eight_round_trips_at_most(site: &Site) {
    // On a busy machine opening the first one can take a round trip more, and MySQL asks for the password again once it has
    // forgotten the account, as when a test beside it drops one: the least of some starts counts.
    let starts: Vec<[usize; 2]> = (0..4).map(|_| round_trips_of_a_start(site)).collect();
    let least = |of: usize| starts.iter().filter_map(|start| start.get(of)).min();
    let (Some(all), Some(opening)) = (least(0), least(1)) else {
        panic!("no start was counted")
    };
    let bound = match site.family() {
        Family::Postgres => 6,
        // The driver prepares two statements one after the other.
        Family::MySql => 8,
    };
    assert!(all - 2 * opening <= bound, "{starts:?}");
}

/// All of them, and those that open the first of its two connections.
fn round_trips_of_a_start(site: &Site) -> [usize; 2] {
    let proxy = site.proxy();
    proxy.delay(Duration::from_millis(40));
    let locker = site.locker_of(site.config_via(&proxy));
    let (all, before) = proxy.round_trips();
    let [0, opening] = before[..] else {
        panic!("a start opens one connection, and then another: {before:?}")
    };
    assert!(locker.capabilities().proved);
    [all, opening]
}

pub(crate) fn the_server_says_what_its_locks_are(site: &Site) {
    let locker = site.locker();
    let capabilities = locker.capabilities();
    assert_eq!(capabilities.server, locker.server());
    let place = site.place();
    assert_eq!(capabilities.shared_mode, place.has_shared_mode());
    assert_eq!(
        capabilities.proved,
        place != Place::Memory && !place.is_lease()
    );
    let (reach, strategy) = match place.family() {
        _ if place.is_lease() => (Reach::Database, Strategy::Lease),
        None => (Reach::Process, Strategy::Memory),
        Some(Family::Postgres) => (Reach::Database, Strategy::Session),
        Some(Family::MySql) => (Reach::Server, Strategy::Session),
    };
    assert_eq!(capabilities.reach, reach);
    assert_eq!(capabilities.strategy, strategy);
    assert_eq!(capabilities.limit.is_some(), place != Place::Memory);
    let version = capabilities.version.as_deref().unwrap_or("memory");
    assert!(locker.server().ends_with(version), "{capabilities:?}");
}

/// The proof needs two connections, and says so where the account may have one.
pub(crate) fn an_account_with_one_connection_is_refused_unless_allowed(site: &Site) {
    let limit = match site.family() {
        Family::Postgres => format!("ALTER ROLE {USER} CONNECTION LIMIT 1"),
        Family::MySql => format!("ALTER USER '{USER}'@'%' WITH MAX_USER_CONNECTIONS 1"),
    };
    site.admin().rows(&limit).expect("a limit");
    refused_unless_allowed(site, Hazard::Unproved, "second connection");
}

pub(crate) fn a_read_only_server_is_refused_unless_allowed(site: &Site) {
    let read_only = "SET GLOBAL read_only = 1";
    site.admin().rows(read_only).expect("a read-only server");
    refused_unless_allowed(site, Hazard::Standby, "read_only");
}

fn refused_unless_allowed(site: &Site, hazard: Hazard, word: &str) {
    let refused = Locker::connect_blocking(site.config());
    let Err(InitError::UnsafeServer { reason, remedy, .. }) = refused else {
        panic!("{refused:?}")
    };
    assert!(reason.contains(word), "{reason}");
    assert!(remedy.contains(&format!("allow={hazard}")), "{remedy}");
    until("nothing is left of the refused start", || {
        let Ok(locker) = Locker::connect_blocking(site.config().allow(hazard)) else {
            return false;
        };
        assert_eq!(locker.capabilities().found, [hazard]);
        assert_eq!(
            locker.capabilities().proved,
            hazard != Hazard::Unproved,
            "{hazard}"
        );
        let guard = site
            .lock(&locker, "key")
            .acquire_blocking()
            .expect("a lock");
        guard.release_blocking().expect("held to the end");
        true
    });
}

pub(crate) fn a_hundred_held_keys_use_one_connection(site: &Site) {
    let locker = site.locker();
    let locks: Vec<Lock> = (0..100)
        .map(|number| site.lock(&locker, &format!("key/{number}")))
        .collect();
    let guards: Vec<Guard> = run(async {
        let mut tasks = tokio::task::JoinSet::new();
        for lock in locks {
            tasks.spawn(async move { lock.acquire().await.expect("free") });
        }
        tasks.join_all().await
    });
    // The second is that of the proof, which holds nothing.
    assert!(site.sessions().len() <= 2);
    let session = site.holders("key/0");
    for number in 1..100 {
        assert_eq!(site.holders(&format!("key/{number}")), session);
    }
    for guard in guards {
        guard.release_blocking().expect("held to the end");
    }
}

pub(crate) fn waiters_share_the_connections_they_may_have(site: &Site) {
    const WAITERS: usize = 4;
    const TASKS: usize = 50;
    let (holder, locker) = (
        site.locker(),
        site.locker_of(site.config().max_waiters(WAITERS)),
    );
    let name = |number: usize| format!("key/{number}");
    let guards: Vec<Guard> = (0..TASKS)
        .map(|number| {
            site.lock(&holder, &name(number))
                .acquire_blocking()
                .unwrap()
        })
        .collect();
    run(async {
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..TASKS {
            let lock = site.lock(&locker, &name(number)).timeout(100);
            tasks.spawn(async move {
                let guard = lock.acquire().await.expect("its turn");
                guard.release().await.expect("held to the end");
            });
        }
        site.until_waiting(WAITERS);
        // The holder's connection and that of its proof, the keeper, and those that wait.
        let most = 2 + 1 + WAITERS;
        for _ in 0..50 {
            let sessions = site.sessions().len();
            assert!(sessions <= most, "{sessions} connections");
        }
        for guard in guards {
            guard.release().await.expect("held to the end");
        }
        tasks.join_all().await;
        // Those that are closed now are there for another moment.
        until("no more connections are left", || {
            site.sessions().len() <= most
        });
    });
}

pub(crate) fn s6_one_lock_too_many_is_an_error_and_no_loss(site: &Site) {
    let locker = site.locker_of(site.config().max_held(2));
    let take = |key| site.lock(&locker, key).timeout(10).acquire_blocking();
    let (one, two) = (take("one").expect("free"), take("two").expect("free"));
    let error = take("three").expect_err("two is the most");
    assert!(matches!(error, Error::TooManyHeld(_)), "{error}");
    assert!(error.to_string().contains("max_held"), "{error}");
    assert!(one.is_held() && two.is_held());
    one.release_blocking().expect("held to the end");
    take("three")
        .expect("there is room")
        .release_blocking()
        .expect("held to the end");
    two.release_blocking().expect("held to the end");
}
