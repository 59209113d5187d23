//! Who holds what, as dlock tells it.

use std::time::Duration;

use dlock::{Error, LockInfo, Locker, Mode, Strategy};

use crate::place::{Family, Place};
use crate::site::{SOON, Site, run, until};

/// Lets this test's account see the list of named locks.
pub(crate) fn grant(site: &Site) {
    if site.place() == Place::MySql {
        for table in ["metadata_locks", "threads"] {
            let sql = format!(
                "GRANT SELECT ON performance_schema.{table} TO '{}'@'%'",
                site.tag()
            );
            site.admin().rows(&sql).expect("a grant");
        }
    }
}

/// Whether the server of this test has a list: MariaDB does not, as it is set up.
pub(crate) fn has_list(site: &Site) -> bool {
    site.place() != Place::MariaDb
}

/// The lock of a key in the list, which other tests' locks may be in too.
fn listed(site: &Site, locker: &Locker, key: &str) -> Option<LockInfo> {
    let locks = locker.list_blocking().expect("a list");
    let name = on_server(site, key);
    let mut found = locks.into_iter().filter(|lock| *lock.name == *name);
    let lock = found.next();
    assert_eq!(found.next(), None, "once");
    lock
}

fn on_server(site: &Site, key: &str) -> String {
    match site.place() {
        Place::Memory => format!("{}\0{key}", site.tag()),
        place if place.is_lease() => key.to_owned(),
        _ => site.name(key),
    }
}

pub(crate) fn a_list_names_holders_and_waiters_in_order(site: &Site) {
    grant(site);
    let [one, other, third] = [site.locker(), site.locker(), site.locker()];
    let key = site.key("k");
    if !has_list(site) {
        return;
    }
    assert_eq!(listed(site, &one, &key), None);
    let guard = site.lock(&one, "k").acquire_blocking().unwrap();
    let seen = listed(site, &one, &key).expect("held");
    assert_eq!(seen.key.as_deref(), Some(&*key));
    assert_eq!(seen.mode, Mode::Exclusive);
    assert_eq!(seen.waiters, []);
    let [holder] = &seen.holders[..] else {
        panic!("one holder: {seen:?}");
    };
    assert!(holder.who.this_process, "{holder:?}");
    assert_eq!(holder.mode, Mode::Exclusive);
    assert_eq!(
        seen.strategy,
        match site.place() {
            Place::Memory => Strategy::Memory,
            place if place.is_lease() => Strategy::Lease,
            _ => Strategy::Session,
        }
    );
    if site.place() != Place::Memory {
        let seen = listed(site, &other, &key).expect("held");
        assert!(!seen.holders[0].who.this_process, "another locker's");
        if !site.place().is_lease() {
            // No key of the other's line, and the server keeps no text.
            assert_eq!(seen.key, None);
            let session = seen.holders[0].who.session.expect("its number");
            assert_eq!(site.holders("k"), [session]);
        }
    }
    let first = site.lock(&other, "k");
    let second = site.lock(&third, "k");
    run(async {
        // Each gives it back by itself: leases do not promise whose turn comes first.
        let waiting = tokio::spawn(async move { first.acquire().await?.release().await });
        until("one waits", || waits(site, &one, &key) == 1);
        let mine = listed(site, &other, &key).expect("held");
        assert_eq!(mine.waiting_here, 1);
        assert_eq!(mine.key.as_deref(), Some(&*key), "of its own line");
        let behind = tokio::spawn(async move { second.acquire().await?.release().await });
        until("two wait", || waits(site, &one, &key) == 2);
        if site.place() != Place::MySql {
            // In order; MySQL counts whole seconds. Memory has no other process than this.
            let [ahead, last] = &listed(site, &other, &key).expect("held").waiters[..] else {
                panic!("two wait");
            };
            assert!(ahead.who.this_process);
            assert_eq!(last.who.this_process, site.place() == Place::Memory);
        }
        guard.release().await.expect("held to the end");
        waiting.await.expect("no panic").expect("its turn");
        behind.await.expect("no panic").expect("its turn");
    });
    until("nobody is listed", || listed(site, &one, &key).is_none());
}

fn waits(site: &Site, locker: &Locker, key: &str) -> usize {
    listed(site, locker, key).map_or(0, |lock| lock.waiters.len())
}

