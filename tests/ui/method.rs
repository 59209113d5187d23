//! A method's type is not visible to the attribute.

use dlock::{Error, db_locked};

struct Account;

impl Account {
    #[db_locked]
    fn settle(&self) -> Result<(), Error> {
        Ok(())
    }

    #[db_locked(timeout = 1)]
    fn open() -> Result<Self, Error> {
        Ok(Account)
    }
}

fn main() {}
