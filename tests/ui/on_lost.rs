//! A thread cannot be stopped from outside.

use dlock::{Error, db_locked};

#[db_locked(on_lost = cancel)]
fn settle() -> Result<(), Error> {
    Ok(())
}

struct Account;

#[db_locked(on_lost = cancel)]
impl Account {
    async fn may_stop(&self) -> Result<(), Error> {
        Ok(())
    }

    fn may_not(&self) -> Result<(), Error> {
        Ok(())
    }
}

fn main() {
    let _ = (settle(), Account.may_stop(), Account.may_not());
}
