//! Rule B4: locks that are taken away from their holders.

use std::time::Duration;

use dlock::{Error, Locker};

use crate::listing::{grant, has_list};
use crate::place::Place;
use crate::site::{SOON, Site, until};

/// Short enough to wait for the end of a lease.
fn short(site: &Site) -> Locker {
    site.locker_of(site.limited(site.config(), Duration::from_secs(3)))
}

pub(crate) fn b4_a_kicked_holder_is_told_and_others_get_in(site: &Site) {
    grant(site);
    let (one, other) = (short(site), site.locker());
    let key = site.key("k");
    assert_eq!(other.kick_session_blocking(&*key).unwrap(), [], "free");
    let guard = site.lock(&one, "k").acquire_blocking().unwrap();
    let kicked = if has_list(site) {
        other.kick_blocking(&*key)
    } else {
        // What else the session holds cannot be seen.
        assert!(matches!(
            other.kick_blocking(&*key),
            Err(Error::Unsupported(_))
        ));
        guard.check().expect("nobody was kicked");
        other.kick_session_blocking(&*key)
    };
    let kicked = kicked.expect("a kick");
    assert_eq!(kicked.len(), 1, "{kicked:?}");
    until("the holder is told", || !guard.is_held());
    assert!(matches!(guard.check(), Err(Error::Lost(_))));
    let next = site.lock(&other, "k").timeout(SOON).acquire_blocking();
    let next = next.expect("free again");
    assert!(matches!(guard.release_blocking(), Err(Error::Lost(_))));
    next.check()
        .expect("the kicked one's release is not the new holder's");
    next.release_blocking().expect("held to the end");
    // The kicked locker goes on with other sessions and other owners.
    let again = site.lock(&one, "k").timeout(SOON).acquire_blocking();
    again.unwrap().release_blocking().expect("held to the end");
}

pub(crate) fn b4_a_session_kick_lists_what_else_it_would_free(site: &Site) {
    grant(site);
    let (one, other) = (site.locker(), site.locker());
    let guards = ["a", "b"].map(|key| site.lock(&one, key).acquire_blocking().unwrap());
    if has_list(site) {
        let Err(Error::HoldsMore(more)) = other.kick_blocking(site.key("a")) else {
            panic!("it holds another");
        };
        assert_eq!(*more.key, *"a");
        assert_eq!(more.others, [site.name("b").into()]);
        for guard in &guards {
            guard.check().expect("nobody was kicked");
        }
    }
    let kicked = other.kick_session_blocking(site.key("a")).expect("a kick");
    assert_eq!(kicked.len(), 1, "{kicked:?}");
    for guard in guards {
        until("the holder is told", || !guard.is_held());
        assert!(matches!(guard.release_blocking(), Err(Error::Lost(_))));
    }
}

/// Nobody gets in before those who were kicked know it, readers included.
pub(crate) fn b4_a_revoked_lease_stays_until_it_would_have_expired(site: &Site) {
    let (one, other, third) = (short(site), short(site), site.locker());
    let readers = [&one, &other].map(|locker| {
        let lock = site.lock(locker, "shared").shared();
        lock.acquire_blocking().unwrap()
    });
    let writer = site.lock(&one, "alone").acquire_blocking().unwrap();
    let token = writer.fencing_token().expect("leases have tokens");
    for (key, count) in [("shared", 2), ("alone", 1)] {
        let before = third.inspect_blocking(site.key(key)).unwrap();
        let kicked = third.kick_blocking(site.key(key)).expect("a kick");
        assert_eq!(kicked.len(), count);
        assert_eq!(third.kick_blocking(site.key(key)).unwrap(), [], "once");
        let row = third.inspect_blocking(site.key(key)).unwrap();
        let row = row.expect("the row stays");
        assert_eq!(row.holders.len(), 1);
        assert_eq!(row.holders[0].who.client.as_deref(), Some("revoked"));
        assert!(row.token > before.expect("held").token, "fence checks fail");
        let tried = site.lock(&third, key).try_acquire_blocking().unwrap();
        assert!(tried.is_none(), "it has not expired");
        let tried = site.lock(&third, key).shared().try_acquire_blocking();
        assert!(tried.unwrap().is_none(), "nor for readers");
    }
    let next = site.lock(&third, "shared").timeout(SOON).acquire_blocking();
    assert!(readers.iter().all(|reader| !reader.is_held()));
    next.unwrap().release_blocking().expect("held to the end");
    let next = site.lock(&third, "alone").timeout(SOON).acquire_blocking();
    assert!(!writer.is_held());
    let next = next.unwrap();
    assert!(next.fencing_token() > Some(token + 1));
    next.release_blocking().expect("held to the end");
    for guard in readers.into_iter().chain([writer]) {
        assert!(matches!(guard.release_blocking(), Err(Error::Lost(_))));
    }
}

pub(crate) fn b4_a_locker_does_not_kick_itself(site: &Site) {
    grant(site);
    let one = site.locker();
    let guard = site.lock(&one, "k").acquire_blocking().unwrap();
    let beside = site.lock(&one, "beside").acquire_blocking().unwrap();
    let kicked = one.kick_session_blocking(site.key("k"));
    assert!(matches!(kicked, Err(Error::Unsupported(_))), "{kicked:?}");
    let kicked = one.kick_blocking(site.key("k"));
    assert!(matches!(kicked, Err(Error::Unsupported(_))), "{kicked:?}");
    if site.place() == Place::Memory {
        // All lockers of this memory are of one process.
        let kicked = site.locker().kick_blocking(site.key("k"));
        assert!(matches!(kicked, Err(Error::Unsupported(_))), "{kicked:?}");
    }
    guard.release_blocking().expect("held to the end");
    beside.release_blocking().expect("held to the end");
    assert_eq!(one.kick_session_blocking(site.key("k")).unwrap(), []);
}
