//! Whoever cannot vouch for a lock any more knows it before the server lets others in.

use std::future::pending;
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use dlock::{Config, Guard};

use crate::site::{SOON, Site, run};

/// The shortest limit that there is.
const LIMIT: Duration = Duration::from_secs(3);

fn short(site: &Site, config: Config) -> Config {
    site.limited(config, LIMIT)
}

/// When the server let somebody else in, who asks it directly.
fn when_others_get_in(site: &Site, key: &str) -> Instant {
    let direct = site.locker();
    let lock = site.lock(&direct, key).timeout(2 * SOON);
    let guard = lock.acquire_blocking().expect("the server frees it");
    let then = Instant::now();
    drop(guard);
    then
}

pub(crate) fn a_cut_off_holder_is_told_before_others_get_in(site: &Site) {
    let proxy = site.proxy();
    let locker = site.locker_of(short(site, site.config_via(&proxy)));
    let guard = site.lock(&locker, "cut").acquire_blocking().unwrap();
    is_told_first(site, "cut", guard, || proxy.stall());
    proxy.cut();
    proxy.resume();
}

pub(crate) fn a_cut_off_holder_that_had_waited_is_told_before_others_get_in(site: &Site) {
    let proxy = site.proxy();
    let (direct, locker) = (
        site.locker(),
        site.locker_of(short(site, site.config_via(&proxy))),
    );
    let first = site.lock(&direct, "cut").acquire_blocking().unwrap();
    let lock = site.lock(&locker, "cut");
    let guard = thread::scope(|scope| {
        let waiting = scope.spawn(|| lock.acquire_blocking());
        site.until_waiting(1);
        first.release_blocking().expect("held to the end");
        waiting.join().unwrap().expect("its turn")
    });
    is_told_first(site, "cut", guard, || proxy.stall());
    proxy.cut();
    proxy.resume();
}

fn is_told_first(site: &Site, key: &str, guard: Guard, cut: impl FnOnce()) {
    let told = OnceLock::new();
    thread::scope(|scope| {
        let telling = scope.spawn(|| {
            let error = run(guard.lost());
            assert!(told.set(Instant::now()).is_ok());
            error
        });
        assert!(guard.is_held());
        cut();
        let others = when_others_get_in(site, key);
        assert!(!guard.is_held(), "the guard vouches for another's lock");
        let error = telling.join().unwrap();
        assert!(error.is_lost(), "{error}");
        let told = *told.get().expect("told");
        assert!(told < others, "told {:?} too late", told - others);
    });
    assert!(guard.release_blocking().is_err_and(|error| error.is_lost()));
}

/// Notes when it is dropped.
struct Body<'a>(&'a OnceLock<Instant>);

impl Drop for Body<'_> {
    fn drop(&mut self) {
        let _ = self.0.set(Instant::now());
    }
}

pub(crate) fn a_cut_off_body_is_stopped_before_others_get_in(site: &Site) {
    let proxy = site.proxy();
    let locker = site.locker_of(short(site, site.config_via(&proxy)));
    let lock = site.lock(&locker, "body");
    let (started, stopped) = (OnceLock::new(), OnceLock::new());
    thread::scope(|scope| {
        let running = scope.spawn(|| {
            run(lock.run(async {
                let _body = Body(&stopped);
                started.get_or_init(Instant::now);
                pending::<()>().await;
            }))
        });
        crate::site::until("the body runs", || started.get().is_some());
        proxy.stall();
        let others = when_others_get_in(site, "body");
        let error = running.join().unwrap().unwrap_err();
        assert!(error.is_lost(), "{error}");
        let stopped = *stopped.get().expect("stopped");
        assert!(stopped < others, "stopped {:?} too late", stopped - others);
    });
    proxy.cut();
    proxy.resume();
}

