//! Who comes next.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use dlock::{Error, Guard, Lock, Locker};
use futures_util::FutureExt;
use futures_util::future::select_all;

use crate::site::{SOON, Site, run};

type Waiting = Pin<Box<dyn Future<Output = Result<Guard, Error>> + Send>>;

/// Joins the line: the first poll does.
fn join(lock: Lock) -> Waiting {
    let mut waiting: Waiting = Box::pin(async move { lock.acquire().await });
    assert!((&mut waiting).now_or_never().is_none(), "it is busy");
    waiting
}

pub(crate) fn a_process_serves_its_requests_in_order(site: &Site) {
    let locker = site.locker();
    run(async {
        let guard = site.lock(&locker, "line").acquire().await.unwrap();
        let mut line: Vec<Waiting> = (0..6).map(|_| join(site.lock(&locker, "line"))).collect();
        drop(guard);
        while !line.is_empty() {
            let first = tokio::time::timeout(SOON, line.remove(0)).await;
            let guard = first.expect("the first in line comes first").unwrap();
            for waiting in &mut line {
                assert!(waiting.now_or_never().is_none(), "one was let in too early");
            }
            guard.release().await.expect("held to the end");
        }
    });
}

pub(crate) fn a_release_lets_exactly_one_process_in(site: &Site) {
    let holder = site.locker();
    let lockers: Vec<Locker> = (0..4).map(|_| site.locker()).collect();
    run(async {
        let guard = site.lock(&holder, "one").acquire().await.unwrap();
        let line = lockers.iter().map(|locker| join(site.lock(locker, "one")));
        let line = line.collect();
        site.until_waiting(lockers.len());
        guard.release().await.expect("held to the end");
        let_in_one_by_one(site, line, true).await;
    });
}

pub(crate) fn a_release_lets_exactly_one_task_in(site: &Site) {
    let locker = site.locker();
    run(async {
        let guard = site.lock(&locker, "one").acquire().await.unwrap();
        let line = (0..4).map(|_| join(site.lock(&locker, "one"))).collect();
        guard.release().await.expect("held to the end");
        let_in_one_by_one(site, line, false).await;
    });
}

async fn let_in_one_by_one(site: &Site, mut line: Vec<Waiting>, on_server: bool) {
    while !line.is_empty() {
        let (guard, _, others) = select_all(line).await;
        let guard = guard.unwrap();
        line = others;
        if on_server {
            site.until_waiting(line.len());
        }
        // Whoever else was let in has been told by now, or is told before the next release; then `select_all`
        // would find two guards at once, and the second try here would find the lock taken twice.
        for waiting in &mut line {
            assert!(waiting.now_or_never().is_none(), "a second one was let in");
        }
        if site.place().kind().is_some() {
            assert_eq!(site.holders("one").len(), 1);
        }
        assert!(guard.is_held());
        guard.release().await.expect("held to the end");
    }
}

pub(crate) fn a_released_lock_goes_to_the_process_that_waits(site: &Site) {
    let mut worker = site.worker();
    let locker = site.locker();
    let key = site.key("hand-over");
    for _ in 0..3 {
        let guard = site.lock(&locker, &key).acquire_blocking().unwrap();
        worker.tell(&format!("acquire {key} -"));
        site.until_waiting(1);
        assert!(worker.is_silent());
        guard.release_blocking().expect("held to the end");
        assert_eq!(worker.answer(), "held");
        thread::scope(|scope| {
            let back = scope.spawn(|| site.lock(&locker, &key).timeout(60).acquire_blocking());
            site.until_waiting(1);
            assert_eq!(worker.ask(&format!("release {key}")), "released");
            drop(back.join().unwrap().expect("handed back"));
        });
    }
}

pub(crate) fn a_process_in_a_loop_lets_others_in(site: &Site) {
    let mut worker = site.worker();
    let locker = site.locker();
    let key = site.key("loop");
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let lock = site.lock(&locker, &key);
                while !stop.load(Ordering::SeqCst) {
                    drop(lock.acquire_blocking().expect("a turn"));
                }
            });
        }
        for _ in 0..3 {
            let answer = worker.ask(&format!("acquire {key} 20000"));
            if answer == "held" {
                worker.ask(&format!("release {key}"));
            } else {
                stop.store(true, Ordering::SeqCst);
            }
            assert_eq!(answer, "held");
        }
        stop.store(true, Ordering::SeqCst);
    });
}
