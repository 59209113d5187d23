//! A constant function may run in the compiler.

use dlock::db_locked;

#[db_locked]
const fn settle() {}

fn main() {
    settle();
}
