//! The same lock from wherever the caller runs.

use std::future::pending;
use std::thread;

use dlock::{Guard, Locker};
use futures_util::FutureExt;
use tokio::runtime::Builder;

use crate::site::{SOON, Site, run};

/// Taken, kept from another, waited for, released: a bit of everything.
async fn some_of_everything(site: &Site, one: &Locker, other: &Locker) {
    let (mine, theirs) = (site.lock(one, "small"), site.lock(other, "small"));
    let guard = mine.acquire().await.expect("free");
    assert!(theirs.try_acquire().await.expect("a try").is_none());
    let mut waiting = Box::pin(theirs.acquire());
    assert!((&mut waiting).now_or_never().is_none());
    guard.release().await.expect("held to the end");
    let guard = waiting.await.expect("its turn");
    let here = site.lock(other, "small").timeout(0).acquire().await;
    assert!(here.is_err_and(|error| error.is_busy()));
    drop(guard);
    let ran = theirs.run(async { 7 }).await;
    assert_eq!(ran.expect("held to the end"), 7);
}

fn some_of_everything_blocking(site: &Site, one: &Locker, other: &Locker) {
    let (mine, theirs) = (site.lock(one, "small"), site.lock(other, "small"));
    let guard = mine.acquire_blocking().expect("free");
    assert!(theirs.try_acquire_blocking().expect("a try").is_none());
    thread::scope(|scope| {
        let waiting = scope.spawn(|| theirs.acquire_blocking());
        site.until_waiting(1);
        guard.release_blocking().expect("held to the end");
        drop(waiting.join().unwrap().expect("its turn"));
    });
    let ran = theirs.run_blocking(Guard::is_held);
    assert!(ran.expect("held to the end"));
}

pub(crate) fn a_plain_thread(site: &Site) {
    some_of_everything_blocking(site, &site.locker(), &site.locker());
}

pub(crate) fn a_current_thread_runtime(site: &Site) {
    let runtime = Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let (one, other) = connect(site).await;
        some_of_everything(site, &one, &other).await;
    });
}

pub(crate) fn a_blocking_call_in_a_current_thread_runtime(site: &Site) {
    let runtime = Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        some_of_everything_blocking(site, &site.locker(), &site.locker());
    });
}

pub(crate) fn a_multi_thread_runtime(site: &Site) {
    run(async {
        let (one, other) = connect(site).await;
        some_of_everything(site, &one, &other).await;
    });
}

pub(crate) fn a_blocking_call_on_a_worker_of_a_runtime(site: &Site) {
    let (one, other) = (site.locker(), site.locker());
    let (mine, theirs) = (site.lock(&one, "worker"), site.lock(&other, "worker"));
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let guard = mine.acquire().await.expect("free");
        // It parks the only worker: others must go on all the same, or the release below never comes.
        let parked = tokio::spawn(async move { theirs.acquire_blocking().map(drop) });
        site.until_waiting(1);
        let released = tokio::spawn(guard.release());
        released.await.unwrap().expect("held to the end");
        parked.await.unwrap().expect("its turn");
    });
}

pub(crate) fn smol_runs_it(site: &Site) {
    smol::block_on(async {
        let (one, other) = connect(site).await;
        some_of_everything(site, &one, &other).await;
    });
    smol::block_on(smol::unblock({
        let lock = site.lock(&site.locker(), "small");
        move || drop(lock.acquire_blocking().expect("free"))
    }));
}

pub(crate) fn a_guard_moves_between_runtimes(site: &Site) {
    let other = site.locker();
    let runtime = Builder::new_current_thread().build().expect("a runtime");
    let guard = runtime.block_on(async {
        let (one, _) = connect(site).await;
        site.lock(&one, "moved").acquire().await.expect("free")
    });
    drop(runtime);
    let guard = smol::block_on(async move {
        assert!(guard.is_held());
        guard
    });
    let tried = site.lock(&other, "moved").try_acquire_blocking();
    assert!(tried.unwrap().is_none());
    let released = thread::spawn(|| run(guard.release()));
    released.join().unwrap().expect("held to the end");
    let tried = site.lock(&other, "moved").try_acquire_blocking();
    assert!(tried.unwrap().is_some());
}

pub(crate) fn a_runtime_dropped_while_its_task_waits_leaves_nothing(site: &Site) {
    let (one, other) = (site.locker(), site.locker());
    let guard = site.lock(&one, "gone").acquire_blocking().unwrap();
    let runtime = Builder::new_multi_thread().build().expect("a runtime");
    let lock = site.lock(&other, "gone");
    runtime.block_on(async {
        let mut waiting = Box::pin(async move { lock.acquire().await });
        assert!((&mut waiting).now_or_never().is_none());
        tokio::spawn(waiting);
    });
    site.until_waiting(1);
    drop(runtime);
    site.until_waiting(0);
    guard.release_blocking().expect("held to the end");
    let tried = site.lock(&other, "gone").try_acquire_blocking();
    assert!(tried.unwrap().is_some());
}

pub(crate) fn a_runtime_dropped_while_its_task_holds_leaves_nothing(site: &Site) {
    let (one, other) = (site.locker(), site.locker());
    let runtime = Builder::new_multi_thread().build().expect("a runtime");
    let (holds, held) = tokio::sync::oneshot::channel();
    let lock = site.lock(&one, "gone");
    runtime.spawn(async move {
        lock.run(async {
            let _ = holds.send(());
            pending::<()>().await;
        })
        .await
    });
    runtime.block_on(held).expect("the body runs");
    let tried = site.lock(&other, "gone").try_acquire_blocking();
    assert!(tried.unwrap().is_none());
    drop(runtime);
    let lock = site.lock(&other, "gone").timeout(SOON);
    drop(lock.acquire_blocking().expect("freed with the runtime"));
}

/// Two lockers, connected in the runtime at hand.
async fn connect(site: &Site) -> (Locker, Locker) {
    let one = Locker::connect(site.config()).await.expect("a locker");
    let other = Locker::connect(site.config()).await.expect("a locker");
    (one, other)
}
