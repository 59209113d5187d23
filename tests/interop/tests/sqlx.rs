//! sqlx's advisory locks.

use std::hash::{BuildHasher, RandomState};

use dlock::{Config, Key, KeyScheme, Locker};
use sqlx::Connection;
use sqlx::postgres::{PgAdvisoryLock, PgAdvisoryLockKey, PgConnection};

#[tokio::test]
async fn sqlx_and_dlock_exclude_each_other() {
    let url = std::env::var("DLOCK_TEST_POSTGRES_URL").expect("the server's URL");
    let number = RandomState::new().hash_one(0).cast_signed();
    let (high, low) = ((number >> 32) as i32, number as i32);
    let locker = Locker::connect(
        Config::from_dsn(&url)
            .expect("a DSN")
            .key_scheme(KeyScheme::Sqlx),
    )
    .await
    .expect("a locker");
    let text = format!("interop/{number:x}");
    let locks: [(PgAdvisoryLock, Key); 3] = [
        (PgAdvisoryLock::new(&*text), text.into()),
        (
            PgAdvisoryLock::with_key(PgAdvisoryLockKey::BigInt(number)),
            number.into(),
        ),
        (
            PgAdvisoryLock::with_key(PgAdvisoryLockKey::IntPair(high, low)),
            (high, low).into(),
        ),
    ];
    for (theirs, key) in locks {
        let ours = locker.lock(key.clone());
        let mut connection = PgConnection::connect(&url).await.expect("a connection");
        let held = theirs.acquire(&mut connection).await.expect("a lock");
        assert!(
            ours.try_acquire().await.expect("a try").is_none(),
            "{key:?}: held by sqlx"
        );
        held.release_now().await.expect("a release");
        let guard = ours.try_acquire().await.expect("a try").expect("free");
        let tried = theirs.try_acquire(&mut connection).await.expect("a try");
        assert!(tried.is_right(), "{key:?}: held by dlock");
        drop(tried);
        guard.release().await.expect("held to the end");
        let tried = theirs.try_acquire(&mut connection).await.expect("a try");
        assert!(tried.is_left(), "{key:?}: free again");
    }
}
