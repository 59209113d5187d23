//! Tries, waits, and how long they take.

use std::thread;
use std::time::{Duration, Instant};

use dlock::{Busy, Error, Lock, Locker, Timeout};

use crate::place::Place;
use crate::site::{SOON, Site, until};

/// What a wait may take longer than asked, on a busy machine.
const LATE: Duration = Duration::from_secs(10);

pub(crate) fn a_try_takes_a_free_lock(site: &Site) {
    let lock = site.lock(&site.locker(), "free");
    let guard = lock.try_acquire_blocking().unwrap().expect("it is free");
    assert!(guard.is_held());
    assert!(guard.check().is_ok());
    assert_eq!(guard.key(), "free");
    guard.release_blocking().expect("held to the end");
}

pub(crate) fn a_try_at_a_busy_lock_takes_nothing(site: &Site) {
    let (one, other) = (site.locker(), site.locker());
    let guard = site.lock(&one, "busy").acquire_blocking().unwrap();
    // Elsewhere, and in the same process, whose session the server would let in.
    for locker in [&other, &one, &other, &one] {
        let tried = site.lock(locker, "busy").try_acquire_blocking();
        assert!(tried.unwrap().is_none());
    }
    guard.release_blocking().expect("held to the end");
    let tried = site.lock(&other, "busy").try_acquire_blocking();
    assert!(tried.unwrap().is_some());
}

pub(crate) fn a_time_out_of_zero_is_one_try(site: &Site) {
    let (one, other) = (site.locker(), site.locker());
    let free = site.lock(&other, "free").timeout(0).acquire_blocking();
    drop(free.expect("a free lock needs no time"));
    let guard = site.lock(&one, "zero").acquire_blocking().unwrap();
    for locker in [&one, &other] {
        for zero in [Timeout::from(0), Timeout::from(Duration::ZERO)] {
            let lock = site.lock(locker, "zero").timeout(zero);
            let error = lock.acquire_blocking().unwrap_err();
            assert!(error.is_busy(), "{error}");
        }
    }
    drop(guard);
}

pub(crate) fn a_timed_wait_ends_with_the_lock(site: &Site) {
    wait_until_released(site, |lock| lock.timeout(60));
}

pub(crate) fn an_unlimited_wait_ends_with_the_lock(site: &Site) {
    wait_until_released(site, |lock| lock.timeout(Timeout::NONE));
}

fn wait_until_released(site: &Site, with: impl FnOnce(Lock) -> Lock) {
    let (one, other) = (site.locker(), site.locker());
    let guard = site.lock(&one, "wait").acquire_blocking().unwrap();
    let lock = with(site.lock(&other, "wait"));
    thread::scope(|scope| {
        let waiting = scope.spawn(|| lock.acquire_blocking());
        site.until_waiting(1);
        assert!(!waiting.is_finished());
        guard.release_blocking().expect("held to the end");
        let guard = waiting.join().unwrap().expect("the lock is free");
        assert!(guard.is_held());
    });
}

pub(crate) fn a_wait_is_never_shorter_than_asked(site: &Site) {
    let (one, other) = (site.locker(), site.locker());
    let guard = site.lock(&one, "precise").acquire_blocking().unwrap();
    // One after the other: with company, the wait on the server belongs to the line.
    for asked in [300, 1200, 1500] {
        expire(&site.lock(&other, "precise"), asked);
    }
    drop(guard);
}

pub(crate) fn a_wait_behind_this_process_is_never_shorter_than_asked(site: &Site) {
    let locker = site.locker();
    let guard = site.lock(&locker, "precise").acquire_blocking().unwrap();
    thread::scope(|scope| {
        for asked in [1500, 300, 1200] {
            let lock = site.lock(&locker, "precise");
            scope.spawn(move || expire(&lock, asked));
        }
    });
    drop(guard);
}

fn expire(lock: &Lock, asked: u64) {
    let asked = Duration::from_millis(asked);
    let start = Instant::now();
    let error = lock.clone().timeout(asked).acquire_blocking().unwrap_err();
    let waited = start.elapsed();
    assert!(error.is_busy(), "{error}");
    assert!(waited >= asked, "{waited:?} instead of {asked:?}");
    assert!(waited < asked + LATE, "{waited:?} instead of {asked:?}");
    let said = busy(error).waited;
    assert!(said >= asked && said <= waited, "{said:?} of {waited:?}");
}

