//! What the user can set.

/// How dlock reaches its server, and how it behaves.
#[derive(Clone, Debug)]
pub struct Config {}
