//! Questions about locks, and kicks.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::FutureExt;

use super::*;
use crate::backend::session::driver::{DriverError, Listed};
use crate::backend::{NotKicked, Untold, Warrant};
use crate::capabilities::Strategy;
use crate::error::Holder;
use crate::listing::{Party, gather};

fn refused() -> DriverError {
    DriverError::Refused {
        code: "42501".into(),
        message: "permission denied".into(),
        source: None,
    }
}

/// The lock 1, held by these sessions.
fn held_by(sessions: &[Option<i64>]) -> Listed {
    let parties = sessions.iter().map(|session| {
        let who = Holder {
            session: *session,
            ..Holder::default()
        };
        (ServerKey::Number(1), true, Party::new(who, Mode::Shared))
    });
    Listed::Locks(gather(Strategy::Session, parties))
}

#[test]
fn a_question_that_the_server_refuses_is_no_free_lock() {
    run(async {
        let script = Script::new();
        let locks = locks(&script, LIMITS).await;
        let key = ServerKey::Number(1);
        assert!(matches!(locks.holder(&key).await, Ok(None)));
        Script::set(&script.holder, async || Err(refused()));
        let asked = locks.holder(&key).await;
        assert!(
            matches!(&asked, Err(Untold::Refused { code, .. }) if code == "42501"),
            "{asked:?}"
        );
    });
}

#[test]
fn a_list_that_the_server_refuses_keeps_its_words() {
    run(async {
        let script = Script::new();
        let locks = locks(&script, LIMITS).await;
        Script::set(&script.list, async || Err(refused()));
        let listed = locks.list(None).await;
        assert!(
            matches!(&listed, Err(Untold::Refused { message, .. }) if message == "permission denied"),
            "{listed:?}"
        );
    });
}

#[test]
fn b4_a_kick_names_those_whom_it_has_ended() {
    run(async {
        let script = Script::new();
        let locks = locks(&script, LIMITS).await;
        Script::set(&script.list, async || Ok(held_by(&[Some(7), Some(8)])));
        let asked = Arc::new(AtomicUsize::new(0));
        Script::set(&script.kill, move || {
            let first = asked.fetch_add(1, Ordering::Relaxed) == 0;
            async move { Ok(!first) }
        });
        let kicked = locks.kick(&ServerKey::Number(1), true, Arc::default());
        let kicked = kicked.await.expect("a kick");
        assert_eq!(kicked.len(), 1);
        assert_eq!(kicked[0].who.session, Some(8), "the other had gone");
    });
}

#[test]
fn b4_nobody_is_kicked_after_the_callers_time_out() {
    run(async {
        let script = Script::new();
        let locks = locks(&script, LIMITS).await;
        let listing = Arc::new(tokio::sync::Notify::new());
        let going_on = listing.clone();
        Script::set(&script.list, move || {
            let going_on = going_on.clone();
            async move {
                going_on.notified().await;
                Ok(held_by(&[Some(7), Some(8)]))
            }
        });
        let kills = Arc::new(AtomicUsize::new(0));
        let counted = kills.clone();
        let killing = Arc::new(tokio::sync::Notify::new());
        let killed = killing.clone();
        Script::set(&script.kill, move || {
            counted.fetch_add(1, Ordering::Relaxed);
            let killed = killed.clone();
            async move {
                killed.notified().await;
                Ok(true)
            }
        });
        let key = ServerKey::Number(1);
        // Before anybody was ended.
        let warrant = Arc::<Warrant>::default();
        let mut kicking = locks.kick(&key, true, warrant.clone());
        assert!((&mut kicking).now_or_never().is_none());
        settle().await;
        assert!(warrant.withdraw(), "nobody was ended");
        listing.notify_one();
        assert!(matches!(kicking.await, Err(NotKicked::Withdrawn)));
        assert_eq!(kills.load(Ordering::Relaxed), 0);
        // While the first is being ended: that is on its way, and the second stays.
        let warrant = Arc::<Warrant>::default();
        let mut kicking = locks.kick(&key, true, warrant.clone());
        listing.notify_one();
        assert!((&mut kicking).now_or_never().is_none());
        settle().await;
        assert_eq!(kills.load(Ordering::Relaxed), 1);
        assert!(!warrant.withdraw(), "somebody may have been ended");
        killing.notify_one();
        assert!(matches!(kicking.await, Err(NotKicked::Withdrawn)));
        assert_eq!(kills.load(Ordering::Relaxed), 1);
    });
}
