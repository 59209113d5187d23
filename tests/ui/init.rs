//! `init` has one place.

use dlock::db_locked;

#[db_locked(init = "memory:", on_error = panic)]
fn start() {}

struct Account;

#[db_locked(init = "memory:", on_error = panic)]
impl Account {
    fn settle(&self) {}
}

fn main() {
    start();
    Account.settle();
}
