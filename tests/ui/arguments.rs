//! All mistakes at once, each with its remedy.

use dlock::db_locked;

#[db_locked(
    kye = "a",
    timeout = "10",
    mode = share,
    min_hold = -1,
    max_hold = 0,
    ttl = "3 parsecs",
    on_busy = "skip",
    on_error = "panic",
    on_lost = stop,
    fencing = maybe,
    reentrant,
    crate = "dlock"
)]
fn everything_is_wrong() {}

#[db_locked("report")]
fn without_a_name() {}

#[db_locked(timeout(10))]
fn with_parentheses() {}

#[db_locked(key = "a", key = "b")]
fn twice() {}

#[db_locked(key = "a" timeout = 1)]
fn without_a_comma() {}

#[db_locked(min_hold = "1m", max_hold = 59)]
fn contradictory() {}

#[db_locked(lease = 3)]
fn of_another_library() {}

fn main() {
    everything_is_wrong();
    without_a_name();
    with_parentheses();
    twice();
    without_a_comma();
    contradictory();
    of_another_library();
}
