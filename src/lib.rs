//! dlock.

pub use dlock_runtime::*;
