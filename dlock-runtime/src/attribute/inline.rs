//! The lock around a body that stays where it is, for `#[track_caller]`: in a closure the caller's place is not seen.

use crate::attribute::Entry;
use crate::body::{self, Outcome};
use crate::error::Error;
use crate::guard::Guard;

/// A lock that is held until [`leave`]; a body that returns early or unwinds drops it, which releases it too.
#[derive(Debug)]
pub struct Held(Option<Guard>);

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(guard) = self.0.take() {
            // Whoever comes behind the body may rely on the release, and nobody is left to be told of its failure.
            let _ = guard.release_blocking();
        }
    }
}

/// Takes the lock, parking the thread.
///
/// # Errors
///
/// Whatever kept the lock from being taken.
pub fn enter(entry: Entry) -> Result<Held, Error> {
    let guard = entry.begin().and_then(body::settle_blocking)?;
    Ok(Held(Some(guard)))
}

/// Releases the lock, and says how it went.
pub fn leave<R>(mut held: Held, output: R) -> Outcome<R> {
    match held.0.take().map_or(Ok(()), Guard::release_blocking) {
        Ok(()) => Outcome::Ran(output),
        Err(error) => Outcome::Lost(Some(output), error),
    }
}
