//! Locks that many may hold.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use dlock::{Error, Guard, Locker, Mode};
use futures_util::FutureExt;

use crate::site::{SOON, Site, run, until};

fn read(site: &Site, locker: &Locker) -> Option<Guard> {
    let lock = site.lock(locker, "book").shared();
    lock.try_acquire_blocking().expect("a try")
}

fn write(site: &Site, locker: &Locker) -> Option<Guard> {
    let lock = site.lock(locker, "book").exclusive();
    lock.try_acquire_blocking().expect("a try")
}

pub(crate) fn readers_hold_together(site: &Site) {
    let (one, other) = (site.locker(), site.locker());
    let guards = [&one, &other, &one, &other].map(|locker| read(site, locker));
    for guard in guards.iter().flatten() {
        assert!(guard.is_held());
        assert_eq!(guard.mode(), Mode::Shared);
    }
    assert_eq!(guards.iter().flatten().count(), 4);
    for guard in guards.into_iter().flatten() {
        guard.release_blocking().expect("held to the end");
    }
    assert!(write(site, &one).is_some());
}

pub(crate) fn readers_of_two_processes_hold_together(site: &Site) {
    let mut worker = site.worker();
    let locker = site.locker();
    let key = site.key("book");
    let guard = read(site, &locker);
    assert!(guard.is_some());
    assert_eq!(worker.ask(&format!("shared {key} 0")), "held");
    assert_eq!(worker.ask(&format!("held {key}")), "true");
    drop(guard);
    assert!(write(site, &locker).is_none(), "the other reads on");
    assert_eq!(worker.ask(&format!("release {key}")), "released");
    assert!(write(site, &locker).is_some());
}

pub(crate) fn a_reader_keeps_writers_out(site: &Site) {
    let (one, other) = (site.locker(), site.locker());
    let (first, second) = (read(site, &one), read(site, &one));
    assert!(write(site, &one).is_none());
    assert!(write(site, &other).is_none());
    first.unwrap().release_blocking().expect("held to the end");
    assert!(write(site, &one).is_none(), "one of two readers is left");
    assert!(write(site, &other).is_none(), "one of two readers is left");
    second.unwrap().release_blocking().expect("held to the end");
    drop(write(site, &other).expect("no reader is left"));
}

pub(crate) fn a_writer_keeps_readers_out(site: &Site) {
    let (one, other) = (site.locker(), site.locker());
    let guard = write(site, &one).expect("free");
    assert_eq!(guard.mode(), Mode::Exclusive);
    assert!(read(site, &one).is_none());
    assert!(read(site, &other).is_none());
    guard.release_blocking().expect("held to the end");
    assert!(read(site, &other).is_some());
}

pub(crate) fn a_writer_waits_for_the_last_reader(site: &Site) {
    let (one, other) = (site.locker(), site.locker());
    for writer in [&other, &one] {
        let (here, there) = (read(site, &one).unwrap(), read(site, &other).unwrap());
        run(async {
            let lock = site.lock(writer, "book");
            let mut writing = Box::pin(lock.acquire());
            assert!((&mut writing).now_or_never().is_none());
            here.release().await.expect("held to the end");
            // The server has only readers left, and the writer still waits there or in line.
            if site.place().kind().is_some() {
                until("one reader is left", || site.holders("book").len() == 1);
            }
            assert!((&mut writing).now_or_never().is_none());
            there.release().await.expect("held to the end");
            let guard = tokio::time::timeout(SOON, writing).await;
            let guard = guard.expect("its turn").unwrap();
            assert_eq!(guard.mode(), Mode::Exclusive);
            guard.release().await.expect("held to the end");
        });
    }
}

pub(crate) fn a_reader_does_not_overtake_a_writer_in_line(site: &Site) {
    let locker = site.locker();
    run(async {
        let first = read(site, &locker).expect("free");
        let (lock, shared) = (
            site.lock(&locker, "book"),
            site.lock(&locker, "book").shared(),
        );
        let mut writing = Box::pin(lock.acquire());
        let mut reading = Box::pin(shared.acquire());
        assert!((&mut writing).now_or_never().is_none());
        assert!((&mut reading).now_or_never().is_none());
        assert!(read(site, &locker).is_none(), "nor by a try");
        first.release().await.expect("held to the end");
        let writer = tokio::time::timeout(SOON, writing).await;
        let writer = writer.expect("its turn").unwrap();
        assert!((&mut reading).now_or_never().is_none());
        writer.release().await.expect("held to the end");
        let reader = tokio::time::timeout(SOON, reading).await;
        drop(reader.expect("its turn").unwrap());
    });
}

pub(crate) fn a_writer_gets_in_between_readers_in_a_loop(site: &Site) {
    let (one, other) = (site.locker(), site.locker());
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        // Two threads a process, so that there is always a reader.
        for locker in [&one, &one, &other, &other] {
            let lock = site.lock(locker, "book").shared();
            let stop = &stop;
            scope.spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    let guard = lock.acquire_blocking().expect("a turn");
                    thread::yield_now();
                    drop(guard);
                }
            });
        }
        let third = site.locker();
        let written = [&third, &one].map(|writer| {
            let lock = site.lock(writer, "book").timeout(SOON);
            lock.acquire_blocking().map(drop)
        });
        stop.store(true, Ordering::SeqCst);
        for written in written {
            written.expect("a writer's turn");
        }
    });
}

pub(crate) fn shared_mode_is_refused_where_there_is_none(site: &Site) {
    let locker = site.locker();
    let lock = site.lock(&locker, "book").shared();
    let refused = [
        lock.acquire_blocking().map(drop),
        lock.try_acquire_blocking().map(drop),
        lock.run_blocking(|| panic!("the body does not run")),
    ];
    for error in refused.map(Result::unwrap_err) {
        assert!(matches!(error, Error::Unsupported(_)), "{error}");
        assert!(error.to_string().contains("shared mode"), "{error}");
    }
    assert!(site.holders("book").is_empty());
    // The same lock in the mode that there is.
    assert!(write(site, &locker).is_some());
}

/// Some reader of this process holds the lock at every moment, until the writer has had it.
pub(crate) fn a_writer_of_another_process_gets_in_among_overlapping_readers(site: &Site) {
    let (one, other) = (site.locker(), site.locker());
    let lock = site.lock(&other, "book").exclusive().timeout(SOON);
    let mut last = Some(read(site, &one).expect("free"));
    let written = AtomicBool::new(false);
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let guard = lock.acquire_blocking();
            written.store(true, Ordering::Release);
            guard.map(drop)
        });
        while !written.load(Ordering::Acquire) {
            // The next comes before the last has gone.
            let mut next = read(site, &one);
            if next.is_none() {
                // No reader is let in any more, and the hold drains.
                drop(last.take());
                let lock = site.lock(&one, "book").shared().timeout(SOON);
                next = Some(lock.acquire_blocking().expect("its turn"));
            }
            last = next;
        }
        writer.join().expect("no panic").expect("its turn");
    });
    drop(last);
}

pub(crate) fn readers_beyond_the_bound_are_let_in_when_no_writer_waits(site: &Site) {
    let locker = site.locker_of(site.config().hand_over(32, Duration::ZERO));
    let first = read(site, &locker).expect("free");
    let more: Vec<Guard> = (0..5)
        .map(|_| read(site, &locker).expect("no writer waits"))
        .collect();
    assert!(first.is_held() && more.iter().all(Guard::is_held));
}
