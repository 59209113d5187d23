//! How does a management command make sure that only one copy of it runs?
//!
//! ```sh
//! DATABASE_URL=postgres://app@localhost/app cargo run --example nightly_report
//! ```
//!
//! Start it twice: the second copy says who has the lock and exits with 75 (`EX_TEMPFAIL`). Kill the first with
//! SIGKILL: the database frees the lock, and the next copy runs. The number of seconds it works is its only argument.

use std::process::ExitCode;
use std::thread;
use std::time::Duration;

const TEMPORARY_FAILURE: u8 = 75;

#[dlock::db_locked(
    key = "nightly-report",
    timeout = 0,
    init = dlock::Config::from_env(),
    on_error = explain
)]
fn main() -> ExitCode {
    let seconds = std::env::args()
        .nth(1)
        .and_then(|seconds| seconds.parse().ok());
    let seconds: u32 = seconds.unwrap_or(10);
    for second in 1..=seconds {
        println!("writing the report: {second} of {seconds}");
        thread::sleep(Duration::from_secs(1));
    }
    println!("the report is written");
    ExitCode::SUCCESS
}

/// Where every failure of the lock goes: an exit code cannot carry it.
#[allow(
    clippy::needless_pass_by_value,
    reason = "handlers are given the error"
)]
fn explain(error: dlock::Error) -> ExitCode {
    eprintln!("nightly_report: {error}");
    if error.is_busy() {
        ExitCode::from(TEMPORARY_FAILURE)
    } else {
        ExitCode::FAILURE
    }
}
