//! Events that coincide, many times over: nothing is left on the server, whichever comes first.
//!
//! `DLOCK_RACES` is a percentage of the full figures, and `DLOCK_SEED` plays a run again.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use dlock::{Guard, Locker, Mode, Timeout};
use fastrand::Rng;
use futures_util::FutureExt;
use futures_util::future::join_all;
use xtask::proxy::Proxy;

use crate::site::{SOON, Site, run, until};

/// How many acquisitions are dropped at random.
const DROPS: usize = 10_000;

/// How many of them are under way at a time.
const AT_ONCE: usize = 40;

const KEYS: usize = 12;

/// So many rounds, or the share of them that the environment asks for.
fn rounds(full: usize) -> usize {
    let percent = std::env::var("DLOCK_RACES").ok();
    let percent: usize = percent.map_or(100, |percent| percent.parse().expect("a percentage"));
    (full * percent / 100).max(AT_ONCE)
}

/// A seed, printed: the test's output is shown when it fails.
fn seed(what: &str) -> u64 {
    let given = std::env::var("DLOCK_SEED").ok();
    let seed = given.map_or_else(
        || {
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            u64::from(now.expect("a clock").subsec_nanos())
        },
        |given| given.parse().expect("a number"),
    );
    println!("{what}: DLOCK_SEED={seed}");
    seed
}

/// A future that is dropped after so many polls, if it has not completed by then.
async fn polled_at_most<F: Future>(polls: usize, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut left = polls;
    poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        let polled = future.as_mut().poll(context).map(Some);
        if polled.is_pending() && left == 0 {
            return Poll::Ready(None);
        }
        polled
    })
    .await
}

/// Who is in, as one number a key: a writer counts a thousand.
#[derive(Default)]
struct Inside([AtomicU32; KEYS]);

impl Inside {
    fn enter(&self, key: usize, mode: Mode) {
        let weight = weight(mode);
        let before = self.0[key].fetch_add(weight, Ordering::SeqCst);
        let alone = match mode {
            Mode::Exclusive => before == 0,
            Mode::Shared => before < 1000,
        };
        assert!(alone, "key {key}: {mode:?} beside {before}");
    }

    fn leave(&self, key: usize, mode: Mode) {
        self.0[key].fetch_sub(weight(mode), Ordering::SeqCst);
    }
}

fn weight(mode: Mode) -> u32 {
    match mode {
        Mode::Exclusive => 1000,
        Mode::Shared => 1,
    }
}

/// Dropped at every poll and at every moment: before the try, behind this process or another, in the server's queue, in
/// the instant of the grant, while held and during the release.
pub(crate) fn ten_thousand_dropped_acquisitions_leave_nothing(site: &Site) {
    let lockers = [site.locker(), site.locker(), site.locker()];
    let keys: Vec<String> = (0..KEYS)
        .map(|key| site.key(&format!("drop{key}")))
        .collect();
    let inside = Inside::default();
    let (granted, dropped) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let outages = AtomicUsize::new(0);
    let (rounds, seed) = (rounds(DROPS), seed("dropped acquisitions"));
    run(async {
        let drops = (0..AT_ONCE).map(|task| {
            let mut random = Rng::with_seed(seed.wrapping_add(task as u64));
            let (lockers, keys, inside) = (&lockers, &keys, &inside);
            let (granted, dropped, outages) = (&granted, &dropped, &outages);
            async move {
                for _ in 0..rounds / AT_ONCE {
                    let key = random.usize(..KEYS);
                    let locker = &lockers[random.usize(..lockers.len())];
                    let guard = one_drop(site, locker, &keys[key], &mut random, outages).await;
                    let Some(guard) = guard else {
                        dropped.fetch_add(1, Ordering::Relaxed);
                        continue;
                    };
                    granted.fetch_add(1, Ordering::Relaxed);
                    let mode = guard.mode();
                    inside.enter(key, mode);
                    for _ in 0..random.usize(..4) {
                        tokio::task::yield_now().await;
                    }
                    inside.leave(key, mode);
                    let_go(guard, &mut random).await;
                }
            }
        });
        join_all(drops).await;
    });
    let (granted, dropped) = (granted.into_inner(), dropped.into_inner());
    println!("{granted} granted, {dropped} dropped or refused");
    assert!(
        granted > rounds / 50,
        "only {granted} of {rounds} were granted"
    );
    assert!(
        dropped > rounds / 5,
        "only {dropped} of {rounds} were dropped"
    );
    // A machine that is too busy for the server to say within a second who holds the lock.
    let outages = outages.into_inner();
    assert!(
        outages <= rounds / 50,
        "{outages} of {rounds} heard of an outage"
    );
    nothing_is_held(site, &keys);
}

