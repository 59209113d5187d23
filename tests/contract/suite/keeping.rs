//! `min_hold`, with leases above all: the row stays taken, and nobody waits for that; and `max_hold` of a [`Lock`].

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use dlock::{Error, Holder, Lock, Locker, db_locked};

use crate::site::{SOON, Site, run, until};

/// Longer than the statements of a test take on a busy machine, and short enough to be waited for.
const KEPT: Duration = Duration::from_secs(6);

/// Longer than [`SOON`].
const NEVER: Duration = Duration::from_secs(3600);

#[db_locked(key = "{key}", timeout = 0, min_hold = KEPT, locker = locker)]
fn short(locker: &Locker, key: &str) -> Result<(), Error> {
    dlock::check()
}

#[db_locked(key = "{key}", timeout = 0, min_hold = KEPT, locker = locker)]
async fn short_async(locker: &Locker, key: &str) -> Result<(), Error> {
    dlock::check()
}

#[db_locked(key = "{key}", mode = shared, timeout = 0, min_hold = KEPT, locker = locker)]
fn short_reader(locker: &Locker, key: &str) -> Result<(), Error> {
    dlock::check()
}

/// Who the refusal of one try names.
fn holder(site: &Site, locker: &Locker, key: &str) -> Holder {
    match site.lock(locker, key).timeout(0).acquire_blocking() {
        Err(Error::Busy(busy)) => busy.holder.clone().expect("the table can tell"),
        other => panic!("busy, not: {other:?}"),
    }
}

pub(crate) fn b7_a_short_body_returns_at_once_and_its_row_stays(site: &Site) {
    let (one, other) = (site.locker(), site.locker());
    let start = Instant::now();
    short(&one, &site.key("k")).expect("held to the end");
    let kept = site.kept_for("k").expect("its row stays");
    assert!(kept <= KEPT, "{kept:?}");
    for (locker, this_process) in [(&one, true), (&other, false)] {
        let holder = holder(site, locker, "k");
        assert_eq!(holder.this_process, this_process);
        assert_eq!(holder.held_for, None, "nobody runs");
        assert!(
            holder.kept_for.is_some_and(|kept| kept <= KEPT),
            "{holder:?}"
        );
        assert!(holder.to_string().contains("more by min_hold"), "{holder}");
    }
    let seen = other.list_blocking().expect("a list");
    let [seen] = &seen[..] else {
        panic!("one lock: {seen:?}");
    };
    assert!(seen.holders[0].who.kept_for.is_some(), "{seen:?}");
    assert!(seen.holders[0].who.program.is_some(), "{seen:?}");
    let (locally, elsewhere) = (site.lock(&one, "k"), site.lock(&other, "k"));
    thread::scope(|scope| {
        for lock in [&locally, &elsewhere] {
            scope.spawn(move || {
                let guard = lock.clone().timeout(SOON).acquire_blocking();
                drop(guard.expect("it becomes free"));
                assert!(start.elapsed() >= KEPT, "after {:?}", start.elapsed());
            });
        }
    });
}

#[db_locked(key = "{key}", timeout = 0, min_hold = KEPT, locker = locker)]
fn until_told(locker: &Locker, key: &str, go_on: &Barrier) -> Result<(), Error> {
    // It has begun, and may end.
    go_on.wait();
    go_on.wait();
    dlock::check()
}

/// It waits for a lease of 30 s, and then for the rest of `min_hold`. Nobody wakes it when that is over: it has to know when.
pub(crate) fn b7_a_waiter_learns_that_the_row_is_kept(site: &Site) {
    let (one, other) = (site.locker(), site.locker_of(site.config().retry(NEVER)));
    let (go_on, key) = (Barrier::new(2), site.key("k"));
    let lock = site.lock(&other, "k").timeout(SOON);
    thread::scope(|scope| {
        let start = Instant::now();
        let body = scope.spawn(|| until_told(&one, &key, &go_on));
        go_on.wait();
        let waiting = scope.spawn(|| lock.acquire_blocking());
        site.until_waiting(1);
        go_on.wait();
        body.join().expect("no panic").expect("held to the end");
        drop(waiting.join().expect("no panic").expect("its turn"));
        assert!(start.elapsed() >= KEPT, "after {:?}", start.elapsed());
    });
}

