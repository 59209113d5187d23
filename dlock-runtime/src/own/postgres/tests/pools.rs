//! Locks on the objects of pools, which hand a connection out again as soon as its object is dropped.

use std::time::Duration;

use tokio_postgres::{Client, NoTls};

use super::super::Lock;
use super::{client, fresh, locks, pid, run, until_no_locks, until_waiting, url};
use crate::Error;

/// One connection at a time: the next is the same, unless that was thrown away.
fn deadpool() -> deadpool_postgres::Pool {
    let config = url().parse().expect("a DSN");
    let manager = deadpool_postgres::Manager::new(config, NoTls);
    let pool = deadpool_postgres::Pool::builder(manager).max_size(1);
    pool.build().expect("a pool")
}

/// The same. It does not ask the server when it hands a connection out, only the driver when one comes back.
async fn bb8() -> bb8::Pool<bb8_postgres::PostgresConnectionManager<NoTls>> {
    let manager = bb8_postgres::PostgresConnectionManager::new_from_stringlike(url(), NoTls);
    let pool = bb8::Pool::builder().max_size(1).test_on_check_out(false);
    pool.build(manager.expect("a DSN")).await.expect("a pool")
}

/// Another session gets the lock.
async fn is_free(lock: &Lock) {
    let mut other = client().await;
    let guard = lock.try_acquire(&mut other).await.unwrap();
    guard.expect("free").release().await.unwrap();
}

async fn is_busy(lock: &Lock) {
    let mut other = client().await;
    assert!(lock.try_acquire(&mut other).await.unwrap().is_none());
}

/// The behaviours for a pool, written as a program writes them: the objects of the pools have no type in common.
macro_rules! behaviours {
    ($name:ident, $pool:expr) => {
        mod $name {
            use super::*;

            #[test]
            fn a_lock_on_a_pools_connection_is_released_and_the_connection_stays() {
                run(async {
                    let (pool, lock) = ($pool, Lock::new(fresh()));
                    let mut pooled = pool.get().await.unwrap();
                    let number = pid(&pooled).await;
                    let held = lock.acquire(&mut pooled).await.unwrap();
                    is_busy(&lock).await;
                    assert_eq!(pid(&held).await, number);
                    held.release().await.unwrap();
                    is_free(&lock).await;
                    let failed = lock.run(&mut pooled, async |client: &mut Client| {
                        is_busy(&lock).await;
                        client.batch_execute("SELECT 1 / 0").await.ok();
                        Err::<(), _>(AnyError)
                    });
                    assert_eq!(failed.await, Err(AnyError));
                    drop(pooled);
                    let pooled = pool.get().await.unwrap();
                    assert_eq!(pid(&pooled).await, number);
                    assert_eq!(locks(&pooled, number).await, 0);
                    is_free(&lock).await;
                });
            }

            #[test]
            fn a_pool_never_hands_out_a_connection_with_a_forgotten_lock() {
                run(async {
                    let (pool, lock, observer) = ($pool, Lock::new(fresh()), client().await);
                    for statement in ["SELECT 1", "BEGIN", "BEGIN; SELECT 1 / 0"] {
                        let mut pooled = pool.get().await.unwrap();
                        let number = pid(&pooled).await;
                        let forgotten = lock.acquire(&mut pooled).await.unwrap();
                        forgotten.batch_execute(statement).await.ok();
                        drop(forgotten);
                        drop(pooled);
                        let pooled = pool.get().await.unwrap();
                        let next = pid(&pooled).await;
                        assert_ne!(next, number, "after {statement}");
                        assert_eq!(locks(&pooled, next).await, 0);
                        until_no_locks(&observer, number).await;
                        is_free(&lock).await;
                    }
                });
            }

            #[test]
            fn a_pool_never_hands_out_a_connection_whose_wait_was_dropped() {
                run(async {
                    let (pool, lock, observer) = ($pool, Lock::new(fresh()), client().await);
                    let mut holder = client().await;
                    let held = lock.acquire(&mut holder).await.unwrap();
                    let mut pooled = pool.get().await.unwrap();
                    let number = pid(&pooled).await;
                    tokio::select! {
                        _ = lock.acquire(&mut pooled) => panic!("it is held"),
                        () = until_waiting(&observer, number) => {}
                    }
                    drop(pooled);
                    let pooled = pool.get().await.unwrap();
                    assert_ne!(pid(&pooled).await, number);
                    held.release().await.unwrap();
                    until_no_locks(&observer, number).await;
                    is_free(&lock).await;
                });
            }

            #[test]
            fn a_time_out_costs_a_pool_no_connection() {
                run(async {
                    let (pool, key) = ($pool, fresh());
                    let mut holder = client().await;
                    let held = Lock::new(&*key).acquire(&mut holder).await.unwrap();
                    let mut pooled = pool.get().await.unwrap();
                    let number = pid(&pooled).await;
                    let lock = Lock::new(&*key).timeout(Duration::from_millis(20));
                    let waited = lock.acquire(&mut pooled).await.map(drop);
                    assert!(matches!(waited, Err(Error::Busy(_))), "{waited:?}");
                    drop(pooled);
                    held.release().await.unwrap();
                    let mut pooled = pool.get().await.unwrap();
                    assert_eq!(pid(&pooled).await, number);
                    let held = lock.acquire(&mut pooled).await.unwrap();
                    held.release().await.unwrap();
                });
            }

            #[test]
            fn a_lock_of_a_pooled_transaction_ends_with_it() {
                run(async {
                    let (pool, lock) = ($pool, Lock::new(fresh()));
                    let mut pooled = pool.get().await.unwrap();
                    let number = pid(&pooled).await;
                    let transaction = pooled.transaction().await.unwrap();
                    lock.acquire_in(&transaction).await.unwrap();
                    is_busy(&lock).await;
                    transaction.commit().await.unwrap();
                    is_free(&lock).await;
                    let transaction = pooled.transaction().await.unwrap();
                    lock.acquire_in(&transaction).await.unwrap();
                    // Forgotten: the driver sends its rollback before whatever the next user sends.
                    drop(transaction);
                    drop(pooled);
                    let pooled = pool.get().await.unwrap();
                    assert_eq!(locks(&pooled, number).await, 0);
                    assert_eq!(pid(&pooled).await, number);
                    is_free(&lock).await;
                });
            }
        }
    };
}

behaviours!(of_deadpool, deadpool());
behaviours!(of_bb8, bb8().await);

/// What a body fails with.
#[derive(Debug, PartialEq)]
struct AnyError;

impl From<Error> for AnyError {
    fn from(_: Error) -> AnyError {
        AnyError
    }
}
