//! dlock against those who mean no good, on servers of the tests' own: impostors and downgrades, and keys that are made to
//! break statements; and with accounts that may do nothing.
//!
//! `cargo xtask test -p dlock-hostile` runs everything.
#![cfg(test)]

mod grants;
mod keys;
mod place;
#[cfg(feature = "tls")]
mod tls;
