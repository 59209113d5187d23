//! What is known of a body before its locks are taken.

use std::time::Duration;

use smallvec::{SmallVec, smallvec};

use crate::capabilities::Strategy;
use crate::error::{Error, unsupported};
use crate::global::{self, IntoConfig};
use crate::hold::{MAX_TTL, MIN_TTL, frame};
use crate::key::{KeyText, Mode};
use crate::locker::Locker;
use crate::scheme::KeyScheme;
use crate::taking::{Manner, Taking};
use crate::tenure::Terms;
use crate::timeout::Timeout;

/// The longest that a lock is kept after its body.
const MAX_MIN_HOLD: Duration = Duration::from_secs(365 * 24 * 3600);

/// All that is known before the lock is taken.
#[derive(Debug)]
pub struct Entry {
    keys: SmallVec<[KeyText; 1]>,
    shared: bool,
    not_reentrant: bool,
    timeout: Option<Timeout>,
    scheme: Option<KeyScheme>,
    terms: Terms,
    /// Of leases alone.
    ttl: Option<Duration>,
    /// `None`: as the locker's configuration says.
    fencing: Option<bool>,
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
            ttl: None,
            fencing: None,
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
    pub fn ttl(mut self, ttl: impl Into<Timeout>) -> Entry {
        self.ttl = ttl.into().duration();
        self
    }

    /// `fencing = …`
    #[must_use]
    pub fn fencing(mut self, on: bool) -> Entry {
        self.fencing = Some(on);
        self
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

    /// Refuses what no database's times could tell.
    fn check_min_hold(&self) -> Result<(), Error> {
        match self.terms.min_hold {
            Some(min_hold) if min_hold > MAX_MIN_HOLD => Err(unsupported(
                format!("min_hold = {min_hold:?}"),
                "a lock is kept for 365 days at most",
            )),
            _ => Ok(()),
        }
    }

    /// Refuses what only leases have.
    fn check_lease(&self, strategy: Strategy) -> Result<(), Error> {
        if strategy == Strategy::Lease {
            return match self.ttl {
                Some(ttl) if !(MIN_TTL..=MAX_TTL).contains(&ttl) => Err(unsupported(
                    format!("ttl = {ttl:?}"),
                    "a lease lasts from 1 s to 24 h",
                )),
                _ => Ok(()),
            };
        }
        if let Some(ttl) = self.ttl {
            return Err(unsupported(
                format!("ttl = {ttl:?} on a session lock"),
                "leave it out: a session lock lasts as long as its connection, and `limit` in the DSN says after how \
                 long a silence the server frees it; or use strategy=lease",
            ));
        }
        Ok(())
    }

    /// For a body that a [`Lock`](crate::Lock) runs.
    pub(crate) fn of(
        locker: Locker,
        keys: SmallVec<[KeyText; 1]>,
        mode: Mode,
        timeout: Option<Timeout>,
        scheme: Option<KeyScheme>,
        fencing: Option<bool>,
        terms: Terms,
    ) -> Entry {
        Entry {
            keys,
            shared: mode == Mode::Shared,
            not_reentrant: false,
            timeout,
            scheme,
            terms,
            ttl: None,
            fencing,
            locker: Some(locker),
            failed: None,
        }
    }

    /// Makes the body ready to take its locks. `parks`: it is synchronous.
    pub(crate) fn begin(self, parks: bool) -> Result<Begun, Error> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let locker = self.locker.clone().map_or_else(global::locker, Ok)?;
        self.check_min_hold()?;
        self.check_lease(locker.capabilities().strategy)?;
        let scheme = self.scheme.as_ref().unwrap_or_else(|| locker.key_scheme());
        let id = frame::next_id();
        let mode = if self.shared {
            Mode::Shared
        } else {
            Mode::Exclusive
        };
        let manner = Manner {
            want: locker.want(mode, self.fencing)?,
            patience: locker.patience(self.timeout),
            name_holder: true,
            body: Some(id),
            reentrant: !self.not_reentrant,
            parks,
            ttl: self.ttl,
            min_hold: self.terms.min_hold,
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
