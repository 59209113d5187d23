//! One clock for all processes of the machine, which counts on while a process, or the machine, is stopped.

use rustix::time::{ClockId, clock_gettime};

/// A moment, in nanoseconds of `CLOCK_BOOTTIME`.
pub type Moment = u64;

/// A millisecond.
pub const MILLISECOND: Moment = 1_000_000;

/// A second.
pub const SECOND: Moment = 1000 * MILLISECOND;

/// The present moment.
pub fn now() -> Moment {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds * SECOND + u64::try_from(time.tv_nsec).unwrap_or(0)
}
