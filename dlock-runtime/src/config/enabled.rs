//! `DLOCK_ENABLED`.

use std::ffi::OsString;

use crate::dsn::bad;
use crate::error::InitError;

const VARIABLE: &str = "DLOCK_ENABLED";

/// Whether dlock is switched on. Unset and empty it is: who misspells the wish to switch it off is told.
pub(super) fn read(lookup: impl Fn(&str) -> Option<OsString>) -> Result<bool, InitError> {
    let value = lookup(VARIABLE).unwrap_or_default();
    match value.to_string_lossy().trim() {
        "" | "1" | "true" => Ok(true),
        "0" | "false" => Ok(false),
        // Not shown unless it is a word: it could be a DSN in the wrong place.
        other => {
            let is_word =
                other.len() <= 12 && other.bytes().all(|byte| byte.is_ascii_alphanumeric());
            let shown = if is_word { other } else { "something else" };
            Err(bad(format!(
                "the environment variable {VARIABLE} is {shown}: write 0 or false to switch dlock off, 1 or true, or leave it out"
            )))
        }
    }
}
