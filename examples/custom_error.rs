//! How does a lock's failure become my own error, or my own response?
//!
//! ```sh
//! DATABASE_URL=postgres://app@localhost/app cargo run --example custom_error
//! ```

use std::time::Duration;

/// An error of the application: `#[from]` is all that the attribute needs.
#[derive(Debug, thiserror::Error)]
enum AppError {
    #[error("try again later: {0}")]
    Lock(#[from] dlock::Error),
    #[error("no such account")]
    NoAccount,
}

/// A response of the application: it says in its own words what went wrong.
#[derive(Debug)]
#[allow(dead_code, reason = "shown by Debug only")]
struct Response {
    status: u16,
    body: String,
}

impl dlock::FromLockError for Response {
    fn from_lock_error(error: dlock::Error) -> Self {
        let status = if error.is_busy() { 423 } else { 503 };
        Response {
            status,
            body: error.to_string(),
        }
    }
}

#[dlock::db_locked(key = "account/{id}", timeout = 0)]
fn close_account(id: u32) -> Result<(), AppError> {
    if id == 0 {
        Err(AppError::NoAccount)
    } else {
        Ok(())
    }
}

#[dlock::db_locked(key = "account/{id}", timeout = "100ms")]
fn show_account(id: u32) -> Response {
    Response {
        status: 200,
        body: format!("account {id}"),
    }
}

fn main() -> anyhow::Result<()> {
    dlock::init_with(dlock::Config::from_env()?)?;

    println!("free:    {:?}", show_account(1));
    println!("its own: {:?}", close_account(0));

    let guard = dlock::locker()?.lock("account/1").acquire_blocking()?;
    println!("busy:    {:?}", show_account(1));
    match close_account(1) {
        Err(error @ AppError::Lock(_)) => println!("busy:    {error}"),
        other => println!("{other:?}"),
    }
    guard.release_blocking()?;

    dlock::shutdown(Duration::from_secs(5));
    Ok(())
}
