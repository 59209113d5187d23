//! At most one holder, wherever the callers are.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::{env, fs, thread};

use dlock::{Lock, Locker};

use crate::site::{Site, run};

/// A place for one: whoever meets somebody else here has found the lock broken.
#[derive(Default)]
struct Room {
    occupied: AtomicBool,
    visits: AtomicU64,
}

impl Room {
    fn enter(&self) -> u64 {
        assert!(!self.occupied.swap(true, Ordering::SeqCst), "two at once");
        self.visits.load(Ordering::SeqCst)
    }

    fn leave(&self, visits: u64) {
        self.visits.store(visits + 1, Ordering::SeqCst);
        assert!(self.occupied.swap(false, Ordering::SeqCst), "two at once");
    }

    fn visits(&self) -> u64 {
        self.visits.load(Ordering::SeqCst)
    }
}

pub(crate) fn lockers_exclude_each_other(site: &Site) {
    let (one, other) = (site.locker(), site.locker());
    let key = &site.key("one")[..];
    let guard = one.lock(key).acquire_blocking().expect("a free lock");
    assert!(other.lock(key).try_acquire_blocking().unwrap().is_none());
    guard.release_blocking().expect("held to the end");
    let guard = other.lock(key).try_acquire_blocking().unwrap();
    assert!(guard.is_some(), "free again");
    assert!(one.lock(key).try_acquire_blocking().unwrap().is_none());
}

pub(crate) fn threads_exclude_each_other(site: &Site) {
    let locker = site.locker();
    visit_from_threads(site, || locker.clone());
}

pub(crate) fn threads_with_lockers_of_their_own_exclude_each_other(site: &Site) {
    visit_from_threads(site, || site.locker());
}

fn visit_from_threads(site: &Site, locker: impl Fn() -> Locker) {
    const THREADS: u64 = 4;
    const ROUNDS: u64 = 12;
    let room = Room::default();
    let locks: Vec<Lock> = (0..THREADS).map(|_| site.lock(&locker(), "room")).collect();
    thread::scope(|scope| {
        for lock in &locks {
            scope.spawn(|| {
                for _ in 0..ROUNDS {
                    let guard = lock.acquire_blocking().expect("a turn");
                    let visits = room.enter();
                    thread::yield_now();
                    room.leave(visits);
                    drop(guard);
                }
            });
        }
    });
    assert_eq!(room.visits(), THREADS * ROUNDS);
}

pub(crate) fn tasks_exclude_each_other(site: &Site) {
    const TASKS: u64 = 24;
    const ROUNDS: u64 = 4;
    let (one, other) = (site.locker(), site.locker());
    let room = Arc::new(Room::default());
    run(async {
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..TASKS {
            let locker = if number % 2 == 0 { &one } else { &other };
            let (lock, room) = (site.lock(locker, "room"), room.clone());
            tasks.spawn(async move {
                for _ in 0..ROUNDS {
                    let visit = async {
                        let visits = room.enter();
                        tokio::task::yield_now().await;
                        room.leave(visits);
                    };
                    lock.run(visit).await.expect("a turn");
                }
            });
        }
        tasks.join_all().await;
    });
    assert_eq!(room.visits(), TASKS * ROUNDS);
}

pub(crate) fn processes_exclude_each_other(site: &Site) {
    const PROCESSES: usize = 3;
    const ROUNDS: usize = 15;
    let file = env::temp_dir().join(format!("dlock-contract-{}", site.tag()));
    fs::write(&file, "0").expect("a file to count in");
    let key = site.key("count");
    let mut workers: Vec<_> = (0..PROCESSES).map(|_| site.worker()).collect();
    for worker in &mut workers {
        worker.tell(&format!("count {key} {} {ROUNDS}", file.display()));
    }
    for worker in &workers {
        assert_eq!(worker.answer(), "counted");
    }
    let counted = fs::read_to_string(&file).expect("the file");
    fs::remove_file(&file).expect("the file");
    assert_eq!(counted, (PROCESSES * ROUNDS).to_string());
}