pub(crate) fn b7_a_shutdown_does_not_wait_for_the_row(site: &Site) {
    let locker = site.locker();
    run(short_async(&locker, &site.key("k"))).expect("held to the end");
    assert_eq!(locker.shutdown_blocking(2 * KEPT).cut, 0);
    assert!(site.kept_for("k").is_some(), "the row stays");
    let guard = site
        .lock(&site.locker(), "k")
        .timeout(SOON)
        .acquire_blocking();
    drop(guard.expect("it becomes free"));
}

/// A shutdown that has no patience ends the hold, and not the time that the body asked for.
pub(crate) fn b7_a_cut_body_leaves_its_row(site: &Site) {
    let locker = site.locker();
    let (go_on, key) = (Barrier::new(2), site.key("k"));
    thread::scope(|scope| {
        let body = scope.spawn(|| until_told(&locker, &key, &go_on));
        go_on.wait();
        assert_eq!(locker.shutdown_blocking(Duration::ZERO).cut, 1);
        go_on.wait();
        let error = body.join().expect("no panic").unwrap_err();
        assert!(error.is_lost(), "{error}");
    });
    until("the row is given back", || site.kept_for("k").is_some());
}

pub(crate) fn b7_the_row_outlives_its_process(site: &Site) {
    let ttl = Duration::from_secs(1);
    let (mut killed, mut exiting) = (site.worker_with("ttl=1"), site.worker_with("ttl=1"));
    let start = Instant::now();
    let min_hold = KEPT.as_millis();
    // Long enough for some renewals, which do not bring the end nearer.
    assert_eq!(
        killed.ask(&format!("stay {} {min_hold}", site.key("killed"))),
        "running"
    );
    assert_eq!(
        exiting.ask(&format!("body {} {min_hold}", site.key("exited"))),
        "done"
    );
    thread::sleep(ttl);
    killed.kill();
    exiting.kill();
    let locker = site.locker();
    for key in ["killed", "exited"] {
        let guard = site.lock(&locker, key).timeout(SOON).acquire_blocking();
        drop(guard.expect("it becomes free"));
        assert!(start.elapsed() >= KEPT, "{key} after {:?}", start.elapsed());
    }
}

pub(crate) fn b7_a_kick_ends_what_is_only_kept(site: &Site) {
    let (one, other) = (
        site.locker_of(site.config().ttl(Duration::from_secs(3))),
        site.locker(),
    );
    short(&one, &site.key("k")).expect("held to the end");
    // Of its own locker too: there is nobody who could be told to release it.
    for locker in [&one, &other] {
        let kicked = locker.kick_blocking(site.key("k")).expect("a kick");
        assert_eq!(kicked.len(), 1, "{kicked:?}");
        assert!(kicked[0].who.kept_for.is_some(), "{kicked:?}");
        assert_eq!(locker.kick_blocking(site.key("k")).expect("a kick"), []);
        short(locker, "k").expect("free at once");
    }
    other.kick_blocking(site.key("k")).expect("a kick");
    short_reader(&one, "k").expect("held to the end");
    let reader = site.lock(&one, "k").shared().acquire_blocking().unwrap();
    let kicked = other.kick_blocking(site.key("k")).expect("a kick");
    assert_eq!(
        kicked.len(),
        2,
        "the kept one, and the one who runs: {kicked:?}"
    );
    until("the reader is told", || {
        // It renews at a third of its ttl; by hand it is told at once.
        reader.renew_blocking(Duration::from_secs(30)).is_err()
    });
    drop(reader);
}

pub(crate) fn b7_a_readers_row_keeps_writers_out_and_readers_not(site: &Site) {
    let (one, other) = (site.locker(), site.locker());
    let start = Instant::now();
    short_reader(&one, &site.key("k")).expect("held to the end");
    let reader = site
        .lock(&other, "k")
        .shared()
        .timeout(0)
        .acquire_blocking();
    reader
        .expect("beside it")
        .release_blocking()
        .expect("held to the end");
    assert!(holder(site, &other, "k").kept_for.is_some());
    let writer = site.lock(&other, "k").timeout(SOON).acquire_blocking();
    drop(writer.expect("it becomes free"));
    assert!(start.elapsed() >= KEPT, "after {:?}", start.elapsed());
}

#[db_locked(key = "{key}", timeout = 0, locker = locker)]
fn outer(locker: &Locker, key: &str) -> Result<(), Error> {
    short(locker, key)
}

