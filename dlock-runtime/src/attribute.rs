//! What the code that `#[db_locked]` generates calls. Not for people: it changes without notice.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

pub use crate::body::Outcome;
use crate::body::{self, Run};
use crate::error::Error;
use crate::global;
pub use crate::global::IntoConfig;
use crate::lock::Begun;
use crate::locker::Locker;
pub use crate::outcome::{FromLockError, Skippable};
pub use crate::timeout::Timeout;

mod inline;

pub use inline::{Held, enter, leave};

/// All that is known before the lock is taken.
#[derive(Debug)]
pub struct Entry {
    key: Arc<str>,
    shared: bool,
    timeout: Option<Timeout>,
    locker: Option<Locker>,
    failed: Option<Error>,
    later: Option<&'static str>,
}

impl Entry {
    /// A request for a key of the locker in scope or of the process.
    pub fn new(key: impl Into<Arc<str>>) -> Entry {
        Entry {
            key: key.into(),
            shared: false,
            timeout: None,
            locker: None,
            failed: None,
            later: None,
        }
    }

    /// `keys = […]`: all of them, in one order for everybody, or none.
    #[must_use]
    pub fn all<const N: usize>(keys: [Arc<str>; N]) -> Entry {
        let first = keys.into_iter().next().unwrap_or_default();
        Entry {
            later: Some("keys"),
            ..Entry::new(first)
        }
    }

    /// `min_hold = …`
    #[must_use]
    pub fn min_hold(mut self, _: impl Into<Timeout>) -> Entry {
        self.later = Some("min_hold");
        self
    }

    /// `max_hold = …`
    #[must_use]
    pub fn max_hold(mut self, _: impl Into<Timeout>) -> Entry {
        self.later = Some("max_hold");
        self
    }

    /// `ttl = …`
    #[must_use]
    pub fn ttl(mut self, _: impl Into<Timeout>) -> Entry {
        self.later = Some("ttl");
        self
    }

    /// `fencing = …`
    #[must_use]
    pub fn fencing(mut self, on: bool) -> Entry {
        if on {
            self.later = Some("fencing");
        }
        self
    }

    /// `reentrant = …`
    #[must_use]
    pub fn reentrant(self, _: bool) -> Entry {
        self
    }

    /// `on_lost = finish`
    #[must_use]
    pub fn finish_when_lost(mut self) -> Entry {
        self.later = Some("on_lost = finish");
        self
    }

    /// `timeout = …`
    #[must_use]
    pub fn timeout(mut self, timeout: impl Into<Timeout>) -> Entry {
        self.timeout = Some(timeout.into());
        self
    }

    /// `mode = shared`
    #[must_use]
    pub fn shared(mut self) -> Entry {
        self.shared = true;
        self
    }

    /// `locker = …`
    #[must_use]
    pub fn locker(mut self, locker: &Locker) -> Entry {
        self.locker = Some(locker.clone());
        self
    }

    /// `init = …`: starts dlock first; a failure becomes the function's.
    #[must_use]
    pub fn init(mut self, source: impl IntoConfig) -> Entry {
        self.failed = global::init_from(source).err().map(Error::from);
        self
    }

    fn begin(self) -> Result<Begun, Error> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        if let Some(argument) = self.later {
            return Err(Error::Unsupported(Arc::new(crate::error::Unsupported {
                what: argument.to_owned(),
                remedy: "leave the argument out".to_owned(),
            })));
        }
        let locker = self.locker.map_or_else(global::locker, Ok)?;
        let mut lock = locker.lock(self.key);
        if self.shared {
            lock = lock.shared();
        }
        if let Some(timeout) = self.timeout {
            lock = lock.timeout(timeout);
        }
        lock.begin()
    }
}

/// Runs a synchronous body under the lock.
pub fn call<R>(entry: Entry, body: impl FnOnce() -> R) -> Outcome<R> {
    match entry.begin().and_then(body::settle_blocking) {
        Ok(guard) => body::call(guard, body),
        Err(error) => Outcome::NotRun(error),
    }
}

/// Runs an async body under the lock.
pub fn run<F: Future>(entry: Entry, body: F) -> impl Future<Output = Outcome<F::Output>> {
    Run::new(entry.begin(), body)
}

/// Makes a key of a template.
pub fn key(template: fmt::Arguments<'_>) -> Arc<str> {
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
