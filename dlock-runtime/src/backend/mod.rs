//! What a strategy does for the queue.

pub(crate) mod session;
