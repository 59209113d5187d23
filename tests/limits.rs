//! How long a body has its lock: losses, `max_hold` and `min_hold`.

use std::cell::Cell;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use dlock::{Config, Error, Locker, db_locked};
use tokio::sync::Notify;

const LONG: Duration = Duration::from_secs(20);

fn memory() -> Locker {
    let config = Config::from_dsn("memory:").expect("a DSN");
    Locker::connect_blocking(config).expect("memory needs no server")
}

fn is_free(locker: &Locker, key: &str) -> bool {
    let tried = locker.lock(key).try_acquire_blocking();
    tried.expect("memory answers").is_some()
}

/// Waits until the lock is free, and says how long it took.
fn until_free(locker: &Locker, key: &str) -> Duration {
    let start = Instant::now();
    let guard = locker.lock(key).timeout(LONG).acquire_blocking();
    drop(guard.expect("it becomes free"));
    start.elapsed()
}

/// Says whether the lock was held when it was dropped.
struct Probe<'a> {
    locker: &'a Locker,
    held: &'a AtomicBool,
}

impl Drop for Probe<'_> {
    fn drop(&mut self) {
        self.held
            .store(!is_free(self.locker, "k"), Ordering::SeqCst);
    }
}

#[db_locked(key = "k", max_hold = "50ms")]
async fn parked(probe: Probe<'_>) -> Result<(), Error> {
    let _probe = probe;
    pending::<()>().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_async_body_is_stopped_at_max_hold_and_dropped_before_the_lock_goes() {
    let (locker, held) = (memory(), AtomicBool::new(false));
    let (probe_locker, held_at_drop) = (&locker, &held);
    let ended = locker.scope(parked(Probe {
        locker: probe_locker,
        held: held_at_drop,
    }));
    let ended = tokio::time::timeout(LONG, ended)
        .await
        .expect("it is stopped");
    assert!(matches!(ended, Err(Error::HoldExceeded(_))), "{ended:?}");
    assert!(
        held.load(Ordering::SeqCst),
        "the parameter was dropped while the lock was held"
    );
    assert!(is_free(&locker, "k"));
}

#[db_locked(key = "k", max_hold = "50ms")]
fn slow<R>(inside: impl FnOnce() -> R) -> Result<R, Error> {
    Ok(inside())
}

#[test]
fn a_synchronous_body_learns_of_max_hold_and_its_result_does_not_count() {
    let locker = memory();
    let ended = locker.scope_sync(|| {
        slow(|| {
            dlock::check().expect("its time has just begun");
            thread::scope(|threads| {
                threads.spawn(|| until_free(&locker, "k"));
            });
            let told = dlock::check().expect_err("others may be in");
            assert!(matches!(told, Error::HoldExceeded(_)), "{told}");
        })
    });
    assert!(matches!(ended, Err(Error::HoldExceeded(_))), "{ended:?}");
}

#[db_locked(key = "k", max_hold = "50ms")]
fn slow_and_failing() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    while dlock::check().is_ok() {
        thread::yield_now();
    }
    Err("the body's own error".into())
}

#[test]
fn the_bodys_own_error_wins() {
    let locker = memory();
    let ended = locker.scope_sync(slow_and_failing);
    assert_eq!(ended.unwrap_err().to_string(), "the body's own error");
}

#[db_locked(key = "k", max_hold = 20)]
fn early(number: &str) -> Result<i32, Box<dyn std::error::Error + Send + Sync>> {
    if number.is_empty() {
        return Ok(0);
    }
    Ok(number.parse::<i32>()?)
}

#[test]
fn a_body_that_is_done_in_time_leaves_no_timer_behind() {
    let locker = memory();
    locker.scope_sync(|| {
        assert_eq!(early("").unwrap(), 0);
        assert_eq!(early("7").unwrap(), 7);
        early("seven").unwrap_err();
        assert!(is_free(&locker, "k"));
    });
}

