//! What a body finds under its lock: nested calls, checks, limits, and waits that would never end.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use dlock::__private::{Entry, Outcome, call, run};
use dlock::{Config, Error, Locker};
use tokio::sync::Notify;
use tokio::task::yield_now;

const LONG: Duration = Duration::from_secs(20);

fn memory() -> Locker {
    let config = Config::from_dsn("memory:").expect("a DSN");
    Locker::connect_blocking(config).expect("memory needs no server")
}

fn is_free(locker: &Locker, key: &str) -> bool {
    let tried = locker.lock(key).try_acquire_blocking();
    tried.expect("memory answers").is_some()
}

fn is_deadlock<T>(result: &Result<T, Error>) -> bool {
    matches!(result, Err(Error::WouldDeadlock(_)))
}

#[dlock::db_locked(key = "k/{id}", timeout = 0)]
fn outer<R>(id: u32, inside: impl FnOnce() -> R) -> Result<R, Error> {
    Ok(inside())
}

#[dlock::db_locked(key = "k/{id}", timeout = 0)]
async fn outer_async<F: Future>(id: u32, inside: F) -> Result<F::Output, Error> {
    Ok(inside.await)
}

#[test]
fn b1_a_nested_call_under_the_same_key_runs_under_the_outer_hold() {
    let locker = memory();
    locker.scope_sync(|| {
        let nested = outer(1, || {
            let nested = outer(1, || outer(1, || 7));
            assert!(!is_free(&locker, "k/1"), "the inner release keeps the lock");
            nested
        });
        assert_eq!(nested.unwrap().unwrap().unwrap(), 7);
        assert!(is_free(&locker, "k/1"));
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_nested_call_is_found_across_awaits_and_threads() {
    let locker = memory();
    let scoped = locker.clone();
    let task = async move {
        outer_async(1, async {
            for _ in 0..50 {
                yield_now().await;
                outer_async(1, yield_now())
                    .await
                    .expect("it runs under the outer hold");
                outer(1, || ()).expect("so does a synchronous one");
            }
        })
        .await
    };
    tokio::spawn(locker.scope(task)).await.unwrap().unwrap();
    assert!(is_free(&scoped, "k/1"));
}

#[tokio::test]
async fn b1_a_spawned_task_does_not_inherit() {
    let locker = memory();
    let other = locker.clone();
    let outcome = locker
        .scope(outer_async(1, async move {
            let spawned = tokio::spawn(other.clone().scope(outer_async(1, async {})));
            spawned.await.unwrap()
        }))
        .await
        .unwrap();
    assert!(outcome.unwrap_err().is_busy());
}

#[test]
fn b1_another_thread_does_not_inherit() {
    let locker = memory();
    let other = locker.clone();
    let outcome = locker.scope_sync(|| {
        outer(1, move || {
            let inherits = move || other.scope_sync(|| outer(1, || ()));
            thread::spawn(inherits).join().unwrap()
        })
    });
    assert!(outcome.unwrap().unwrap_err().is_busy());
}

#[test]
fn the_jobs_of_a_thread_pool_do_not_inherit() {
    let locker = memory();
    let other = locker.clone();
    let jobs = locker.scope_sync(|| {
        outer(1, move || {
            let job = || other.scope_sync(|| outer(1, || ()));
            rayon::join(job, job)
        })
    });
    let (first, second) = jobs.unwrap();
    assert!(first.unwrap_err().is_busy() && second.unwrap_err().is_busy());
}

#[test]
fn b1_the_tasks_of_a_runtime_that_a_body_drives_do_not_inherit() {
    let locker = memory();
    let other = locker.clone();
    let outcome = locker.scope_sync(|| {
        outer(1, move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .build()
                .unwrap();
            runtime.block_on(async move {
                let spawned = tokio::spawn(other.scope(outer_async(1, async {})));
                let inherits = outer_async(1, async {}).await;
                (inherits, spawned.await.unwrap())
            })
        })
    });
    let (in_the_call_tree, spawned) = outcome.unwrap();
    in_the_call_tree.expect("what the body itself awaits runs under its hold");
    assert!(spawned.unwrap_err().is_busy());
}

#[dlock::db_locked(key = "k/{id}", timeout = 20)]
async fn counted(id: u32, inside: &AtomicUsize) -> Result<(), Error> {
    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two at once");
    yield_now().await;
    yield_now().await;
    inside.fetch_sub(1, Ordering::SeqCst);
    Ok(())
}

#[tokio::test]
async fn two_calls_in_one_task_exclude_each_other() {
    let (locker, inside) = (memory(), AtomicUsize::new(0));
    let both = async {
        tokio::join!(
            counted(1, &inside),
            counted(1, &inside),
            counted(1, &inside)
        )
    };
    let (a, b, c) = locker.scope(both).await;
    a.and(b).and(c).unwrap();
}

#[tokio::test]
async fn nested_bodies_of_one_hold_exclude_each_other() {
    let (locker, inside) = (memory(), AtomicUsize::new(0));
    let nested = async {
        let (a, b) = tokio::join!(counted(1, &inside), counted(1, &inside));
        a.and(b)
    };
    locker.scope(outer_async(1, nested)).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_nested_body_that_outlives_the_outer_one_is_told() {
    let locker = memory();
    let (go, ran) = (Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
    let (wait, runs) = (go.clone(), ran.clone());
    let mut nested = Box::pin(locker.scope(async move {
        outer_async(1, async move {
            wait.notified().await;
            runs.fetch_add(1, Ordering::SeqCst);
        })
        .await
    }));
    let outer = outer_async(1, async {
        std::future::poll_fn(|context| {
            assert!(nested.as_mut().poll(context).is_pending());
            std::task::Poll::Ready(())
        })
        .await;
    });
    locker.scope(outer).await.unwrap();
    go.notify_one();
    assert!(nested.await.unwrap_err().is_lost());
    assert_eq!(ran.load(Ordering::SeqCst), 0, "not one more step");
}

#[test]
fn the_lock_of_a_body_is_current_in_it_and_nowhere_else() {
    let locker = memory();
    locker.scope_sync(|| {
        assert!(dlock::current().is_none());
        assert!(matches!(dlock::check(), Err(Error::NotLocked)));
        let kept = outer(1, || {
            let current = dlock::current().expect("inside");
            assert_eq!(current.key(), "k/1");
            dlock::check().expect("held");
            dlock::assert_locked!("k/{}", 1);
            outer(2, || {
                assert_eq!(dlock::current().expect("inside").key(), "k/2");
                dlock::assert_locked!("k/1");
                dlock::assert_locked!("k/2");
            })
            .unwrap();
            assert_eq!(dlock::current().expect("inside").key(), "k/1");
            current
        })
        .unwrap();
        assert!(dlock::current().is_none());
        assert!(kept.check().unwrap_err().is_lost(), "the body has ended");
    });
}

#[test]
#[should_panic(expected = "must run under the lock \"k/2\"")]
fn assert_locked_panics_under_another_key() {
    let locker = memory();
    let _ = locker.scope_sync(|| outer(1, || dlock::assert_locked!("k/2")));
}

#[test]
fn b1_a_guard_does_not_count_as_an_enclosing_body() {
    let locker = memory();
    let guard = locker.lock("k/1").acquire_blocking().unwrap();
    let nested = locker.scope_sync(|| outer(1, || ()));
    assert!(nested.unwrap_err().is_busy());
    drop(guard);
}

#[test]
fn acquiring_what_an_enclosing_body_holds_would_deadlock() {
    let locker = memory();
    locker.scope_sync(|| {
        outer(1, || {
            assert!(is_deadlock(&locker.lock("k/1").acquire_blocking()));
            let tried = locker.lock("k/1").try_acquire_blocking();
            assert!(tried.unwrap().is_none(), "a try does not wait");
        })
        .unwrap();
    });
}

#[dlock::db_locked(key = "k/{id}", timeout = 20, mode = shared)]
fn reader<R>(id: u32, inside: impl FnOnce() -> R) -> Result<R, Error> {
    Ok(inside())
}

#[dlock::db_locked(key = "k/{id}", timeout = 20)]
fn writer<R>(id: u32, inside: impl FnOnce() -> R) -> Result<R, Error> {
    Ok(inside())
}

#[test]
fn exclusive_inside_shared_is_an_error_and_the_reverse_is_not() {
    let locker = memory();
    locker.scope_sync(|| {
        assert!(is_deadlock(&reader(1, || writer(1, || ())).unwrap()));
        writer(1, || reader(1, || ())).unwrap().unwrap();
        reader(1, || reader(1, || ())).unwrap().unwrap();
    });
}

#[test]
fn b2_a_nested_wait_that_closes_a_cycle_is_refused() {
    let locker = memory();
    let both_hold = Barrier::new(2);
    let (done, refused) = mpsc::channel();
    thread::scope(|threads| {
        for (first, second) in [(1, 2), (2, 1)] {
            let (locker, both_hold, done) = (&locker, &both_hold, done.clone());
            threads.spawn(move || {
                let nested = locker.scope_sync(|| {
                    writer(first, || {
                        both_hold.wait();
                        writer(second, || ())
                    })
                });
                done.send(is_deadlock(&nested.unwrap())).unwrap();
            });
        }
    });
    drop(done);
    let refused: Vec<bool> = refused.iter().collect();
    assert_eq!(
        refused.iter().filter(|refused| **refused).count(),
        1,
        "{refused:?}"
    );
}

#[test]
fn b2_a_cycle_over_three_is_refused_too() {
    let locker = memory();
    let all_hold = Barrier::new(3);
    let start = Instant::now();
    let refused = AtomicUsize::new(0);
    thread::scope(|threads| {
        for first in 0..3 {
            let (locker, all_hold, refused) = (&locker, &all_hold, &refused);
            threads.spawn(move || {
                let nested = locker.scope_sync(|| {
                    writer(first, || {
                        all_hold.wait();
                        writer((first + 1) % 3, || ())
                    })
                });
                if is_deadlock(&nested.unwrap()) {
                    refused.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
    });
    assert_eq!(refused.into_inner(), 1);
    assert!(start.elapsed() < LONG, "nobody waited for a time-out");
}

#[tokio::test]
async fn parking_the_runtime_that_holds_the_lock_would_deadlock() {
    let locker = memory();
    let guard = locker.lock("k/1").acquire().await.unwrap();
    assert!(is_deadlock(&locker.lock("k/1").acquire_blocking()));
    let parked = locker.scope_sync(|| writer(1, || ()));
    assert!(is_deadlock(&parked));
    drop(guard);
    locker
        .scope_sync(|| writer(1, || ()))
        .expect("now it is free");
}

#[test]
fn b2_several_keys_are_taken_all_or_none() {
    let locker = memory();
    let both = locker.lock_all(["b", "a", "b"]).timeout(0);
    let guard = both.acquire_blocking().unwrap();
    assert_eq!(guard.keys().collect::<Vec<_>>(), ["a", "b"]);
    assert!(!is_free(&locker, "a") && !is_free(&locker, "b"));
    drop(guard);
    let busy = locker.lock("b").acquire_blocking().unwrap();
    assert_eq!(both.acquire_blocking().unwrap_err().key(), Some("b"));
    assert!(is_free(&locker, "a"), "what was taken is given back");
    drop(busy);
    assert!(both.try_acquire_blocking().unwrap().is_some());
    let none = locker.lock_all::<&str>([]).acquire_blocking();
    assert!(matches!(none, Err(Error::InvalidKey(_))));
}

#[tokio::test]
async fn a_blocking_task_beside_a_single_threaded_runtime_may_wait_for_it() {
    let locker = memory();
    let guard = locker.lock("k/1").acquire().await.unwrap();
    let other = locker.clone();
    let mut blocking = tokio::task::spawn_blocking(move || other.scope_sync(|| writer(1, || ())));
    let early = tokio::time::timeout(Duration::from_millis(50), &mut blocking).await;
    assert!(early.is_err(), "it did not wait: {early:?}");
    drop(guard);
    blocking
        .await
        .unwrap()
        .expect("the runtime goes on meanwhile");
}

#[tokio::test]
async fn a_lock_that_a_blocking_task_holds_may_be_waited_for_on_the_runtimes_thread() {
    let locker = memory();
    let (held, holds) = tokio::sync::oneshot::channel();
    let (go, goes) = mpsc::channel::<()>();
    let other = locker.clone();
    let blocking = tokio::task::spawn_blocking(move || {
        let held_for = other.scope_sync(|| {
            writer(1, || {
                held.send(()).unwrap();
                goes.recv_timeout(Duration::from_millis(100)).is_err()
            })
        });
        held_for.unwrap()
    });
    holds.await.unwrap();
    locker
        .scope_sync(|| writer(1, || ()))
        .expect("the blocking task needs no runtime to end");
    drop(go);
    assert!(blocking.await.unwrap());
}

fn entry(locker: &Locker, key: &'static str) -> Entry {
    Entry::new(key).locker(locker).timeout(20)
}

/// Polls once, and keeps the future.
async fn poll_once<F: Future>(future: std::pin::Pin<&mut F>) -> bool {
    let mut future = Some(future);
    std::future::poll_fn(|context| {
        let polled = future
            .take()
            .map(|future| future.poll(context).is_pending());
        std::task::Poll::Ready(polled.unwrap())
    })
    .await
}

#[tokio::test]
async fn a_body_that_is_to_finish_does_not_begin_without_its_lock() {
    let locker = memory();
    let ran = AtomicUsize::new(0);
    let mut second = Box::pin(run(entry(&locker, "k").finish_when_lost(), async {
        ran.fetch_add(1, Ordering::SeqCst);
    }));
    let first = locker.lock("k").acquire().await.unwrap();
    assert!(poll_once(second.as_mut()).await);
    drop(first);
    // It was granted, and then its lock was lost.
    locker.shutdown(Duration::ZERO).await;
    let outcome = second.await;
    assert!(!matches!(outcome, Outcome::Ran(())));
    assert_eq!(ran.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_nested_body_that_is_moved_out_of_the_outer_one_is_stopped() {
    let locker = memory();
    let (go, ran) = (Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
    let (wait, runs, other) = (go.clone(), ran.clone(), locker.clone());
    let outer = run(entry(&locker, "k"), async move {
        let mut nested = Box::pin(run(entry(&other, "k"), async move {
            wait.notified().await;
            runs.fetch_add(1, Ordering::SeqCst);
        }));
        assert!(poll_once(nested.as_mut()).await);
        let elsewhere = tokio::spawn(nested);
        go.notify_one();
        matches!(elsewhere.await.unwrap(), Outcome::Lost(None, _))
    });
    assert!(matches!(outer.await, Outcome::Ran(true)));
    assert_eq!(
        ran.load(Ordering::SeqCst),
        0,
        "it ran beside the outer body"
    );
}

#[tokio::test]
async fn what_is_moved_out_of_a_body_does_not_nest_in_it() {
    let locker = memory();
    let (go, other) = (Arc::new(Notify::new()), locker.clone());
    let outer = run(entry(&locker, "k"), async move {
        let (wait, locker) = (go.clone(), other.clone());
        let mut beside = Box::pin(run(entry(&other, "other"), async move {
            wait.notified().await;
            run(entry(&locker, "k").timeout(0), async {}).await
        }));
        assert!(poll_once(beside.as_mut()).await);
        let elsewhere = tokio::spawn(beside);
        go.notify_one();
        elsewhere.await.unwrap()
    });
    match outer.await {
        Outcome::Ran(Outcome::Ran(Outcome::NotRun(error))) => assert!(error.is_busy()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_nested_body_is_woken_when_the_time_of_the_outer_one_is_over() {
    let locker = memory();
    let max_hold = Duration::from_millis(50);
    let outer = entry(&locker, "k").max_hold(max_hold);
    let (ended, ends) = mpsc::channel();
    thread::spawn(move || {
        let outcome = call(outer, || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .build()
                .unwrap();
            runtime.block_on(run(entry(&locker, "k"), std::future::pending::<()>()))
        });
        ended.send(outcome).unwrap();
    });
    match ends.recv_timeout(LONG).expect("nobody woke it") {
        Outcome::Lost(Some(Outcome::Lost(None, nested)), outer) => {
            assert!(matches!(nested, Error::HoldExceeded(_)));
            assert!(matches!(outer, Error::HoldExceeded(_)));
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_lock_that_is_kept_for_min_hold_needs_no_runtime_to_become_free() {
    let locker = memory();
    let kept = Duration::from_millis(50);
    let first = run(entry(&locker, "k").min_hold(kept), async {}).await;
    assert!(matches!(first, Outcome::Ran(())));
    let second = call(entry(&locker, "k"), || ());
    assert!(matches!(second, Outcome::Ran(())), "{second:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parking_the_task_whose_other_half_holds_the_lock_would_deadlock() {
    let locker = memory();
    // Under the outer body's hold, and beside it.
    for outer in ["k", "other"] {
        let other = locker.clone();
        let both = async move {
            let go = Notify::new();
            tokio::join!(run(entry(&other, "k"), go.notified()), async {
                let parked = call(entry(&other, "k"), || ());
                go.notify_one();
                parked
            })
        };
        let task = tokio::spawn(run(entry(&locker, outer), both));
        match task.await.unwrap() {
            Outcome::Ran((Outcome::Ran(()), Outcome::NotRun(error))) => {
                assert!(matches!(error, Error::WouldDeadlock(_)));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn shutdown_counts_locks_and_not_turns() {
    let locker = memory();
    let report = call(entry(&locker, "k"), || {
        let nested = call(entry(&locker, "k"), || {
            locker.shutdown_blocking(Duration::ZERO)
        });
        match nested {
            Outcome::Ran(report) | Outcome::Lost(Some(report), _) => report,
            other => panic!("{other:?}"),
        }
    });
    assert!(matches!(report, Outcome::Lost(Some(report), _) if report.cut == 1));
}

/// Says when it is dropped whether the lock was free, and panics if it is to.
struct Probe<'a> {
    locker: &'a Locker,
    panics: bool,
    found_free: &'a AtomicUsize,
}

impl Drop for Probe<'_> {
    fn drop(&mut self) {
        if is_free(self.locker, "k") {
            self.found_free.fetch_add(1, Ordering::SeqCst);
        }
        let nested = call(entry(self.locker, "k"), || ());
        assert!(matches!(nested, Outcome::Ran(())), "{nested:?}");
        assert!(!self.panics, "as it is to");
    }
}

#[tokio::test]
async fn a_body_is_dropped_under_its_lock_also_when_that_panics() {
    let (locker, found_free) = (memory(), AtomicUsize::new(0));
    for panics in [false, true] {
        for ends in [false, true] {
            let probe = Probe {
                locker: &locker,
                panics,
                found_free: &found_free,
            };
            let mut body = Some(Box::pin(run(entry(&locker, "k"), async {
                let _probe = probe;
                if !ends {
                    std::future::pending::<()>().await;
                }
            })));
            let polled =
                AssertUnwindSafe(async { poll_once(body.as_mut().unwrap().as_mut()).await });
            let polled = caught(polled).await;
            let dropped = catch_unwind(AssertUnwindSafe(|| drop(body.take())));
            assert_eq!(polled.is_err() || dropped.is_err(), panics);
            assert!(is_free(&locker, "k"), "panics {panics}, ends {ends}");
            assert!(dlock::current().is_none());
        }
    }
    assert_eq!(found_free.load(Ordering::SeqCst), 0);
}

async fn caught<T>(future: AssertUnwindSafe<impl Future<Output = T>>) -> thread::Result<T> {
    let mut future = Box::pin(future.0);
    std::future::poll_fn(move |context| {
        let polled = AssertUnwindSafe(|| future.as_mut().poll(context));
        match catch_unwind(polled) {
            Ok(std::task::Poll::Pending) => std::task::Poll::Pending,
            Ok(std::task::Poll::Ready(output)) => std::task::Poll::Ready(Ok(output)),
            Err(panic) => std::task::Poll::Ready(Err(panic)),
        }
    })
    .await
}

thread_local! {
    static AT_THE_END: RefCell<Option<AtTheEnd>> = const { RefCell::new(None) };
}

struct AtTheEnd(Locker, mpsc::Sender<bool>);

impl Drop for AtTheEnd {
    fn drop(&mut self) {
        let nested = call(entry(&self.0, "k"), || call(entry(&self.0, "k"), || ()));
        let nested = matches!(nested, Outcome::Ran(Outcome::Ran(())));
        let guard = self.0.lock("k").acquire_blocking();
        let in_no_scope = matches!(outer(1, || ()), Err(Error::NotInitialized));
        let _ = self.1.send(nested && guard.is_ok() && in_no_scope);
    }
}

#[test]
fn a_thread_may_lock_while_it_ends() {
    // Its own thread-locals end before the library's, and after them.
    for locked_before in [false, true] {
        let locker = memory();
        let (done, is_done) = mpsc::channel();
        let ending = thread::spawn(move || {
            let lock = || locker.scope_sync(|| outer(1, || ()));
            if locked_before {
                lock().unwrap();
            }
            AT_THE_END.set(Some(AtTheEnd(locker.clone(), done)));
            lock()
        });
        ending.join().unwrap().unwrap();
        assert!(is_done.recv().unwrap());
    }
}

#[test]
fn a_nested_call_still_runs_while_shutdown_waits_for_the_outer_body() {
    let locker = memory();
    let closing = locker.clone();
    let shutdown = locker.scope_sync(|| {
        outer(1, || {
            let shutdown = thread::spawn(move || closing.shutdown_blocking(LONG));
            while locker.lock("k/2").try_acquire_blocking().is_ok() {
                thread::yield_now();
            }
            outer(1, || ()).expect("it needs nothing that is not there");
            let refused = outer(2, || ());
            assert!(matches!(refused, Err(Error::ShutDown)), "{refused:?}");
            shutdown
        })
        .expect("held to the end")
    });
    assert_eq!(shutdown.join().unwrap().cut, 0);
}
