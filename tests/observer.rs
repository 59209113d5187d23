//! What observers hear of a locker, and what they cannot do to it.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::Duration;

use dlock::observer::{Acquired, Counts, Failed, Failure, Loss, Observer, Outage, Released, Wait};
use dlock::{Config, Locker, Mode};

/// How long anything that must happen may take on a busy machine.
const SOON: Duration = Duration::from_secs(20);

const LONG: Duration = Duration::from_millis(30);

/// Sends everything on.
struct Ear(Sender<Heard>);

#[derive(Debug)]
enum Heard {
    Wait(Wait),
    Acquired(Acquired),
    Failed(Failed),
    Released(Released),
    Lost(Loss),
    #[expect(
        dead_code,
        reason = "shown when it comes: a lock in memory is always to be had"
    )]
    Unavailable(Outage),
}

impl Ear {
    fn hear(&self, heard: Heard) {
        // The test may have ended.
        let _ = self.0.send(heard);
    }
}

impl Observer for Ear {
    fn on_wait(&self, wait: &Wait) {
        self.hear(Heard::Wait(wait.clone()));
    }

    fn on_acquire(&self, acquired: &Acquired) {
        self.hear(Heard::Acquired(acquired.clone()));
    }

    fn on_fail(&self, failed: &Failed) {
        self.hear(Heard::Failed(failed.clone()));
    }

    fn on_release(&self, released: &Released) {
        self.hear(Heard::Released(released.clone()));
    }

    fn on_lost(&self, loss: &Loss) {
        self.hear(Heard::Lost(loss.clone()));
    }

    fn on_unavailable(&self, outage: &Outage) {
        self.hear(Heard::Unavailable(outage.clone()));
    }
}

/// A store that no other test uses, which several lockers can share.
fn store() -> Config {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    Config::from_dsn(&format!("memory:observer{count}")).expect("a DSN")
}

fn connect(config: Config) -> Locker {
    Locker::connect_blocking(config).expect("memory needs no server")
}

fn observed(config: Config) -> (Locker, Receiver<Heard>) {
    let (ear, heard) = channel();
    (connect(config.observer(Ear(ear))), heard)
}

fn next(heard: &Receiver<Heard>) -> Heard {
    heard.recv_timeout(SOON).expect("an event")
}

/// Everything that the locker's observers heard from now to the end.
fn rest(locker: &Locker, heard: &Receiver<Heard>) -> Vec<Heard> {
    locker.shutdown_blocking(SOON);
    heard.try_iter().collect()
}

#[track_caller]
fn is_nothing(rest: &[Heard]) {
    assert!(rest.is_empty(), "{rest:?}");
}

#[test]
fn a_lock_is_acquired_once_and_released_once() {
    let (locker, heard) = observed(store());
    let guard = locker.lock("k").acquire_blocking().expect("free");
    let Heard::Acquired(acquired) = next(&heard) else {
        panic!("acquired first");
    };
    assert_eq!((&*acquired.key, acquired.mode), ("k", Mode::Exclusive));
    assert_eq!(acquired.wait, Duration::ZERO);
    thread::sleep(LONG);
    guard.release_blocking().expect("held to the end");
    let Heard::Released(released) = next(&heard) else {
        panic!("released next");
    };
    assert_eq!((&*released.key, released.mode), ("k", Mode::Exclusive));
    assert!(released.hold >= LONG && released.hold < SOON);
    drop(locker.lock("k").shared().acquire_blocking().expect("free"));
    assert!(matches!(
        next(&heard),
        Heard::Acquired(Acquired {
            mode: Mode::Shared,
            ..
        })
    ));
    assert!(matches!(
        next(&heard),
        Heard::Released(Released {
            mode: Mode::Shared,
            ..
        })
    ));
    is_nothing(&rest(&locker, &heard));
}

#[test]
fn a_body_is_reported_as_a_guard_is_and_a_nested_one_not_at_all() {
    let (locker, heard) = observed(store());
    let nested = locker
        .lock("k")
        .run_blocking(|| locker.lock("k").run_blocking(|| 7));
    assert_eq!(nested.expect("free").expect("nested"), 7);
    assert!(matches!(next(&heard), Heard::Acquired(_)));
    assert!(matches!(next(&heard), Heard::Released(_)));
    is_nothing(&rest(&locker, &heard));
}

