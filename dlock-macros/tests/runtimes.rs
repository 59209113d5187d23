//! The attributes of an async runtime below ours, and what a locked future costs.

#![deny(warnings)]
#![allow(
    clippy::large_types_passed_by_value,
    reason = "the size is the question"
)]

extern crate self as dlock;

mod fake;
pub use fake::__private;

use dlock_macros::db_locked;
use fake::{Error, events};

type Done<T = ()> = Result<T, Error>;

#[db_locked(key = "main", init = "memory:")]
#[tokio::main(flavor = "current_thread")]
async fn main() -> Done {
    tokio::task::yield_now().await;
    Ok(())
}

#[test]
fn an_async_main_is_locked_inside_its_runtime() {
    main().unwrap();
    assert_eq!(events(), ["init memory:", "acquire main", "release main"]);
}

#[db_locked(key = "test")]
#[tokio::test]
async fn a_test_is_locked_inside_its_runtime() -> Done {
    tokio::task::yield_now().await;
    assert_eq!(events(), ["acquire test"]);
    Ok(())
}

async fn plain(data: [u8; 1024]) -> Done<u8> {
    tokio::task::yield_now().await;
    Ok(data[0])
}

#[db_locked(key = "k")]
async fn locked(data: [u8; 1024]) -> Done<u8> {
    tokio::task::yield_now().await;
    Ok(data[0])
}

#[test]
fn parameters_are_not_stored_once_more() {
    let (plain, locked) = (plain([0; 1024]), locked([0; 1024]));
    let (plain, locked) = (size_of_val(&plain), size_of_val(&locked));
    assert!(locked < plain + 256, "plain {plain}, locked {locked}");
}
