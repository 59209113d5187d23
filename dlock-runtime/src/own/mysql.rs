//! On a [`mysql_async::Conn`] or [`Transaction`](mysql_async::Transaction), or anything else that is
//! [`Queryable`] and has one session.
//!
//! ```no_run
//! use dlock_runtime::own::mysql::Lock;
//! use mysql_async::prelude::Queryable;
//!
//! # async fn f(mut conn: mysql_async::Conn) -> Result<(), Box<dyn std::error::Error>> {
//! let mut held = Lock::new("report/nightly").timeout(10).acquire(&mut conn).await?;
//! held.query_drop("CALL nightly_report()").await?;
//! held.release().await?;
//! # Ok(())
//! # }
//! ```
//!
//! Named locks belong to the session, never to a transaction: COMMIT and ROLLBACK do not free them. A lock on a `Transaction`
//! has to be released before its commit, so others may see the state before it; take the lock on the `Conn` instead, and
//! begin the transaction under it. They are exclusive only.

mod speech;

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Instant;

use futures_util::FutureExt;
use mysql_async::Statement;
use mysql_async::prelude::Queryable;

use super::{NOT_HELD, Wish, is_certain, wishes};
use crate::backend::session::driver::DriverError;
use crate::backend::session::mysql::names;
use crate::backend::session::mysql::settings::identity;
use crate::error::Error;
use crate::key::{self, Key, ServerKey};
use crate::locker::Locker;
use crate::scheme::KeyScheme;
use crate::timeout::Timeout;
use speech::Try;

/// A key, and how to take it on a connection of MySQL or MariaDB.
#[derive(Clone, Debug)]
#[must_use = "a lock does nothing until it is acquired"]
pub struct Lock {
    wish: Wish,
}

impl Lock {
    wishes!();

    /// The namespace of the native scheme. Default: the connection's current database, which is the namespace of a [`Locker`]
    /// whose DSN names that database.
    pub fn namespace(mut self, namespace: &str) -> Lock {
        self.wish.namespace = Some(namespace.into());
        self
    }