pub(crate) fn s1_a_stopped_process_wakes_up_without_the_lock(site: &Site) {
    let mut worker = site.worker_with(&site.limit_option(3));
    let key = site.key("stopped");
    assert_eq!(worker.ask(&format!("try {key}")), "held");
    assert_eq!(worker.ask(&format!("held {key}")), "true");
    worker.stop();
    when_others_get_in(site, &key);
    worker.go_on();
    assert_eq!(worker.ask(&format!("held {key}")), "false");
    assert_eq!(worker.ask(&format!("release {key}")), "lost");
    assert_eq!(worker.ask(&format!("acquire {key} 20000")), "held");
}

pub(crate) fn a_hold_outlasts_the_limit(site: &Site) {
    let (one, other) = (
        site.locker_of(short(site, site.config())),
        site.locker_of(short(site, site.config())),
    );
    // One on the keeper, and one on the session that waited for it.
    let held = site.lock(&one, "held").acquire_blocking().unwrap();
    let first = site.lock(&one, "waited for").acquire_blocking().unwrap();
    let lock = site.lock(&other, "waited for");
    let waited = thread::scope(|scope| {
        let waiting = scope.spawn(|| lock.acquire_blocking());
        site.until_waiting(1);
        drop(first);
        waiting.join().unwrap().expect("its turn")
    });
    let session = site.holders("held");
    // Time has to pass here: it is what the behaviour is about.
    thread::sleep(LIMIT + LIMIT / 2);
    assert_eq!(site.holders("held"), session);
    for guard in [held, waited] {
        assert!(guard.is_held(), "{:?}", guard.check());
        guard.release_blocking().expect("held to the end");
    }
}

pub(crate) fn s3_a_wait_outlasts_the_limit(site: &Site) {
    let (one, other) = (site.locker(), site.locker_of(short(site, site.config())));
    let guard = site.lock(&one, "long").acquire_blocking().unwrap();
    let lock = site.lock(&other, "long");
    thread::scope(|scope| {
        let waiting = scope.spawn(|| lock.acquire_blocking());
        site.until_waiting(1);
        thread::sleep(LIMIT + LIMIT / 2);
        assert!(!waiting.is_finished());
        guard.release_blocking().expect("held to the end");
        let guard = waiting.join().unwrap().expect("its turn");
        assert!(guard.is_held());
        guard.release_blocking().expect("held to the end");
    });
}

pub(crate) fn a_holder_can_ask_how_long_it_is_vouched_for(site: &Site) {
    let locker = site.locker_of(site.limited(site.config(), LIMIT));
    let is_bounded = locker.capabilities().limit.is_some();
    let is_sound = |validity: Option<Duration>| match validity {
        Some(validity) => is_bounded && !validity.is_zero() && validity <= LIMIT * 9 / 10,
        None => !is_bounded,
    };
    let guard = locker
        .lock_all([site.key("one"), site.key("two")])
        .acquire_blocking()
        .unwrap();
    assert!(is_sound(guard.validity()), "{:?}", guard.validity());
    guard.release_blocking().expect("held to the end");
    let after = run(site.lock(&locker, "body").run(async {
        let current = dlock::current().expect("in a body");
        assert!(is_sound(current.validity()), "{:?}", current.validity());
        current
    }));
    assert_eq!(after.unwrap().validity(), Some(Duration::ZERO));
}

pub(crate) fn nobody_gets_in_before_the_validity_is_over(site: &Site) {
    let proxy = site.proxy();
    let locker = site.locker_of(short(site, site.config_via(&proxy)));
    let guard = site.lock(&locker, "vouched").acquire_blocking().unwrap();
    proxy.stall();
    // What was under way may have been answered, and lengthened it.
    let asked = Instant::now();
    let until = asked + guard.validity().expect("it has a limit");
    let others = when_others_get_in(site, "vouched");
    assert!(until < others, "vouched for {:?} longer", until - others);
    assert_eq!(guard.validity(), Some(Duration::ZERO));
    proxy.cut();
    proxy.resume();
    assert!(guard.release_blocking().is_err_and(|error| error.is_lost()));
}
