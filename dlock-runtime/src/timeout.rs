//! How long to wait for a lock.

use std::time::{Duration, Instant};

/// How long to wait for a lock.
///
/// Made from a [`Duration`], from whole seconds, or from an `Option<Duration>` whose `None` means without limit.
/// Zero is one try, without waiting.
///
/// ```
/// use std::time::Duration;
/// use dlock_runtime::Timeout;
///
/// assert_eq!(Timeout::from(10), Timeout::from(Duration::from_secs(10)));
/// assert_eq!(Timeout::from(None), Timeout::NONE);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timeout(Option<Duration>);

impl Timeout {
    /// Waits without limit.
    pub const NONE: Timeout = Timeout(None);

    /// The duration; `None` is without limit.
    pub(crate) fn duration(self) -> Option<Duration> {
        self.0
    }

    /// The moment at which the wait ends; `None` is never, also where the clock cannot count that far.
    pub(crate) fn deadline(self, now: Instant) -> Option<Instant> {
        self.0.and_then(|duration| now.checked_add(duration))
    }
}

impl From<Duration> for Timeout {
    fn from(duration: Duration) -> Self {
        Timeout(Some(duration))
    }
}

impl From<Option<Duration>> for Timeout {
    fn from(duration: Option<Duration>) -> Self {
        Timeout(duration)
    }
}

impl From<u64> for Timeout {
    /// Whole seconds.
    fn from(seconds: u64) -> Self {
        Timeout(Some(Duration::from_secs(seconds)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deadline_is_exact_and_never_overflows() {
        let now = Instant::now();
        assert_eq!(Timeout::from(0).deadline(now), Some(now));
        let half = Duration::from_millis(500);
        assert_eq!(Timeout::from(half).deadline(now), Some(now + half));
        assert_eq!(Timeout::NONE.deadline(now), None);
        assert_eq!(Timeout::from(Duration::MAX).deadline(now), None);
        assert_eq!(Timeout::from(u64::MAX).deadline(now), None);
    }
}
