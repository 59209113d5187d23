//! Against real servers, named by `DLOCK_TEST_MYSQL_URL` and `DLOCK_TEST_MARIADB_URL`: every test runs on both.

use std::future::Future;
use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts, OptsBuilder, Pool, PoolConstraints, PoolOpts, TxOpts};

use super::Lock;
use crate::own::SLICE;
use crate::{Config, Error, KeyScheme, Locker};

const SERVERS: [&str; 2] = ["DLOCK_TEST_MYSQL_URL", "DLOCK_TEST_MARIADB_URL"];

fn on_both<F: Future<Output = ()>>(test: impl Fn(&'static str) -> F) {
    for server in SERVERS {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime
            .expect("a runtime for the test")
            .block_on(test(server));
    }
}

fn url(server: &str) -> String {
    std::env::var(server).unwrap_or_else(|_| panic!("{server} must name a server for the tests"))
}

fn opts(server: &str) -> OptsBuilder {
    let url = url(server).replace("mariadb://", "mysql://");
    OptsBuilder::from_opts(Opts::from_url(&url).expect("a URL")).prefer_socket(false)
}

async fn conn(server: &str) -> Conn {
    Conn::new(opts(server)).await.expect("a connection")
}

async fn locker(server: &str) -> Locker {
    Locker::connect(Config::from_dsn(&url(server)).expect("a DSN"))
        .await
        .expect("a locker")
}

fn fresh() -> String {
    format!("own/{:x}", fastrand::u128(..))
}

async fn number(conn: &mut Conn, sql: &str) -> Option<i64> {
    conn.query_first::<Option<i64>, _>(sql)
        .await
        .expect(sql)
        .flatten()
}

async fn until_waiting(observer: &mut Conn, id: u32) {
    until_waits(observer, id, true).await;
}

/// Completes when the session waits for a lock, or does not.
async fn until_waits(observer: &mut Conn, id: u32, expected: bool) {
    loop {
        let rows: Vec<mysql_async::Row> = observer
            .query("SHOW PROCESSLIST")
            .await
            .expect("the processes");
        let waits = rows.iter().any(|row| {
            let (number, state) = (
                row.get::<u64, _>(0),
                row.get::<Option<String>, _>(6).flatten(),
            );
            number == Some(id.into()) && state.as_deref() == Some("User lock")
        });
        if waits == expected {
            return;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Completes when the lock of a raw name is free; the test hangs otherwise.
async fn until_free(observer: &mut Conn, name: &str) {
    while number(observer, &format!("SELECT IS_FREE_LOCK('{name}')")).await != Some(1) {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[test]
fn it_is_the_same_lock_as_a_lockers() {
    on_both(|server| async move {
        let (mut conn, locker, key) = (conn(server).await, locker(server).await, fresh());
        let held = Lock::new(&*key).acquire(&mut conn).await.unwrap();
        let busy = locker
            .lock(&*key)
            .timeout(Duration::from_millis(50))
            .acquire()
            .await;
        assert!(busy.is_err_and(|error| error.is_busy()));
        held.release().await.unwrap();
        let guard = locker.lock(&*key).acquire().await.unwrap();
        assert!(
            Lock::of(&locker, &*key)
                .try_acquire(&mut conn)
                .await
                .unwrap()
                .is_none()
        );
        let lock = Lock::new(&*key).timeout(Duration::from_millis(30));
        let error = lock.acquire(&mut conn).await.map(drop).unwrap_err();
        let Error::Busy(busy) = &error else {
            panic!("busy, not {error}")
        };
        assert!(
            busy.holder
                .as_ref()
                .is_some_and(|holder| holder.session.is_some())
        );
        assert!(busy.waited >= Duration::from_millis(30));
        guard.release().await.unwrap();
        Lock::new(&*key)
            .acquire(&mut conn)
            .await
            .unwrap()
            .release()
            .await
            .unwrap();
        // By other schemes too: as the server compares the name.
        let raw = Lock::new(key.to_uppercase()).key_scheme(KeyScheme::Raw);
        let held = raw.acquire(&mut conn).await.unwrap();
        let folded = locker
            .lock(key.as_str())
            .key_scheme(KeyScheme::PyMysqlLock)
            .try_acquire()
            .await;
        assert_eq!(folded.unwrap().is_none(), server == SERVERS[0]);
        held.release().await.unwrap();
    });
}

#[test]
fn a_wait_ends_with_the_other_holders_release() {
    on_both(|server| async move {
        let (mut one, mut other, mut observer) =
            (conn(server).await, conn(server).await, conn(server).await);
        let (id, key) = (other.id(), fresh());
        let lock = Lock::new(&*key);
        let held = lock.acquire(&mut one).await.unwrap();
        tokio::join!(
            async {
                lock.acquire(&mut other)
                    .await
                    .unwrap()
                    .release()
                    .await
                    .unwrap();
            },
            async {
                until_waiting(&mut observer, id).await;
                held.release().await.unwrap();
            }
        );
    });
}

#[derive(Debug)]
enum AppError {
    Lock(Error),
    Database(mysql_async::Error),
}

impl From<Error> for AppError {
    fn from(error: Error) -> AppError {
        AppError::Lock(error)
    }
}

impl From<mysql_async::Error> for AppError {
    fn from(error: mysql_async::Error) -> AppError {
        AppError::Database(error)
    }
}

#[test]
fn a_failed_statement_loses_neither_the_lock_nor_its_own_error() {
    on_both(|server| async move {
        let (mut one, mut other, key) = (conn(server).await, conn(server).await, fresh());
        let lock = Lock::new(&*key);
        let failed = lock
            .run(&mut one, async |conn: &mut Conn| {
                let mut transaction = conn.start_transaction(TxOpts::default()).await?;
                let failure = transaction.query_drop("SELECT no_such_column").await;
                assert!(lock.try_acquire(&mut other).await?.is_none(), "still held");
                Ok::<_, AppError>(failure?)
            })
            .await;
        let Err(AppError::Database(error)) = failed else {
            panic!("the body's own error, not {failed:?}")
        };
        assert!(error.to_string().contains("no_such_column"), "{error}");
        lock.try_acquire(&mut other)
            .await
            .unwrap()
            .expect("free")
            .release()
            .await
            .unwrap();
        assert_eq!(number(&mut one, "SELECT 7").await, Some(7));
        let lost: Result<(), AppError> = lock
            .run(&mut one, async |conn: &mut Conn| {
                Ok(conn.query_drop("DO RELEASE_ALL_LOCKS()").await?)
            })
            .await;
        assert!(
            matches!(lost, Err(AppError::Lock(Error::Lost(_)))),
            "{lost:?}"
        );
    });
}

#[test]
fn a_guard_that_is_dropped_closes_the_connection_and_frees_the_lock() {
    on_both(|server| async move {
        let mut observer = conn(server).await;
        for body in [
            "idle",
            "rows left",
            "statement under way",
            "transaction dropped",
        ] {
            let (mut conn, name) = (conn(server).await, fresh());
            let mut guard = Lock::new(&*name)
                .key_scheme(KeyScheme::Raw)
                .acquire(&mut conn)
                .await
                .unwrap();
            match body {
                "rows left" => drop(guard.query_iter("SELECT 1 UNION SELECT 2").await.unwrap()),
                "statement under way" => tokio::select! {
                    _ = guard.query_drop("SELECT SLEEP(2)") => panic!("it sleeps"),
                    () = tokio::time::sleep(Duration::from_millis(20)) => {}
                },
                "transaction dropped" => {
                    drop(guard.start_transaction(TxOpts::default()).await.unwrap());
                }
                _ => {}
            }
            drop(guard);
            assert!(conn.is_disconnected(), "{body}");
            let after = conn.query_drop("SELECT 1").await;
            assert!(after.is_err(), "{body}: {after:?}");
            until_free(&mut observer, &name).await;
        }
    });
}

/// Also where the pool does not reset what comes back.
#[test]
fn a_pool_never_hands_out_a_connection_with_a_forgotten_lock() {
    on_both(|server| async move {
        // One connection at a time: the next is the same, unless that was thrown away.
        let one = PoolConstraints::new(1, 1).expect("one");
        let pool_opts = PoolOpts::default()
            .with_reset_connection(false)
            .with_constraints(one);
        let pool = Pool::new(opts(server).pool_opts(pool_opts));
        let mut observer = conn(server).await;
        let name = fresh();
        let lock = Lock::new(&*name).key_scheme(KeyScheme::Raw);
        let mut pooled = pool.get_conn().await.unwrap();
        let id = pooled.id();
        drop(lock.acquire(&mut pooled).await.unwrap());
        drop(pooled);
        until_free(&mut observer, &name).await;
        let mut pooled = pool.get_conn().await.unwrap();
        assert_ne!(pooled.id(), id);
        // Released, it goes back as it was.
        let id = pooled.id();
        lock.acquire(&mut pooled)
            .await
            .unwrap()
            .release()
            .await
            .unwrap();
        drop(pooled);
        assert_eq!(pool.get_conn().await.unwrap().id(), id);
        pool.disconnect().await.unwrap();
    });
}

#[test]
fn a_wait_that_is_dropped_closes_the_connection_and_leaves_no_waiter() {
    on_both(|server| async move {
        let (mut one, mut other, mut observer) =
            (conn(server).await, conn(server).await, conn(server).await);
        let (id, name) = (other.id(), fresh());
        let lock = Lock::new(&*name).key_scheme(KeyScheme::Raw);
        let held = lock.acquire(&mut one).await.unwrap();
        tokio::select! {
            _ = lock.acquire(&mut other) => panic!("it is held"),
            () = until_waiting(&mut observer, id) => {}
        }
        assert!(other.is_disconnected());
        // Long before the wait would have ended by itself.
        tokio::time::timeout(SLICE / 2, until_waits(&mut observer, id, false))
            .await
            .expect("no waiter is left");
        drop(other);
        held.release().await.unwrap();
        until_free(&mut observer, &name).await;
        lock.acquire(&mut one)
            .await
            .unwrap()
            .release()
            .await
            .unwrap();
    });
}

#[test]
fn a_lock_on_a_transaction_is_released_before_its_end() {
    on_both(|server| async move {
        let (mut one, mut other, key) = (conn(server).await, conn(server).await, fresh());
        let lock = Lock::new(&*key);
        let mut transaction = one.start_transaction(TxOpts::default()).await.unwrap();
        let held = lock.acquire(&mut transaction).await.unwrap();
        assert!(lock.try_acquire(&mut other).await.unwrap().is_none());
        held.release().await.unwrap();
        transaction.commit().await.unwrap();
        lock.try_acquire(&mut other)
            .await
            .unwrap()
            .expect("free")
            .release()
            .await
            .unwrap();
    });
}

#[test]
fn the_same_key_twice_on_one_connection_has_to_be_asked_for() {
    on_both(|server| async move {
        let (mut one, mut other, key) = (conn(server).await, conn(server).await, fresh());
        let lock = Lock::new(&*key);
        let mut held = lock.acquire(&mut one).await.unwrap();
        let error = lock.acquire(&mut *held).await.map(drop).unwrap_err();
        assert!(matches!(error, Error::AlreadyHeld(_)), "{error}");
        let error = lock.try_acquire(&mut *held).await.map(drop).unwrap_err();
        assert!(matches!(error, Error::AlreadyHeld(_)), "{error}");
        let again = lock.clone().reentrant().acquire(&mut *held).await.unwrap();
        again.release().await.unwrap();
        assert!(
            lock.try_acquire(&mut other).await.unwrap().is_none(),
            "once more to go"
        );
        held.release().await.unwrap();
        lock.acquire(&mut other)
            .await
            .unwrap()
            .release()
            .await
            .unwrap();
    });
}

#[test]
fn a_wait_inside_the_body_that_holds_it_is_refused() {
    on_both(|server| async move {
        let (mut conn, locker, key) = (conn(server).await, locker(server).await, fresh());
        let outer = locker.lock(&*key);
        let inside = outer.run(async { Lock::new(&*key).acquire(&mut conn).await.map(drop) });
        let waits = inside.await.unwrap();
        assert!(matches!(waits, Err(Error::WouldDeadlock(_))), "{waits:?}");
        Lock::new(&*key)
            .acquire(&mut conn)
            .await
            .unwrap()
            .release()
            .await
            .unwrap();
    });
}

#[test]
fn a_lock_of_that_name_on_another_server_is_no_deadlock() {
    on_both(|server| async move {
        let other = SERVERS.into_iter().find(|other| *other != server);
        let elsewhere = url(other.expect("another"));
        let elsewhere = Config::from_dsn(&elsewhere)
            .expect("a DSN")
            .namespace("own");
        let elsewhere = Locker::connect(elsewhere).await.expect("a locker");
        let (mut conn, key) = (conn(server).await, fresh());
        let lock = Lock::new(&*key).namespace("own");
        let outer = elsewhere.lock(&*key);
        let inside = outer.run(async { lock.acquire(&mut conn).await?.release().await });
        inside.await.unwrap().expect("another lock");
    });
}

/// Limits of the caller's own statements, and KILL QUERY, which MariaDB does not tell apart.
#[test]
fn s4_null_and_time_limits_end_no_wait() {
    on_both(|server| async move {
        let (mut one, mut other, mut observer) =
            (conn(server).await, conn(server).await, conn(server).await);
        let (id, key) = (other.id(), fresh());
        let lock = Lock::new(&*key);
        let held = lock.acquire(&mut one).await.unwrap();
        let limit = if server == SERVERS[0] {
            "SET SESSION max_execution_time = 30"
        } else {
            "SET SESSION max_statement_time = 0.03"
        };
        other.query_drop(limit).await.unwrap();
        let timed = Lock::new(&*key).timeout(Duration::from_millis(1200));
        let error = timed.acquire(&mut other).await.map(drop).unwrap_err();
        let Error::Busy(busy) = &error else {
            panic!("busy, not {error}")
        };
        assert!(busy.waited >= Duration::from_millis(1200));
        other
            .query_drop("SET SESSION max_execution_time = 0")
            .await
            .ok();
        other
            .query_drop("SET SESSION max_statement_time = 0")
            .await
            .ok();
        let (waited, ()) = tokio::join!(
            async {
                lock.acquire(&mut other)
                    .await
                    .map(|guard| guard.key().len())
            },
            async {
                until_waiting(&mut observer, id).await;
                observer
                    .query_drop(format!("KILL QUERY {id}"))
                    .await
                    .unwrap();
                if server == SERVERS[1] {
                    until_waiting(&mut observer, id).await;
                }
                held.release().await.unwrap();
            }
        );
        match waited {
            Err(Error::Refused(refused)) => {
                assert_eq!((server, &*refused.code), (SERVERS[0], "1317"));
            }
            // The guard was dropped above.
            Ok(_) => assert!(other.is_disconnected()),
            Err(error) => panic!("{error}"),
        }
    });
}

#[test]
fn s4_a_time_out_that_meets_the_grant_leaves_no_lock_behind() {
    on_both(|server| async move {
        let (mut one, mut other, mut observer) =
            (conn(server).await, conn(server).await, conn(server).await);
        let name = fresh();
        let lock = Lock::new(&*name).key_scheme(KeyScheme::Raw);
        let timed = lock.clone().timeout(Duration::from_millis(12));
        let (mut granted, mut busy) = (0, 0);
        for round in 0..100u64 {
            let held = lock.acquire(&mut one).await.unwrap();
            let (won, ()) = tokio::join!(
                async {
                    match timed.acquire(&mut other).await {
                        Ok(guard) => {
                            guard.release().await.unwrap();
                            true
                        }
                        Err(Error::Busy(_)) => false,
                        Err(error) => panic!("{error}"),
                    }
                },
                async {
                    tokio::time::sleep(Duration::from_micros(9_000 + round % 30 * 300)).await;
                    held.release().await.unwrap();
                }
            );
            if won {
                granted += 1;
            } else {
                busy += 1;
            }
            assert_eq!(
                number(&mut observer, &format!("SELECT IS_FREE_LOCK('{name}')")).await,
                Some(1)
            );
        }
        assert!(
            granted > 0 && busy > 0,
            "no coincidence: {granted} granted, {busy} busy"
        );
    });
}
