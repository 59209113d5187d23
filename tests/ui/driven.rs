//! What a runtime's attribute leaves, when it has done more than to drive the body.

use dlock::db_locked;

#[db_locked]
fn wrapped() {
    let body = async {}.wrapped();
    smol::block_on(body)
}

trait Wrapped: Sized {
    fn wrapped(self) -> Self {
        self
    }
}

impl<F: Future> Wrapped for F {}

fn main() {
    wrapped();
}
