//! Holds that end before their release.

use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use dlock::{Config, Error, Guard, Locker};
use futures_util::FutureExt;

use crate::site::{SOON, Site, run, until};

/// Heartbeats that notice a loss soon, where the driver does not watch the connection.
fn watchful(config: Config) -> Config {
    config
        .limit(Duration::from_secs(10))
        .heartbeat(Duration::from_millis(200))
}

/// The only session that holds a key.
fn holder(site: &Site, key: &str) -> i64 {
    let holders = site.holders(key);
    assert_eq!(holders.len(), 1, "one session holds {key:?}");
    holders[0]
}

fn is_told_lost(guard: Guard) {
    let error = run(async { tokio::time::timeout(SOON, guard.lost()).await });
    let error = error.expect("the holder is told");
    assert!(error.is_lost(), "{error}");
    assert!(!guard.is_held());
    assert!(guard.check().is_err_and(|error| error.is_lost()));
    let released = guard.release_blocking();
    assert!(released.is_err_and(|error| error.is_lost()));
}

pub(crate) fn a_restart_of_the_server_loses_the_holds(site: &Site) {
    let locker = site.locker_of(watchful(site.config()));
    let guard = site.lock(&locker, "restart").acquire_blocking().unwrap();
    site.server().restart().expect("a restart");
    is_told_lost(guard);
    works_again(site, &locker, "restart");
}

pub(crate) fn a_killed_server_loses_the_holds(site: &Site) {
    let (locker, idle) = (
        site.locker_of(watchful(site.config())),
        site.locker_of(site.config()),
    );
    let guard = site.lock(&locker, "crash").acquire_blocking().unwrap();
    site.server().kill().expect("a crash");
    is_told_lost(guard);
    let lock = site
        .lock(&locker, "crash")
        .timeout(Duration::from_millis(300));
    let error = lock.acquire_blocking().unwrap_err();
    assert!(error.is_unavailable(), "{error}");
    site.server().start_again().expect("a start");
    works_again(site, &locker, "crash");
    // Who had nothing to do meanwhile finds a dead connection, and another one.
    works_again(site, &idle, "idle");
}

fn works_again(site: &Site, locker: &Locker, key: &str) {
    let lock = site.lock(locker, key).timeout(SOON);
    let guard = lock.acquire_blocking().expect("the lock, taken anew");
    assert!(guard.is_held());
    assert_eq!(site.holders(key).len(), 1);
    guard.release_blocking().expect("held to the end");
}

pub(crate) fn a_killed_session_loses_its_holds(site: &Site) {
    let locker = site.locker_of(watchful(site.config()));
    let guard = site.lock(&locker, "killed").acquire_blocking().unwrap();
    let other = site.lock(&locker, "too").acquire_blocking().unwrap();
    site.admin().kill(holder(site, "killed"));
    is_told_lost(guard);
    is_told_lost(other);
    works_again(site, &locker, "killed");
}

pub(crate) fn s5_a_killed_session_is_noticed_without_traffic(site: &Site) {
    let quiet = site
        .config()
        .limit(Duration::from_secs(3600))
        .heartbeat(Duration::from_secs(1500));
    let locker = site.locker_of(quiet);
    let guard = site.lock(&locker, "quiet").acquire_blocking().unwrap();
    site.admin().kill(holder(site, "quiet"));
    is_told_lost(guard);
    works_again(site, &locker, "quiet");
}

pub(crate) fn s5_a_release_after_the_session_was_killed_says_lost(site: &Site) {
    let locker = site.locker();
    for _ in 0..5 {
        let lock = site.lock(&locker, "released").timeout(SOON);
        let guard = lock.acquire_blocking().unwrap();
        site.admin().kill(holder(site, "released"));
        until("the server has freed it", || {
            site.holders("released").is_empty()
        });
        let released = guard.release_blocking();
        assert!(released.is_err_and(|error| error.is_lost()));
    }
}

pub(crate) fn a_killed_waiting_session_does_not_end_the_wait(site: &Site) {
    let (one, other) = (site.locker(), site.locker());
    run(async {
        let guard = site.lock(&one, "wait").acquire().await.unwrap();
        let lock = site.lock(&other, "wait").timeout(60);
        let waiting = tokio::spawn(async move { lock.acquire().await });
        site.until_waiting(1);
        let killed = site.waiters();
        site.admin().kill(killed[0]);
        until("another session waits", || {
            let waiting = site.waiters();
            waiting.len() == 1 && waiting != killed
        });
        assert!(!waiting.is_finished());
        guard.release().await.expect("held to the end");
        let guard = tokio::time::timeout(SOON, waiting).await;
        let guard = guard.expect("its turn").unwrap().expect("the lock");
        assert!(guard.is_held());
    });
}

