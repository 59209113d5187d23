//! A lock given back and tried again in one statement.

use futures_util::future::join;

use super::{LONG, fresh_key, on_both, until_waiting};
use crate::backend::session::driver::{Offer, Session, Wait};
use crate::key::Mode;

#[test]
fn an_offer_that_nobody_wants_leaves_the_lock_here_once() {
    on_both(|server| async move {
        let (a, b, key) = (server.session().await, server.session().await, fresh_key());
        assert!(a.try_lock(&key, Mode::Exclusive).await.unwrap());
        for _ in 0..10 {
            let offered = a.offer(&key, Mode::Exclusive).await.unwrap();
            assert_eq!(offered, Offer::Kept);
        }
        assert!(!b.try_lock(&key, Mode::Exclusive).await.unwrap());
        // The server counts: held twice, it would be held still.
        assert!(a.unlock(&key, Mode::Exclusive).await.unwrap());
        assert!(b.try_lock(&key, Mode::Exclusive).await.unwrap());
    });
}

#[test]
fn an_offer_goes_to_whoever_stands_in_the_servers_queue() {
    on_both(|server| async move {
        let (a, b, key) = (server.session().await, server.session().await, fresh_key());
        assert!(a.try_lock(&key, Mode::Exclusive).await.unwrap());
        let offer = async {
            until_waiting(&a, b.facts.id).await;
            a.offer(&key, Mode::Exclusive).await.unwrap()
        };
        let (granted, offered) = join(b.wait_lock(&key, Mode::Exclusive, LONG), offer).await;
        assert_eq!(granted.unwrap(), Wait::Granted);
        assert_eq!(offered, Offer::Given);
        assert!(!a.unlock(&key, Mode::Exclusive).await.unwrap());
    });
}

#[test]
fn an_offer_of_what_is_not_held_takes_nothing() {
    on_both(|server| async move {
        let (a, b, key) = (server.session().await, server.session().await, fresh_key());
        let offered = a.offer(&key, Mode::Exclusive).await.unwrap();
        assert_eq!(offered, Offer::NotHeld);
        assert!(b.try_lock(&key, Mode::Exclusive).await.unwrap());
    });
}
