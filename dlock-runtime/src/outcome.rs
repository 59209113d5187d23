//! What a locked function returns when its body did not run, or its lock was lost.

use crate::error::Error;

/// A return type that can carry a lock's failure.
///
/// Implemented for `Result<T, E>` with any error that implements `From<dlock::Error>`. Implement it for a type of
/// your own that says in its own words what went wrong, for instance a response with the status 423 or 503.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot carry the failure of a lock",
    label = "the lock may be busy, unavailable or lost, and this type cannot say so",
    note = "return a `Result<_, E>` whose error implements `From<dlock::Error>`: `anyhow::Result`, an enum with `#[from] dlock::Error`",
    note = "or give the failures somewhere to go: `on_error = handler` or `on_error = panic`",
    note = "or implement `dlock::FromLockError` for the type"
)]
pub trait FromLockError: Sized {
    /// The value that a locked function returns in place of its body's.
    fn from_lock_error(error: Error) -> Self;
}

#[diagnostic::do_not_recommend]
impl<T, E: From<Error>> FromLockError for Result<T, E> {
    fn from_lock_error(error: Error) -> Self {
        Err(error.into())
    }
}

/// A return type that can say "others have the lock, so there was nothing to do": for `on_busy = skip`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot say that the body was skipped",
    label = "`on_busy = skip` returns without running the body, and this type has no value for it",
    note = "return `()`, an `Option<_>`, or a `Result` of these",
    note = "or say what to return: `on_busy = handler`",
    note = "or implement `dlock::Skippable` for the type"
)]
pub trait Skippable: Sized {
    /// The value that a locked function returns when it skipped its body.
    fn skipped() -> Self;
}

impl Skippable for () {
    fn skipped() -> Self {}
}

impl<T> Skippable for Option<T> {
    fn skipped() -> Self {
        None
    }
}

#[diagnostic::do_not_recommend]
impl<T: Skippable, E> Skippable for Result<T, E> {
    fn skipped() -> Self {
        Ok(T::skipped())
    }
}