pub(crate) fn several_locks_are_not_handed_out_when_one_was_lost_in_the_wait(site: &Site) {
    let (locker, other) = (
        site.locker_of(watchful(site.config())),
        site.locker_of(site.config()),
    );
    let both = locker.lock_all([site.key("one"), site.key("other")]);
    let guard = both.acquire_blocking().unwrap();
    let last = guard.keys().last().expect("two keys").to_owned();
    guard.release_blocking().unwrap();
    let kept = other.lock(last).acquire_blocking().unwrap();
    // On the session that will have the first of the two.
    let witness = site.lock(&locker, "witness").acquire_blocking().unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| both.timeout(SOON).acquire_blocking());
        site.until_waiting(1);
        site.admin().kill(holder(site, "witness"));
        is_told_lost(witness);
        kept.release_blocking().expect("held to the end");
        let error = waiting.join().unwrap().expect_err("the first is lost");
        assert!(error.is_lost(), "{error}");
    });
    works_again(site, &locker, "one");
    works_again(site, &locker, "other");
}

/// Tells when it is dropped.
struct Body(Arc<AtomicBool>);

impl Drop for Body {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

pub(crate) fn a_loss_stops_a_body_that_waits_for_something_else(site: &Site) {
    let locker = site.locker_of(watchful(site.config()));
    let (started, dropped) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicBool::new(false)),
    );
    run(async {
        let lock = site.lock(&locker, "body");
        let (starts, body) = (started.clone(), Body(dropped.clone()));
        let running = tokio::spawn(async move {
            lock.run(async move {
                let _body = body;
                starts.store(true, Ordering::SeqCst);
                pending::<()>().await;
            })
            .await
        });
        // Not when the server has granted the lock: a session that is killed before its answer has arrived is
        // replaced, and the body then runs on the next one.
        until("the body runs", || started.load(Ordering::SeqCst));
        assert!(!running.is_finished());
        site.admin().kill(holder(site, "body"));
        let ran = tokio::time::timeout(SOON, running).await;
        let error = ran.expect("the body is stopped").unwrap().unwrap_err();
        assert!(error.is_lost(), "{error}");
        assert!(dropped.load(Ordering::SeqCst));
    });
    works_again(site, &locker, "body");
}

pub(crate) fn a_body_that_outran_the_loss_does_not_count(site: &Site) {
    let locker = site.locker();
    let ran = site.lock(&locker, "sync").run_blocking(|| {
        site.admin().kill(holder(site, "sync"));
        until("the server has freed it", || {
            site.holders("sync").is_empty()
        });
        "done"
    });
    assert!(ran.is_err_and(|error| error.is_lost()));
    let ran = run(site.lock(&locker, "async").timeout(SOON).run(async {
        site.admin().kill(holder(site, "async"));
        until("the server has freed it", || {
            site.holders("async").is_empty()
        });
        "done"
    }));
    assert!(ran.is_err_and(|error| error.is_lost()));
}

/// Looks, while it is dropped, whether others are kept out.
struct Watch<'a> {
    site: &'a Site,
    other: &'a Locker,
    seen: &'a AtomicBool,
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        let tried = self.site.lock(self.other, "body").try_acquire_blocking();
        assert!(matches!(tried, Ok(None)), "the lock went first");
        self.seen.store(true, Ordering::SeqCst);
    }
}

pub(crate) fn a_finished_body_is_dropped_before_the_lock_goes(site: &Site) {
    let (locker, other) = (site.locker(), site.locker());
    let seen = AtomicBool::new(false);
    let watch = Watch {
        site,
        other: &other,
        seen: &seen,
    };
    let lock = site.lock(&locker, "body");
    // A future that has ended still owns what it was made with.
    let body = Owning(watch);
    assert_eq!(run(lock.run(body)).expect("held to the end"), 7);
    assert!(seen.load(Ordering::SeqCst));
    let again = site.lock(&other, "body").try_acquire_blocking();
    drop(again.unwrap().expect("released"));
}

/// A body whose value goes with it, and not before.
struct Owning<'a>(Watch<'a>);

impl Future for Owning<'_> {
    type Output = u32;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<u32> {
        assert!(!self.0.seen.load(Ordering::SeqCst));
        Poll::Ready(7)
    }
}

pub(crate) fn a_dropped_run_drops_the_body_before_the_lock_goes(site: &Site) {
    let (locker, other) = (site.locker(), site.locker());
    let seen = AtomicBool::new(false);
    let lock = site.lock(&locker, "body");
    run(async {
        let started = AtomicBool::new(false);
        let watch = Watch {
            site,
            other: &other,
            seen: &seen,
        };
        let mut running = Box::pin(lock.run(async {
            let _watch = watch;
            started.store(true, Ordering::SeqCst);
            pending::<()>().await;
        }));
        let deadline = tokio::time::Instant::now() + SOON;
        while !started.load(Ordering::SeqCst) {
            assert!((&mut running).now_or_never().is_none());
            assert!(tokio::time::Instant::now() < deadline, "the body starts");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        drop(running);
        assert!(seen.load(Ordering::SeqCst));
    });
    let again: Result<Option<Guard>, Error> = lock.try_acquire_blocking();
    drop(again.unwrap().expect("released"));
}
