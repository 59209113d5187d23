//! Return types that carry a lock's failure.

use std::error::Error as StdError;
use std::io;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use dlock::{Error, db_locked};

use crate::support::{while_busy, while_shut_down};

#[db_locked(key = "k", timeout = 0)]
fn anyhow_result() -> anyhow::Result<()> {
    Ok(())
}

#[db_locked(key = "k", timeout = 0)]
async fn io_result() -> io::Result<()> {
    Ok(())
}

#[db_locked(key = "k", timeout = 0)]
async fn boxed_error() -> Result<(), Box<dyn StdError + Send + Sync>> {
    Ok(())
}

#[derive(Debug, thiserror::Error)]
enum AppError {
    #[error("the lock: {0}")]
    Lock(#[from] Error),
    #[error("parsing: {0}")]
    Parse(#[from] std::num::ParseIntError),
}

#[db_locked(key = "k", timeout = 0)]
fn app_error(number: &str) -> Result<u8, AppError> {
    Ok(number.parse()?)
}

type AppResult<T> = Result<T, AppError>;

#[db_locked(key = "k", timeout = 0, on_busy = skip)]
async fn behind_an_alias() -> AppResult<Option<u8>> {
    Ok(Some(1))
}

#[test]
fn results_carry_it_through_from() {
    assert!(
        while_busy("k", anyhow_result)
            .unwrap_err()
            .downcast::<Error>()
            .unwrap()
            .is_busy()
    );
    let io = while_busy("k", || smol::block_on(io_result())).unwrap_err();
    assert!(
        io.get_ref()
            .unwrap()
            .downcast_ref::<Error>()
            .unwrap()
            .is_busy()
    );
    let boxed = while_shut_down(|| smol::block_on(boxed_error())).unwrap_err();
    assert!(matches!(
        boxed.downcast_ref::<Error>(),
        Some(Error::ShutDown)
    ));
    assert!(matches!(
        while_busy("k", || app_error("1")),
        Err(AppError::Lock(Error::Busy(_)))
    ));
    assert!(matches!(while_busy("j", || app_error("1")), Ok(1)));
    assert!(matches!(
        while_busy("j", || app_error("x")),
        Err(AppError::Parse(_))
    ));
    assert!(matches!(
        while_busy("k", || smol::block_on(behind_an_alias())),
        Ok(None)
    ));
    let down = while_shut_down(|| smol::block_on(behind_an_alias()));
    assert!(matches!(down, Err(AppError::Lock(Error::ShutDown))));
}

/// A response of the application's own.
#[derive(Debug, PartialEq)]
struct Reply(u16);

impl dlock::FromLockError for Reply {
    fn from_lock_error(error: Error) -> Self {
        Reply(if error.is_busy() { 423 } else { 503 })
    }
}

impl dlock::Skippable for Reply {
    fn skipped() -> Self {
        Reply(204)
    }
}

#[db_locked(key = "k", timeout = 0)]
async fn own_type() -> Reply {
    Reply(200)
}

#[db_locked(key = "k", timeout = 0, on_busy = skip)]
fn own_skip() -> Reply {
    Reply(200)
}

#[test]
fn a_type_of_the_users_says_it_in_its_own_words() {
    assert_eq!(while_busy("j", || smol::block_on(own_type())), Reply(200));
    assert_eq!(while_busy("k", || smol::block_on(own_type())), Reply(423));
    assert_eq!(while_shut_down(|| smol::block_on(own_type())), Reply(503));
    assert_eq!(while_busy("k", own_skip), Reply(204));
    assert_eq!(while_shut_down(own_skip), Reply(503));
}

fn unlocked(error: Error) -> Response {
    let status = if error.is_busy() {
        StatusCode::LOCKED
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, error.to_string()).into_response()
}

#[db_locked(key = "k", timeout = 0, on_error = unlocked)]
async fn response() -> Response {
    "done".into_response()
}

/// `impl IntoResponse` hides one type, so the body says which.
#[db_locked(key = "k", timeout = 0, on_error = unlocked)]
async fn opaque_response() -> impl IntoResponse {
    "done".into_response()
}

#[test]
fn handlers_make_responses() {
    let statuses = |fate: &dyn Fn(&dyn Fn() -> Response) -> Response| {
        let opaque = || smol::block_on(opaque_response()).into_response();
        [
            fate(&|| smol::block_on(response())).status(),
            fate(&opaque).status(),
        ]
    };
    assert_eq!(statuses(&|call| while_busy("j", call)), [StatusCode::OK; 2]);
    assert_eq!(
        statuses(&|call| while_busy("k", call)),
        [StatusCode::LOCKED; 2]
    );
    assert_eq!(
        statuses(&|call| while_shut_down(call)),
        [StatusCode::SERVICE_UNAVAILABLE; 2]
    );
}
