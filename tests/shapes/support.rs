//! Observing from inside a body whether its lock is held, and running a shape everywhere.

use std::future::Future;
use std::mem;
use std::sync::{Arc, Mutex};
use std::thread;

use dlock::{Config, Locker};

pub(crate) type Done<T = ()> = Result<T, dlock::Error>;

/// A locker of its own for each test.
pub(crate) fn memory() -> Locker {
    let config = Config::from_dsn("memory:").expect("a DSN");
    Locker::connect_blocking(config).expect("memory needs no server")
}

/// Whether anybody holds the key. A thread of its own asks, so that no hold of this call tree is re-entered.
pub(crate) fn is_held(locker: &Locker, key: &str) -> bool {
    let lock = locker.lock(key);
    let asked = thread::spawn(move || lock.try_acquire_blocking());
    let guard = asked.join().expect("no panic").expect("memory answers");
    guard.is_none()
}

/// A value that notes what happens to it, and whether the lock is held meanwhile.
pub(crate) struct Probe {
    locker: Locker,
    key: &'static str,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Probe {
    pub(crate) fn new(locker: &Locker, key: &'static str) -> Probe {
        Probe {
            locker: locker.clone(),
            key,
            seen: Arc::default(),
        }
    }

    pub(crate) fn note(&self, event: &str) {
        let state = if is_held(&self.locker, self.key) {
            "held"
        } else {
            "free"
        };
        self.seen.lock().unwrap().push(format!("{event}, {state}"));
    }

    /// What was noted, also after the probe is gone.
    pub(crate) fn record(&self) -> Record {
        Record {
            locker: self.locker.clone(),
            key: self.key,
            seen: self.seen.clone(),
        }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.note("dropped");
    }
}

pub(crate) struct Record {
    locker: Locker,
    key: &'static str,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Record {
    #[track_caller]
    pub(crate) fn assert(&self, expected: &[&str]) {
        assert_eq!(mem::take(&mut *self.seen.lock().unwrap()), expected);
        assert!(
            !is_held(&self.locker, self.key),
            "{:?} is still held",
            self.key
        );
    }
}

/// The order that every shape keeps.
pub(crate) const UNDER_THE_LOCK: [&str; 2] = ["body, held", "dropped, held"];

/// Calls a synchronous shape on a plain thread and inside each runtime.
#[track_caller]
pub(crate) fn everywhere(key: &'static str, shape: impl Fn(Probe) + Copy + Send + Sync + 'static) {
    everywhere_in_order(key, &UNDER_THE_LOCK, shape);
}

#[track_caller]
pub(crate) fn everywhere_in_order(
    key: &'static str,
    expected: &[&str],
    shape: impl Fn(Probe) + Copy + Send + Sync + 'static,
) {
    let locker = memory();
    let probe = Probe::new(&locker, key);
    let record = probe.record();
    locker.scope_sync(|| shape(probe));
    record.assert(expected);
    async_everywhere_in_order(key, expected, move |probe| async move { shape(probe) });
}

/// Runs an async shape on a plain thread and inside each runtime. The shape's future is `Send` where it can be spawned.
#[track_caller]
pub(crate) fn async_everywhere<F>(key: &'static str, shape: impl Fn(Probe) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    async_everywhere_in_order(key, &UNDER_THE_LOCK, shape);
}

#[track_caller]
pub(crate) fn async_everywhere_in_order<F>(
    key: &'static str,
    expected: &[&str],
    shape: impl Fn(Probe) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let locker = memory();
    let check = |run: &dyn Fn(dlock::Scoped<F>)| {
        let probe = Probe::new(&locker, key);
        let record = probe.record();
        run(locker.scope(shape(probe)));
        record.assert(expected);
    };
    let current = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let multi = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .unwrap();
    check(&|future| smol::block_on(future));
    check(&|future| smol::block_on(smol::spawn(future)));
    check(&|future| current.block_on(future));
    check(&|future| multi.block_on(multi.spawn(future)).unwrap());
}

/// Runs on a plain thread with a locker in which somebody else holds the key.
pub(crate) fn while_busy<R>(key: &str, call: impl FnOnce() -> R) -> R {
    let locker = memory();
    let other = locker.lock(key);
    let guard = thread::spawn(move || other.acquire_blocking())
        .join()
        .unwrap()
        .unwrap();
    let out = locker.scope_sync(call);
    drop(guard);
    out
}

/// Runs with a locker that was shut down, so that every lock fails otherwise than by being busy.
pub(crate) fn while_shut_down<R>(call: impl FnOnce() -> R) -> R {
    let locker = memory();
    locker.shutdown_blocking(std::time::Duration::ZERO);
    locker.scope_sync(call)
}
