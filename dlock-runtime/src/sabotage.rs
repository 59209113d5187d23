//! Breaks the library on purpose, to see that the torture notices.
//!
//! Only builds with `RUSTFLAGS="--cfg dlock_sabotage"` have this module, and there nothing is broken either until the
//! environment says what. No feature of Cargo leads here.

use std::sync::OnceLock;

/// Whether the environment variable `DLOCK_SABOTAGE` names this.
pub(crate) fn is_on(what: &str) -> bool {
    static ON: OnceLock<Option<String>> = OnceLock::new();
    let on = ON.get_or_init(|| std::env::var("DLOCK_SABOTAGE").ok());
    on.as_deref() == Some(what)
}
