//! A function that nobody calls is still reported.

#![deny(dead_code)]

use dlock::{Error, db_locked};

#[db_locked]
fn nobody_calls_this() -> Result<(), Error> {
    Ok(())
}

struct Account;

#[db_locked]
impl Account {
    async fn nobody_calls_this_either(&self) -> Result<(), Error> {
        Ok(())
    }
}

fn main() {
    let _ = Account;
}
