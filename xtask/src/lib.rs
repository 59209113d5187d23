//! What the tests of the workspace need: database servers of their own, and a network that breaks on demand.
//!
//! - [`servers`] starts PostgreSQL, MariaDB and Oracle MySQL in private directories, and stops, kills and freezes them;
//! - [`proxy`] is a TCP proxy that delays, stalls, cuts and refuses.
//!
//! The binary of the same package runs the tasks: `cargo xtask servers`, `cargo xtask test`, `cargo xtask ci`.

mod ports;
pub mod proxy;
pub mod servers;
