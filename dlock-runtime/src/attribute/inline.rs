//! The lock around a body that stays where it is, for `#[track_caller]`: in a closure the caller's place is not seen.

use std::fmt;

use crate::attribute::Entry;
use crate::body::{Outcome, Running};
use crate::error::Error;

/// A lock that is held until [`leave`]; a body that returns early or unwinds drops it, which releases it too.
pub struct Held(Running);

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held").finish_non_exhaustive()
    }
}

/// Takes the lock, parking the thread.
///
/// # Errors
///
/// Whatever kept the lock from being taken.
pub fn enter(entry: Entry) -> Result<Held, Error> {
    let running = Running::start(entry)?;
    // This thread may have been stopped since the grant.
    running.check()?;
    Ok(Held(running))
}

/// Releases the lock, and says how it went.
pub fn leave<R>(held: Held, output: R) -> Outcome<R> {
    held.0.end(output)
}
