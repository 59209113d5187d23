//! On a [`tokio_postgres::Client`] or [`Transaction`].
//!
//! ```no_run
//! use dlock_runtime::own::postgres::Lock;
//!
//! # async fn f(mut client: tokio_postgres::Client) -> Result<(), Box<dyn std::error::Error>> {
//! // A session lock: kept until it is released, across transactions.
//! let mut held = Lock::new("report/nightly").timeout(10).acquire(&mut client).await?;
//! held.batch_execute("REFRESH MATERIALIZED VIEW totals").await?;
//! held.release().await?;
//!
//! // A transaction's lock: the server frees it with COMMIT or ROLLBACK, and nothing can be forgotten.
//! let transaction = client.transaction().await?;
//! Lock::new("settle/7").acquire_in(&transaction).await?;
//! transaction.commit().await?;
//! # Ok(())
//! # }
//! ```

mod speech;
mod wait;

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::time::Instant;

use tokio_postgres::{Client, Transaction};

use super::{NOT_HELD, Wish, is_certain, wishes};
use crate::backend::session::driver::DriverError;
use crate::error::Error;
use crate::key::{self, Key, Mode, ServerKey};
use crate::locker::Locker;
use crate::scheme::{AdvisoryKey, KeyScheme};
use crate::timeout::Timeout;
use speech::Speech;
use wait::{Span, Target, Try};

/// A key, and how to take it on a connection of PostgreSQL.
#[derive(Clone, Debug)]
#[must_use = "a lock does nothing until it is acquired"]
pub struct Lock {
    wish: Wish,
}

impl Lock {
    wishes!();

    /// Takes the lock in shared mode: others may hold it at the same time, if they take it shared too.
    pub fn shared(mut self) -> Lock {
        self.wish.mode = Mode::Shared;
        self
    }

    /// Takes the lock in exclusive mode, the default.
    pub fn exclusive(mut self) -> Lock {
        self.wish.mode = Mode::Exclusive;
        self
    }

    /// The namespace of the native scheme. Default: empty, as that of a [`Locker`] on PostgreSQL.
    pub fn namespace(mut self, namespace: &str) -> Lock {
        self.wish.namespace = Some(namespace.into());
        self
    }

