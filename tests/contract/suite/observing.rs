//! What observers hear of locks on a server.

use std::collections::BTreeSet;
use std::future::pending;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use dlock::observer::{Acquired, Counts, Failed, Loss, Observer, Outage, Released, Wait};
use dlock::{Config, Locker};

use crate::place::Place;
use crate::site::{SOON, Site, run, until};

/// Sends on what it hears, with the key.
struct Ear(Sender<Heard>);

type Heard = (&'static str, String);

impl Ear {
    fn hear(&self, what: &'static str, key: &str) {
        // The test may have ended.
        let _ = self.0.send((what, key.to_owned()));
    }
}

impl Observer for Ear {
    fn on_wait(&self, wait: &Wait) {
        let what = if wait.local { "waits here" } else { "waits" };
        self.hear(what, &wait.key);
    }

    fn on_acquire(&self, acquired: &Acquired) {
        self.hear("acquired", &acquired.key);
    }

    fn on_fail(&self, failed: &Failed) {
        self.hear(failed.failure.as_str(), &failed.key);
    }

    fn on_release(&self, released: &Released) {
        self.hear("released", &released.key);
    }

    fn on_lost(&self, loss: &Loss) {
        assert!(!loss.reason.is_empty());
        self.hear("lost", &loss.key);
    }

    fn on_unavailable(&self, outage: &Outage) {
        assert!(!outage.reason.is_empty());
        self.hear("outage", &outage.key);
    }
}

fn observed(site: &Site, config: Config) -> (Locker, Receiver<Heard>) {
    let (ear, heard) = channel();
    (site.locker_of(config.observer(Ear(ear))), heard)
}

#[track_caller]
fn hears(heard: &Receiver<Heard>, what: &str, key: &str) {
    let next = heard.recv_timeout(SOON).expect("an event");
    assert_eq!((next.0, &*next.1), (what, key));
}

#[track_caller]
fn hears_nothing_more(locker: &Locker, heard: &Receiver<Heard>) {
    locker.shutdown_blocking(SOON);
    assert_eq!(heard.try_iter().collect::<Vec<_>>(), []);
}

pub(crate) fn observers_hear_of_every_hold_of_a_killed_session(site: &Site) {
    // Heartbeats that notice a loss soon, where the driver does not watch the connection.
    let watchful = site
        .config()
        .limit(Duration::from_secs(10))
        .heartbeat(Duration::from_millis(200));
    let (locker, heard) = observed(site, watchful);
    let mut guards = Vec::new();
    for key in ["one", "two", "released"] {
        guards.push(site.lock(&locker, key).acquire_blocking().expect("free"));
        hears(&heard, "acquired", key);
    }
    let released = guards.pop().expect("three guards");
    released.release_blocking().expect("held to the end");
    hears(&heard, "released", "released");
    site.admin().kill(site.holders("one")[0]);
    let lost = guards
        .iter()
        .map(|_| heard.recv_timeout(SOON).expect("a loss"));
    let expected = ["one", "two"].map(|key| ("lost", key.to_owned()));
    assert_eq!(lost.collect::<BTreeSet<_>>(), BTreeSet::from(expected));
    drop(guards);
    hears_nothing_more(&locker, &heard);
}

pub(crate) fn observers_hear_of_a_loss_that_the_release_finds(site: &Site) {
    let (locker, heard) = observed(site, site.config());
    for _ in 0..5 {
        let lock = site.lock(&locker, "found").timeout(SOON);
        let guard = lock.acquire_blocking().expect("free");
        hears(&heard, "acquired", "found");
        site.admin().kill(site.holders("found")[0]);
        until("the server has freed it", || {
            site.holders("found").is_empty()
        });
        let released = guard.release_blocking();
        assert!(released.is_err_and(|error| error.is_lost()));
        hears(&heard, "lost", "found");
    }
    hears_nothing_more(&locker, &heard);
}

/// Says whether the body was dropped.
struct Dropped<'a>(&'a AtomicBool);

impl Drop for Dropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

pub(crate) fn a_lost_lease_stops_its_body_and_is_told_to_observers(site: &Site) {
    let config = site.config().ttl(Duration::from_secs(1)).auto_renew(false);
    let (locker, heard) = observed(site, config);
    let (lock, dropped) = (site.lock(&locker, "k"), AtomicBool::new(false));
    let body = async {
        let _dropped = Dropped(&dropped);
        pending::<()>().await;
    };
    let ended = run(async { tokio::time::timeout(SOON, lock.run(body)).await });
    let error = ended.expect("the body is stopped").unwrap_err();
    assert!(error.is_lost(), "{error}");
    assert!(dropped.load(Ordering::SeqCst));
    hears(&heard, "acquired", "k");
    hears(&heard, "lost", "k");
}