#[db_locked(key = "k", max_hold = "50ms", on_lost = finish)]
async fn finishing(finished: &Cell<bool>, go: Arc<Notify>) -> Result<(), Error> {
    go.notified().await;
    finished.set(true);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn on_lost_finish_lets_the_body_finish_and_says_that_it_does_not_count() {
    let (locker, finished, go) = (memory(), Cell::new(false), Arc::new(Notify::new()));
    let (free, opens) = (locker.clone(), go.clone());
    let opener = thread::spawn(move || {
        // The lock goes at `max_hold`, though the body has not finished.
        while is_free(&free, "k") {
            thread::yield_now();
        }
        until_free(&free, "k");
        opens.notify_one();
    });
    let ended = locker.scope(finishing(&finished, go)).await;
    opener.join().unwrap();
    assert!(finished.get());
    assert!(matches!(ended, Err(Error::HoldExceeded(_))), "{ended:?}");
}

const MIN_HOLD: Duration = Duration::from_millis(400);

#[db_locked(key = "k", min_hold = "400ms")]
fn short<R>(inside: impl FnOnce() -> R) -> Result<R, Error> {
    Ok(inside())
}

#[db_locked(key = "k", min_hold = "400ms")]
async fn short_async() -> Result<(), Error> {
    Ok(())
}

/// `done` returns at once, and the lock is kept for the rest.
fn is_kept(locker: &Locker, start: Instant) {
    assert!(start.elapsed() < MIN_HOLD, "the caller was kept waiting");
    assert!(!is_free(locker, "k"));
    until_free(locker, "k");
    assert!(start.elapsed() >= MIN_HOLD, "after {:?}", start.elapsed());
}

#[test]
fn b7_min_hold_keeps_the_lock_after_a_short_body_and_lets_the_caller_go() {
    let locker = memory();
    let start = Instant::now();
    locker.scope_sync(|| short(|| ())).unwrap();
    is_kept(&locker, start);
}

#[tokio::test(flavor = "multi_thread")]
async fn min_hold_keeps_the_lock_of_an_async_body_too() {
    let locker = memory();
    let start = Instant::now();
    locker.scope(short_async()).await.unwrap();
    is_kept(&locker, start);
}

#[test]
fn min_hold_keeps_the_lock_after_a_panic() {
    let locker = memory();
    let start = Instant::now();
    let panicking = || locker.scope_sync(|| short(|| panic!("on purpose")));
    let panicked = thread::scope(|threads| threads.spawn(panicking).join().is_err());
    assert!(panicked);
    is_kept(&locker, start);
}

#[test]
fn the_min_hold_of_a_nested_body_keeps_the_outer_lock() {
    let locker = memory();
    let start = Instant::now();
    let outer = locker.lock("k");
    outer
        .run_blocking(|| locker.scope_sync(|| short(|| ())))
        .unwrap()
        .unwrap();
    is_kept(&locker, start);
}

#[test]
fn b7_shutdown_waits_for_min_hold() {
    let locker = memory();
    let start = Instant::now();
    locker.scope_sync(|| short(|| ())).unwrap();
    assert_eq!(locker.shutdown_blocking(LONG).cut, 0);
    assert!(start.elapsed() >= MIN_HOLD);
}

#[test]
fn a_synchronous_body_is_told_of_a_loss_at_every_check() {
    let locker = memory();
    let ended = locker.lock("k").run_blocking(|| {
        let kept = dlock::current().expect("inside");
        assert_eq!(locker.shutdown_blocking(Duration::ZERO).cut, 1);
        assert!(dlock::check().unwrap_err().is_lost());
        assert!(!kept.is_held());
        let elsewhere = thread::spawn(move || kept.check().unwrap_err().is_lost());
        assert!(elsewhere.join().unwrap());
    });
    assert!(ended.unwrap_err().is_lost());
}

#[db_locked(key = "k", ttl = 30)]
fn with_ttl() -> Result<(), Error> {
    Ok(())
}

fn token() -> Option<u64> {
    dlock::current().unwrap().token()
}

#[db_locked(key = "k", fencing = true)]
fn fenced() -> Result<Option<u64>, Error> {
    Ok(token())
}

#[db_locked(key = "k", fencing = true)]
fn fenced_around() -> Result<(), Error> {
    let mine = token();
    assert!(mine.is_some());
    assert_eq!(fenced()?, mine, "the token of the hold around it");
    assert_eq!(plain()?, mine);
    Ok(())
}

#[db_locked(key = "k")]
fn plain() -> Result<Option<u64>, Error> {
    Ok(token())
}

#[db_locked(key = "k")]
fn plain_around() -> Result<Option<u64>, Error> {
    fenced()
}

#[db_locked(key = "k", fencing = false)]
fn unfenced() -> Result<Option<u64>, Error> {
    Ok(token())
}

#[test]
fn b3_nested_bodies_share_the_token_of_the_hold_around_them() {
    memory().scope_sync(|| {
        let first = fenced().unwrap();
        fenced_around().unwrap();
        assert!(fenced().unwrap() > first);
        assert_eq!(plain().unwrap(), None);
        let error = plain_around().unwrap_err();
        assert!(matches!(error, Error::Unsupported(_)), "{error}");
        assert!(error.to_string().contains("fencing = true"), "{error}");
    });
}

#[test]
fn b3_the_configuration_says_whether_locks_have_tokens_that_do_not_say() {
    let config = dlock::Config::from_dsn("memory:?fencing=true").unwrap();
    let locker = dlock::Locker::connect_blocking(config.clone()).unwrap();
    locker.scope_sync(|| {
        assert!(plain().unwrap().is_some());
        assert_eq!(unfenced().unwrap(), None);
    });
    // Nobody is excluded, and what checks tokens is told so.
    let off = dlock::Locker::connect_blocking(config.enabled(false)).unwrap();
    off.scope_sync(|| assert_eq!(fenced().unwrap(), None));
}

#[db_locked(key = "k", reentrant = false, timeout = 0)]
fn not_reentrant() -> Result<(), Error> {
    Ok(())
}

#[test]
fn what_this_backend_cannot_do_is_refused_by_name() {
    memory().scope_sync(|| {
        let error = with_ttl().unwrap_err();
        assert!(matches!(error, Error::Unsupported(_)), "{error}");
        assert!(error.to_string().contains("ttl"), "{error}");
    });
}

#[db_locked(key = "k", reentrant = false)]
fn not_reentrant_and_patient() -> Result<(), Error> {
    Ok(())
}

#[test]
fn a_body_that_is_not_reentrant_finds_the_lock_busy_or_refuses_to_wait() {
    let locker = memory();
    locker.scope_sync(|| {
        locker
            .lock("k")
            .run_blocking(|| {
                assert!(not_reentrant().unwrap_err().is_busy());
                let refused = not_reentrant_and_patient().unwrap_err();
                assert!(matches!(refused, Error::WouldDeadlock(_)), "{refused}");
            })
            .unwrap();
        not_reentrant().unwrap();
    });
}

#[db_locked(keys = ["b/{id}", "a/{id}"], timeout = 0)]
fn both(id: u32) -> Result<Vec<String>, Error> {
    let current = dlock::current().ok_or(Error::NotLocked)?;
    Ok(current.keys().map(str::to_owned).collect())
}

#[test]
fn a_body_takes_all_its_keys_or_none() {
    let locker = memory();
    locker.scope_sync(|| {
        assert_eq!(both(7).unwrap(), ["a/7", "b/7"]);
        let busy = locker.lock("b/7").acquire_blocking().unwrap();
        assert_eq!(both(7).unwrap_err().key(), Some("b/7"));
        assert!(is_free(&locker, "a/7"));
        drop(busy);
        locker
            .lock("a/7")
            .run_blocking(|| both(7).unwrap())
            .unwrap();
    });
}
