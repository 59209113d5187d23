//! Values of another type than the argument takes: the message is at the value.

use dlock::{Error, db_locked};

const PATIENCE: &str = "10s";
const LIMIT: f64 = 1.5;

#[db_locked(timeout = PATIENCE)]
fn timeout() -> Result<(), Error> {
    Ok(())
}

#[db_locked(max_hold = LIMIT)]
async fn max_hold() -> Result<(), Error> {
    Ok(())
}

#[db_locked(locker = "here")]
fn locker() -> Result<(), Error> {
    Ok(())
}

#[db_locked(init = 7)]
fn main() -> Result<(), Error> {
    Ok(())
}
