//! The status file, as it is asked for.

use std::ffi::OsString;
use std::path::PathBuf;

use super::Config;
use crate::endpoint::Endpoint;

/// A status file, and what stands in it from the beginning.
pub(crate) struct StatusFile {
    pub(crate) path: PathBuf,
    pub(crate) program: String,
    pub(crate) strategy: &'static str,
}

/// `DLOCK_STATUS_FILE`. An empty variable counts as unset.
pub(super) fn read(lookup: impl Fn(&str) -> Option<OsString>) -> Option<OsString> {
    lookup("DLOCK_STATUS_FILE").filter(|path| !path.is_empty())
}

/// The status file.
impl Config {
    /// A file that tells what this locker waits for and holds, as JSON: see `docs/status-file.md`. It is replaced as a whole with
    /// each change, at most every 100 ms, by a thread of its own, so that a slow disk delays no lock. When it cannot be written
    /// later on, one line on standard error says so. [`redact_keys`](Config::redact_keys) counts here too. Its folder must
    /// exist, and each locker needs a file of its own. Default: none.
    ///
    /// [`shutdown`](crate::Locker::shutdown) leaves it saying that nothing is held. A process that is killed leaves it as it
    /// was: whoever reads it compares `pid` and `started`, or `valid_until`.
    #[must_use]
    pub fn status_file(mut self, path: impl Into<PathBuf>) -> Config {
        self.status_file = Some(path.into());
        self
    }

    pub(crate) fn get_status_file(&self) -> Option<StatusFile> {
        let strategy = match &self.endpoint {
            _ if self.enabled && self.is_lease() => "lease",
            Endpoint::Memory { .. } => "memory",
            #[cfg(any(feature = "postgres", feature = "mysql", feature = "sqlite"))]
            _ if self.enabled => "session",
            #[cfg(any(feature = "postgres", feature = "mysql", feature = "sqlite"))]
            _ => "memory",
        };
        Some(StatusFile {
            path: self.status_file.clone()?,
            program: self.program_name(),
            strategy,
        })
    }
}
