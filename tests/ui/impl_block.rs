//! What an attributed impl block cannot lock, and how to leave it out.

use dlock::{Error, db_locked};

macro_rules! getter {
    ($name:ident) => {
        fn $name(&self) -> u8 {
            1
        }
    };
}

struct Account;

#[db_locked]
impl Account {
    const fn size() -> usize {
        1
    }

    getter!(balance);

    #[db_locked(skip)]
    getter!(id);

    #[db_locked(skip, key = "a")]
    fn skipped(&self) {}

    #[db_locked(key = "a")]
    #[db_locked(key = "b")]
    fn twice(&self) -> Result<(), Error> {
        Ok(())
    }

    #[cfg_attr(all(), db_locked(skip))]
    fn conditional(&self) -> Result<(), Error> {
        Ok(())
    }

    #[db_locked(timeout = "10")]
    fn mistaken(&self) -> Result<(), Error> {
        Ok(())
    }

    #[db_locked = "a"]
    fn valued(&self) -> Result<(), Error> {
        Ok(())
    }
}

#[db_locked(skip)]
fn not_in_a_block() {}

struct Other;

impl Other {
    #[db_locked(skip)]
    fn in_a_plain_block(&self) {}
}

fn main() {
    let _ = (Account::size(), Account.balance(), Account.id());
    not_in_a_block();
    Other.in_a_plain_block();
}
