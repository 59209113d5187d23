//! Every function shape under the attribute, under the strictest lints, in the editions 2018, 2021 and 2024.
//!
//! Nothing that the attribute writes may warn here, and all of it must compile.

#![deny(missing_docs, unsafe_code, unreachable_pub, warnings, clippy::pedantic)]
#![allow(
    clippy::unused_async,
    clippy::unused_self,
    clippy::manual_async_fn,
    clippy::must_use_candidate,
    clippy::missing_errors_doc,
    clippy::missing_panics_doc,
    clippy::needless_pass_by_value,
    clippy::unnecessary_wraps,
    reason = "the shapes are minimal on purpose, and these lints speak of what the user wrote"
)]

use std::fmt::Display;
use std::future::Future;
use std::pin::Pin;
use std::sync::Mutex;

use async_trait::async_trait;
use dlock::db_locked;

pub mod unsafe_functions;

/// What most functions here return.
pub type Done<T> = Result<T, dlock::Error>;

/// The key is the path.
#[db_locked]
pub fn plain() -> Done<()> {
    Ok(())
}

/// Every argument of a sync function.
#[db_locked(
    key = "every/{id}/{name}/{pair.0:02}",
    timeout = 2.5,
    mode = exclusive,
    on_busy = skip,
    on_error = panic,
    on_lost = finish,
    fencing = false,
    reentrant = true
)]
pub fn every_argument(id: u8, name: &str, pair: &(u8, u8)) -> Option<usize> {
    if id == 1 {
        return None;
    }
    Some(name.len() + usize::from(pair.1))
}

/// An async function.
#[db_locked(key = "async/{id}", timeout = "1m30s", on_lost = cancel)]
pub async fn async_function(id: u8) -> Done<u8> {
    if id == 1 {
        return Err(dlock::Error::NotInitialized);
    }
    async {}.await;
    Ok(id)
}

/// Without a value.
#[db_locked(key = "unit", on_error = panic)]
pub fn unit() {}

/// Without a value, and async.
#[db_locked(key = "unit", on_busy = skip, on_error = |error| panic!("{}", error))]
pub async fn unit_async() {}

/// Generic in all ways.
#[db_locked(key = "generic/{N}/{label}")]
pub async fn generic<'a, T, const N: usize>(
    list: &'a [T; N],
    label: impl Display + Send,
    wanted: impl Fn(&T) -> bool + Send,
) -> Done<Vec<&'a T>>
where
    T: Sync,
{
    Ok(list.iter().filter(|item| wanted(item)).collect())
}

/// Patterns.
#[db_locked(key = "patterns")]
pub fn patterns((a, mut b): (u8, u8), [c, ..]: [u8; 2], _: u8) -> Done<u8> {
    b += a;
    Ok(b + c)
}

/// A type that is hidden.
#[db_locked(key = "opaque", on_error = panic)]
pub fn opaque() -> impl Iterator<Item = u8> {
    vec![1, 2].into_iter()
}

/// A type that is hidden in another.
#[db_locked(key = "opaque")]
pub fn opaque_within() -> Result<impl Display, dlock::Error> {
    Ok("text")
}

/// Never returns.
#[db_locked(key = "never", on_error = panic)]
pub fn never() -> ! {
    panic!("the body")
}

/// Never returns, and sees its caller.
#[db_locked(key = "never", on_error = panic)]
#[track_caller]
pub fn never_inline() -> ! {
    panic!("the body")
}

/// Never returns, and is async.
#[db_locked(key = "never", on_error = panic)]
pub async fn never_async() -> ! {
    panic!("the body")
}

/// Sees its caller. The guard of the mutex is a temporary of the tail: until the edition 2024 it outlives its block.
#[db_locked(key = "tracked")]
#[track_caller]
pub fn tracked(counter: &Mutex<Counter>) -> Done<usize> {
    Ok(counter.lock().unwrap().guarded().len())
}

/// Sees its caller, and returns nothing.
#[db_locked(key = "tracked", on_error = panic)]
#[track_caller]
pub fn tracked_unit() {}

/// A future, boxed.
#[db_locked(key = "boxed/{id}")]
pub fn boxed<'a>(id: &'a str) -> Pin<Box<dyn Future<Output = Done<&'a str>> + Send + 'a>> {
    Box::pin(async move { Ok(id) })
}

/// A future, hidden.
#[db_locked(key = "future/{id}")]
pub fn future(id: u8) -> impl Future<Output = Done<u8>> + Send {
    async move { Ok(id) }
}

/// Called from elsewhere.
#[must_use]
#[inline]
#[db_locked(key = "foreign", on_error = |_| 0)]
pub extern "C" fn foreign(value: u8) -> u8 {
    #![allow(unused_variables)]
    let unused = 1;
    value
}

/// Notes what is dropped while the lock is held.
pub struct Counter(pub fn() -> bool, pub Vec<bool>);

/// Notes whether the lock is held when it goes.
pub struct Guarded<'a>(&'a mut Counter);

impl Counter {
    /// Something with a destructor that stands in a tail.
    pub fn guarded(&mut self) -> Guarded<'_> {
        Guarded(self)
    }
}

