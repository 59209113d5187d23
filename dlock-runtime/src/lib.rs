//! The runtime of dlock. Use it through the crate `dlock`, whose documentation starts at the beginning.

// With fewer servers than all, some of what serves them is not used.
#![cfg_attr(not(all(feature = "postgres", feature = "mysql")), allow(dead_code))]

mod attribute;
mod backend;
mod body;
mod capabilities;
mod clock;
mod config;
mod dsn;
mod endpoint;
mod entry;
mod error;
#[cfg(any(feature = "postgres", feature = "mysql"))]
pub mod fencing;
#[cfg(test)]
mod fuzz;
mod global;
mod guard;
mod hazard;
mod hold;
mod io;
mod key;
#[cfg(any(feature = "postgres", feature = "mysql"))]
pub mod key_table;
#[cfg(any(feature = "postgres", feature = "mysql", feature = "sqlite"))]
pub mod lease;
mod listing;
mod lock;
mod locker;
pub mod observer;
mod outcome;
#[cfg(any(feature = "postgres", feature = "mysql"))]
pub mod own;
mod park;
mod queue;
#[cfg(dlock_sabotage)]
mod sabotage;
mod scheme;
mod scope;
mod taking;
mod tenure;
mod timeout;
mod tls;

pub use capabilities::{Capabilities, Reach, Strategy};
pub use config::Config;
pub use error::{
    AlreadyHeld, Busy, Error, HoldExceeded, Holder, HoldsMore, InitError, InitSource, InvalidKey,
    Lost, Refused, TooManyHeld, Unavailable, Unsupported, WouldDeadlock,
};
pub use global::{IntoConfig, init, init_with, locker, shutdown};
pub use guard::Guard;
pub use hazard::Hazard;
pub use hold::{Current, check, current};
pub use key::{Key, KeyValue, Mode};
pub use listing::{LastRun, LockInfo, Party};
pub use lock::Lock;
pub use locker::{Locker, Report};
pub use outcome::{FromLockError, Skippable};
pub use scheme::{AdvisoryKey, KeyNaming, KeyScheme};
pub use scope::Scoped;
pub use timeout::Timeout;

/// What generated code calls. Not for people: it changes without notice.
#[doc(hidden)]
pub mod __private {
    pub use crate::attribute::*;
}
