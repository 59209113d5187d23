//! What the code that `#[db_locked]` generates calls. Not for people: it changes without notice.

use std::fmt;
use std::future::Future;

pub use crate::body::Outcome;
use crate::body::{self, Run};
pub use crate::entry::Entry;
use crate::error::Error;
pub use crate::global::IntoConfig;
pub use crate::hold::assert_locked;
pub use crate::key::KeyText;
pub use crate::outcome::{FromLockError, Skippable};
pub use crate::timeout::Timeout;

mod inline;

pub use inline::{Held, enter, leave};

/// Runs a synchronous body under the lock.
pub fn call<R>(entry: Entry, body: impl FnOnce() -> R) -> Outcome<R> {
    body::call(entry, body)
}

/// Runs an async body under the lock.
pub fn run<F: Future>(entry: Entry, body: F) -> impl Future<Output = Outcome<F::Output>> {
    Run::new(entry, body)
}

/// Makes a key of a template.
pub fn key(template: fmt::Arguments<'_>) -> KeyText {
    match template.as_str() {
        Some(text) => text.into(),
        None => template.to_string().into(),
    }
}

/// Whether a body's value is its own error. The inherent method of `Result` goes before the trait's, which serves
/// every other type.
#[derive(Debug)]
pub struct Failed<'a, R>(pub &'a R);

impl<T, E> Failed<'_, Result<T, E>> {
    /// Whether it is an `Err`.
    pub fn failed(&self) -> bool {
        self.0.is_err()
    }
}

/// See [`Failed`].
pub trait NotFailed {
    /// Never: only a `Result` has an error of its own.
    fn failed(&self) -> bool {
        false
    }
}

impl<R> NotFailed for Failed<'_, R> {}

/// `on_busy = handler` and `on_error = handler`: gives a closure its type.
pub fn handle<R>(handler: impl FnOnce(Error) -> R, error: Error) -> R {
    handler(error)
}

/// `on_error = panic`
#[track_caller]
#[cold]
#[allow(clippy::needless_pass_by_value, clippy::missing_panics_doc)]
pub fn panic(error: Error) -> ! {
    panic!("{error}")
}
