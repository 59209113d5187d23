//! Unsafe functions stay unsafe, and their bodies too.

#![allow(unsafe_code, unsafe_op_in_unsafe_fn)]
#![allow(
    clippy::missing_safety_doc,
    clippy::not_unsafe_ptr_arg_deref,
    clippy::unused_async,
    reason = "each does no more than to read through its pointer"
)]

use dlock::db_locked;

use crate::Done;

/// Reads.
#[db_locked(key = "unsafe")]
pub unsafe fn sync(pointer: *const u8) -> Done<u8> {
    Ok(*pointer)
}

/// Reads, in its place.
#[db_locked(key = "unsafe")]
#[track_caller]
pub unsafe fn inline(pointer: *const u8) -> Done<u8> {
    Ok(*pointer)
}

/// Reads, async.
#[db_locked(key = "unsafe")]
pub async unsafe fn is_async(pointer: *const u8) -> Done<u8> {
    Ok(*pointer)
}

/// Reads for another language.
#[db_locked(key = "unsafe", on_error = |_| 0)]
#[must_use]
pub unsafe extern "C" fn foreign(pointer: *const u8) -> u8 {
    *pointer
}

/// Reads for a trait.
pub unsafe trait Read {
    /// Reads.
    unsafe fn read(&self, pointer: *const u8) -> Done<u8>;
}

#[db_locked]
unsafe impl Read for u8 {
    unsafe fn read(&self, pointer: *const u8) -> Done<u8> {
        Ok(*pointer + *self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unsafe_functions_run() {
        let config = dlock::Config::from_dsn("memory:").unwrap();
        let locker = dlock::Locker::connect_blocking(config).unwrap();
        locker.scope_sync(|| unsafe {
            assert_eq!(sync(&1).unwrap(), 1);
            assert_eq!(inline(&2).unwrap(), 2);
            assert_eq!(smol::block_on(is_async(&3)).unwrap(), 3);
            assert_eq!(foreign(&4), 4);
            assert_eq!(1_u8.read(&5).unwrap(), 6);
        });
    }
}
