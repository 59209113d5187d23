//! What is known of a body before its locks are taken.

use std::sync::Arc;
use std::time::Duration;

use smallvec::{SmallVec, smallvec};

use crate::error::{Error, Unsupported};
use crate::global::{self, IntoConfig};
use crate::hold::frame;
use crate::key::{KeyText, Mode};
use crate::locker::Locker;
use crate::scheme::KeyScheme;
use crate::taking::{Manner, Taking};
use crate::tenure::Terms;
use crate::timeout::Timeout;

/// All that is known before the lock is taken.
#[derive(Debug)]
pub struct Entry {
    keys: SmallVec<[KeyText; 1]>,
    shared: bool,
    not_reentrant: bool,
    timeout: Option<Timeout>,
    scheme: Option<KeyScheme>,
    terms: Terms,
    locker: Option<Locker>,
    failed: Option<Error>,
}

/// A body that has joined no line yet, but is ready to.
pub(crate) struct Begun {
    pub(crate) id: u64,
    pub(crate) mode: Mode,
    pub(crate) taking: Taking,
    pub(crate) terms: Terms,
}

impl Entry {
    /// A request for a key of the locker in scope or of the process.
    pub fn new(key: impl Into<KeyText>) -> Entry {
        Entry {
            keys: smallvec![key.into()],
            shared: false,
            not_reentrant: false,
            timeout: None,
            scheme: None,
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

    /// `scheme = …`
    #[must_use]
    pub fn scheme(mut self, scheme: KeyScheme) -> Entry {
        self.scheme = Some(scheme);
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

    /// For a body that a [`Lock`](crate::Lock) runs.
    pub(crate) fn of(
        locker: Locker,
        keys: SmallVec<[KeyText; 1]>,
        mode: Mode,
        timeout: Option<Timeout>,
        scheme: Option<KeyScheme>,
    ) -> Entry {
        Entry {
            keys,
            shared: mode == Mode::Shared,
            not_reentrant: false,
            timeout,
            scheme,
            terms: Terms::default(),
            locker: Some(locker),
            failed: None,
        }
    }

    /// Makes the body ready to take its locks. `parks`: it is synchronous.
    pub(crate) fn begin(self, parks: bool) -> Result<Begun, Error> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let locker = self.locker.map_or_else(global::locker, Ok)?;
        let scheme = self.scheme.as_ref().unwrap_or_else(|| locker.key_scheme());
        let id = frame::next_id();
        let mode = if self.shared {
            Mode::Shared
        } else {
            Mode::Exclusive
        };
        let manner = Manner {
            mode,
            patience: locker.patience(self.timeout),
            name_holder: true,
            body: Some(id),
            reentrant: !self.not_reentrant,
            parks,
        };
        // A body with a limit of zero would be over before it began.
        let max_hold = self
            .terms
            .max_hold
            .filter(|max_hold| *max_hold > Duration::ZERO);
        Ok(Begun {
            id,
            mode,
            taking: Taking::new(locker.queue(), self.keys, scheme, manner)?,
            terms: Terms {
                max_hold,
                ..self.terms
            },
        })
    }
}
