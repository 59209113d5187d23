//! Fencing tokens of session locks: counted by the session that holds the lock, or the lock is not held.

use std::thread;
use std::time::{Duration, Instant};

use dlock::{Config, Error, Locker};
use futures_util::FutureExt;

use crate::admin::Admin;
use crate::place::Family;
use crate::site::{SOON, Site, run, until};

/// A locker all of whose exclusive locks have tokens.
fn fencing(site: &Site) -> Locker {
    site.locker_of(site.config().fencing(true))
}

/// A transaction of somebody else's that keeps the counter of a lock, as one that has checked a token does.
struct Keeping<'s> {
    site: &'s Site,
    transaction: Admin,
}

impl<'s> Keeping<'s> {
    /// The counter has been raised before: it has a row.
    fn of(site: &'s Site, key: &str) -> Keeping<'s> {
        let transaction = site.second_admin();
        let ask = |sql: &str| transaction.rows(sql).expect("a foreign transaction");
        ask("BEGIN");
        let row = format!(
            "SELECT token FROM {} WHERE name = '{}' FOR UPDATE",
            table(site),
            site.name(key)
        );
        assert_eq!(ask(&row).len(), 1, "the counter has a row");
        Keeping { site, transaction }
    }

    /// Returns when the session that holds the key, and no other, waits for the counter.
    fn until_waited_for(&self, key: &str) -> i64 {
        let mut waiting = 0;
        until("the holder waits for its counter", || {
            let holders = self.site.holders(key);
            waiting = holders.first().copied().unwrap_or_default();
            holders.len() == 1 && self.keeps_waiting(waiting)
        });
        waiting
    }

    fn keeps_waiting(&self, session: i64) -> bool {
        self.site.writers().contains(&session)
    }

    fn end(self) {
        self.transaction.rows("ROLLBACK").expect("its end");
    }
}

fn table(site: &Site) -> &'static str {
    match site.family() {
        Family::Postgres => "public.dlock_fence",
        Family::MySql => "dlock_fence",
    }
}

/// The token that was counted last.
fn counted(site: &Site, key: &str) -> u64 {
    let sql = format!(
        "SELECT token FROM {} WHERE name = '{}'",
        table(site),
        site.name(key)
    );
    let rows = site.admin().rows(&sql).expect("the table of counters");
    let token = rows.first().and_then(|row| row.first().cloned().flatten());
    token.map_or(0, |token| token.parse().expect("a number"))
}

/// Takes the lock once, so that its counter has a row.
fn first_token(site: &Site, locker: &Locker, key: &str) -> u64 {
    let guard = site.lock(locker, key).acquire_blocking().expect("free");
    let token = guard.fencing_token().expect("asked for");
    guard.release_blocking().expect("held to the end");
    token
}

pub(crate) fn b3_tokens_grow_with_each_holder(site: &Site) {
    let lockers = [fencing(site), site.locker()];
    let mut last = 0;
    for round in 0..10 {
        let lock = site.lock(&lockers[round % 2], "tokens").fencing(true);
        let guard = lock.acquire_blocking().unwrap();
        let token = guard.fencing_token().expect("asked for");
        assert!(token > last, "{token} after {last}");
        last = token;
        // With a token or without, it is one lock.
        for other in &lockers {
            for fencing in [true, false] {
                let tried = site.lock(other, "tokens").fencing(fencing);
                assert!(tried.try_acquire_blocking().unwrap().is_none());
            }
        }
        guard.release_blocking().expect("held to the end");
    }
    // Also among the tasks of one process, to which such a lock is not handed over.
    let lock = site.lock(&lockers[0], "tokens");
    let guard = lock.acquire_blocking().unwrap();
    let before = guard.fencing_token();
    thread::scope(|scope| {
        let next = scope.spawn(|| lock.acquire_blocking().unwrap());
        let plain = scope.spawn(|| lock.clone().fencing(false).acquire_blocking().unwrap());
        thread::sleep(Duration::from_millis(20));
        guard.release_blocking().expect("held to the end");
        // Whoever comes first: they have nothing in common.
        let plain = scope.spawn(move || {
            let plain = plain.join().expect("no panic");
            if site.place().kind().is_some() && !site.place().is_lease() {
                assert_eq!(plain.fencing_token(), None);
            }
            plain.release_blocking().expect("held to the end");
        });
        let next = next.join().expect("no panic");
        assert!(next.fencing_token() > before);
        next.release_blocking().expect("held to the end");
        plain.join().expect("no panic");
    });
}

