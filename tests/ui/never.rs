//! A function that never returns has no value for a failure.

use dlock::db_locked;

#[db_locked]
fn lead() -> ! {
    loop {}
}

#[db_locked(on_busy = skip, on_error = panic)]
async fn follow() -> ! {
    loop {}
}

fn main() {
    lead();
}
