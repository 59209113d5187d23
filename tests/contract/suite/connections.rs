//! How many connections it takes.

use dlock::{Guard, Lock};

use crate::site::{Site, run};

pub(crate) fn a_hundred_held_keys_use_one_connection(site: &Site) {
    let locker = site.locker();
    let locks: Vec<Lock> = (0..100)
        .map(|number| site.lock(&locker, &format!("key/{number}")))
        .collect();
    let guards: Vec<Guard> = run(async {
        let mut tasks = tokio::task::JoinSet::new();
        for lock in locks {
            tasks.spawn(async move { lock.acquire().await.expect("free") });
        }
        tasks.join_all().await
    });
    assert_eq!(site.sessions().len(), 1);
    let session = site.sessions();
    assert_eq!(site.holders("key/0"), session);
    assert_eq!(site.holders("key/99"), session);
    for guard in guards {
        guard.release_blocking().expect("held to the end");
    }
}

pub(crate) fn waiters_share_the_connections_they_may_have(site: &Site) {
    const WAITERS: usize = 4;
    const TASKS: usize = 50;
    let (holder, locker) = (
        site.locker(),
        site.locker_of(site.config().max_waiters(WAITERS)),
    );
    let name = |number: usize| format!("key/{number}");
    let guards: Vec<Guard> = (0..TASKS)
        .map(|number| {
            site.lock(&holder, &name(number))
                .acquire_blocking()
                .unwrap()
        })
        .collect();
    run(async {
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..TASKS {
            let lock = site.lock(&locker, &name(number)).timeout(100);
            tasks.spawn(async move {
                let guard = lock.acquire().await.expect("its turn");
                guard.release().await.expect("held to the end");
            });
        }
        site.until_waiting(WAITERS);
        // The holder's connection, the keeper, and those that wait.
        let most = 1 + 1 + WAITERS;
        for _ in 0..50 {
            let sessions = site.sessions().len();
            assert!(sessions <= most, "{sessions} connections");
        }
        for guard in guards {
            guard.release().await.expect("held to the end");
        }
        tasks.join_all().await;
        let sessions = site.sessions().len();
        assert!(sessions <= most, "{sessions} connections");
    });
}
