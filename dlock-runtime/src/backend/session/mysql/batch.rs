//! The texts of the statements that try or give back several locks at once.

use std::iter::repeat_n;
use std::sync::{Arc, OnceLock};

use super::BATCH;
use crate::backend::session::driver::Act;

const SIZES: usize = BATCH.ilog2() as usize + 1;

/// By kind and size: the driver finds a prepared statement by its text, which is the same each time.
static STATEMENTS: [[OnceLock<Arc<str>>; SIZES]; 2] =
    [const { [const { OnceLock::new() }; SIZES] }; 2];

/// The statement for so many locks, a power of two up to [`BATCH`].
pub(super) fn statement(act: Act, count: usize) -> Arc<str> {
    let (kind, column) = match act {
        Act::Try => (0, "GET_LOCK(?, 0)"),
        Act::Release => (1, "RELEASE_LOCK(?)"),
    };
    let make = || {
        let columns: Vec<&str> = repeat_n(column, count).collect();
        Arc::from(format!("SELECT {}", columns.join(", ")))
    };
    let size = count.max(1).ilog2() as usize;
    match STATEMENTS[kind].get(size) {
        Some(kept) if count.is_power_of_two() => kept.get_or_init(make).clone(),
        _ => make(),
    }
}
