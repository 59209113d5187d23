//! One attribute a function.

use dlock::db_locked;

#[db_locked(key = "a")]
#[db_locked(key = "b")]
fn settle() -> Result<(), dlock::Error> {
    Ok(())
}

fn main() {
    let _ = settle();
}
