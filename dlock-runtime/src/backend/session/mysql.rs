//! MySQL and MariaDB named locks.
