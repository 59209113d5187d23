//! The attributes of tokio, on either side of ours.

use dlock::db_locked;

use crate::support::{Done, is_held};

/// Every test of this file has a key of its own in the process's locker.
fn memory() -> dlock::Config {
    dlock::Config::from_dsn("memory:").expect("a DSN")
}

fn start() {
    // Whichever test comes first starts it.
    let _ = dlock::init_with(memory());
}

async fn held(key: &str) -> bool {
    tokio::task::yield_now().await;
    is_held(&dlock::locker().expect("started"), key)
}

mod below {
    use super::{Done, db_locked, held, start};

    #[db_locked(key = "tokio/below")]
    #[tokio::main(flavor = "current_thread")]
    async fn main() -> Done<bool> {
        Ok(held("tokio/below").await)
    }

    #[test]
    fn the_body_of_main_is_locked() {
        start();
        assert!(main().unwrap());
    }
}

mod above {
    use super::{Done, db_locked, held, start};

    #[tokio::main(flavor = "current_thread")]
    #[db_locked(key = "tokio/above")]
    async fn main() -> Done<bool> {
        if held("nobody").await {
            return Ok(false);
        }
        Ok(held("tokio/above").await)
    }

    #[tokio::main]
    #[db_locked(key = "tokio/above/unit", on_error = panic)]
    async fn unit() {
        assert!(held("tokio/above/unit").await);
    }

    #[test]
    fn the_body_of_main_is_locked() {
        start();
        assert!(main().unwrap());
        unit();
    }
}

/// As the attributes of other runtimes leave it.
#[db_locked(key = started("other/above"))]
fn driven() -> Done<bool> {
    async fn main() -> Done<bool> {
        Ok(held("other/above").await)
    }
    smol::block_on(async { main().await })
}

#[test]
fn the_lock_goes_into_what_another_runtime_drives() {
    assert!(driven().unwrap());
}

fn started(key: &str) -> String {
    start();
    key.to_owned()
}

#[db_locked(key = started("tokio/test/below"))]
#[tokio::test]
async fn a_test_with_its_attribute_below() -> Done {
    assert!(held("tokio/test/below").await);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[db_locked(key = started("tokio/test/above"))]
async fn a_test_with_its_attribute_above() -> Done {
    assert!(held("tokio/test/above").await);
    Ok(())
}

#[test]
#[db_locked(key = started("test/above"))]
fn a_plain_test_with_its_attribute_above() -> Done {
    assert!(is_held(&dlock::locker()?, "test/above"));
    Ok(())
}

#[db_locked(key = started("test/below"))]
#[test]
fn a_plain_test_with_its_attribute_below() -> Done {
    assert!(is_held(&dlock::locker()?, "test/below"));
    Ok(())
}

#[tracing::instrument]
#[db_locked(key = started("instrument/above"))]
async fn instrumented_above(id: u8) -> Done<bool> {
    Ok(held("instrument/above").await)
}

#[db_locked(key = started("instrument/below"))]
#[tracing::instrument(skip_all, err)]
async fn instrumented_below(id: u8) -> Done<bool> {
    let _ = id;
    Ok(held("instrument/below").await)
}

#[tracing::instrument]
#[db_locked(key = started("instrument/sync"))]
fn instrumented_sync(id: u8) -> Done<bool> {
    let _ = id;
    Ok(is_held(&dlock::locker()?, "instrument/sync"))
}

#[tokio::test]
async fn instrument_stands_on_either_side() {
    assert!(instrumented_above(1).await.unwrap());
    assert!(instrumented_below(1).await.unwrap());
    assert!(instrumented_sync(1).unwrap());
}
