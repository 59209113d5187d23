//! The DSN.
