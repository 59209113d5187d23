//! What each task does.

pub(crate) mod ci;
mod command;
mod interop;
mod rust_version;
pub(crate) mod servers;
pub(crate) mod test;