pub(crate) fn an_inspection_names_the_holder(site: &Site) {
    let (one, other) = (site.locker(), site.locker());
    let key = site.key("k");
    assert_eq!(other.inspect_blocking(&*key).unwrap(), None);
    let guard = site.lock(&one, "k").acquire_blocking().unwrap();
    let beside = site.lock(&one, "beside").acquire_blocking().unwrap();
    let seen = run(other.inspect(&*key)).unwrap().expect("held");
    assert_eq!(seen.key.as_deref(), Some(&*key));
    assert_eq!(*seen.name, *on_server(site, &key));
    assert_eq!(seen.holders.len(), 1);
    let own = one.inspect_blocking(&*key).unwrap().expect("held");
    assert!(own.holders[0].who.this_process);
    if site.place() != Place::Memory {
        assert!(!seen.holders[0].who.this_process);
    }
    if site.place().is_lease() {
        let token = guard.fencing_token();
        assert_eq!((seen.token, seen.token.is_some()), (token, true));
        let expires_in = seen.expires_in.expect("a time");
        assert!(!expires_in.is_zero() && expires_in <= Duration::from_secs(30));
        assert!(seen.holders[0].lasts.is_some());
    }
    beside.release_blocking().expect("held to the end");
    guard.release_blocking().expect("held to the end");
    let free = other.inspect_blocking(&*key).unwrap();
    // A row of leases stays, and tells who held the lock last.
    assert_eq!(free.is_some(), site.place().is_lease(), "{free:?}");
    assert!(free.is_none_or(|lock| lock.holders.is_empty()));
    assert!(matches!(
        other.inspect_blocking(""),
        Err(Error::InvalidKey(_))
    ));
}

pub(crate) fn a_lease_that_is_free_tells_of_its_last_run(site: &Site) {
    let (one, other) = (site.locker(), site.locker());
    let key = site.key("k");
    let last = |locker: &Locker| {
        let lock = locker.inspect_blocking(&*key).unwrap()?;
        let in_use = listed(site, locker, &key).is_some();
        assert_eq!(in_use, !lock.holders.is_empty(), "{lock:?}");
        lock.last
    };
    assert_eq!(last(&one), None);
    let guard = site.lock(&one, "k").acquire_blocking().unwrap();
    assert_eq!(last(&one), None, "it has not ended");
    let token = guard.fencing_token().expect("leases have tokens");
    std::thread::sleep(Duration::from_millis(20));
    guard.release_blocking().expect("held to the end");
    let run = last(&other).expect("the row stays");
    assert_eq!(run.token, token);
    assert!(!run.who.this_process, "{run:?}");
    let program = run.who.program.as_deref().expect("a program");
    assert!(program.contains(".suite"), "{program}");
    let held_for = run.held_for().expect("it was given back");
    assert!(held_for >= Duration::from_millis(20), "{held_for:?}");
    assert!(run.acquired.elapsed().is_ok_and(|ago| ago < 2 * SOON));
    let lock = other
        .inspect_blocking(&*key)
        .unwrap()
        .expect("the row stays");
    assert!(
        lock.to_string().contains("held by nobody, last by"),
        "{lock}"
    );
    // While another holds it, the last run is the one that has ended.
    let guard = site.lock(&other, "k").acquire_blocking().unwrap();
    assert_eq!(last(&other).map(|run| run.token), Some(token));
    guard.release_blocking().expect("held to the end");
    // A reader's too.
    let guard = site.lock(&one, "k").shared().acquire_blocking().unwrap();
    let token = guard.fencing_token().expect("leases have tokens");
    std::thread::sleep(Duration::from_millis(20));
    guard.release_blocking().expect("held to the end");
    let run = last(&one).expect("the row stays");
    assert!(run.who.this_process && run.token == token, "{run:?}");
    assert!(run.held_for() >= Some(Duration::from_millis(20)), "{run:?}");
}

