//! What each task does.

pub(crate) mod bench;
pub(crate) mod ci;
mod command;
pub(crate) mod fuzz;
mod interop;
mod rust_version;
pub(crate) mod servers;
pub(crate) mod test;
pub(crate) mod torture;
