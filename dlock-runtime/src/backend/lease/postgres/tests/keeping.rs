//! Rule B7: rows that stay taken after the release.

use super::*;

#[test]
fn b7_a_released_row_can_stay_taken_by_nobody() {
    run(async {
        let namespace = fresh();
        let store = open(&namespace).await;
        let token = take(&store, "k", "one").await.expect("free");
        let kept = Some(TTL);
        let released = store
            .release("k", "one", token, kept)
            .await
            .expect("an answer");
        assert!(released.was_held);
        let late = renewal("k", "one", token, Mode::Exclusive);
        assert_eq!(renew(&store, late).await, Renewed::Lost);
        let again = store
            .release("k", "one", token, None)
            .await
            .expect("an answer");
        assert!(!again.was_held, "it has no owner any more");
        assert_eq!(take(&store, "k", "one").await, None);
        let row = store.read("k").await.expect("an answer").expect("a row");
        assert_eq!((&*row.owner, &*row.program), ("#kept one", "tests"));
        assert!(!row.is_free() && row.ttl == micros(TTL));
        assert!(row.expires_at - row.now <= micros(TTL));
        let fence = Fence::default().namespace(&namespace);
        let checked = fence.check_postgres(&client().await, "k", token).await;
        assert!(!checked.expect("an answer"), "its holder has gone");
        // The clock is good enough, also where an expired lease has to be watched: nobody runs.
        let token = take(&store, "soon", "one").await.expect("free");
        let kept = Some(Duration::from_millis(1));
        let released = store
            .release("soon", "one", token, kept)
            .await
            .expect("an answer");
        assert!(released.was_held);
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(take(&store, "soon", "two").await, Some(token + 1));
        let row = store.read("soon").await.expect("an answer").expect("a row");
        assert_eq!(row.owner, "two");
    });
}

#[test]
fn b7_a_released_reader_can_keep_writers_out() {
    run(async {
        let namespace = fresh();
        let store = open(&namespace).await;
        let reader = claim("k", "reader");
        let token = shared::take(&store, &reader)
            .await
            .expect("an answer")
            .expect("free");
        let end = shared::End {
            kept_for: Some(Duration::from_millis(500)),
            held_for: Some(Duration::from_millis(40)),
        };
        let released = shared::release_as(&store, "k", "reader", token, end).await;
        assert!(released.expect("an answer").was_held);
        let late = renewal("k", "reader", token, Mode::Shared);
        assert_eq!(renew(&store, late).await, Renewed::Lost);
        assert_eq!(take(&store, "k", "writer").await, None);
        let other = claim("k", "other");
        let token = shared::take(&store, &other)
            .await
            .expect("an answer")
            .expect("beside it");
        let released =
            shared::release_as(&store, "k", "other", token, shared::End::default()).await;
        assert!(released.expect("an answer").was_held);
        assert_eq!(take(&store, "k", "writer").await, None);
        tokio::time::sleep(Duration::from_millis(600)).await;
        assert_eq!(take(&store, "k", "writer").await, Some(token + 1));
    });
}