#[test]
fn a_wait_for_this_process_is_local() {
    let (locker, heard) = observed(store());
    let guard = locker.lock("k").acquire_blocking().expect("free");
    assert!(matches!(next(&heard), Heard::Acquired(_)));
    let line = locker.clone();
    let waiter = thread::spawn(move || line.lock("k").timeout(SOON).acquire_blocking());
    let Heard::Wait(wait) = next(&heard) else {
        panic!("it waits");
    };
    assert!(wait.local && &*wait.key == "k" && wait.mode == Mode::Exclusive);
    thread::sleep(LONG);
    guard.release_blocking().expect("held to the end");
    assert!(matches!(next(&heard), Heard::Released(_)));
    let Heard::Acquired(acquired) = next(&heard) else {
        panic!("then acquired");
    };
    assert!(acquired.wait >= LONG && acquired.wait < SOON);
    drop(waiter.join().expect("no panic").expect("the lock"));
    assert!(matches!(next(&heard), Heard::Released(_)));
    is_nothing(&rest(&locker, &heard));
}

#[test]
fn a_wait_for_another_process_is_not_local_and_a_busy_one_fails() {
    let config = store();
    let other = connect(config.clone());
    let (locker, heard) = observed(config);
    let guard = other.lock("k").acquire_blocking().expect("free");
    let error = locker
        .lock("k")
        .timeout(LONG)
        .acquire_blocking()
        .unwrap_err();
    assert!(error.is_busy(), "{error}");
    assert!(matches!(
        next(&heard),
        Heard::Wait(Wait { local: false, .. })
    ));
    let Heard::Failed(failed) = next(&heard) else {
        panic!("no lock");
    };
    assert_eq!(failed.failure, Failure::Busy);
    assert!(failed.wait >= LONG && failed.wait < SOON);
    // One try does not wait.
    assert!(
        locker
            .lock("k")
            .try_acquire_blocking()
            .expect("memory answers")
            .is_none()
    );
    assert!(matches!(
        next(&heard),
        Heard::Failed(Failed {
            failure: Failure::Busy,
            ..
        })
    ));
    drop(guard);
    is_nothing(&rest(&locker, &heard));
}

#[tokio::test]
async fn a_dropped_wait_is_cancelled() {
    let (locker, heard) = observed(store());
    let _guard = locker.lock("k").acquire().await.expect("free");
    let lock = locker.lock("k");
    let waited = tokio::time::timeout(LONG, lock.acquire()).await;
    assert!(waited.is_err());
    assert!(matches!(next(&heard), Heard::Acquired(_)));
    assert!(matches!(next(&heard), Heard::Wait(_)));
    let Heard::Failed(failed) = next(&heard) else {
        panic!("no lock");
    };
    assert_eq!(failed.failure, Failure::Cancelled);
}

#[test]
fn a_shutdown_loses_what_is_held_and_fails_who_waits() {
    let (locker, heard) = observed(store());
    let guards = [
        locker.lock("a").acquire_blocking().expect("free"),
        locker.lock("b").acquire_blocking().expect("free"),
    ];
    assert!(matches!(next(&heard), Heard::Acquired(_)));
    assert!(matches!(next(&heard), Heard::Acquired(_)));
    let line = locker.clone();
    let waiter = thread::spawn(move || line.lock("a").timeout(SOON).acquire_blocking());
    assert!(matches!(next(&heard), Heard::Wait(_)));
    assert_eq!(locker.shutdown_blocking(Duration::ZERO).cut, 2);
    assert!(waiter.join().expect("no panic").is_err());
    assert!(matches!(
        next(&heard),
        Heard::Failed(Failed {
            failure: Failure::ShutDown,
            ..
        })
    ));
    let mut keys = Vec::new();
    for _ in &guards {
        let Heard::Lost(loss) = next(&heard) else {
            panic!("lost");
        };
        assert_eq!(&*loss.reason, "dlock was shut down");
        keys.push(loss.key);
    }
    keys.sort();
    assert_eq!(
        keys.iter().map(|key| &**key).collect::<Vec<_>>(),
        ["a", "b"]
    );
    drop(guards);
    is_nothing(&rest(&locker, &heard));
}

/// Stops the thread of the observers, until the test lets it go on.
struct Stuck(Arc<Barrier>);

impl Observer for Stuck {
    fn on_acquire(&self, acquired: &Acquired) {
        if &*acquired.key == "stuck" {
            self.0.wait();
            self.0.wait();
        }
    }
}

