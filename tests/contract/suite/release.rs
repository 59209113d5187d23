//! All the ways in which a lock becomes free.

use std::panic::{AssertUnwindSafe, resume_unwind};
use std::thread;
use std::time::Duration;

use dlock::Error;
use futures_util::FutureExt;

use crate::site::{SOON, Site, run, until};

pub(crate) fn a_dropped_guard_frees_the_lock(site: &Site) {
    let (one, other) = (site.locker(), site.locker());
    let guard = site.lock(&one, "drop").acquire_blocking().unwrap();
    drop(guard);
    let lock = site.lock(&other, "drop").timeout(SOON);
    drop(lock.acquire_blocking().expect("free after the drop"));
}

pub(crate) fn b6_a_dropped_lock_can_be_tried_again_at_once(site: &Site) {
    let lock = site.lock(&site.locker(), "again");
    for round in 0..100 {
        let guard = lock.try_acquire_blocking().unwrap();
        assert!(guard.is_some(), "round {round}: the drop comes first");
    }
}

pub(crate) fn a_released_lock_is_free_for_others_at_once(site: &Site) {
    let lockers = [site.locker(), site.locker()];
    for round in 0..40 {
        let lock = site.lock(&lockers[round % 2], "baton");
        let guard = lock.try_acquire_blocking().unwrap();
        let guard = guard.unwrap_or_else(|| panic!("round {round}: it was released"));
        guard.release_blocking().expect("held to the end");
    }
}

pub(crate) fn b6_a_release_that_nobody_awaits_frees_the_lock(site: &Site) {
    let (one, other) = (site.locker(), site.locker());
    let guard = site.lock(&one, "unawaited").acquire_blocking().unwrap();
    drop(guard.release());
    let again = site.lock(&one, "unawaited").try_acquire_blocking();
    drop(again.unwrap().expect("the release comes first"));
    let lock = site.lock(&other, "unawaited").timeout(SOON);
    drop(lock.acquire_blocking().expect("free after the release"));
}

pub(crate) fn a_panic_frees_the_lock(site: &Site) {
    let (one, other) = (site.locker(), site.locker());
    let lock = site.lock(&one, "panic");
    let ended = thread::spawn(move || {
        let _guard = lock.acquire_blocking().unwrap();
        // As a panic, without its message in the output.
        resume_unwind(Box::new("on purpose"));
    });
    assert!(ended.join().is_err());
    let again = site.lock(&one, "panic").try_acquire_blocking();
    drop(again.unwrap().expect("free after the panic"));
    let lock = site.lock(&one, "panic");
    let ended = thread::spawn(move || lock.run_blocking(|| resume_unwind(Box::new("on purpose"))));
    assert!(ended.join().is_err());
    let lock = site.lock(&other, "panic").timeout(SOON);
    drop(lock.acquire_blocking().expect("free after the panic"));
}

pub(crate) fn b6_a_panicking_body_frees_the_lock(site: &Site) {
    let (one, other) = (site.locker(), site.locker());
    let lock = site.lock(&one, "panic");
    run(async {
        let body = async {
            tokio::task::yield_now().await;
            resume_unwind(Box::new("on purpose"))
        };
        let ended = AssertUnwindSafe(lock.run(body)).catch_unwind().await;
        let ended: Result<Result<(), Error>, _> = ended;
        assert!(ended.is_err(), "the body's panic wins");
    });
    // `run` has waited for the release.
    let tried = site.lock(&other, "panic").try_acquire_blocking();
    assert!(tried.unwrap().is_some());
}

pub(crate) fn a_guard_outlives_its_locker(site: &Site) {
    let other = site.locker();
    let lock = site.lock(&site.locker(), "orphan");
    let guard = lock.acquire_blocking().unwrap();
    drop(lock);
    site.forget_lockers();
    assert!(guard.is_held());
    let tried = site.lock(&other, "orphan").try_acquire_blocking();
    assert!(tried.unwrap().is_none(), "still held");
    guard.release_blocking().expect("held to the end");
    if site.place().kind().is_some() {
        until("only the other locker is connected", || {
            site.sessions().len() == site.place().idle_connections()
        });
    }
    let tried = site.lock(&other, "orphan").try_acquire_blocking();
    assert!(tried.unwrap().is_some());
}

pub(crate) fn a_killed_process_frees_its_locks_at_once(site: &Site) {
    let (mut holder, mut next) = (site.worker(), site.worker());
    let key = site.key("killed");
    assert_eq!(holder.ask(&format!("try {key}")), "held");
    next.tell(&format!("acquire {key} -"));
    site.until_waiting(1);
    assert!(next.is_silent());
    holder.kill();
    // Well before the limit of 30 s: the server sees the end of the connection.
    assert_eq!(next.answer_within(Duration::from_secs(10)), "held");
}

pub(crate) fn a_killed_waiter_stands_in_nobodys_way(site: &Site) {
    let locker = site.locker();
    let (mut killed, mut next) = (site.worker(), site.worker());
    let key = site.key("killed-waiter");
    let guard = site.lock(&locker, &key).acquire_blocking().unwrap();
    killed.tell(&format!("acquire {key} -"));
    site.until_waiting(1);
    next.tell(&format!("acquire {key} -"));
    site.until_waiting(2);
    killed.kill();
    guard.release_blocking().expect("held to the end");
    assert_eq!(next.answer_within(SOON), "held");
}
