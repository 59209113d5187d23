//! Rule B7: rows that stay taken after the release.

use std::time::Duration;

use super::shared;
use super::store::{Claim, Renewal, Renewed, Store};
use crate::key::Mode;

const TTL: Duration = Duration::from_secs(30);

fn claim<'a>(name: &'a str, owner: &'a str) -> Claim<'a> {
    Claim {
        name,
        owner,
        program: "tests",
        ttl: TTL,
        stale: None,
    }
}

async fn take<S: Store>(store: &S, name: &str, owner: &str) -> Option<u64> {
    store.take(&claim(name, owner)).await.expect("an answer")
}

async fn take_shared<S: Store>(store: &S, name: &str, owner: &str) -> u64 {
    let taken = shared::take(store, &claim(name, owner)).await;
    taken.expect("an answer").expect("free for readers")
}

async fn renew<S: Store>(store: &S, owner: &str, token: u64, mode: Mode) -> Renewed {
    let renewal = Renewal {
        name: "k".into(),
        owner: owner.into(),
        token,
        mode,
        ttl: TTL,
    };
    store.renew(&[renewal]).await.expect("an answer")[0]
}

/// Gives the token of the lock `k`, which stays taken for [`TTL`].
pub(super) async fn a_released_row_can_stay_taken_by_nobody<S: Store>(store: &S) -> u64 {
    let release = async |name, token, kept| {
        let released = store.release(name, "one", token, kept).await;
        released.expect("an answer").was_held
    };
    let token = take(store, "k", "one").await.expect("free");
    assert!(release("k", token, Some(TTL)).await);
    let late = renew(store, "one", token, Mode::Exclusive).await;
    assert_eq!(late, Renewed::Lost);
    let again = release("k", token, None).await;
    assert!(!again, "it has no owner any more");
    assert_eq!(take(store, "k", "one").await, None);
    let row = store.read("k").await.expect("an answer").expect("a row");
    assert_eq!((&*row.owner, &*row.program), ("#kept one", "tests"));
    assert!(!row.is_free() && row.ttl == shared::micros(TTL));
    assert!(row.expires_at - row.now <= shared::micros(TTL));

    // The clock is good enough, also where an expired lease has to be watched: nobody runs.
    let soon = take(store, "soon", "one").await.expect("free");
    assert!(release("soon", soon, Some(Duration::from_millis(1))).await);
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(take(store, "soon", "two").await, Some(soon + 1));
    let row = store.read("soon").await.expect("an answer").expect("a row");
    assert_eq!(row.owner, "two");
    token
}

pub(super) async fn a_released_reader_can_keep_writers_out<S: Store>(store: &S) {
    let release = async |owner, token, end| {
        let released = shared::release_as(store, "k", owner, token, end).await;
        released.expect("an answer").was_held
    };
    let token = take_shared(store, "k", "reader").await;
    let end = shared::End {
        kept_for: Some(Duration::from_millis(500)),
        held_for: Some(Duration::from_millis(40)),
    };
    assert!(release("reader", token, end).await);
    let late = renew(store, "reader", token, Mode::Shared).await;
    assert_eq!(late, Renewed::Lost);
    assert_eq!(take(store, "k", "writer").await, None);
    // Beside it.
    let token = take_shared(store, "k", "other").await;
    assert!(release("other", token, shared::End::default()).await);
    assert_eq!(take(store, "k", "writer").await, None);
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(take(store, "k", "writer").await, Some(token + 1));
}
