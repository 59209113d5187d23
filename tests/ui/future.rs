//! Functions that would lock only the making of a future.

use std::future::{Future, ready};
use std::pin::Pin;

use dlock::{Error, db_locked};

#[db_locked]
fn made_elsewhere() -> impl Future<Output = Result<(), Error>> {
    ready(Ok(()))
}

#[db_locked]
fn made_in_steps(id: u8) -> Pin<Box<dyn Future<Output = Result<u8, Error>>>> {
    let next = id + 1;
    Box::pin(async move { Ok(next) })
}

#[db_locked]
fn made_inside() -> Option<Pin<Box<dyn Future<Output = ()>>>> {
    None
}

fn main() {
    let _ = (made_elsewhere(), made_in_steps(1), made_inside());
}