/// An acquisition that ends at a random poll or moment. `Some`: it was told of its grant before.
async fn one_drop(
    site: &Site,
    locker: &Locker,
    key: &str,
    random: &mut Rng,
    outages: &AtomicUsize,
) -> Option<Guard> {
    let mut lock = locker.lock(key);
    if site.place().has_shared_mode() && random.u8(..3) == 0 {
        lock = lock.shared();
    }
    let acquiring = lock.timeout(match random.u8(..4) {
        0 => Timeout::from(Duration::ZERO),
        1 => Timeout::from(Duration::from_micros(random.u64(..4000))),
        _ => Timeout::NONE,
    });
    let acquiring = acquiring.acquire();
    let acquired = if random.u8(..3) == 0 {
        polled_at_most(random.usize(..4), acquiring).await
    } else {
        let moment = Duration::from_millis(random.u64(..5));
        tokio::time::timeout(moment, acquiring).await.ok()
    };
    match acquired {
        Some(Ok(guard)) => Some(guard),
        Some(Err(error)) => {
            if error.is_unavailable() {
                outages.fetch_add(1, Ordering::Relaxed);
            } else {
                assert!(error.is_busy(), "{error}");
            }
            None
        }
        None => None,
    }
}

async fn let_go(guard: Guard, random: &mut Rng) {
    match random.u8(..4) {
        0 => drop(guard),
        1 => drop(guard.release()),
        2 => {
            let released = polled_at_most(1, guard.release()).await;
            assert!(released.is_none_or(|released| released.is_ok()));
        }
        _ => guard.release().await.expect("held to the end"),
    }
}

/// While the lockers still live, on the server itself: nobody waits and nobody holds.
fn nothing_is_held(site: &Site, keys: &[String]) {
    until("nobody waits on the server", || site.waiters().is_empty());
    for key in keys {
        until("the key is free on the server", || {
            site.holders(key).is_empty()
        });
    }
}

/// The release of another process and the drop of the wait meet on the server, on many keys at once.
pub(crate) fn grants_and_drops_that_coincide_leave_nothing(site: &Site) {
    /// As many as may wait in the server's queue at once.
    const PAIRS: usize = 8;
    let (one, other) = (site.locker(), site.locker());
    let keys: Vec<String> = (0..PAIRS)
        .map(|key| site.key(&format!("pair{key}")))
        .collect();
    let (told, untold) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let (rounds, seed) = (rounds(400) / PAIRS, seed("grants and drops"));
    let mut random = Rng::with_seed(seed);
    run(async {
        for _ in 0..rounds {
            let mut firsts = Vec::new();
            for key in &keys {
                let first = one.lock(&**key).timeout(SOON).acquire().await;
                firsts.push(first.expect("the drop left it free"));
            }
            let locks: Vec<_> = keys.iter().map(|key| other.lock(&**key)).collect();
            let mut waits: Vec<_> = locks.iter().map(|lock| Box::pin(lock.acquire())).collect();
            for waiting in &mut waits {
                assert!(waiting.now_or_never().is_none());
            }
            site.until_waiting(PAIRS);
            let races = firsts.into_iter().zip(waits).map(|(first, mut waiting)| {
                let late = Duration::from_micros(random.u64(..12_000));
                let (told, untold) = (&told, &untold);
                async move {
                    let release = first.release();
                    spin(late).await;
                    let heard = (&mut waiting).now_or_never();
                    let counted = if heard.is_some() { told } else { untold };
                    counted.fetch_add(1, Ordering::Relaxed);
                    drop(heard);
                    drop(waiting);
                    release.await.expect("held to the end");
                }
            });
            join_all(races).await;
        }
    });
    let (told, untold) = (told.into_inner(), untold.into_inner());
    println!("{told} were told of the grant, {untold} were dropped before");
    assert!(told > 0 && untold > 0, "{told} told, {untold} not: no race");
    nothing_is_held(site, &keys);
}

/// Lets the others run until the time has passed: the runtime's own clock ticks in milliseconds.
async fn spin(time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        tokio::task::yield_now().await;
    }
}

/// Inside one process: the lock goes from the holder to the next in line, who leaves in that moment, so that it has to go
/// on to the one behind.
pub(crate) fn releases_and_hand_overs_that_coincide_leave_nothing(site: &Site) {
    const LINES: usize = 8;
    let locker = site.locker();
    let keys: Vec<String> = (0..LINES)
        .map(|key| site.key(&format!("line{key}")))
        .collect();
    let (rounds, seed) = (rounds(2000) / LINES, seed("releases and hand-overs"));
    run(async {
        let lines = keys.iter().enumerate().map(|(number, key)| {
            let mut random = Rng::with_seed(seed.wrapping_add(number as u64));
            let lock = locker.lock(&**key);
            tokio::spawn(async move {
                for round in 0..rounds {
                    let first = lock.acquire().await.expect("a turn");
                    let mut leaves = Box::pin(lock.acquire());
                    let mut stays = Box::pin(lock.acquire());
                    assert!((&mut leaves).now_or_never().is_none());
                    assert!((&mut stays).now_or_never().is_none());
                    let (early, yields) = (random.bool(), random.usize(..6));
                    if early {
                        drop(first);
                    } else {
                        drop(first.release());
                    }
                    for _ in 0..yields {
                        tokio::task::yield_now().await;
                    }
                    drop(leaves);
                    let second = tokio::time::timeout(SOON, stays).await;
                    let second =
                        second.unwrap_or_else(|_| panic!("round {round}: the turn is lost"));
                    drop(second.expect("a turn"));
                }
            })
        });
        for line in join_all(lines).await {
            line.expect("no panic");
        }
    });
    nothing_is_held(site, &keys);
}