#[test]
fn a_stuck_observer_delays_nobody_and_what_it_misses_is_counted() {
    #[derive(Default)]
    struct Last(Mutex<Counts>);
    struct Shared(Arc<Last>);
    impl Observer for Shared {
        fn on_counts(&self, counts: &Counts) {
            *self.0.0.lock().expect("the counts") = *counts;
        }
    }
    let (barrier, last) = (Arc::new(Barrier::new(2)), Arc::<Last>::default());
    let (locker, heard) = observed(
        store()
            .observer(Stuck(barrier.clone()))
            .observer(Shared(last.clone())),
    );
    let stuck = locker.lock("stuck").acquire_blocking().expect("free");
    barrier.wait();
    // The observers are inside, and stay there.
    stuck.release_blocking().expect("held to the end");
    for _ in 0..1000 {
        let guard = locker.lock("k").acquire_blocking().expect("free");
        guard.release_blocking().expect("held to the end");
    }
    let kept = locker.lock("kept").acquire_blocking().expect("free");
    barrier.wait();
    let Heard::Acquired(_) = next(&heard) else {
        panic!("acquired");
    };
    for _ in 0..1024 {
        next(&heard);
    }
    locker.shutdown_blocking(LONG);
    // Beside the 1024 events that waited: 1 + 2000 + 1 events came meanwhile.
    let counts = *last.0.lock().expect("the counts");
    assert_eq!((counts.dropped, counts.holds), (2002 - 1024, 0));
    drop(kept);
}

#[test]
fn a_shutdown_does_not_wait_for_a_stuck_observer_for_ever() {
    let barrier = Arc::new(Barrier::new(2));
    let locker = connect(store().observer(Stuck(barrier.clone())));
    drop(locker.lock("stuck").acquire_blocking().expect("free"));
    barrier.wait();
    let (ended, ends) = channel();
    let shutdown = thread::spawn(move || {
        locker.shutdown_blocking(SOON);
        drop(locker);
        ended.send(())
    });
    let end = ends.recv_timeout(SOON / 2);
    barrier.wait();
    end.expect("the end, while the observer was stuck");
    shutdown
        .join()
        .expect("no panic")
        .expect("the test listens");
}

#[test]
fn a_panic_in_an_observer_stops_neither_the_others_nor_the_lock() {
    struct Panics;
    impl Observer for Panics {
        fn on_acquire(&self, _: &Acquired) {
            panic!("an observer that panics");
        }
        fn on_release(&self, _: &Released) {
            panic!("an observer that panics");
        }
    }
    let (locker, heard) = observed(store().observer(Panics));
    for _ in 0..2 {
        let guard = locker.lock("k").acquire_blocking().expect("free");
        guard.release_blocking().expect("held to the end");
        assert!(matches!(next(&heard), Heard::Acquired(_)));
        assert!(matches!(next(&heard), Heard::Released(_)));
    }
}

#[test]
fn redacted_keys_are_the_same_hash_everywhere() {
    let (locker, heard) = observed(store().redact_keys(true));
    drop(locker.lock("customer/7").acquire_blocking().expect("free"));
    let Heard::Acquired(acquired) = next(&heard) else {
        panic!("acquired");
    };
    let Heard::Released(released) = next(&heard) else {
        panic!("released");
    };
    assert_eq!(&*acquired.key, "#0572181c51ef");
    assert_eq!(acquired.key, released.key);
}

#[test]
fn a_configuration_shows_nothing_of_its_observers() {
    let plain = Config::from_dsn("memory:x").expect("a DSN");
    let observed = plain.clone().observer(Stuck(Arc::new(Barrier::new(1))));
    assert_eq!(format!("{plain:?}"), format!("{observed:?}"));
}

#[test]
fn the_observers_go_with_their_locker() {
    struct Gone(Sender<()>);
    impl Observer for Gone {}
    impl Drop for Gone {
        fn drop(&mut self) {
            let _ = self.0.send(());
        }
    }
    let (gone, goes) = channel();
    let locker = connect(store().observer(Gone(gone)));
    drop(locker.lock("k").acquire_blocking().expect("free"));
    assert!(goes.try_recv().is_err());
    drop(locker);
    goes.recv_timeout(SOON)
        .expect("the thread ends, and drops its observers");
}