pub(crate) fn the_last_run_of_one_who_died_has_no_end(site: &Site) {
    let (mut worker, locker) = (site.worker_with("ttl=1&owner=web-7"), site.locker());
    let key = site.key("k");
    assert_eq!(worker.ask(&format!("try {key}")), "held");
    worker.kill();
    let last = || {
        locker
            .inspect_blocking(&*key)
            .unwrap()
            .and_then(|lock| lock.last)
    };
    until("the lease has run out", || last().is_some());
    let before = last().expect("it has just been there");
    assert_eq!((before.released, before.held_for()), (None, None));
    assert_eq!(before.who.client.as_deref(), Some("owner web-7"));
    // The next one's take keeps that in the row.
    let guard = site.lock(&locker, "k").timeout(SOON).acquire_blocking();
    let guard = guard.expect("the lease has run out");
    assert_eq!(last(), Some(before));
    guard.release_blocking().expect("held to the end");
    assert!(last().expect("the row stays").released.is_some());
}

pub(crate) fn readers_are_listed_together(site: &Site) {
    let (one, other) = (site.locker(), site.locker());
    let locks = [&one, &other].map(|locker| site.lock(locker, "k").shared());
    let guards = locks.map(|lock| lock.acquire_blocking().unwrap());
    let seen = listed(site, &one, "k").expect("held");
    assert_eq!((seen.mode, seen.holders.len()), (Mode::Shared, 2));
    for guard in guards {
        guard.release_blocking().expect("held to the end");
    }
}

/// What dlock locks for itself nobody else would understand.
pub(crate) fn sentinels_are_not_listed(site: &Site) {
    grant(site);
    let (one, _other) = (site.locker(), site.locker());
    match one.list_blocking() {
        Ok(locks) => {
            let ours = |lock: &&LockInfo| match site.family() {
                Family::Postgres => lock.name.contains(", "),
                Family::MySql => lock.name.contains("sentinel"),
            };
            assert_eq!(locks.iter().find(ours), None);
        }
        Err(Error::Unsupported(why)) if !has_list(site) => {
            assert!(why.remedy.contains("metadata_lock_info"), "{why:?}");
            assert!(why.remedy.contains("performance_schema"), "{why:?}");
        }
        Err(error) => panic!("{error}"),
    }
}

/// MariaDB tells of its locks only when it was started so; MySQL does unless it was told not to.
pub(crate) fn named_locks_are_listed_only_with_the_instrument(site: &Site) {
    const INSTRUMENT: &str = "--performance-schema-instrument=wait/lock/metadata/sql/mdl";
    let start = |state: &str| {
        let option = format!("{INSTRUMENT}={state}");
        let options = ["--performance-schema=ON", &option];
        site.server().restart_with(&options).expect("a restart");
    };
    start("OFF");
    let sql = "GRANT SELECT ON performance_schema.* TO 'dlock'@'%'";
    // Privileges on the performance schema come table by table on MySQL.
    for table in ["metadata_locks", "threads"] {
        let one = sql.replace('*', table);
        site.admin().rows(&one).expect("a grant");
    }
    let (one, other) = (site.locker(), site.locker());
    let guard = site.lock(&one, "k").acquire_blocking().unwrap();
    let Err(Error::Unsupported(why)) = other.list_blocking() else {
        panic!("without the instrument nobody knows");
    };
    assert!(why.remedy.contains("wait/lock/metadata/sql/mdl"), "{why:?}");
    let seen = other.inspect_blocking(site.key("k")).unwrap();
    assert_eq!(seen.expect("held").holders.len(), 1);
    // Switched on, it does not know what was locked before: a list would leave that out.
    site.admin()
        .rows(
            "UPDATE performance_schema.setup_instruments SET ENABLED = 'YES'
             WHERE NAME = 'wait/lock/metadata/sql/mdl'",
        )
        .expect("an instrument");
    assert!(matches!(other.list_blocking(), Err(Error::Unsupported(_))));
    guard.release_blocking().expect("held to the end");
    let _ = (one.shutdown_blocking(SHORT), other.shutdown_blocking(SHORT));

    start("ON");
    let (one, other) = (site.locker(), site.locker());
    let guard = site.lock(&one, "k").acquire_blocking().unwrap();
    let waiting = site.lock(&other, "k");
    run(async {
        let waiting = tokio::spawn(async move { waiting.acquire().await });
        until("one waits", || waits(site, &one, "k") == 1);
        let seen = listed(site, &other, "k").expect("held");
        assert!(seen.waiters[0].who.this_process && !seen.holders[0].who.this_process);
        guard.release().await.expect("held to the end");
        let guard = waiting.await.expect("no panic").expect("its turn");
        guard.release().await.expect("held to the end");
    });
}

const SHORT: Duration = Duration::from_secs(1);
