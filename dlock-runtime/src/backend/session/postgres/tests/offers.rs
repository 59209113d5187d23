//! A lock given back and tried again in one statement.

use futures_util::future::join;

use super::{LONG, fresh_key, run, session, until_queued};
use crate::backend::session::driver::{Offer, Session, Wait};
use crate::key::Mode;

#[test]
fn an_offer_that_nobody_wants_leaves_the_lock_here_once() {
    run(async {
        let (a, b, key) = (session().await, session().await, fresh_key());
        for mode in [Mode::Exclusive, Mode::Shared] {
            assert!(a.try_lock(&key, mode).await.unwrap());
            for _ in 0..10 {
                assert_eq!(a.offer(&key, mode).await.unwrap(), Offer::Kept);
            }
            assert!(!b.try_lock(&key, Mode::Exclusive).await.unwrap());
            // The server counts: held twice, it would be held still.
            assert!(a.unlock(&key, mode).await.unwrap());
            assert!(b.try_lock(&key, Mode::Exclusive).await.unwrap());
            assert!(b.unlock(&key, Mode::Exclusive).await.unwrap());
        }
    });
}

#[test]
fn an_offer_goes_to_whoever_stands_in_the_servers_queue() {
    run(async {
        let (a, b, key) = (session().await, session().await, fresh_key());
        for mode in [Mode::Exclusive, Mode::Shared] {
            assert!(a.try_lock(&key, mode).await.unwrap());
            let offer = async {
                until_queued(&a, &key).await;
                a.offer(&key, mode).await.unwrap()
            };
            let (granted, offered) = join(b.wait_lock(&key, Mode::Exclusive, LONG), offer).await;
            assert_eq!(granted.unwrap(), Wait::Granted);
            assert_eq!(offered, Offer::Given);
            assert!(!a.unlock(&key, mode).await.unwrap());
            assert!(b.unlock(&key, Mode::Exclusive).await.unwrap());
        }
    });
}

#[test]
fn an_offer_of_what_is_not_held_takes_nothing() {
    run(async {
        let (a, b, key) = (session().await, session().await, fresh_key());
        for mode in [Mode::Exclusive, Mode::Shared] {
            assert_eq!(a.offer(&key, mode).await.unwrap(), Offer::NotHeld);
        }
        assert!(b.try_lock(&key, Mode::Exclusive).await.unwrap());
    });
}
