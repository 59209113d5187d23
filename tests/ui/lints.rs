//! Lints about the user's own lines still fire.

#![deny(unused)]

use dlock::{Error, db_locked};

#[db_locked]
fn sync(argument: u8) -> Result<u8, Error> {
    let variable = 1;
    let mut changed = 2;
    Ok(changed)
}

#[db_locked]
async fn is_async(argument: u8) -> Result<u8, Error> {
    let variable = 1;
    return Ok(1);
    Ok(2)
}

#[db_locked]
fn locked() -> Result<u8, Error> {
    Ok(1)
}

fn main() {
    let _ = (sync(1), is_async(1));
    locked();
}