pub(crate) fn busy_names_the_program_and_the_session_that_holds(site: &Site) {
    let mut worker = match site.place() {
        // Over TLS the driver's connection attributes do not arrive there, and the name of the program is one.
        Place::MySql => site.worker_with("ssl-mode=DISABLED"),
        _ => site.worker(),
    };
    let locker = site.locker();
    let key = site.key("named");
    assert_eq!(worker.ask(&format!("try {key}")), "held");
    let session = site.holders(&key);
    for timeout in [Duration::ZERO, Duration::from_millis(200)] {
        let lock = site.lock(&locker, &key).timeout(timeout);
        let error = lock.acquire_blocking().unwrap_err();
        let message = error.to_string();
        let busy = busy(error);
        assert_eq!(&*busy.key, key);
        let holder = busy.holder.expect("the server can tell");
        assert_eq!(holder.session.as_slice(), session);
        assert!(!holder.this_process);
        assert!(holder.client.is_some());
        let program = holder.program;
        match site.place() {
            // It keeps programs' names only with the performance schema, which is off by default.
            Place::MariaDb => {}
            _ => assert!(
                program
                    .as_ref()
                    .is_some_and(|name| name.contains(".worker0")),
                "{program:?}"
            ),
        }
        assert!(message.contains(&key), "{message}");
        assert!(message.contains(&session[0].to_string()), "{message}");
    }
}

pub(crate) fn busy_names_this_process(site: &Site) {
    let locker = site.locker();
    let guard = site.lock(&locker, "mine").acquire_blocking().unwrap();
    for timeout in [Duration::ZERO, Duration::from_millis(100)] {
        let lock = site.lock(&locker, "mine").timeout(timeout);
        let busy = busy(lock.acquire_blocking().unwrap_err());
        let holder = busy.holder.expect("this very process");
        assert!(holder.this_process);
        assert!(holder.held_for.is_some_and(|held| held < SOON));
        assert_eq!(holder.waiting, Some(0));
        assert!(busy.waited >= timeout && busy.waited < SOON);
    }
    drop(guard);
}

pub(crate) fn busy_counts_those_who_wait_in_this_process(site: &Site) {
    let locker = site.locker();
    let guard = site.lock(&locker, "crowded").acquire_blocking().unwrap();
    thread::sleep(Duration::from_millis(5));
    crowd(site, &locker, "crowded", 2, || {
        let lock = site.lock(&locker, "crowded").timeout(0);
        // They line up on threads of their own.
        until("both are in line", || {
            let error = lock.acquire_blocking().unwrap_err();
            let message = error.to_string();
            let holder = busy(error).holder.expect("this very process");
            assert!(holder.held_for >= Some(Duration::from_millis(5)));
            holder.waiting == Some(2) && message.ends_with("; 2 others wait")
        });
        guard.release_blocking().expect("held to the end");
    });
}

pub(crate) fn busy_counts_those_who_wait_in_other_processes(site: &Site) {
    let (holder, waiter, locker) = (site.locker(), site.locker(), site.locker());
    let guard = site.lock(&holder, "crowded").acquire_blocking().unwrap();
    // Two callers of one locker are one session on the server.
    crowd(site, &waiter, "crowded", 2, || {
        site.until_waiting(1);
        let told = |timeout: Duration| {
            let lock = site.lock(&locker, "crowded").timeout(timeout);
            let holder = busy(lock.acquire_blocking().unwrap_err()).holder;
            holder.expect("the server can tell")
        };
        until("they wait, or nobody can tell", || {
            told(Duration::ZERO).waiting != Some(0)
        });
        for timeout in [Duration::ZERO, Duration::from_millis(200)] {
            let holder = told(timeout);
            let told = match site.place() {
                // It does not say for which lock a session waits.
                Place::MariaDb => None,
                _ => Some(1),
            };
            assert_eq!(holder.waiting, told);
            match site.place() {
                Place::Postgres => assert!(holder.connected_for > Some(Duration::ZERO)),
                Place::Memory => assert!(holder.held_for > Some(Duration::ZERO)),
                _ => {}
            }
        }
        guard.release_blocking().expect("held to the end");
    });
}

/// Does something while so many callers wait for a lock; they get it then, one behind the other.
fn crowd(site: &Site, locker: &Locker, key: &str, callers: usize, meanwhile: impl FnOnce()) {
    thread::scope(|scope| {
        for _ in 0..callers {
            let lock = site.lock(locker, key).timeout(60);
            scope.spawn(move || drop(lock.acquire_blocking().expect("its turn")));
        }
        meanwhile();
    });
}

fn busy(error: Error) -> Busy {
    match error {
        Error::Busy(busy) => (*busy).clone(),
        other => panic!("busy, not: {other}"),
    }
}
