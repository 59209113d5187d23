//! Handlers: what they may name, and what they are.

use dlock::{Error, db_locked};

#[db_locked(on_error = |error| drop((error, id)))]
async fn takes_a_parameter(id: String) {}

#[db_locked(on_busy = |error| panic!("{id}: {error}"))]
fn captures_a_parameter(id: String) {}

#[db_locked(on_error = |_| "text")]
fn another_type() -> u8 {
    1
}

fn of_nothing() -> u8 {
    1
}

#[db_locked(on_error = of_nothing)]
async fn another_function() -> u8 {
    1
}

#[db_locked(on_error = panik)]
fn no_function() -> Result<u8, Error> {
    Ok(1)
}

fn main() {}
