//! What a locked future costs in memory.

#![allow(
    clippy::large_types_passed_by_value,
    reason = "the size is the question"
)]

use dlock::db_locked;

use crate::support::Done;

async fn plain<const N: usize>(data: [u8; N]) -> Done<u8> {
    tokio::task::yield_now().await;
    Ok(data[0])
}

#[db_locked(key = "k")]
async fn locked<const N: usize>(data: [u8; N]) -> Done<u8> {
    tokio::task::yield_now().await;
    Ok(data[0])
}

#[test]
fn parameters_are_not_stored_once_more() {
    let own = size_of_val(&locked([0; 1])) - size_of_val(&plain([0; 1]));
    assert!(own < 512, "the hold's own state is {own} bytes");
    let (plain, locked) = (
        size_of_val(&plain([0; 4096])),
        size_of_val(&locked([0; 4096])),
    );
    assert!(
        locked <= plain + plain / 10 + own,
        "plain {plain}, locked {locked}, the hold's own state {own}"
    );
}
