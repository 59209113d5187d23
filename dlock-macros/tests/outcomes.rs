//! What a locked function returns for each outcome.

extern crate self as dlock;

mod fake;
pub use fake::__private;

use dlock_macros::db_locked;
use fake::{Error, Fate, block_on, events, note, with_fate};

type Done<T = ()> = Result<T, Error>;

const FATES: [Fate; 2] = [Fate::Busy, Fate::Unavailable];

fn busy() -> Error {
    Error::Busy("k".to_owned())
}

fn unavailable() -> Error {
    Error::Unavailable("k".to_owned())
}

fn lost() -> Error {
    Error::Lost("k".to_owned())
}

#[db_locked(key = "k")]
fn fallible(fail: bool) -> Done<u8> {
    note("body");
    if fail {
        return Err(Error::Lost("the body's own".to_owned()));
    }
    Ok(1)
}

#[db_locked(key = "k")]
async fn fallible_async(fail: bool) -> Done<u8> {
    fallible_body(fail)?;
    Ok(1)
}

fn fallible_body(fail: bool) -> Done {
    note("body");
    if fail {
        Err(Error::Lost("the body's own".to_owned()))
    } else {
        Ok(())
    }
}

#[test]
fn a_lock_that_is_not_had_is_an_error_and_the_body_does_not_run() {
    for (fate, error) in FATES.into_iter().zip([busy(), unavailable()]) {
        assert_eq!(with_fate(fate, || fallible(false)), Err(error.clone()));
        assert_eq!(
            with_fate(fate, || block_on(fallible_async(false))),
            Err(error)
        );
    }
    assert_eq!(events(), [""; 0]);
}

#[test]
fn a_loss_turns_a_good_body_into_an_error() {
    assert_eq!(
        with_fate(Fate::LostAtTheEnd, || fallible(false)),
        Err(lost())
    );
    assert_eq!(
        with_fate(Fate::LostAtTheEnd, || block_on(fallible_async(false))),
        Err(lost())
    );
    events();
    assert_eq!(
        with_fate(Fate::LostInTheMiddle, || block_on(fallible_async(false))),
        Err(lost())
    );
    assert_eq!(events(), ["acquire k", "release k"]);
}

#[test]
fn the_bodys_own_error_wins_over_a_loss() {
    let own = Err(Error::Lost("the body's own".to_owned()));
    assert_eq!(with_fate(Fate::LostAtTheEnd, || fallible(true)), own);
    assert_eq!(
        with_fate(Fate::LostAtTheEnd, || block_on(fallible_async(true))),
        own
    );
}

#[db_locked(key = "k", on_busy = skip)]
fn skips() -> Done {
    note("body");
    Ok(())
}

#[db_locked(key = "k", on_busy = skip, on_error = panic)]
async fn skips_or_panics() {
    note("body");
}

#[test]
fn skip_is_for_busy_alone() {
    assert_eq!(with_fate(Fate::Busy, skips), Ok(()));
    assert_eq!(with_fate(Fate::Unavailable, skips), Err(unavailable()));
    with_fate(Fate::Busy, || block_on(skips_or_panics()));
    assert_eq!(events(), [""; 0]);
    let panicked =
        std::panic::catch_unwind(|| with_fate(Fate::Unavailable, || block_on(skips_or_panics())));
    assert!(panicked.is_err());
}

#[allow(
    clippy::needless_pass_by_value,
    reason = "a handler is given the error"
)]
fn status(error: Error) -> u16 {
    if error.is_busy() { 423 } else { 503 }
}

#[db_locked(key = "k", on_error = status)]
fn handled() -> u16 {
    200
}

#[db_locked(key = "k", on_busy = |_| 409, on_error = self::status)]
async fn handled_apart(other: &u16, own: String) -> u16 {
    *other + u16::try_from(own.len()).unwrap_or(0)
}

struct Service {
    closed: u16,
}

impl Service {
    #[db_locked(key = "k", on_error = |error| if error.is_busy() { self.closed } else { status(error) })]
    fn handled_by_itself(&self) -> u16 {
        200
    }
}

#[test]
fn handlers_receive_the_error() {
    let calls: [fn() -> u16; 3] = [
        handled,
        || block_on(handled_apart(&200, String::new())),
        || Service { closed: 418 }.handled_by_itself(),
    ];
    let values = |fate| calls.map(|call| with_fate(fate, call));
    assert_eq!(values(Fate::Granted), [200, 200, 200]);
    assert_eq!(values(Fate::Busy), [423, 409, 418]);
    assert_eq!(values(Fate::Unavailable), [503, 503, 503]);
    assert_eq!(values(Fate::LostAtTheEnd), [503, 503, 503]);
}

mod renamed {
    pub(crate) use super::fake::__private;
}

#[db_locked(key = "k", crate = renamed, timeout = "1m30s")]
fn with_a_renamed_crate() -> Done {
    Ok(())
}

#[db_locked(key = "k", crate = crate::renamed, timeout = 0)]
async fn with_a_path_to_the_crate() -> Done {
    Ok(())
}

#[db_locked(key = "main", init = "memory:")]
fn main() -> Done {
    note("main");
    Ok(())
}

#[test]
fn settings_reach_the_entry() {
    with_a_renamed_crate().unwrap();
    block_on(with_a_path_to_the_crate()).unwrap();
    assert_eq!(
        events(),
        [
            "timeout Some(90s)",
            "acquire k",
            "release k",
            "timeout Some(0ns)",
            "acquire k",
            "release k"
        ]
    );
    main().unwrap();
    assert_eq!(
        events(),
        ["init memory:", "acquire main", "main", "release main"]
    );
}

#[db_locked(keys = ["a/{x}", "b", NAME], min_hold = 1, max_hold = "1m", ttl = TTL, fencing, reentrant = false, on_lost = finish)]
async fn with_every_setting(x: u8) -> Done {
    let _ = x;
    Ok(())
}

const NAME: &str = "c";
const TTL: u64 = 3;

#[db_locked(key = "k", fencing = false, on_lost = finish)]
fn always_finishes() -> Done {
    Ok(())
}

#[test]
fn every_setting_reaches_the_entry() {
    block_on(with_every_setting(7)).unwrap();
    assert_eq!(
        events(),
        [
            "min_hold Some(1s)",
            "max_hold Some(60s)",
            "ttl Some(3s)",
            "fencing true",
            "reentrant false",
            "finish when lost",
            "acquire a/7+b+c",
            "release a/7+b+c"
        ]
    );
    always_finishes().unwrap();
    assert_eq!(events(), ["fencing false", "acquire k", "release k"]);
}

struct Probe;

impl Drop for Probe {
    fn drop(&mut self) {
        note("dropped");
    }
}

#[db_locked(key = "k")]
fn owns(probe: Probe) -> Done {
    let _ = &probe;
    Ok(())
}

#[db_locked(key = "k")]
async fn owns_async(probe: Probe) -> Done {
    let _ = &probe;
    std::future::ready(()).await;
    Ok(())
}

#[test]
fn captured_parameters_are_dropped_under_the_lock() {
    owns(Probe).unwrap();
    block_on(owns_async(Probe)).unwrap();
    let expected = ["acquire k", "dropped", "release k"];
    assert_eq!(events(), [expected, expected].concat());
}
