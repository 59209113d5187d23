//! The `#[db_locked]` attribute.
