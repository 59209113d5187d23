//! Functions that return a future without being `async`: the lock goes into the future.

#![deny(warnings, clippy::pedantic)]
#![allow(
    clippy::manual_async_fn,
    clippy::unused_async,
    reason = "the forms are the point"
)]

extern crate self as dlock;

#[allow(clippy::pedantic, clippy::nursery)]
mod fake;
pub use fake::__private;

use std::future::Future;
use std::pin::Pin;

use async_trait::async_trait;
use dlock_macros::db_locked;
use fake::{Error, Fate, block_on, events, note, with_fate};

type Done<T = ()> = Result<T, Error>;
type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

#[db_locked(key = "impl/{id}")]
fn returns_impl(id: u8) -> impl Future<Output = Done<u8>> + Send {
    async move {
        note("body");
        Ok(id)
    }
}

#[db_locked(key = "boxed/{id}", on_error = panic)]
fn returns_boxed<'a>(id: &'a str) -> BoxFuture<'a, &'a str> {
    Box::pin(async move {
        note("body");
        id
    })
}

#[db_locked]
fn returns_pin() -> Pin<Box<dyn Future<Output = Done>>> {
    Box::pin(async { Ok(()) })
}

#[test]
fn nothing_is_locked_until_the_future_runs() {
    let future = returns_impl(3);
    assert_eq!(events(), [""; 0]);
    assert_eq!(block_on(future), Ok(3));
    assert_eq!(events(), ["acquire impl/3", "body", "release impl/3"]);
    assert_eq!(block_on(returns_boxed("x")), "x");
    assert_eq!(events(), ["acquire boxed/x", "body", "release boxed/x"]);
    block_on(returns_pin()).unwrap();
    assert_eq!(events()[0], "acquire futures::returns_pin");
}

#[test]
fn a_failure_is_the_output_of_the_future() {
    let busy = with_fate(Fate::Busy, || block_on(returns_impl(3)));
    assert_eq!(busy, Err(Error::Busy("impl/3".to_owned())));
}

struct Service {
    id: u8,
}

#[async_trait]
trait Job {
    async fn run(&self, pair: (u8, u8), name: String) -> Done<String>;
    async fn count(self: Box<Self>, by: &u8) -> Done<u8>;

    #[db_locked(key = "default/{name}", on_busy = skip)]
    async fn by_default(&self, name: &str) -> Done {
        note(name);
        Ok(())
    }

    #[db_locked(key = "nothing", on_error = panic)]
    async fn nothing(&mut self) {
        note("nothing");
    }
}

#[async_trait]
impl Job for Service {
    #[db_locked(key = "{self.id}/{a}/{b}/{name}", timeout = u64::from(self.id))]
    async fn run(&self, (a, b): (u8, u8), name: String) -> Done<String> {
        note("body");
        if a > b {
            return Err(Error::Lost("own".to_owned()));
        }
        Ok(name)
    }

    #[db_locked(key = format!("{}+{by}", self.id))]
    async fn count(mut self: Box<Self>, by: &u8) -> Done<u8> {
        self.id += by;
        Ok(self.id)
    }
}

#[test]
fn async_trait_methods_are_locked_inside_their_box() {
    let mut service = Service { id: 7 };
    let future = service.run((1, 2), "n".to_owned());
    assert_eq!(events(), [""; 0]);
    assert_eq!(block_on(future), Ok("n".to_owned()));
    assert_eq!(
        events(),
        [
            "timeout Some(7s)",
            "acquire 7/1/2/n",
            "body",
            "release 7/1/2/n"
        ]
    );
    assert!(block_on(service.run((2, 1), String::new())).is_err());
    events();
    block_on(service.by_default("d")).unwrap();
    block_on(service.nothing());
    assert_eq!(block_on(Box::new(service).count(&2)), Ok(9));
    assert_eq!(
        events(),
        [
            "acquire default/d",
            "d",
            "release default/d",
            "acquire nothing",
            "nothing",
            "release nothing",
            "acquire 7+2",
            "release 7+2"
        ]
    );
}
