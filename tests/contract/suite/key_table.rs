//! The table that shows the texts of keys to other programs.

use std::time::Duration;

use dlock::{Config, Error, LockInfo, Locker, Mode};
use xtask::servers::DATABASE;

use crate::place::{Family, Place};
use crate::site::{SOON, Site, run, until};

/// The table on this server, with what it belongs to.
fn table(site: &Site) -> String {
    match site.family() {
        Family::Postgres => "public.key_texts".to_owned(),
        Family::MySql => format!("{DATABASE}.key_texts"),
    }
}

/// Lets this test's account see the list; MariaDB tells it only when it was started so.
fn prepare(site: &Site) {
    if site.place() == Place::MariaDb {
        let options = [
            "--performance-schema=ON",
            "--performance-schema-instrument=wait/lock/metadata/sql/mdl=ON",
        ];
        site.server().restart_with(&options).expect("a restart");
    }
    if site.family() == Family::MySql {
        for table in ["metadata_locks", "threads"] {
            let sql = format!("GRANT SELECT ON performance_schema.{table} TO 'dlock'@'%'");
            site.admin().rows(&sql).expect("a grant");
        }
    }
}

fn with_table(site: &Site) -> Config {
    site.config().key_table("key_texts")
}

fn listed(site: &Site, locker: &Locker, key: &str) -> LockInfo {
    let locks = locker.list_blocking().expect("a list");
    let name = site.name(key);
    let mut found = locks.into_iter().filter(|lock| *lock.name == *name);
    found.next().expect("it is held")
}

pub(crate) fn lists_show_the_keys_of_other_programs(site: &Site) {
    prepare(site);
    let mut worker = site.worker_with("key_table=key_texts");
    // Too long for a name that MySQL takes, and with what has a meaning in a literal.
    let long = site.key(&format!("report/'\\\"{}/é🔒", "x".repeat(900)));
    let keys = [site.key("short"), long];
    for key in &keys {
        assert_eq!(worker.ask(&format!("try {key}")), "held");
    }
    let (one, plain) = (site.locker_of(with_table(site)), site.locker());
    for key in &keys {
        until("its key is shown", || {
            listed(site, &one, key).key.as_deref() == Some(&**key)
        });
        let seen = listed(site, &one, key);
        assert!(!seen.holders[0].who.this_process, "{seen:?}");
        assert_eq!(listed(site, &plain, key).key, None, "without the table");
        let seen = one.inspect_blocking(&**key).unwrap().expect("held");
        assert_eq!(seen.key.as_deref(), Some(&**key));
    }
    // So does the error of a kick that would free more.
    let more = run(one.kick(&*keys[0]));
    let Err(Error::HoldsMore(more)) = more else {
        panic!("{more:?}");
    };
    assert_eq!(
        more.others.iter().map(|key| &**key).collect::<Vec<_>>(),
        [&*keys[1]]
    );
    // A row stays as it is, whoever takes the lock.
    let (table, name) = (table(site), site.name("short"));
    let written = format!("SELECT key_text FROM {table} WHERE name = '{name}'");
    let written = || site.admin().rows(&written).expect("the table");
    assert_eq!(written(), [[Some("short".to_owned())]]);
    let other = format!("UPDATE {table} SET key_text = 'other' WHERE name = '{name}'");
    site.admin().rows(&other).expect("an administrator may");
    worker.kill();
    let guard = site.lock(&one, "short").timeout(SOON).acquire_blocking();
    let guard = guard.expect("its holder has died");
    let behind = site.lock(&one, "behind").acquire_blocking().unwrap();
    let reader = site.locker_of(with_table(site));
    until("what came behind it is written", || {
        listed(site, &reader, "behind").key.as_deref() == Some("behind")
    });
    assert_eq!(written(), [[Some("other".to_owned())]]);
    assert_eq!(listed(site, &reader, "short").key.as_deref(), Some("other"));
    assert_eq!(
        listed(site, &one, "short").key.as_deref(),
        Some("short"),
        "it knows better what it holds"
    );
    guard.release_blocking().expect("held to the end");
    behind.release_blocking().expect("held to the end");
}

