//! Proves the promise under faults: worker processes take locks through the public API and write down what they see, a
//! nemesis breaks everything around them, and a checker reads the history.
//!
//! `cargo xtask torture` runs it; `docs/torture.md` says what was found.

pub mod checker;
pub mod clock;
pub mod fault;
pub mod history;
pub mod nemesis;
pub mod report;
pub mod worker;