/// The first count of a holder waits, and its session is killed. The next holder comes, and counts. The first one's statement
/// must be gone by then: it was the session's own.
pub(crate) fn b3_a_killed_holder_counts_nothing_behind_its_successor(site: &Site) {
    let quiet = |config: Config| config.fencing(true);
    let (one, other) = (site.locker_of(quiet(site.config())), fencing(site));
    let before = first_token(site, &one, "killed");
    thread::scope(|scope| {
        let keeping = Keeping::of(site, "killed");
        let first = site.lock(&one, "killed").timeout(SOON);
        let first = scope.spawn(move || first.acquire_blocking());
        let killed = keeping.until_waited_for("killed");
        let next = site.lock(&other, "killed").timeout(SOON);
        let next = scope.spawn(move || next.acquire_blocking());
        site.until_waiting(1);
        site.admin().kill(killed);
        until("the successor counts", || {
            let holders = site.holders("killed");
            holders.len() == 1 && holders[0] != killed && keeping.keeps_waiting(holders[0])
        });
        keeping.end();
        let next = next.join().expect("no panic").expect("its turn");
        let token = next.fencing_token().expect("asked for");
        assert_eq!(token, before + 1, "the killed session's count is undone");
        assert_eq!(counted(site, "killed"), token);
        next.release_blocking().expect("held to the end");
        // Who lost its session before it had the lock has only waited longer.
        let first = first.join().expect("no panic").expect("its turn");
        assert_eq!(first.fencing_token(), Some(token + 1));
    });
}

pub(crate) fn b3_a_count_that_waits_ends_with_the_deadline(site: &Site) {
    let locker = fencing(site);
    let before = first_token(site, &locker, "deadline");
    let keeping = Keeping::of(site, "deadline");
    let begun = Instant::now();
    let lock = site.lock(&locker, "deadline");
    let refused = lock
        .clone()
        .timeout(Duration::from_millis(300))
        .acquire_blocking();
    let Err(Error::Unavailable(unavailable)) = refused else {
        panic!("nobody else holds it: {refused:?}");
    };
    assert!(
        unavailable.reason.contains("fencing token"),
        "{unavailable:?}"
    );
    assert!(begun.elapsed() < Duration::from_secs(8));
    // Nothing is left of it, for this process at once.
    let plain = lock.clone().fencing(false).try_acquire_blocking();
    let plain = plain.expect("the server answers").expect("it is free");
    plain.release_blocking().expect("held to the end");
    assert!(site.holders("deadline").is_empty());
    keeping.end();
    let guard = lock.acquire_blocking().expect("free");
    assert!(guard.fencing_token().is_some_and(|token| token > before));
}

