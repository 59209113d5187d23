//! What the code that `#[db_locked]` generates calls. Not for people: it changes without notice.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use smallvec::{SmallVec, smallvec};

pub use crate::body::Outcome;
use crate::body::{self, Begun, Run};
use crate::error::{Error, Unsupported};
use crate::global;
pub use crate::global::IntoConfig;
pub use crate::hold::assert_locked;
pub use crate::key::KeyText;
use crate::lock::Lock;
use crate::locker::Locker;
pub use crate::outcome::{FromLockError, Skippable};
use crate::tenure::Terms;
pub use crate::timeout::Timeout;

mod inline;

pub use inline::{Held, enter, leave};

/// All that is known before the lock is taken.
#[derive(Debug)]
pub struct Entry {
    keys: SmallVec<[KeyText; 1]>,
    shared: bool,
    not_reentrant: bool,
    timeout: Option<Timeout>,
    terms: Terms,
    locker: Option<Locker>,
    failed: Option<Error>,
}

impl Entry {
    /// A request for a key of the locker in scope or of the process.
    pub fn new(key: impl Into<KeyText>) -> Entry {
        Entry {
            keys: smallvec![key.into()],
            shared: false,
            not_reentrant: false,
            timeout: None,
            terms: Terms::default(),
            locker: None,
            failed: None,
        }
    }

    /// `keys = […]`: all of them, in one order for everybody, or none.
    pub fn all<const N: usize>(keys: [KeyText; N]) -> Entry {
        Entry {
            keys: keys.into_iter().collect(),
            ..Entry::new("")
        }
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

    /// `min_hold = …`
    #[must_use]
    pub fn min_hold(mut self, min_hold: impl Into<Timeout>) -> Entry {
        self.terms.min_hold = min_hold.into().duration();
        self
    }

    /// `max_hold = …`
    #[must_use]
    pub fn max_hold(mut self, max_hold: impl Into<Timeout>) -> Entry {
        self.terms.max_hold = max_hold.into().duration();
        self
    }

    /// `ttl = …`
    #[must_use]
    pub fn ttl(self, ttl: impl Into<Timeout>) -> Entry {
        match ttl.into().duration() {
            Some(ttl) => self.unsupported(
                format!("ttl = {ttl:?} on a session lock"),
                "leave it out: a session lock lasts as long as its connection, and `limit` in the DSN says after how \
                 long a silence the server frees it",
            ),
            None => self,
        }
    }

    /// `fencing = …`
    #[must_use]
    pub fn fencing(self, on: bool) -> Entry {
        if !on {
            return self;
        }
        self.unsupported(
            "fencing = true on a session lock".to_owned(),
            "leave it out, and let the database check a version in the transaction that writes",
        )
    }

    /// `reentrant = …`
    #[must_use]
    pub fn reentrant(mut self, on: bool) -> Entry {
        self.not_reentrant = !on;
        self
    }

    /// `on_lost = finish`
    #[must_use]
    pub fn finish_when_lost(mut self) -> Entry {
        self.terms.finish = true;
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
        if let Err(error) = global::init_from(source) {
            self.failed = Some(error.into());
        }
        self
    }

    fn unsupported(mut self, what: String, remedy: &str) -> Entry {
        self.failed = Some(Error::Unsupported(Arc::new(Unsupported {
            what,
            remedy: remedy.to_owned(),
        })));
        self
    }

    fn begin(self, parks: bool) -> Result<Begun, Error> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let locker = self.locker.map_or_else(global::locker, Ok)?;
        let mut lock = Lock::all(locker, self.keys);
        if self.shared {
            lock = lock.shared();
        }
        if let Some(timeout) = self.timeout {
            lock = lock.timeout(timeout);
        }
        // A body with a limit of zero would be over before it began.
        let max_hold = self
            .terms
            .max_hold
            .filter(|max_hold| *max_hold > Duration::ZERO);
        let terms = Terms {
            max_hold,
            ..self.terms
        };
        lock.begin(terms, !self.not_reentrant, parks)
    }
}

/// Runs a synchronous body under the lock.
pub fn call<R>(entry: Entry, body: impl FnOnce() -> R) -> Outcome<R> {
    body::call(entry.begin(true), body)
}

/// Runs an async body under the lock.
pub fn run<F: Future>(entry: Entry, body: F) -> impl Future<Output = Outcome<F::Output>> {
    Run::new(entry.begin(false), body)
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
