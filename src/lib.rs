//! Runs a function's body inside a lock kept by the database that a team already has.
//!
//! Some functions must not run twice at once, anywhere: a nightly report, the settlement of an account, a
//! migration. Put [`#[db_locked]`](macro@db_locked) on them, call [`init`] once, and PostgreSQL, MySQL or MariaDB
//! keeps the lock.
//!
//! ```no_run
//! struct Account {
//!     id: u64,
//! }
//!
//! #[dlock::db_locked(key = "settle/{account.id}", timeout = 10)]
//! async fn settle(account: &Account) -> Result<(), dlock::Error> {
//!     // One body per account at a time, in all processes that use this database.
//!     Ok(())
//! }
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     dlock::init("postgres://app@db/app")?;
//!     settle(&Account { id: 7 }).await?;
//!     Ok(())
//! }
//! ```
//!
//! # What is promised
//!
//! While the body runs, no other body under the same key runs anywhere. When a pause of the process, a cut network
//! or a lost connection means that this can no longer be vouched for, an async body is stopped, and a synchronous
//! one returns [`Error::Lost`] at its end. The README lists what that does not cover.
//!
//! # Start-up
//!
//! [`init`] takes a DSN; [`init_with`] takes a [`Config`], which can also be read from the environment
//! ([`Config::from_env`]). Both work in a synchronous and in an async `main`, and return when the server was reached and
//! two connections were seen to exclude each other; [`Config::allow`] accepts by name what is refused otherwise.
//! [`shutdown`] gives everything back. A locked `main` starts dlock by itself: `#[db_locked(init = …)]`.
//!
//! | DSN | keeps the locks as |
//! |---|---|
//! | `postgres://user:password@host:5432/database` | advisory locks of the database |
//! | `mysql://user:password@host:3306/database`, `mariadb://…` | named locks of the server |
//! | `memory:`, `memory:name` | entries of a table in this process, for tests |
//!
//! # Without the attribute
//!
//! A [`Locker`] is a connected server. [`Locker::lock`] names a [`Lock`], acquiring it gives a [`Guard`], and each
//! call has an async and a blocking form:
//!
//! ```
//! use std::time::Duration;
//!
//! use dlock::{Config, Locker};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let locker = Locker::connect_blocking(Config::from_dsn("memory:")?)?;
//! let guard = locker.lock("user/1").timeout(Duration::from_millis(500)).acquire_blocking()?;
//! assert!(locker.lock("user/1").try_acquire_blocking()?.is_none());
//! guard.release_blocking()?;
//! # Ok(())
//! # }
//! ```
//!
//! # Inside a body
//!
//! [`check`] tells whether the lock is still held: a long synchronous body calls it between two steps. [`current`] is the
//! lock that the code runs under, and can be taken along to other threads. [`assert_locked!`] is for functions that rely on
//! their caller's lock. A locked function that a body calls under the same key runs under the body's hold.
//!
//! # Any runtime, or none
//!
//! All connections live on one thread of their own. Callers may be plain threads, tokio tasks of either flavour, smol
//! tasks, or anything else that polls futures. Dropping a future that waits for a lock ends the wait on the server and
//! leaves nothing behind.
//!
//! # Features
//!
//! - `postgres`, `mysql` (both on by default): the servers. MariaDB comes with `mysql`.
//! - `tls`: encrypted connections, by rustls with ring. `sslmode` and its MySQL counterparts are honoured, or refused
//!   by name.
//! - `sqlite`: leases in a file of SQLite, `sqlite:path`, for the processes of one machine.
//! - `tracing`, `metrics`: an [`observer`] that writes what happens to the locks as events of `tracing`, and one that counts
//!   it for the crate `metrics`. Each has to be given to [`Config::observer`].

pub use dlock_macros::db_locked;
pub use dlock_runtime::{
    AdvisoryKey, AlreadyHeld, Busy, Capabilities, Config, Current, Error, FromLockError, Guard,
    Hazard, HoldExceeded, Holder, HoldsMore, InitError, InitSource, IntoConfig, InvalidKey, Key,
    KeyNaming, KeyScheme, KeyValue, LastRun, Lock, LockInfo, Locker, Lost, Mode, Party, Reach,
    Refused, Report, Scoped, Skippable, Strategy, Timeout, TooManyHeld, Unavailable, Unsupported,
    WouldDeadlock, assert_locked, check, current, init, init_with, locker, observer, shutdown,
};

#[cfg(any(feature = "postgres", feature = "mysql", feature = "sqlite"))]
pub use dlock_runtime::lease;
#[cfg(any(feature = "postgres", feature = "mysql"))]
pub use dlock_runtime::{fencing, key_table, own};

#[doc(hidden)]
pub use dlock_runtime::__private;

/// The README's examples compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// So do those of the page for who comes from elsewhere, which need both servers.
#[cfg(all(doctest, feature = "postgres", feature = "mysql"))]
#[doc = include_str!("../docs/coming-from.md")]
struct ComingFrom;
