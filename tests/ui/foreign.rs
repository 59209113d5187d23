//! A panic cannot leave a function of another language's convention.

use dlock::db_locked;

#[db_locked(on_error = panic)]
extern "C" fn callback() {}

fn main() {
    callback();
}
