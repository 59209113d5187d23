//! Against a real server, named by `DLOCK_TEST_POSTGRES_URL`.

mod pools;

use std::future::Future;
use std::time::Duration;

use futures_util::FutureExt;
use tokio_postgres::{Client, NoTls};

use super::{Guard, Lock};
use crate::own::SLICE;
use crate::{Config, Error, Key, KeyScheme, Locker};

fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime for the test").block_on(test)
}

fn url() -> String {
    std::env::var("DLOCK_TEST_POSTGRES_URL")
        .expect("DLOCK_TEST_POSTGRES_URL must name a PostgreSQL server for the tests")
}

/// Another database of the same server.
fn url_of_another_database() -> String {
    let url = url();
    let (server, _) = url.rsplit_once('/').expect("a database");
    format!("{server}/postgres")
}

async fn client() -> Client {
    let (client, connection) = tokio_postgres::connect(&url(), NoTls)
        .await
        .expect("a connection");
    tokio::spawn(connection);
    client
}

async fn locker() -> Locker {
    Locker::connect(Config::from_dsn(&url()).expect("a DSN"))
        .await
        .expect("a locker")
}

/// A key that no other test uses.
fn fresh() -> String {
    format!("own/{:x}", fastrand::u128(..))
}

async fn text(client: &Client, sql: &str) -> String {
    client.query_one(sql, &[]).await.expect(sql).get(0)
}

/// How many locks the connection's session holds, and waits for.
async fn locks(observer: &Client, pid: i32) -> i64 {
    let sql = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = $1";
    observer.query_one(sql, &[&pid]).await.expect(sql).get(0)
}

async fn pid(client: &Client) -> i32 {
    client
        .query_one("SELECT pg_backend_pid()", &[])
        .await
        .expect("a number")
        .get(0)
}