/// What is under way when the connection is cut.
#[derive(Clone, Copy, Debug)]
enum Moment {
    BeforeTheTry,
    TheTryOnItsWay,
    TheAnswerToTheTryOnItsWay,
    Held,
    Waiting,
    TheGrantOfAWaitOnItsWay,
    TheReleaseOnItsWay,
    TheAnswerToTheReleaseOnItsWay,
}

const MOMENTS: [Moment; 8] = [
    Moment::BeforeTheTry,
    Moment::TheTryOnItsWay,
    Moment::TheAnswerToTheTryOnItsWay,
    Moment::Held,
    Moment::Waiting,
    Moment::TheGrantOfAWaitOnItsWay,
    Moment::TheReleaseOnItsWay,
    Moment::TheAnswerToTheReleaseOnItsWay,
];

/// Slow enough for the server's view to be asked while an answer is on its way.
const SLOW: Duration = Duration::from_millis(700);

pub(crate) fn a_connection_that_is_lost_at_any_step_leaves_nothing(site: &Site) {
    let direct = site.locker();
    run(async {
        for moment in MOMENTS {
            println!("{moment:?}");
            let proxy = site.proxy();
            let config = site
                .config_via(&proxy)
                .heartbeat(Duration::from_millis(500));
            let locker = site.locker_of(config);
            cut_at(site, moment, &proxy, &locker, &direct).await;
            let lock = site.lock(&direct, "cut").timeout(SOON);
            let guard = lock.acquire().await;
            guard
                .unwrap_or_else(|error| panic!("{moment:?}: {error}"))
                .release()
                .await
                .expect("held to the end");
            locker.shutdown(SOON).await;
        }
    });
}

async fn cut_at(site: &Site, moment: Moment, proxy: &Proxy, locker: &Locker, direct: &Locker) {
    let lock = site.lock(locker, "cut").timeout(SOON);
    let held = || !site.holders("cut").is_empty();
    let cut = || {
        proxy.cut();
        proxy.resume();
        proxy.delay(Duration::ZERO);
    };
    match moment {
        Moment::BeforeTheTry => {
            cut();
            drop(lock.acquire().await.expect("a new connection"));
        }
        Moment::TheTryOnItsWay => {
            proxy.stall();
            let mut acquiring = Box::pin(lock.acquire());
            assert!((&mut acquiring).now_or_never().is_none());
            cut();
            drop(acquiring.await.expect("another try"));
        }
        Moment::TheAnswerToTheTryOnItsWay => {
            proxy.delay(SLOW);
            let mut acquiring = Box::pin(lock.acquire());
            assert!((&mut acquiring).now_or_never().is_none());
            until("the server has granted it", held);
            cut();
            let guard = acquiring.await.expect("another try");
            assert!(guard.is_held());
            guard.release().await.expect("held to the end");
        }
        Moment::Held => {
            let guard = lock.acquire().await.expect("free");
            cut();
            let told = tokio::time::timeout(SOON, guard.lost()).await;
            assert!(told.expect("the holder is told").is_lost());
        }
        Moment::Waiting | Moment::TheGrantOfAWaitOnItsWay => {
            let first = site.lock(direct, "cut").acquire().await.expect("free");
            let before = site.holders("cut");
            let mut acquiring = Box::pin(lock.acquire());
            assert!((&mut acquiring).now_or_never().is_none());
            site.until_waiting(1);
            if let Moment::Waiting = moment {
                cut();
                first.release().await.expect("held to the end");
            } else {
                proxy.delay(SLOW);
                first.release().await.expect("held to the end");
                until("the server has granted the wait", || {
                    held() && site.holders("cut") != before
                });
                cut();
            }
            let guard = acquiring.await.expect("another wait");
            assert!(guard.is_held());
            guard.release().await.expect("held to the end");
        }
        Moment::TheReleaseOnItsWay => {
            let guard = lock.acquire().await.expect("free");
            proxy.stall();
            let release = guard.release();
            cut();
            assert!(release.await.is_err_and(|error| error.is_lost()));
        }
        Moment::TheAnswerToTheReleaseOnItsWay => {
            let guard = lock.acquire().await.expect("free");
            proxy.delay(SLOW);
            let release = guard.release();
            until("the server has taken it back", || !held());
            cut();
            // Nobody knows any more that it was held until then.
            assert!(release.await.is_err_and(|error| error.is_lost()));
        }
    }
}
