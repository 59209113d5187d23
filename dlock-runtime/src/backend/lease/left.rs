//! What those leave behind in a lock's row who are killed while they wait.

use std::time::Duration;

use super::row::Row;
use super::store::{Claim, Notice, Store};
use super::{Leases, bells::Bells, shared};
use crate::backend::{Backend, Errand, GivenBack, Taken, Want};
use crate::config::LeaseSettings;
use crate::key::{Mode, ServerKey};

const NAME: &str = "left behind";

fn claim(owner: &str) -> Claim<'_> {
    Claim {
        name: NAME,
        owner,
        program: "left",
        ttl: Duration::from_secs(30),
        stale: None,
    }
}

async fn row<S: Store>(store: &S) -> Row {
    let row = store.read(NAME).await.expect("an answer");
    row.expect("a row")
}

/// Waits for the lock exclusively, and is killed: by a clock that is hours ahead where there are several.
async fn killed<S: Store>(store: &S) {
    let notice = Notice {
        name: NAME,
        owner: "killed",
        mode: Mode::Exclusive,
        since: None,
        lasts: if store.doubts_clock() {
            Duration::from_secs(5 * 3600)
        } else {
            Duration::from_millis(1)
        },
    };
    let announced = store.announce(&notice).await.expect("an answer");
    assert!(announced.is_some(), "it is held");
    tokio::time::sleep(Duration::from_millis(2)).await;
    assert!(row(store).await.waiters.contains_key("killed"));
}

/// Rule L7: a writer who was killed while it waited keeps no reader out, and no announcement stays for good.
///
/// `hears`: a release there hears of whoever stands in the row, whether there or not.
pub(super) async fn the_killed_keep_nobody_waiting<S: Store>(
    store: S,
    settings: LeaseSettings,
    hears: bool,
) {
    let token = store.take(&claim("one")).await.expect("an answer");
    let token = token.expect("free");
    killed(&store).await;
    let released = store.release(NAME, "one", token, None).await;
    assert!(released.expect("an answer").was_held);
    let reader = shared::take(&store, &claim("reader")).await;
    let reader = reader.expect("an answer").expect("free for readers");
    // Whoever announces itself next takes it out.
    let notice = Notice {
        name: NAME,
        owner: "two",
        mode: Mode::Exclusive,
        since: None,
        lasts: Duration::from_secs(10),
    };
    assert!(store.announce(&notice).await.expect("an answer").is_some());
    let waiters = row(&store).await.waiters;
    assert!(waiters.keys().eq(["two"]), "{waiters:?}");
    let late = shared::take(&store, &claim("late")).await;
    assert_eq!(late.expect("an answer"), None, "behind one who waits");

    // Who takes and releases again and again does not hold back for it for ever.
    store.retract(NAME, "two").await.expect("an answer");
    let end = shared::End::default();
    let released = shared::release_as(&store, NAME, "reader", reader, end).await;
    assert!(released.expect("an answer").was_held);
    let leases = Leases::new(store, Bells::default(), settings);
    for turn in 0..3 {
        let key = ServerKey::Name(NAME.into());
        let errand = Errand::new(key, Want::plain(Mode::Exclusive), None);
        let Taken::Held(hold) = leases.clone().take(errand).await else {
            panic!("it is free");
        };
        match turn {
            0 => killed(&*leases.store).await,
            // It held back for nobody, and noticed.
            2 if hears => assert!(row(&*leases.store).await.waiters.is_empty()),
            _ => {}
        }
        match hold.grant.give_back() {
            GivenBack::Later(released) => released.await.expect("held to the end"),
            GivenBack::Now(_) => panic!("it goes back to the server"),
        }
    }
    leases.close("the test has ended");
}