pub(crate) fn b7_the_min_hold_of_a_nested_body_keeps_the_outer_lease(site: &Site) {
    let locker = site.locker_of(site.config().ttl(Duration::from_secs(2)));
    outer(&locker, &site.key("k")).expect("held to the end");
    assert!(site.kept_for("k").is_some(), "the row stays");
    locker.kick_blocking(site.key("k")).expect("a kick");
}

pub(crate) fn a_lock_is_kept_for_the_min_hold_of_its_body(site: &Site) {
    let locker = site.locker();
    let body: fn(&Lock) -> Result<(), Error> = |lock| lock.run_blocking(|| ());
    let future: fn(&Lock) -> Result<(), Error> = |lock| run(lock.run(async {}));
    thread::scope(|scope| {
        for (key, body) in [("body", body), ("future", future)] {
            let lock = site.lock(&locker, key).timeout(SOON);
            scope.spawn(move || {
                let start = Instant::now();
                body(&lock.clone().min_hold(KEPT)).expect("held to the end");
                let returned = start.elapsed();
                let guard = lock.acquire_blocking().expect("free");
                let free = start.elapsed();
                guard.release_blocking().expect("held to the end");
                assert!(returned < KEPT, "kept waiting for {returned:?}");
                assert!(free >= KEPT, "free after {free:?}");
            });
        }
    });
}

pub(crate) fn a_body_loses_its_lock_at_the_max_hold_of_the_lock(site: &Site) {
    let locker = site.locker();
    let lock = site.lock(&locker, "k").max_hold(Duration::from_millis(300));
    let stopped = run(lock.run(std::future::pending::<()>()));
    assert!(
        matches!(stopped, Err(Error::HoldExceeded(_))),
        "{stopped:?}"
    );
    let told = lock.clone().timeout(SOON).run_blocking(|| {
        until("the body is told", || dlock::check().is_err());
    });
    assert!(matches!(told, Err(Error::HoldExceeded(_))), "{told:?}");
    let next = site.lock(&locker, "k").timeout(SOON).acquire_blocking();
    next.expect("free").release_blocking().expect("held");
}

pub(crate) fn a_min_hold_of_more_than_a_year_is_refused(site: &Site) {
    let (locker, day) = (site.locker(), Duration::from_secs(24 * 3600));
    let lock = site.lock(&locker, "k").timeout(0);
    for min_hold in [365 * day + Duration::from_nanos(1), Duration::MAX] {
        let lock = lock.clone().min_hold(min_hold);
        for error in [
            lock.run_blocking(|| ()).unwrap_err(),
            run(lock.run(async {})).unwrap_err(),
        ] {
            assert!(matches!(error, Error::Unsupported(_)), "{error:?}");
            assert!(error.to_string().contains("365 days"), "{error}");
        }
    }
    lock.run_blocking(|| ()).expect("free");
}

/// As long as is allowed: the row has an end that the database can tell.
pub(crate) fn b7_a_row_can_stay_for_a_year(site: &Site) {
    let (locker, year) = (site.locker(), Duration::from_secs(365 * 24 * 3600));
    let lock = site.lock(&locker, "k").timeout(0);
    let body = lock.clone().min_hold(year);
    body.run_blocking(|| ()).expect("held to the end");
    let kept_for = holder(site, &locker, "k").kept_for;
    assert!(
        kept_for.is_some_and(|kept| kept + SOON > year),
        "{kept_for:?}"
    );
    locker.kick_blocking(site.key("k")).expect("a kick");
    lock.run_blocking(|| ()).expect("free at once");
}

pub(crate) fn a_guard_has_no_min_hold_and_no_max_hold(site: &Site) {
    let locker = site.locker();
    let lock = || site.lock(&locker, "k").timeout(SOON);
    // Zero is none.
    let plain = lock().min_hold(Duration::ZERO).max_hold(Duration::ZERO);
    let guard = plain.acquire_blocking().expect("free");
    guard.release_blocking().expect("held to the end");
    for lock in [lock().min_hold(KEPT), lock().max_hold(KEPT)] {
        let refused = [
            lock.acquire_blocking().err(),
            run(lock.acquire()).err(),
            lock.try_acquire_blocking().err(),
        ];
        for error in refused {
            assert!(matches!(error, Some(Error::Unsupported(_))), "{error:?}");
        }
        // What takes no guard does not mind.
        assert!(!lock.locked_blocking().expect("told"));
        lock.wait_free_blocking().expect("free");
    }
}
