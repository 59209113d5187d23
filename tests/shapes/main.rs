//! Every function shape under the attribute: its body, and what its body took, are gone before the lock is free again.
//!
//! Each shape runs on a plain thread, on both flavours of tokio and on smol.

#![allow(
    clippy::unused_async,
    clippy::unused_self,
    clippy::needless_pass_by_value,
    clippy::unnecessary_wraps,
    reason = "the shapes are minimal on purpose"
)]

mod cost;
mod functions;
mod futures;
mod impl_blocks;
mod methods;
mod never;
mod odd;
mod outcomes;
mod regressions;
mod runtimes;
mod services;
mod support;
