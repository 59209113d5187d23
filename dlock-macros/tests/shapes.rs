//! Every function shape under the attribute: that it compiles as it stands, and what runs under the lock.

#![deny(missing_docs, warnings, clippy::pedantic, clippy::nursery)]
#![forbid(unsafe_code)]
#![allow(
    clippy::unused_async,
    clippy::unused_self,
    clippy::missing_const_for_fn,
    reason = "the shapes are minimal on purpose"
)]

extern crate self as dlock;

#[allow(clippy::pedantic, clippy::nursery)]
mod fake;
pub use fake::__private;

use std::fmt::Display;

use dlock_macros::db_locked;
use fake::{Error, Fate, Locker, block_on, events, note, with_fate};

type Done<T = ()> = Result<T, Error>;

fn assert_send<T: Send>(value: T) -> T {
    value
}

struct Account {
    id: u32,
    pos: (u8, u8),
    balance: i64,
    locker: Locker,
}

fn account() -> Account {
    Account {
        id: 7,
        pos: (1, 2),
        balance: 10,
        locker: Locker("own"),
    }
}

#[db_locked]
fn plain() -> Done {
    note("body");
    Ok(())
}

#[test]
fn the_default_key_is_the_path_of_the_function() {
    plain().unwrap();
    assert_eq!(
        events(),
        ["acquire shapes::plain", "body", "release shapes::plain"]
    );
}

#[db_locked(key = "a/{id}/{account.id}/{account.pos.1:02}/{width:>width$}")]
fn captures(account: &Account, id: &str, width: usize) -> Done<usize> {
    Ok(account.id as usize + id.len() + width)
}

#[test]
fn keys_capture_parameters_and_fields() {
    assert_eq!(captures(&account(), "x", 3), Ok(11));
    assert_eq!(events()[0], "acquire a/x/7/02/  3");
}

#[db_locked(key = format!("{}-{id}", account.pos.0))]
fn key_expression(account: Account, id: u8) -> Done<Account> {
    let _ = id;
    Ok(account)
}

const NAME: &str = "constant";

#[db_locked(key = NAME, timeout = 2 * 60)]
async fn constant_key() -> Done {
    Ok(())
}

#[test]
fn keys_are_expressions_too() {
    key_expression(account(), 3).unwrap();
    assert_eq!(events()[0], "acquire 1-3");
    block_on(constant_key()).unwrap();
    assert_eq!(events()[..2], ["timeout Some(120s)", "acquire constant"]);
}

impl Account {
    #[db_locked(key = "settle/{self.id}", timeout = 2.5, locker = self.locker)]
    async fn settle(&mut self, amount: i64) -> Done<&mut i64> {
        self.balance += amount;
        Ok(&mut self.balance)
    }

    #[db_locked(key = "reborrow/{self.id}", mode = shared)]
    fn reborrow(&mut self, also: bool) -> Done<&mut i64> {
        if also {
            return Ok(&mut self.balance);
        }
        Err(Error::Lost("own".to_owned()))
    }

    #[db_locked(key = "boxed", timeout = self.timeout())]
    fn boxed(self: Box<Self>) -> Done<u32> {
        Ok(self.id)
    }

    #[db_locked(key = "consumed")]
    async fn consumed(self) -> Done<Self> {
        Ok(self)
    }

    #[db_locked(key = "elided")]
    fn elided<'a>(&self, text: &'a str, _: &str) -> Done<Text<'a>> {
        Ok(Text(text))
    }

    #[db_locked(key = "associated")]
    fn associated() -> Done<Self> {
        Ok(account())
    }

    fn timeout(&self) -> Option<std::time::Duration> {
        self.balance
            .try_into()
            .ok()
            .map(std::time::Duration::from_secs)
    }
}

struct Text<'a>(&'a str);

#[test]
fn methods_with_every_receiver() {
    let mut account = account();
    *assert_send(block_on(assert_send(account.settle(5)))).unwrap() += 1;
    assert_eq!(account.balance, 16);
    assert_eq!(
        events(),
        [
            "timeout Some(2.5s)",
            "locker own",
            "acquire settle/7",
            "release settle/7"
        ]
    );
    *account.reborrow(true).unwrap() += 1;
    assert!(account.reborrow(false).is_err());
    assert_eq!(account.balance, 17);
    assert_eq!(events()[..2], ["shared", "acquire reborrow/7"]);
    assert_eq!(account.elided("x", "y").unwrap().0, "x");
    let account = block_on(account.consumed()).unwrap();
    assert_eq!(Box::new(account).boxed(), Ok(7));
    assert_eq!(Account::associated().unwrap().id, 7);
    assert!(events().contains(&"timeout Some(17s)".to_owned()));
}

