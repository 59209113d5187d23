//! The promises about sessions that only whole servers can show; `docs/rules.md` lists every rule with its tests.

use std::thread;
use std::time::Duration;

use futures_util::FutureExt;

use crate::site::{SOON, Site, run, until};

/// S1: what the keeper holds, and what a waiter was granted, ends with the silence of their process.
pub(crate) fn s1_the_server_ends_keeper_and_waiter_of_a_silent_process(site: &Site) {
    let direct = site.locker();
    let mut silent = site.worker_with("limit=3");
    let (kept, waited) = (site.key("kept"), site.key("waited"));
    assert_eq!(silent.ask(&format!("try {kept}")), "held");
    let guard = site.lock(&direct, &waited).acquire_blocking().unwrap();
    silent.tell(&format!("acquire {waited} -"));
    site.until_waiting(1);
    guard.release_blocking().expect("held to the end");
    assert_eq!(silent.answer(), "held");
    assert_ne!(site.holders(&kept), site.holders(&waited), "two sessions");
    silent.stop();
    until("the server has freed both", || {
        site.holders(&kept).is_empty() && site.holders(&waited).is_empty()
    });
    silent.go_on();
    for key in [kept, waited] {
        assert_eq!(silent.ask(&format!("held {key}")), "false");
        assert_eq!(silent.ask(&format!("release {key}")), "lost");
    }
}

/// S3: building an index waits for every older snapshot of the database, and a session in the lock's queue has one.
pub(crate) fn s3_a_body_may_build_an_index_concurrently_while_others_wait(site: &Site) {
    let (holder, other) = (
        site.locker(),
        site.locker_of(
            site.config()
                .limit(Duration::from_secs(3))
                .heartbeat(Duration::from_millis(500)),
        ),
    );
    let table = format!("indexed_{}", site.tag());
    let statement = |sql: String| site.admin().rows(&sql).expect("a statement of the body");
    statement(format!("CREATE TABLE {table} AS SELECT 1 AS number"));
    let guard = site.lock(&holder, "index").acquire_blocking().unwrap();
    thread::scope(|scope| {
        let lock = site.lock(&other, "index");
        let waiting = scope.spawn(move || lock.acquire_blocking());
        site.until_waiting(1);
        // The administrator gives up after a while: an endless wait fails here.
        statement(format!("CREATE INDEX CONCURRENTLY ON {table} (number)"));
        assert!(!waiting.is_finished());
        assert!(guard.is_held());
        guard.release_blocking().expect("held to the end");
        drop(waiting.join().unwrap().expect("its turn"));
    });
    statement(format!("DROP TABLE {table}"));
}

/// B6: what was given up comes before what this process asks for next, on a lock that it had and on one it waited for.
pub(crate) fn b6_a_cancellation_comes_before_the_next_request(site: &Site) {
    let (one, other) = (site.locker(), site.locker());
    run(async {
        for round in 0..20 {
            let lock = site.lock(&one, "given-up");
            let mut body = Box::pin(lock.run(std::future::pending::<()>()));
            until("the body runs", || {
                assert!((&mut body).now_or_never().is_none());
                !site.holders("given-up").is_empty()
            });
            drop(body);
            let guard = lock.try_acquire().await.unwrap();
            let guard = guard.unwrap_or_else(|| panic!("round {round}: the drop comes first"));
            let lock = site.lock(&other, "given-up");
            let mut waiting = Box::pin(lock.acquire());
            assert!((&mut waiting).now_or_never().is_none());
            drop(waiting);
            guard.release().await.expect("held to the end");
            let guard = lock.timeout(SOON).acquire().await;
            guard.unwrap().release().await.expect("held to the end");
        }
    });
}