impl Guarded<'_> {
    /// Of the list before it went.
    pub fn len(&self) -> usize {
        (self.0).1.len()
    }

    /// Whether nothing was noted.
    pub fn is_empty(&self) -> bool {
        (self.0).1.is_empty()
    }
}

impl Drop for Guarded<'_> {
    fn drop(&mut self) {
        let held = (self.0).0();
        (self.0).1.push(held);
    }
}

/// An account.
#[derive(Debug, Default)]
pub struct Account {
    /// Its number.
    pub id: u32,
    balance: i64,
}

#[db_locked(timeout = 1)]
impl Account {
    /// Not touched.
    pub const SIZE: usize = 1;

    /// Borrows.
    pub fn settle(&mut self, amount: i64) -> Done<&mut i64> {
        self.balance += amount;
        Ok(&mut self.balance)
    }

    /// Consumes.
    pub async fn close(self) -> Done<Self> {
        Ok(self)
    }

    /// Not locked.
    #[db_locked(skip)]
    pub fn balance(&self) -> i64 {
        self.balance
    }

    /// Locked in its own way.
    #[db_locked(key = "account/{self.id}", mode = exclusive)]
    pub fn boxed(self: Box<Self>) -> Done<u32> {
        Ok(self.id)
    }
}

/// Native async methods.
pub trait Job {
    /// Without a body here.
    fn run(&self, id: u8) -> Done<u8>;

    /// With one.
    #[db_locked(key = "default")]
    fn by_default(&self) -> Done<u8> {
        self.run(1)
    }
}

#[db_locked]
impl Job for Account {
    fn run(&self, id: u8) -> Done<u8> {
        Ok(id)
    }
}

/// Async methods behind a trait object.
#[async_trait]
pub trait Service {
    /// An async method.
    async fn call(&self, pair: (u8, u8), name: String) -> Done<String>;
}

#[async_trait]
impl Service for Account {
    #[db_locked(key = "{self.id}/{a}/{b}/{name}")]
    async fn call(&self, (a, b): (u8, u8), name: String) -> Done<String> {
        if a > b {
            return Err(dlock::Error::NotInitialized);
        }
        Ok(name)
    }
}

#[db_locked]
#[async_trait]
impl Service for u8 {
    async fn call(&self, _: (u8, u8), name: String) -> Done<String> {
        Ok(name)
    }
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use dlock::{Config, Locker};

    use super::*;

    fn memory() -> Locker {
        Locker::connect_blocking(Config::from_dsn("memory:").unwrap()).unwrap()
    }

    fn assert_send<T: Send>(value: T) -> T {
        value
    }

    #[test]
    fn sync_shapes_run() {
        memory().scope_sync(|| {
            plain().unwrap();
            unit();
            tracked_unit();
            assert_eq!(every_argument(2, "x", &(3, 4)), Some(5));
            assert_eq!(every_argument(1, "x", &(3, 4)), None);
            assert_eq!(patterns((1, 2), [3, 4], 5).unwrap(), 6);
            assert_eq!(opaque().sum::<u8>(), 3);
            assert_eq!(opaque_within().ok().unwrap().to_string(), "text");
            assert_eq!(foreign(3), 3);
            let mut account = Account::default();
            *account.settle(1).unwrap() += 1;
            assert_eq!(account.balance(), 2);
            assert_eq!(account.by_default().unwrap(), 1);
            assert_eq!(Box::new(account).boxed().unwrap(), 0);
            assert!(catch_unwind(|| never()).is_err());
            assert!(catch_unwind(|| never_inline()).is_err());
        });
    }

    #[test]
    fn async_shapes_run() {
        smol::block_on(memory().scope(assert_send(async {
            assert_eq!(async_function(2).await.unwrap(), 2);
            assert!(async_function(1).await.is_err());
            unit_async().await;
            let found = generic(&[1, 2, 3], "x", |n| *n > 1).await;
            assert_eq!(found.unwrap(), [&2, &3]);
            assert_eq!(boxed("x").await.unwrap(), "x");
            assert_eq!(future(7).await.unwrap(), 7);
            let account = Account::default().close().await.unwrap();
            let name = account.call((1, 2), "n".to_owned()).await;
            assert_eq!(name.unwrap(), "n");
            assert!(account.call((2, 1), "n".to_owned()).await.is_err());
            assert_eq!(7_u8.call((2, 1), "n".to_owned()).await.unwrap(), "n");
        })));
    }

    fn is_held() -> bool {
        // A thread of its own asks, so that the hold is not re-entered.
        let lock = dlock::locker().unwrap().lock("tracked");
        let asked = std::thread::spawn(move || lock.try_acquire_blocking());
        asked.join().unwrap().unwrap().is_none()
    }

    #[test]
    fn temporaries_of_the_tail_go_before_the_lock() {
        let counter = Mutex::new(Counter(is_held, Vec::new()));
        memory().scope_sync(|| tracked(&counter)).unwrap();
        assert_eq!(counter.into_inner().unwrap().1, [true]);
    }
}
