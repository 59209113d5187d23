//! What the errors of MySQL and MariaDB mean for a session.

use std::sync::Arc;

use mysql_async::{DriverError as Local, Error};

use crate::backend::session::driver::{AnotherSession, ConnectError, DriverError};
use crate::error::Source;

/// Our word in the place of a code, where the server answered NULL in the place of an error.
const NULL: &str = "NULL";

/// An unknown prepared statement: not the session that we set up.
const UNKNOWN: u16 = 1243;

/// The error in words. The servers' messages and the driver's carry no password.
fn describe(error: &Error) -> String {
    match error {
        Error::Server(refusal) => format!("{} ({})", refusal.message, refusal.code),
        Error::Io(error) => error.to_string(),
        Error::Driver(error) => error.to_string(),
        Error::Other(error) => error.to_string(),
        // Might quote the address that it was given.
        Error::Url(_) => "the address is not one that the driver understands".to_owned(),
    }
}

/// Why a statement failed: the server's word about the statement, or the end of the session.
pub(crate) fn statement(error: Error) -> DriverError {
    match &error {
        Error::Server(refusal) if !ends_the_session(refusal.code) => DriverError::Refused {
            code: refusal.code.to_string(),
            message: refusal.message.clone(),
            source: Some(Arc::new(error)),
        },
        _ => {
            let foreign = matches!(&error, Error::Server(refusal) if refusal.code == UNKNOWN);
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

/// Server shutdown, network errors, an unknown prepared statement, killed (MariaDB's number and MySQL's), idle for too long.
fn ends_the_session(code: u16) -> bool {
    matches!(code, 1053 | 1077..=1079 | 1152..=1161 | 1184 | UNKNOWN | 1927 | 3169 | 4031)
}

/// Why a connection could not be opened.
pub(crate) fn connecting(error: Error) -> ConnectError {
    let offers_none = matches!(error, Error::Driver(Local::NoClientSslFlagFromServer));
    let reason = crate::tls::advise(describe(&error), &error, offers_none);
    let refused_by_driver = matches!(
        error,
        // Ours, for a login that the driver cannot do.
        Error::Other(_)
            | Error::Url(_)
            | Error::Driver(
                Local::UnknownAuthPlugin { .. }
                    | Local::MysqlOldPasswordDisabled
                    | Local::CleartextPluginDisabled
                    | Local::NoClientSslFlagFromServer
            )
    );
    let code = if let Error::Server(refusal) = &error {
        refusal.code
    } else {
        0
    };
    let source = Some(Arc::new(error) as _);
    match code {
        // All connections, this user's, this account's.
        1040 | 1203 | 1226 => ConnectError::TooMany { reason, source },
        // Database, password, unknown database, host not allowed, blocked host, old client, socket user, expired
        // password, locked account (MySQL's number and MariaDB's).
        1044 | 1045 | 1049 | 1129 | 1130 | 1251 | 1698 | 1820 | 1862 | 3118 | 3159 | 4151 => {
            ConnectError::LoginRefused { reason, source }
        }
        _ if refused_by_driver => ConnectError::LoginRefused { reason, source },
        _ => ConnectError::Unreachable { reason, source },
    }
}

/// NULL from a function that answers with numbers.
pub(crate) fn null(function: &str) -> DriverError {
    DriverError::Refused {
        code: NULL.to_owned(),
        message: format!("{function} returned NULL"),
        source: None,
    }
}

/// An answer that no statement of ours can have.
pub(crate) fn unexpected(what: &str) -> DriverError {
    DriverError::Gone {
        reason: format!("unexpected answer of the server: {what}"),
        source: None,
    }
}

/// A lock statement that ended like this may have got the lock all the same.
pub(crate) fn proves_nothing(error: &DriverError) -> bool {
    is_time_out(error) || is_interruption(error)
}

/// The server's limit for statements: MySQL's number and MariaDB's.
pub(crate) fn is_time_out(error: &DriverError) -> bool {
    has_code(error, &["3024", "1969"])
}

/// Somebody sent KILL QUERY, which MariaDB answers with NULL in a wait.
pub(crate) fn is_interruption(error: &DriverError) -> bool {
    has_code(error, &["1317", NULL])
}

/// The session that was to be ended has ended already.
pub(crate) fn is_unknown_session(error: &DriverError) -> bool {
    has_code(error, &["1094"])
}

pub(crate) fn has_code(error: &DriverError, codes: &[&str]) -> bool {
    matches!(error, DriverError::Refused { code, .. } if codes.contains(&&**code))
}
