//! Items that are no functions, and functions without a body.

use dlock::db_locked;

#[db_locked]
struct Account;

#[db_locked]
pub trait Service {
    fn call(&self);
}

#[db_locked]
mod module {
    pub fn function() {}
}

#[db_locked]
const SIZE: usize = 1;

pub trait Job {
    #[db_locked]
    fn run(&self);
}

impl Job for Account {
    fn run(&self) {}
}

fn main() {
    Account.run();
    module::function();
    let _ = SIZE;
}