/// The sessions that stand behind whoever has locked the table.
fn behind_the_table(site: &Site) -> Vec<i64> {
    let rows = match site.family() {
        Family::Postgres => {
            let sql = "SELECT pid FROM pg_locks WHERE relation = 'public.key_texts'::regclass AND NOT granted";
            site.admin().rows(sql)
        }
        Family::MySql => site.admin().rows("SHOW FULL PROCESSLIST"),
    };
    let waits = |row: &Vec<Option<String>>| match site.family() {
        Family::Postgres => true,
        Family::MySql => {
            let state = row.get(6).cloned().flatten().unwrap_or_default();
            state.starts_with("Waiting for table")
        }
    };
    let number = |row: Vec<Option<String>>| row[0].as_deref().and_then(|id| id.parse().ok());
    let rows = rows.expect("the server's own view").into_iter();
    rows.filter(waits).filter_map(number).collect()
}

pub(crate) fn a_locked_table_of_keys_delays_nobody(site: &Site) {
    prepare(site);
    let config = || {
        let config = with_table(site).max_waiters(1);
        site.limited(config, Duration::from_secs(3))
    };
    let (one, other) = (site.locker_of(config()), site.locker_of(config()));
    let statements = match site.family() {
        Family::Postgres => vec![
            "BEGIN".to_owned(),
            format!("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE", table(site)),
        ],
        Family::MySql => vec![format!("LOCK TABLES {} WRITE", table(site))],
    };
    let locking = site.second_admin();
    for sql in statements {
        locking.rows(&sql).expect("the table is locked");
    }
    let kept = site.lock(&one, "kept").acquire_blocking().unwrap();
    let guard = site.lock(&one, "k").acquire_blocking().unwrap();
    let holders = site.admin().holders(&site.name("k"));
    assert_eq!(holders.len(), 1);
    let mut seen = Vec::new();
    until("a session stands behind the table", || {
        seen = behind_the_table(site);
        !seen.is_empty()
    });
    assert!(
        !seen.contains(&holders[0]),
        "the session that holds the locks stands behind the table"
    );
    // Nor does a list wait for it, or somebody who starts.
    let lock = listed(site, &other, "k");
    assert_eq!((lock.key, lock.holders.len()), (None, 1));
    let third = site.locker_of(config());
    // Over more than the limit: heartbeats, tries and releases go on, also a wait on the only waiter.
    let start = std::time::Instant::now();
    while start.elapsed() < Duration::from_secs(4) {
        let busy = site.lock(&third, "k").try_acquire_blocking();
        assert!(busy.expect("an answer").is_none());
        let guard = site.lock(&one, "beside").acquire_blocking().unwrap();
        guard.release_blocking().expect("held to the end");
    }
    guard.check().expect("held all the time");
    let waiting = site.lock(&other, "k");
    run(async {
        let waiting = tokio::spawn(async move { waiting.acquire().await?.release().await });
        until("one waits", || {
            !site.waiters().is_empty() || waiting.is_finished()
        });
        guard.release().await.expect("held to the end");
        waiting.await.expect("no panic").expect("its turn");
    });
    let guard = site.lock(&one, "k").acquire_blocking().unwrap();
    assert_eq!(listed(site, &other, "k").mode, Mode::Exclusive);
    let unlock = match site.family() {
        Family::Postgres => "ROLLBACK",
        Family::MySql => "UNLOCK TABLES",
    };
    locking.rows(unlock).expect("the table is free");
    until("what was not written then is written after all", || {
        listed(site, &other, "kept").key.as_deref() == Some("kept")
    });
    kept.release_blocking().expect("held to the end");
    guard.release_blocking().expect("held to the end");
}