    /// Takes a session lock, waiting up to the time-out. It is held until the guard's release, whatever becomes of transactions
    /// meanwhile. The caller's own `lock_timeout` and `statement_timeout` do not count for the wait, and are as before
    /// afterwards; a transaction that was begun by hand goes on also when the time has passed.
    ///
    /// # Errors
    ///
    /// - [`Error::Busy`]: others kept the lock until the time-out.
    /// - [`Error::AlreadyHeld`]: this connection holds it, and [`reentrant`](Self::reentrant) was not asked for.
    /// - [`Error::WouldDeadlock`]: a locked body that this call belongs to holds a lock of this name.
    /// - [`Error::Refused`], [`Error::Unavailable`]: the statement failed.
    /// - [`Error::InvalidKey`]: at once.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future before it is ready closes the connection; a wait ends on the server within five seconds.
    pub async fn acquire<'c>(&self, client: &'c mut Client) -> Result<Guard<'c>, Error> {
        let since = Instant::now();
        if self.wish.timeout == Timeout::from(0) {
            return match self.try_acquire(client).await? {
                Some(guard) => Ok(guard),
                None => Err(self.wish.busy(since, None)),
            };
        }
        let key = self.advisory_key()?;
        let mut guard = self.guard(client, key);
        match self
            .take(Speech::Client(guard.client), guard.target(), since)
            .await
        {
            Ok(()) => Ok(guard),
            Err(error) => {
                guard.is_released = is_certain(&error);
                Err(error)
            }
        }
    }

    /// Tries once. `None`: somebody else holds the lock.
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire), without [`Error::Busy`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future before it is ready closes the connection.
    pub async fn try_acquire<'c>(
        &self,
        client: &'c mut Client,
    ) -> Result<Option<Guard<'c>>, Error> {
        let key = self.advisory_key()?;
        let mut guard = self.guard(client, key);
        match self
            .try_once(Speech::Client(guard.client), guard.target())
            .await
        {
            Ok(true) => Ok(Some(guard)),
            Ok(false) => {
                guard.is_released = true;
                Ok(None)
            }
            Err(error) => {
                guard.is_released = is_certain(&error);
                Err(error)
            }
        }
    }

    /// Takes the lock, runs the body on the connection, and releases.
    ///
    /// Also when the body fails: its error is returned, whatever the release says. A transaction that the body has begun by
    /// hand, and that has failed, is rolled back for the release, which PostgreSQL refuses otherwise.
    ///
    /// # Errors
    ///
    /// Those of [`acquire`](Self::acquire), and the body has not run; the body's own; or [`Error::Lost`] after a body that went
    /// well, when the connection did not hold the lock to the end.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the connection. So does a panic of the body.
    pub async fn run<T, E>(
        &self,
        client: &mut Client,
        body: impl AsyncFnOnce(&mut Client) -> Result<T, E>,
    ) -> Result<T, E>
    where
        E: From<Error>,
    {
        let mut guard = self.acquire(client).await?;
        let outcome = body(&mut guard).await;
        let released = guard.release().await;
        let output = outcome?;
        released?;
        Ok(output)
    }

    /// Takes a lock of the transaction, waiting up to the time-out. The server frees it with the transaction's end, whatever
    /// that is; there is nothing to release. Time-outs leave the transaction as it was, at the price of a savepoint where the lock
    /// has to be waited for.
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire).
    ///
    /// # Cancel safety
    ///
    /// Whoever drops the future while it waits has to roll the transaction back, also by dropping it.
    pub async fn acquire_in(&self, transaction: &Transaction<'_>) -> Result<(), Error> {
        let since = Instant::now();
        let (speech, target) = (Speech::Transaction(transaction), self.in_transaction()?);
        if self.wish.timeout == Timeout::from(0) {
            if self.try_once(speech, target).await? {
                return Ok(());
            }
            return Err(self.wish.busy(since, None));
        }
        self.take(speech, target, since).await
    }

    /// Tries once to take a lock of the transaction. `false`: somebody else holds it.
    ///
    /// # Errors
    ///
    /// As [`try_acquire`](Self::try_acquire).
    ///
    /// # Cancel safety
    ///
    /// As [`acquire_in`](Self::acquire_in).
    pub async fn try_acquire_in(&self, transaction: &Transaction<'_>) -> Result<bool, Error> {
        let target = self.in_transaction()?;
        self.try_once(Speech::Transaction(transaction), target)
            .await
    }

    fn guard<'c>(&self, client: &'c mut Client, key: AdvisoryKey) -> Guard<'c> {
        Guard {
            client,
            wish: self.wish.clone(),
            key,
            is_released: false,
        }
    }

    fn in_transaction(&self) -> Result<Target, Error> {
        Ok(Target {
            key: self.advisory_key()?,
            mode: self.wish.mode,
            span: Span::Transaction,
        })
    }

    fn advisory_key(&self) -> Result<AdvisoryKey, Error> {
        let wish = &self.wish;
        if let Some(text) = wish.native()? {
            let namespace = wish.namespace.as_deref().unwrap_or("");
            return Ok(AdvisoryKey::Number(key::postgres_key(namespace, text)));
        }
        wish.scheme
            .postgres(&wish.key)
            .map_err(|rule| wish.key.invalid(rule))
    }

    /// Tries, and waits if that is not enough.
    async fn take(&self, speech: Speech<'_>, target: Target, since: Instant) -> Result<(), Error> {
        self.wish
            .refuse_deadlock(&server_key(target.key), speech.identity())
            .await?;
        if self.try_once(speech, target).await? {
            return Ok(());
        }
        let deadline = self.wish.timeout.deadline(since);
        match wait::until(speech, target, deadline).await {
            Ok(true) => Ok(()),
            Ok(false) => {
                let holder = speech
                    .holder(target.key)
                    .await
                    .map_err(|error| self.wish.failed(error))?;
                Err(self.wish.busy(since, holder))
            }
            Err(error) => Err(self.wish.failed(error)),
        }
    }

    async fn try_once(&self, speech: Speech<'_>, target: Target) -> Result<bool, Error> {
        let wish = &self.wish;
        match wait::try_once(speech, target, wish.reentrant).await {
            Ok(Try::Taken) => Ok(true),
            Ok(Try::Busy) => Ok(false),
            Ok(Try::AlreadyHeld) => Err(wish.already_held()),
            Err(error) => Err(wish.failed(error)),
        }
    }
}

fn server_key(key: AdvisoryKey) -> ServerKey {
    match key {
        AdvisoryKey::Number(number) => ServerKey::Number(number),
        AdvisoryKey::Pair(first, second) => ServerKey::Pair(first, second),
    }
}

/// A session lock that is held on the caller's connection, through which the connection is used meanwhile.
///
/// Dropped without [`release`](Self::release) it closes the connection: see [the module](super).
#[must_use = "dropping it closes the connection: release it"]
pub struct Guard<'c> {
    client: &'c mut Client,
    wish: Wish,
    key: AdvisoryKey,
    is_released: bool,
}

impl Guard<'_> {
    fn target(&self) -> Target {
        Target {
            key: self.key,
            mode: self.wish.mode,
            span: Span::Session,
        }
    }

    /// The key as it was asked for.
    pub fn key(&self) -> &str {
        self.wish.key.text()
    }

    /// Releases the lock. A transaction that was begun by hand, and that has failed, is rolled back first.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`] when the connection did not hold the lock any more; [`Error::Refused`] when the server did not
    /// release it, and the connection is closed.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the connection.
    pub async fn release(mut self) -> Result<(), Error> {
        let released = wait::release(Speech::Client(self.client), self.target()).await;
        // Otherwise it is still held, as far as known.
        self.is_released = released.is_ok();
        match released {
            Ok(true) => Ok(()),
            Ok(false) => Err(self.wish.lost(NOT_HELD)),
            Err(DriverError::Gone { reason, .. }) => Err(self.wish.lost(&reason)),
            Err(error) => Err(self.wish.failed(error)),
        }
    }
}

impl Deref for Guard<'_> {
    type Target = Client;

    fn deref(&self) -> &Client {
        self.client
    }
}

impl DerefMut for Guard<'_> {
    fn deref_mut(&mut self) -> &mut Client {
        self.client
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if !self.is_released {
            // Not a part of the driver's documented interface, but of what it promises to its own blocking twin: there
            // is no other way to close a client that is only borrowed.
            self.client.__private_api_close();
        }
    }
}

impl fmt::Debug for Guard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard")
            .field("key", &self.key())
            .field("mode", &self.wish.mode)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