pub(crate) fn b3_a_count_that_is_given_up_leaves_nothing(site: &Site) {
    let locker = fencing(site);
    first_token(site, &locker, "given up");
    let keeping = Keeping::of(site, "given up");
    run(async {
        for _ in 0..3 {
            let lock = site.lock(&locker, "given up");
            let mut counting = Box::pin(lock.acquire());
            assert!((&mut counting).now_or_never().is_none());
            keeping.until_waited_for("given up");
            // For everybody else it is held.
            let tried = site.lock(&locker, "given up").try_acquire().await;
            assert!(tried.expect("an answer").is_none());
            drop(counting);
            let plain = lock.fencing(false).try_acquire().await;
            let plain = plain.expect("the server answers").expect("it is free");
            plain.release().await.expect("held to the end");
        }
    });
    // In the moment of the grant, and a little later.
    keeping.end();
    run(async {
        for round in 0..30 {
            let lock = site.lock(&locker, "given up");
            let micros = Duration::from_micros(round * 100);
            let _ = tokio::time::timeout(micros, lock.acquire()).await;
            let guard = lock.try_acquire().await.expect("the server answers");
            let guard = guard.unwrap_or_else(|| panic!("round {round}: the drop comes first"));
            guard.release().await.expect("held to the end");
        }
    });
}

pub(crate) fn b3_a_fenced_lock_does_not_wait_for_those_who_wait(site: &Site) {
    let locker = site.locker_of(site.config().fencing(true).max_waiters(1));
    let other = site.locker();
    let busy = site.lock(&other, "busy").acquire_blocking().unwrap();
    thread::scope(|scope| {
        let waiting = site.lock(&locker, "busy").timeout(SOON);
        let waiting = scope.spawn(move || waiting.acquire_blocking());
        site.until_waiting(1);
        let free = site.lock(&locker, "free").try_acquire_blocking();
        let free = free.expect("the server answers").expect("nobody has it");
        assert!(free.fencing_token().is_some());
        busy.release_blocking().expect("held to the end");
        let waited = waiting.join().expect("no panic").expect("its turn");
        assert!(waited.fencing_token().is_some());
    });
}

pub(crate) fn b3_a_lost_session_costs_one_fenced_lock(site: &Site) {
    let locker = fencing(site);
    let one = site.lock(&locker, "one").acquire_blocking().unwrap();
    let other = site.lock(&locker, "other").acquire_blocking().unwrap();
    site.admin().kill(site.holders("one")[0]);
    until("it is free", || site.holders("one").is_empty());
    assert!(one.release_blocking().is_err_and(|error| error.is_lost()));
    assert!(other.is_held());
    other.release_blocking().expect("held to the end");
    // A connection is used again, and its next lock has the next token.
    let sessions = site.sessions();
    let again = site.lock(&locker, "other").acquire_blocking().unwrap();
    assert!(sessions.contains(&site.holders("other")[0]));
    assert_eq!(again.fencing_token(), Some(2));
}

/// Each would cost a try, and the second one the caller.
pub(crate) fn b3_dead_connections_cost_a_fenced_try_nothing(site: &Site) {
    let locker = fencing(site);
    let keys = ["a", "b", "c"];
    let guards = keys.map(|key| site.lock(&locker, key).acquire_blocking().unwrap());
    for guard in guards {
        guard.release_blocking().expect("held to the end");
    }
    for session in site.sessions() {
        site.admin().kill(session);
    }
    until("the server has ended them", || site.sessions().is_empty());
    let guard = site.lock(&locker, "a").try_acquire_blocking();
    let guard = guard.expect("the server is there").expect("it is free");
    assert_eq!(guard.fencing_token(), Some(2));
}

pub(crate) fn b3_tokens_grow_across_a_restart_of_the_server(site: &Site) {
    let locker = fencing(site);
    let before = first_token(site, &locker, "restart");
    site.server().restart().expect("a restart");
    let lock = site.lock(&locker, "restart").timeout(SOON);
    let guard = lock.acquire_blocking().expect("the lock, taken anew");
    assert_eq!(guard.fencing_token(), Some(before + 1));
}

pub(crate) fn b3_readers_have_no_token(site: &Site) {
    let locker = fencing(site);
    let shared = site.lock(&locker, "shared").shared();
    let reader = shared.acquire_blocking().unwrap();
    assert_eq!(reader.fencing_token(), None);
    let refused = shared.fencing(true).acquire_blocking();
    assert!(matches!(refused, Err(Error::Unsupported(_))), "{refused:?}");
}
