//! PostgreSQL advisory locks.