pub(crate) fn observers_hear_of_a_wait_and_its_end(site: &Site) {
    let (other, (locker, heard)) = (site.locker(), observed(site, site.config()));
    let guard = site.lock(&other, "wait").acquire_blocking().expect("free");
    let (first, second) = (site.lock(&locker, "wait"), site.lock(&locker, "wait"));
    thread::scope(|scope| {
        let first = scope.spawn(|| first.acquire_blocking());
        hears(&heard, "waits", "wait");
        let second = second.timeout(Duration::from_millis(50));
        let error = second.acquire_blocking().expect_err("others hold it");
        assert!(error.is_busy(), "{error}");
        hears(&heard, "waits here", "wait");
        hears(&heard, "busy", "wait");
        guard.release_blocking().expect("held to the end");
        let guard = first.join().expect("no panic").expect("its turn");
        hears(&heard, "acquired", "wait");
        drop(guard);
        hears(&heard, "released", "wait");
    });
    hears_nothing_more(&locker, &heard);
}

pub(crate) fn observers_hear_of_a_hand_over_as_of_a_release(site: &Site) {
    let (locker, heard) = observed(site, site.config());
    let guard = site.lock(&locker, "over").acquire_blocking().expect("free");
    hears(&heard, "acquired", "over");
    let next = site.lock(&locker, "over");
    thread::scope(|scope| {
        let next = scope.spawn(|| next.acquire_blocking());
        hears(&heard, "waits here", "over");
        guard.release_blocking().expect("held to the end");
        let guard = next.join().expect("no panic").expect("its turn");
        hears(&heard, "released", "over");
        hears(&heard, "acquired", "over");
        drop(guard);
        hears(&heard, "released", "over");
    });
    hears_nothing_more(&locker, &heard);
}

pub(crate) fn an_unlimited_wait_tells_observers_of_the_outage(site: &Site) {
    let mut proxy = site.proxy();
    let config = site.config_via(&proxy);
    let (locker, heard) = observed(site, config.connect_timeout(Duration::from_secs(2)));
    let lock = site.lock(&locker, "outage");
    proxy.refuse();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| lock.acquire_blocking());
        hears(&heard, "outage", "outage");
        assert!(!waiting.is_finished());
        // Attempts follow each other within seconds, and the reports do not follow each of them.
        let early = heard.recv_timeout(Duration::from_secs(3));
        proxy.accept_again().expect("the same port");
        assert!(early.is_err(), "{early:?}");
        let guard = waiting.join().expect("no panic").expect("its turn");
        hears(&heard, "acquired", "outage");
        drop(guard);
        hears(&heard, "released", "outage");
    });
    hears_nothing_more(&locker, &heard);
}

/// Sends on how many connections keep and wait.
struct Counter(Sender<(usize, usize)>);

impl Observer for Counter {
    fn on_counts(&self, counts: &Counts) {
        // The test may have ended.
        let _ = self
            .0
            .send((counts.keeper_connections, counts.waiter_connections));
    }
}

pub(crate) fn observers_hear_how_many_connections_are_open(site: &Site) {
    let (counter, counts) = channel();
    let other = site.locker();
    let locker = site.locker_of(site.config().observer(Counter(counter)));
    let hears = |wanted| while counts.recv_timeout(SOON).expect("a count") != wanted {};
    // The proof has left the first waiter.
    let guard = site.lock(&locker, "kept").acquire_blocking().unwrap();
    hears((1, 1));
    let keys = ["one", "two"];
    let there = keys.map(|key| site.lock(&other, key).acquire_blocking().unwrap());
    thread::scope(|scope| {
        for key in keys {
            let lock = site.lock(&locker, key).timeout(60);
            scope.spawn(move || drop(lock.acquire_blocking().expect("its turn")));
        }
        site.until_waiting(2);
        hears((1, 2));
        there.into_iter().for_each(drop);
    });
    drop(guard);
    locker.shutdown_blocking(SOON);
    hears((0, 0));
}

pub(crate) fn observers_hear_how_many_connections_leases_have(site: &Site) {
    let (counter, counts) = channel();
    let locker = site.locker_of(site.config().observer(Counter(counter)));
    let hears = |wanted| while counts.recv_timeout(SOON).expect("a count") != wanted {};
    let guard = site.lock(&locker, "kept").acquire_blocking().unwrap();
    // A file of SQLite has no server.
    let open = if site.place() == Place::Sqlite { 0 } else { 2 };
    hears((open, 0));
    drop(guard);
    locker.shutdown_blocking(SOON);
    hears((0, 0));
}