    /// Takes the lock, waiting up to the time-out. Limits on the time of statements that the caller has set do not end the wait
    /// before that.
    ///
    /// # Errors
    ///
    /// - [`Error::Busy`]: others kept the lock until the time-out.
    /// - [`Error::AlreadyHeld`]: this connection holds it, and [`reentrant`](Self::reentrant) was not asked for.
    /// - [`Error::WouldDeadlock`]: a locked body that this call belongs to holds a lock of this name.
    /// - [`Error::Refused`], [`Error::Unavailable`]: a statement failed.
    /// - [`Error::InvalidKey`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future before it is ready closes the connection; a wait ends on the server at once.
    pub async fn acquire<'c, Q: Queryable>(&self, conn: &'c mut Q) -> Result<Guard<'c, Q>, Error> {
        let since = Instant::now();
        if self.wish.timeout == Timeout::from(0) {
            return match self.try_acquire(conn).await? {
                Some(guard) => Ok(guard),
                None => Err(self.wish.busy(since, None)),
            };
        }
        let mut guard = self.guard(conn).await?;
        match self.take(&mut guard, since).await {
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
    pub async fn try_acquire<'c, Q: Queryable>(
        &self,
        conn: &'c mut Q,
    ) -> Result<Option<Guard<'c, Q>>, Error> {
        let mut guard = self.guard(conn).await?;
        match self.try_once(&mut guard).await {
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

    /// Takes the lock, runs the body on the connection, and releases. Also when the body fails: its error is returned, whatever
    /// the release says.
    ///
    /// # Errors
    ///
    /// Those of [`acquire`](Self::acquire), and the body has not run; the body's own; or [`Error::Lost`] after a body that went
    /// well, when the connection did not hold the lock to the end.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the connection. So does a panic of the body.
    pub async fn run<Q: Queryable, T, E>(
        &self,
        conn: &mut Q,
        body: impl AsyncFnOnce(&mut Q) -> Result<T, E>,
    ) -> Result<T, E>
    where
        E: From<Error>,
    {
        let mut guard = self.acquire(conn).await?;
        let outcome = body(&mut guard).await;
        let released = guard.release().await;
        let output = outcome?;
        released?;
        Ok(output)
    }

    /// Makes ready: the name, and the statement that releases it.
    async fn guard<'c, Q: Queryable>(&self, conn: &'c mut Q) -> Result<Guard<'c, Q>, Error> {
        let wish = &self.wish;
        let native = wish.native()?;
        let failed = |error| wish.failed(error);
        let name = match (native, &wish.namespace) {
            (Some(text), Some(namespace)) => key::mysql_name(namespace, text),
            (Some(text), None) => {
                let database = speech::database(conn).await.map_err(failed)?;
                key::mysql_name(&database, text)
            }
            (None, _) => {
                let invalid = |rule| wish.key.invalid(rule);
                let name = wish.scheme.mysql(&wish.key).map_err(invalid)?;
                let flavor = speech::flavor(conn).await.map_err(failed)?;
                match names::lock(&name, flavor).map_err(invalid)? {
                    ServerKey::Name(name) => name.to_string(),
                    _ => return Err(invalid("a lock of MySQL has a name")),
                }
            }
        };
        let release = speech::prepare_release(conn).await.map_err(failed)?;
        Ok(Guard {
            conn,
            wish: wish.clone(),
            name: name.into(),
            release,
            is_released: false,
        })
    }

    async fn take<Q: Queryable>(
        &self,
        guard: &mut Guard<'_, Q>,
        since: Instant,
    ) -> Result<(), Error> {
        let name = ServerKey::Name(guard.name.clone().into());
        self.wish
            .refuse_deadlock(&name, identity(guard.conn))
            .await?;
        if self.try_once(guard).await? {
            return Ok(());
        }
        let deadline = self.wish.timeout.deadline(since);
        let failed = |error| self.wish.failed(error);
        if speech::wait(guard.conn, &guard.name, deadline)
            .await
            .map_err(failed)?
        {
            return Ok(());
        }
        let holder = speech::holder(guard.conn, &guard.name)
            .await
            .map_err(failed)?;
        Err(self.wish.busy(since, holder))
    }

    async fn try_once<Q: Queryable>(&self, guard: &mut Guard<'_, Q>) -> Result<bool, Error> {
        let wish = &self.wish;
        match speech::try_once(guard.conn, &guard.name, wish.reentrant).await {
            Ok(Try::Taken) => Ok(true),
            Ok(Try::Busy) => Ok(false),
            Ok(Try::AlreadyHeld) => Err(wish.already_held()),
            Err(error) => Err(wish.failed(error)),
        }
    }
}

/// A lock that is held on the caller's connection, through which the connection is used meanwhile.
///
/// Dropped without [`release`](Self::release) it closes the connection: see [the module](super).
#[must_use = "dropping it closes the connection: release it"]
pub struct Guard<'c, Q: Queryable> {
    conn: &'c mut Q,
    wish: Wish,
    name: Arc<str>,
    release: Statement,
    is_released: bool,
}

impl<Q: Queryable> Guard<'_, Q> {
    /// The key as it was asked for.
    pub fn key(&self) -> &str {
        self.wish.key.text()
    }

    /// Releases the lock.
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
        let released = speech::release(self.conn, &self.release, &self.name).await;
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

impl<Q: Queryable> Deref for Guard<'_, Q> {
    type Target = Q;

    fn deref(&self) -> &Q {
        self.conn
    }
}

impl<Q: Queryable> DerefMut for Guard<'_, Q> {
    fn deref_mut(&mut self) -> &mut Q {
        self.conn
    }
}

impl<Q: Queryable> Drop for Guard<'_, Q> {
    fn drop(&mut self) {
        if self.is_released {
            return;
        }
        // There is no call that closes a connection which is only borrowed. But the driver closes one on which a call
        // failed otherwise than by the server's word; this call fails before anything is sent, because the statement has
        // a parameter. Behind a transaction that was dropped the first call is its rollback, which is given up half-way.
        for _ in 0..2 {
            let _ = self.conn.exec_drop(&self.release, ()).now_or_never();
        }
    }
}

impl<Q: Queryable> fmt::Debug for Guard<'_, Q> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard")
            .field("key", &self.key())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
