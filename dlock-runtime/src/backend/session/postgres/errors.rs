//! What PostgreSQL's errors mean for a session.

use std::error::Error as _;
use std::sync::Arc;

use tokio_postgres::error::{DbError, Severity};
use tokio_postgres::{Error, error::SqlState};

use crate::backend::session::driver::{AnotherSession, ConnectError, DriverError};
use crate::error::Source;

/// The error in words. PostgreSQL's messages and the driver's carry no password.
pub(crate) fn describe(error: &Error) -> String {
    if let Some(error) = error.as_db_error() {
        return format!("{} ({})", error.message(), error.code().code());
    }
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// Why a statement failed: the server's word about the statement, or the end of the session.
pub(crate) fn statement(error: Error) -> DriverError {
    match error.as_db_error() {
        Some(refusal) if !ends_the_session(refusal) => DriverError::Refused {
            code: refusal.code().code().to_owned(),
            message: refusal.message().to_owned(),
            source: Some(Arc::new(error)),
        },
        refusal => {
            let foreign = refusal.is_some_and(is_of_another_session);
            let reason = describe(&error);
            let source: Source = Arc::new(error);
            DriverError::Gone {
                reason,
                source: Some(if foreign {
                    AnotherSession::source(Some(source))
                } else {
                    source
                }),
            }
        }
    }
}

/// A statement that we prepared and the server does not know, or the reverse: it is not the session that we set up.
fn is_of_another_session(error: &DbError) -> bool {
    [
        SqlState::INVALID_SQL_STATEMENT_NAME,
        SqlState::DUPLICATE_PSTATEMENT,
    ]
    .contains(error.code())
}

fn ends_the_session(error: &DbError) -> bool {
    match error.parsed_severity() {
        Some(Severity::Fatal | Severity::Panic) => true,
        _ => error.code().code().starts_with("08") || is_of_another_session(error),
    }
}

/// Why a connection could not be opened.
pub(crate) fn connecting(error: Error) -> ConnectError {
    let reason = describe(&error);
    // The driver has no name for it; a test pins its words.
    let offers_none = reason.ends_with("server does not support TLS");
    let reason = crate::tls::advise(reason, &error, offers_none);
    let code = error
        .as_db_error()
        .map_or_else(String::new, |error| error.code().code().to_owned());
    // The driver does not name these kinds; a test pins its words.
    let misconfigured =
        ["invalid configuration", "authentication error"].contains(&&*error.to_string());
    let source = Some(Arc::new(error) as _);
    match &*code {
        "53300" | "53400" => ConnectError::TooMany { reason, source },
        // 42501: no right to connect to the database; 08P01, 22023, 42704: a start-up option was refused.
        "3D000" | "42501" | "08P01" | "22023" | "42704" => {
            ConnectError::LoginRefused { reason, source }
        }
        code if code.starts_with("28") || misconfigured => {
            ConnectError::LoginRefused { reason, source }
        }
        _ => ConnectError::Unreachable { reason, source },
    }
}

/// A lock statement that ended like this may have got the lock all the same.
pub(crate) fn proves_nothing(error: &DriverError) -> bool {
    is_time_out(error)
        || is_interruption(error)
        || has_code(error, &SqlState::T_R_DEADLOCK_DETECTED)
}

/// The wait's time has passed.
pub(crate) fn is_time_out(error: &DriverError) -> bool {
    has_code(error, &SqlState::LOCK_NOT_AVAILABLE)
}

/// Somebody sent a cancel request.
pub(crate) fn is_interruption(error: &DriverError) -> bool {
    has_code(error, &SqlState::QUERY_CANCELED)
}

fn has_code(error: &DriverError, state: &SqlState) -> bool {
    matches!(error, DriverError::Refused { code, .. } if code == state.code())
}