async fn until_waiting(observer: &Client, pid: i32) {
    let sql = "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND pid = $1)";
    while !observer
        .query_one(sql, &[&pid])
        .await
        .expect(sql)
        .get::<_, bool>(0)
    {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn until_no_locks(observer: &Client, pid: i32) {
    while locks(observer, pid).await > 0 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[test]
fn it_is_the_same_lock_as_a_lockers() {
    run(async {
        let (mut client, locker, key) = (client().await, locker().await, fresh());
        let held = Lock::new(&*key).acquire(&mut client).await.unwrap();
        let Err(Error::Busy(busy)) = locker
            .lock(&*key)
            .timeout(Duration::from_millis(50))
            .acquire()
            .await
        else {
            panic!("busy")
        };
        assert!(
            busy.holder
                .as_ref()
                .is_some_and(|holder| !holder.this_process)
        );
        held.release().await.unwrap();
        let guard = locker.lock(&*key).acquire().await.unwrap();
        assert!(
            Lock::of(&locker, &*key)
                .try_acquire(&mut client)
                .await
                .unwrap()
                .is_none()
        );
        let lock = Lock::new(&*key).timeout(Duration::from_millis(30));
        let wait = lock
            .acquire(&mut client)
            .await
            .map(|guard| guard.key().to_owned());
        let busy = match wait {
            Err(Error::Busy(busy)) => busy,
            other => panic!("busy, not {other:?}"),
        };
        assert!(
            busy.holder
                .as_ref()
                .is_some_and(|holder| holder.program.is_some()),
            "{busy:?}"
        );
        guard.release().await.unwrap();
        Lock::new(&*key)
            .acquire(&mut client)
            .await
            .unwrap()
            .release()
            .await
            .unwrap();
        // By other schemes too.
        let scheme = KeyScheme::Raw;
        let pair = (fastrand::i32(..), fastrand::i32(..));
        let held = Lock::new(pair)
            .key_scheme(scheme.clone())
            .acquire(&mut client)
            .await
            .unwrap();
        assert!(
            locker
                .lock(pair)
                .key_scheme(scheme)
                .try_acquire()
                .await
                .unwrap()
                .is_none()
        );
        held.release().await.unwrap();
    });
}

#[test]
fn a_wait_ends_with_the_other_holders_release() {
    run(async {
        let (mut one, mut other, observer, key) =
            (client().await, client().await, client().await, fresh());
        let number = pid(&other).await;
        let held = Lock::new(&*key).acquire(&mut one).await.unwrap();
        let lock = Lock::new(&*key);
        let waiting = async {
            lock.acquire(&mut other)
                .await
                .unwrap()
                .release()
                .await
                .unwrap();
        };
        let releasing = async {
            until_waiting(&observer, number).await;
            held.release().await.unwrap();
        };
        tokio::join!(waiting, releasing);
        assert_eq!(locks(&observer, number).await, 0);
    });
}

#[test]
fn readers_hold_together() {
    run(async {
        let (mut one, mut other, key) = (client().await, client().await, fresh());
        let lock = Lock::new(&*key).shared();
        let (a, b) = (
            lock.acquire(&mut one).await.unwrap(),
            lock.acquire(&mut other).await.unwrap(),
        );
        a.release().await.unwrap();
        assert!(
            Lock::new(&*key)
                .try_acquire(&mut one)
                .await
                .unwrap()
                .is_none()
        );
        b.release().await.unwrap();
        Lock::new(&*key)
            .try_acquire(&mut one)
            .await
            .unwrap()
            .expect("free")
            .release()
            .await
            .unwrap();
    });
}

#[derive(Debug)]
enum AppError {
    Lock(Error),
    Database(tokio_postgres::Error),
}

impl From<Error> for AppError {
    fn from(error: Error) -> AppError {
        AppError::Lock(error)
    }
}

impl From<tokio_postgres::Error> for AppError {
    fn from(error: tokio_postgres::Error) -> AppError {
        AppError::Database(error)
    }
}

#[test]
fn a_failed_statement_loses_neither_the_lock_nor_its_own_error() {
    run(async {
        let (mut client, mut other, key) = (client().await, client().await, fresh());
        let (lock, theirs) = (Lock::new(&*key), Lock::new(&*key));
        for begin in ["SELECT 1", "BEGIN"] {
            let failed = lock
                .run(&mut client, async |client: &mut Client| {
                    client.batch_execute(begin).await?;
                    let failure = client.batch_execute("SELECT 1 / 0").await;
                    assert!(
                        theirs.try_acquire(&mut other).await?.is_none(),
                        "still held"
                    );
                    Ok::<_, AppError>(failure?)
                })
                .await;
            let Err(AppError::Database(error)) = failed else {
                panic!("the body's own error, not {failed:?}")
            };
            assert_eq!(
                error.code().map(tokio_postgres::error::SqlState::code),
                Some("22012")
            );
            // Released, and the connection is as good as before.
            theirs
                .try_acquire(&mut other)
                .await
                .unwrap()
                .expect("free")
                .release()
                .await
                .unwrap();
            assert_eq!(text(&client, "SELECT 'good'").await, "good");
        }
        // In a transaction of the driver's: its end comes before the release.
        let outcome: Result<(), AppError> = lock
            .run(&mut client, async |client: &mut Client| {
                let transaction = client.transaction().await?;
                Ok(transaction.batch_execute("SELECT 1 / 0").await?)
            })
            .await;
        assert!(matches!(outcome, Err(AppError::Database(_))));
        theirs
            .try_acquire(&mut other)
            .await
            .unwrap()
            .expect("free")
            .release()
            .await
            .unwrap();
    });
}

#[test]
fn a_lock_that_was_lost_is_told_after_a_good_body_only() {
    run(async {
        let (mut client, key) = (client().await, fresh());
        let lock = Lock::new(&*key);
        let lost: Result<(), AppError> = lock
            .run(&mut client, async |client: &mut Client| {
                Ok(client
                    .batch_execute("SELECT pg_advisory_unlock_all()")
                    .await?)
            })
            .await;
        assert!(
            matches!(lost, Err(AppError::Lock(Error::Lost(_)))),
            "{lost:?}"
        );
        let own: Result<(), AppError> = lock
            .run(&mut client, async |client: &mut Client| {
                client
                    .batch_execute("SELECT pg_advisory_unlock_all()")
                    .await?;
                Ok(client.batch_execute("SELECT 1 / 0").await?)
            })
            .await;
        assert!(matches!(own, Err(AppError::Database(_))), "{own:?}");
    });
}

#[test]
fn a_guard_that_is_dropped_closes_the_connection_and_frees_the_lock() {
    run(async {
        let (observer, key) = (client().await, fresh());
        for statement in ["SELECT 1", "BEGIN", "BEGIN; SELECT 1 / 0"] {
            let mut client = client().await;
            let number = pid(&client).await;
            let guard = Lock::new(&*key).acquire(&mut client).await.unwrap();
            let _ = guard.batch_execute(statement).await;
            assert_eq!(locks(&observer, number).await, 1);
            drop(guard);
            assert!(client.is_closed());
            assert!(client.batch_execute("SELECT 1").await.is_err());
            until_no_locks(&observer, number).await;
        }
    });
}

#[test]
fn a_wait_that_is_dropped_closes_the_connection_and_leaves_no_waiter() {
    run(async {
        let (mut one, mut other, observer, key) =
            (client().await, client().await, client().await, fresh());
        let number = pid(&other).await;
        let held = Lock::new(&*key).acquire(&mut one).await.unwrap();
        let lock = Lock::new(&*key);
        tokio::select! {
            _ = lock.acquire(&mut other) => panic!("it is held"),
            () = until_waiting(&observer, number) => {}
        }
        assert!(other.is_closed());
        // The server reads nothing while it waits for a lock, and ends the wait at the latest with its slice.
        tokio::time::timeout(2 * SLICE, until_no_locks(&observer, number))
            .await
            .expect("no waiter is left");
        held.release().await.unwrap();
        let mut third = client().await;
        lock.acquire(&mut third)
            .await
            .unwrap()
            .release()
            .await
            .unwrap();
    });
}

#[test]
fn the_callers_settings_and_transaction_are_as_before() {
    run(async {
        let (mut one, mut other, key) = (client().await, client().await, fresh());
        let held = Lock::new(&*key).acquire(&mut one).await.unwrap();
        other
            .batch_execute("SET lock_timeout = '7s'; SET statement_timeout = '30ms'")
            .await
            .unwrap();
        let settings =
            "SELECT current_setting('lock_timeout') || current_setting('statement_timeout')";
        let lock = Lock::new(&*key).timeout(Duration::from_millis(120));
        let busy = |result: Result<Guard<'_>, Error>| match result {
            Err(Error::Busy(busy)) => {
                assert!(busy.waited >= Duration::from_millis(120), "{busy:?}");
            }
            other => panic!("busy, not {other:?}"),
        };
        busy(lock.acquire(&mut other).await);
        assert_eq!(text(&other, settings).await, "7s30ms");
        // In a transaction that was begun by hand, which a time-out would end.
        other
            .batch_execute("BEGIN; CREATE TEMPORARY TABLE own_t (n int)")
            .await
            .unwrap();
        busy(lock.acquire(&mut other).await);
        assert_eq!(text(&other, settings).await, "7s30ms");
        other
            .batch_execute("INSERT INTO own_t VALUES (1); COMMIT")
            .await
            .unwrap();
        assert_eq!(text(&other, "SELECT count(*)::text FROM own_t").await, "1");
        // In one of the driver's.
        let transaction = other.transaction().await.unwrap();
        assert!(matches!(
            lock.acquire_in(&transaction).await,
            Err(Error::Busy(_))
        ));
        let row = transaction.query_one(settings, &[]).await.unwrap();
        assert_eq!(row.get::<_, String>(0), "7s30ms");
        transaction
            .batch_execute("INSERT INTO own_t VALUES (2)")
            .await
            .unwrap();
        transaction.commit().await.unwrap();
        assert_eq!(text(&other, "SELECT count(*)::text FROM own_t").await, "2");
        // And after a wait that ended well.
        let number = pid(&other).await;
        let observer = client().await;
        let transaction = other.transaction().await.unwrap();
        let lock = Lock::new(&*key);
        let ((), ()) = tokio::join!(
            async { lock.acquire_in(&transaction).await.unwrap() },
            async {
                until_waiting(&observer, number).await;
                held.release().await.unwrap();
            }
        );
        let row = transaction.query_one(settings, &[]).await.unwrap();
        assert_eq!(row.get::<_, String>(0), "7s30ms");
        transaction.commit().await.unwrap();
    });
}

#[test]
fn a_transactions_lock_ends_with_the_transaction() {
    run(async {
        let (mut one, mut other, key) = (client().await, client().await, fresh());
        let lock = Lock::new(&*key);
        for end in ["commit", "rollback", "drop", "fail"] {
            let transaction = one.transaction().await.unwrap();
            lock.acquire_in(&transaction).await.unwrap();
            assert!(lock.try_acquire(&mut other).await.unwrap().is_none());
            match end {
                "commit" => transaction.commit().await.unwrap(),
                "rollback" => transaction.rollback().await.unwrap(),
                "drop" => drop(transaction),
                _ => {
                    assert!(transaction.batch_execute("SELECT 1 / 0").await.is_err());
                    drop(transaction);
                }
            }
            assert_eq!(text(&one, "SELECT 'good'").await, "good");
            lock.try_acquire(&mut other)
                .await
                .unwrap()
                .expect(end)
                .release()
                .await
                .unwrap();
        }
        let held = lock.acquire(&mut other).await.unwrap();
        let transaction = one.transaction().await.unwrap();
        assert!(!lock.try_acquire_in(&transaction).await.unwrap());
        let none = Lock::new(&*key).timeout(0).acquire_in(&transaction).await;
        assert!(matches!(none, Err(Error::Busy(_))));
        drop(transaction);
        held.release().await.unwrap();
    });
}

#[test]
fn readers_hold_together_in_transactions() {
    run(async {
        let (mut one, mut other, mut third, key) =
            (client().await, client().await, client().await, fresh());
        let (shared, writer) = (Lock::new(&*key).shared(), Lock::new(&*key));
        let (a, b) = (
            one.transaction().await.unwrap(),
            other.transaction().await.unwrap(),
        );
        shared.acquire_in(&a).await.unwrap();
        shared.acquire_in(&b).await.unwrap();
        a.commit().await.unwrap();
        assert!(writer.try_acquire(&mut third).await.unwrap().is_none());
        b.commit().await.unwrap();
        let held = writer.try_acquire(&mut third).await.unwrap().expect("free");
        held.release().await.unwrap();
    });
}

/// Taken at once, and after a wait, which sends several statements together.
#[test]
fn a_held_lock_leaves_no_transaction_open() {
    run(async {
        let (mut one, mut other, observer, key) =
            (client().await, client().await, client().await, fresh());
        let (first, second) = (pid(&one).await, pid(&other).await);
        let lock = Lock::new(&*key);
        let held = lock.acquire(&mut one).await.unwrap();
        is_idle(&observer, first).await;
        let waiting = async {
            let held = lock.acquire(&mut other).await.unwrap();
            is_idle(&observer, second).await;
            held.release().await.unwrap();
        };
        let releasing = async {
            until_waiting(&observer, second).await;
            held.release().await.unwrap();
        };
        tokio::join!(waiting, releasing);
    });
}

/// The session runs nothing, and has no transaction. Its state comes a moment after its answer.
async fn is_idle(observer: &Client, pid: i32) {
    let sql = "SELECT state FROM pg_stat_activity WHERE pid = $1";
    loop {
        let row = observer.query_one(sql, &[&pid]).await.expect(sql);
        match row.get::<_, &str>(0) {
            "active" => tokio::time::sleep(Duration::from_millis(2)).await,
            state => return assert_eq!(state, "idle"),
        }
    }
}

#[test]
fn b4_a_prepared_transaction_cannot_be_kicked() {
    run(async {
        let (mut client, locker, key) = (client().await, locker().await, fresh());
        let lock = locker.lock(&*key);
        let transaction = client.transaction().await.unwrap();
        let own = Lock::of(&locker, &*key);
        own.acquire_in(&transaction).await.unwrap();
        let prepare = format!("PREPARE TRANSACTION '{key}'");
        transaction.batch_execute(&prepare).await.unwrap();
        drop(transaction);
        // It outlives its session.
        drop(client);
        let seen = async {
            let info = locker.inspect(&*key).await?;
            let kicks = [locker.kick(&*key).await, locker.kick_session(&*key).await];
            Ok::<_, Error>((lock.locked().await?, info, kicks))
        };
        let seen = seen.await;
        let observer = self::client().await;
        let roll_back = format!("ROLLBACK PREPARED '{key}'");
        observer.batch_execute(&roll_back).await.unwrap();
        let (is_held, info, kicks) = seen.unwrap();
        assert!(is_held);
        let holders = info.expect("it is held").holders;
        assert_eq!(holders.len(), 1);
        assert_eq!(holders[0].who.session, None);
        for kicked in kicks {
            assert!(matches!(kicked, Err(Error::Unsupported(_))), "{kicked:?}");
            let said = kicked.unwrap_err().to_string();
            assert!(said.contains("ROLLBACK PREPARED"), "{said}");
        }
        assert!(!lock.locked().await.unwrap());
    });
}

#[test]
fn the_same_key_twice_on_one_connection_has_to_be_asked_for() {
    run(async {
        let (mut client, mut other, key) = (client().await, client().await, fresh());
        let lock = Lock::new(&*key);
        let mut held = lock.acquire(&mut client).await.unwrap();
        for error in [
            lock.acquire(&mut held).await.unwrap_err(),
            lock.try_acquire(&mut held).await.unwrap_err(),
        ] {
            assert!(matches!(error, Error::AlreadyHeld(_)), "{error}");
            assert_eq!(error.key(), Some(&*key));
        }
        {
            let transaction = held.transaction().await.unwrap();
            assert!(matches!(
                lock.acquire_in(&transaction).await,
                Err(Error::AlreadyHeld(_))
            ));
        }
        let again = lock.clone().reentrant().acquire(&mut held).await.unwrap();
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
    run(async {
        let (mut client, locker, key) = (client().await, locker().await, fresh());
        let outer = locker.lock(&*key);
        let inside = outer.run(async {
            let waits = Lock::new(&*key).acquire(&mut client).await.map(drop);
            let tries = Lock::new(&*key)
                .try_acquire(&mut client)
                .await
                .map(|guard| guard.is_some());
            (waits, tries)
        });
        let (waits, tries) = inside.await.unwrap();
        assert!(matches!(waits, Err(Error::WouldDeadlock(_))), "{waits:?}");
        assert!(!tries.expect("a try waits for nothing"));
        // Nothing of it is left on the connection.
        Lock::new(&*key)
            .acquire(&mut client)
            .await
            .unwrap()
            .release()
            .await
            .unwrap();
    });
}

#[test]
fn a_lock_of_that_name_in_another_database_is_no_deadlock() {
    run(async {
        let (mut client, key) = (client().await, fresh());
        let elsewhere = Config::from_dsn(&url_of_another_database()).expect("a DSN");
        let elsewhere = Locker::connect(elsewhere).await.expect("a locker");
        let lock = Lock::new(&*key);
        let outer = elsewhere.lock(&*key);
        let inside = outer.run(async {
            lock.acquire(&mut client).await?.release().await?;
            let transaction = client.transaction().await.unwrap();
            lock.acquire_in(&transaction).await
        });
        inside.await.unwrap().expect("another lock");
        // Nor where the lock here is busy.
        let mut other = self::client().await;
        let held = lock.acquire(&mut other).await.unwrap();
        let waits = lock.clone().timeout(Duration::from_millis(20));
        let inside = outer.run(async { waits.acquire(&mut client).await.map(drop) });
        let busy = inside.await.unwrap();
        assert!(matches!(busy, Err(Error::Busy(_))), "{busy:?}");
        held.release().await.unwrap();
    });
}

#[test]
fn a_wait_in_a_transaction_inside_the_body_that_holds_it_is_refused() {
    run(async {
        let (mut client, locker, key) = (client().await, locker().await, fresh());
        let outer = locker.lock(&*key);
        let inside = outer.run(async {
            let transaction = client.transaction().await.unwrap();
            Lock::new(&*key).acquire_in(&transaction).await
        });
        let waits = inside.await.unwrap();
        assert!(matches!(waits, Err(Error::WouldDeadlock(_))), "{waits:?}");
    });
}

#[test]
fn keys_that_are_none_are_refused_before_anything_is_sent() {
    run(async {
        let mut client = client().await;
        for (key, scheme) in [
            (Key::from(""), KeyScheme::Native),
            (Key::from("text"), KeyScheme::Raw),
            (Key::from("a"), KeyScheme::PyMysqlLock),
        ] {
            let lock = Lock::new(key).key_scheme(scheme);
            assert!(matches!(
                lock.acquire(&mut client).await,
                Err(Error::InvalidKey(_))
            ));
        }
        assert!(!client.is_closed());
    });
}

/// The server's answer is not what decides: in most coincidences of a time-out and a release the session holds the lock.
#[test]
fn s4_a_time_out_that_meets_the_grant_leaves_no_lock_behind() {
    run(async {
        let (mut one, mut other, observer, key) =
            (client().await, client().await, client().await, fresh());
        let (number, lock) = (pid(&other).await, Lock::new(&*key));
        let (mut granted, mut busy) = (0, 0);
        for round in 0..120u64 {
            let held = lock.acquire(&mut one).await.unwrap();
            let timed = Lock::new(&*key).timeout(Duration::from_millis(12));
            let waiting = async {
                match timed.acquire(&mut other).await {
                    Ok(guard) => {
                        guard.release().await.unwrap();
                        true
                    }
                    Err(Error::Busy(_)) => false,
                    Err(error) => panic!("{error}"),
                }
            };
            let releasing = async {
                tokio::time::sleep(Duration::from_micros(10_000 + round % 30 * 200)).await;
                held.release().await.unwrap();
            };
            let (won, ()) = tokio::join!(waiting, releasing);
            if won {
                granted += 1;
            } else {
                busy += 1;
            }
            assert_eq!(locks(&observer, number).await, 0, "round {round}");
        }
        assert!(
            granted > 0 && busy > 0,
            "no coincidence: {granted} granted, {busy} busy"
        );
    });
}

#[test]
fn a_future_that_was_never_polled_changes_nothing() {
    run(async {
        let (mut client, key) = (client().await, fresh());
        let lock = Lock::new(&*key);
        drop(lock.acquire(&mut client));
        assert!(lock.acquire(&mut client).now_or_never().is_none());
        assert!(client.is_closed(), "what was sent is in doubt");
    });
}

/// The futures can be spawned.
#[test]
fn futures_are_send() {
    fn is_send<T: Send>(_: T) {}
    run(async {
        let mut client = client().await;
        let lock = Lock::new("a");
        is_send(lock.acquire(&mut client));
        is_send(lock.run(&mut client, async |client: &mut Client| {
            client.batch_execute("SELECT 1").await?;
            Ok::<_, AppError>(())
        }));
    });
}
