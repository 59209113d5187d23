//! Futures that are dropped: nothing of them remains.

use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use futures_util::FutureExt;

use crate::place::Place;
use crate::site::{SOON, Site, run, until};

pub(crate) fn a_dropped_waiter_leaves_nothing_on_the_server(site: &Site) {
    let (one, other) = (site.locker(), site.locker());
    run(async {
        let guard = site.lock(&one, "dropped").acquire().await.unwrap();
        let lock = site.lock(&other, "dropped");
        let mut waiting = Box::pin(lock.acquire());
        assert!((&mut waiting).now_or_never().is_none());
        site.until_waiting(1);
        drop(waiting);
        site.until_waiting(0);
        assert!(guard.is_held());
        guard.release().await.expect("held to the end");
        let again = lock.try_acquire().await.unwrap();
        assert!(again.is_some(), "nobody is in the way");
    });
}

pub(crate) fn a_future_dropped_after_its_first_poll_leaves_nothing(site: &Site) {
    let (one, other) = (site.locker(), site.locker());
    run(async {
        for round in 0..20 {
            let guard = site.lock(&one, "early").acquire().await.unwrap();
            let lock = site.lock(&other, "early");
            assert!(lock.acquire().now_or_never().is_none());
            // One try may have its answer already: it is busy.
            let tried = lock.timeout(0).acquire().now_or_never();
            assert!(tried.is_none_or(|tried| tried.is_err()));
            guard.release().await.expect("held to the end");
            let lock = site.lock(&other, "early");
            // The same process's next request comes after the cancellation, so the lock is free for it.
            let guard = lock.try_acquire().await.unwrap();
            assert!(guard.is_some(), "round {round}");
            guard.unwrap().release().await.expect("held to the end");
        }
    });
}

pub(crate) fn a_future_that_was_never_polled_does_nothing(site: &Site) {
    let (one, other) = (site.locker(), site.locker());
    run(async {
        let lock = site.lock(&one, "unpolled");
        let acquiring = lock.acquire();
        let tried = site.lock(&other, "unpolled").try_acquire().await;
        assert!(tried.unwrap().is_some());
        drop(acquiring);
    });
}

/// The release and the drop start together, and the drop comes a little later each round: some rounds see it before
/// the grant, some after, and some in the middle.
pub(crate) fn a_future_dropped_in_the_instant_of_the_grant_leaves_nothing(site: &Site) {
    const ROUNDS: u32 = 60;
    let (one, other) = (site.locker(), site.locker());
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut granted = 0;
    for round in 0..ROUNDS {
        let guard = site.lock(&one, "race").acquire_blocking().unwrap();
        let lock = site.lock(&other, "race");
        let mut waiting = Box::pin({
            let lock = lock.clone();
            async move { lock.acquire().await }
        });
        assert!((&mut waiting).now_or_never().is_none());
        site.until_waiting(1);
        let start = Barrier::new(2);
        thread::scope(|scope| {
            scope.spawn(|| {
                start.wait();
                let _ = runtime.block_on(guard.release());
            });
            scope.spawn(|| {
                start.wait();
                let late = Duration::from_micros(u64::from(round) * 40);
                spin(late);
                if round % 2 == 0 {
                    // A guard that was told of, or a wait.
                    granted += u32::from((&mut waiting).now_or_never().is_some());
                }
                drop(waiting);
            });
        });
        // Both processes find it free: the one that dropped at once, the other soon.
        let next = lock.timeout(SOON).acquire_blocking();
        drop(next.expect("the dropped future is gone"));
        let next = site.lock(&one, "race").timeout(SOON).acquire_blocking();
        drop(next.expect("the dropped future is gone"));
        if site.place() != Place::Memory {
            until("the lock is free", || site.holders("race").is_empty());
        }
    }
    assert!(granted < ROUNDS, "no round dropped before it was told");
}

fn spin(time: Duration) {
    let start = std::time::Instant::now();
    while start.elapsed() < time {
        std::hint::spin_loop();
    }
}

pub(crate) fn a_future_dropped_between_grant_and_poll_leaves_nothing(site: &Site) {
    let (one, other) = (site.locker(), site.locker());
    run(async {
        for _ in 0..5 {
            // Granted to the keeper.
            let lock = site.lock(&one, "unread");
            let mut acquiring = Box::pin(lock.acquire());
            // A server that is faster than this thread answers during the first poll.
            let told = (&mut acquiring).now_or_never();
            if told.is_none() {
                until("the lock is granted", || !site.holders("unread").is_empty());
            }
            drop(told);
            drop(acquiring);
            let again = lock.try_acquire().await.unwrap();
            drop(again.expect("the drop comes first"));

            // Granted to a waiter.
            let guard = site.lock(&other, "unread").timeout(SOON).acquire().await;
            let before = site.holders("unread");
            let mut acquiring = Box::pin(lock.acquire());
            assert!((&mut acquiring).now_or_never().is_none());
            site.until_waiting(1);
            guard.unwrap().release().await.expect("held to the end");
            until("the lock is granted", || {
                let holders = site.holders("unread");
                !holders.is_empty() && holders != before
            });
            drop(acquiring);
            let again = lock.try_acquire().await.unwrap();
            again
                .expect("the drop comes first")
                .release()
                .await
                .expect("held to the end");
        }
    });
}

pub(crate) fn a_request_dropped_in_line_is_passed_over(site: &Site) {
    let locker = site.locker();
    run(async {
        let lock = site.lock(&locker, "line");
        let guard = lock.acquire().await.unwrap();
        let mut second = Box::pin(lock.acquire());
        let mut third = Box::pin(lock.acquire());
        assert!((&mut second).now_or_never().is_none());
        assert!((&mut third).now_or_never().is_none());
        drop(second);
        guard.release().await.expect("held to the end");
        let guard = tokio::time::timeout(SOON, third).await;
        drop(guard.expect("its turn").unwrap());
    });
}

pub(crate) fn the_next_in_line_takes_a_dropped_wait_over(site: &Site) {
    let (one, other) = (site.locker(), site.locker());
    run(async {
        let guard = site.lock(&one, "line").acquire().await.unwrap();
        let lock = site.lock(&other, "line");
        let short = lock.clone().timeout(60);
        let mut first = Box::pin(short.acquire());
        let mut second = Box::pin(lock.acquire());
        assert!((&mut first).now_or_never().is_none());
        assert!((&mut second).now_or_never().is_none());
        site.until_waiting(1);
        drop(first);
        site.until_waiting(1);
        guard.release().await.expect("held to the end");
        let guard = tokio::time::timeout(SOON, second).await;
        drop(guard.expect("its turn").unwrap());
    });
}