#[db_locked(key = "{x}/{N}")]
async fn generic<'a, T, const N: usize>(
    x: T,
    list: &'a [T; N],
    by: impl Fn(&T) -> bool + Send,
) -> Done<Vec<&'a T>>
where
    T: Display + Sync + Send,
{
    let _ = x;
    Ok(list.iter().filter(|item| by(item)).collect())
}

#[db_locked]
fn patterns(
    (a, b): (u8, u8),
    mut c: u8,
    Account { id, .. }: &Account,
    [d, ..]: [u8; 2],
    _: u8,
) -> Done<u32> {
    c += a + b + d;
    Ok(u32::from(c) + id)
}

#[test]
fn generics_and_patterns() {
    assert_eq!(
        block_on(generic(0, &[1, 2, 3], |n| *n > 1)),
        Ok(vec![&2, &3])
    );
    assert_eq!(events()[0], "acquire 0/3");
    assert_eq!(patterns((1, 2), 3, &account(), [4, 5], 6), Ok(17));
}

#[db_locked(on_error = |error| panic!("{error}"))]
fn opaque() -> impl Iterator<Item = u8> {
    note("body");
    [1, 2].into_iter()
}

#[db_locked]
fn opaque_inside(fail: bool) -> Result<impl Display, Error> {
    if fail {
        return Err(Error::Lost("own".to_owned()));
    }
    Ok("text")
}

#[db_locked]
async fn opaque_async() -> Result<impl Display + Send, Error> {
    Ok(1)
}

#[test]
fn opaque_return_types() {
    assert_eq!(opaque().sum::<u8>(), 3);
    assert_eq!(opaque_inside(false).unwrap().to_string(), "text");
    assert!(opaque_inside(true).is_err());
    assert_eq!(block_on(opaque_async()).unwrap().to_string(), "1");
    with_fate(Fate::Busy, || assert!(opaque_inside(false).is_err()));
}

trait Job {
    async fn native(&self) -> Done<u8>;

    #[db_locked(key = "default")]
    fn by_default(&self) -> Done {
        note("by default");
        Ok(())
    }
}

impl Job for Account {
    #[db_locked(key = "native/{self.id}")]
    async fn native(&self) -> Done<u8> {
        Ok(1)
    }
}

#[test]
fn trait_methods() {
    assert_eq!(block_on(account().native()), Ok(1));
    account().by_default().unwrap();
    assert_eq!(
        events()[2..],
        ["acquire default", "by default", "release default"]
    );
}

/// Documented.
#[inline]
#[must_use]
#[db_locked(key = "decorated", on_error = panic)]
pub extern "C-unwind" fn decorated() -> u8 {
    #![allow(unused_variables)]
    //! Documented inside.
    let unused = 1;
    1
}

#[db_locked(on_error = panic, on_busy = |error| panic!("busy: {error}"))]
fn never() -> ! {
    panic!("the body")
}

#[db_locked(on_error = panic)]
async fn never_async() -> ! {
    panic!("the body")
}

#[test]
fn decorations_and_functions_that_never_return() {
    assert_eq!(decorated(), 1);
    let message = |run: fn()| {
        *std::panic::catch_unwind(run)
            .unwrap_err()
            .downcast::<&str>()
            .unwrap()
    };
    assert_eq!(message(|| never()), "the body");
    assert_eq!(
        message(|| block_on(async { never_async().await })),
        "the body"
    );
    assert_eq!(events().last().unwrap(), "release shapes::never_async");
}

macro_rules! make {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($id:ident) $body:block) => {
        $(#[$meta])*
        $vis fn $name($id: u8) -> Done $body
    };
}

make! {
    #[db_locked(key = "made/{id}")]
    /// Documented.
    pub(crate) fn made_of_fragments(id) { let _ = id; Ok(()) }
}

macro_rules! item {
    ($item:item) => {
        $item
    };
}

item! {
    #[db_locked(key = "item")]
    fn made_of_an_item() -> Done {
        Ok(())
    }
}

macro_rules! keyed {
    ($name:ident, $key:literal, $timeout:expr) => {
        #[db_locked(key = $key, timeout = $timeout)]
        fn $name(id: u8) -> Done {
            let _ = id;
            Ok(())
        }
    };
}

keyed!(keyed, "keyed", "3s");

#[test]
fn functions_that_a_macro_makes() {
    made_of_fragments(5).unwrap();
    made_of_an_item().unwrap();
    keyed(6).unwrap();
    let events = events();
    let acquired: Vec<_> = events
        .iter()
        .filter(|event| event.starts_with("acquire"))
        .collect();
    assert_eq!(
        acquired,
        ["acquire made/5", "acquire item", "acquire keyed"]
    );
    assert!(events.contains(&"timeout Some(3s)".to_owned()));
}
