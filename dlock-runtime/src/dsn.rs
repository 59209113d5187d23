//! The DSN: one text that says where the server is and how dlock behaves.
//!
//! ```text
//! postgres://user:password@host:5432/database?sslmode=verify-full&limit=30
//! mysql://user:password@host:3306/database?ssl-mode=VERIFY_IDENTITY&timeout=500ms
//! postgres:///database?host=/var/run/postgresql
//! mysql://user@localhost/database?socket=/run/mysqld/mysqld.sock
//! memory:        memory:name
//! ```
//!
//! Two rules hold for everything here. **An option has its effect or is refused by name**, never ignored: a lock that is
//! weaker than its DSN says is worse than a start that fails. **A message never shows a password**, also not a piece of
//! one that a missing percent-encoding let slip into another part: see [`split`] for what counts as certain.

mod lease;
#[cfg(feature = "mysql")]
mod mysql;
mod options;
#[cfg(feature = "postgres")]
mod postgres;
mod query;
mod split;

use std::sync::Arc;

use crate::endpoint::Endpoint;
use crate::error::InitError;
#[cfg(any(feature = "postgres", feature = "mysql"))]
use crate::tls::Settings;

pub(crate) use options::Options;
use query::Query;

/// Reads a DSN.
///
/// # Errors
///
/// [`InitError::BadConfig`] names the value and what is allowed in its place.
pub(crate) fn parse(dsn: &str) -> Result<(Endpoint, Options), InitError> {
    let dsn = dsn.trim();
    if dsn.is_empty() {
        return Err(bad(format!("the DSN is empty: write {SCHEMES}")));
    }
    if let Some(name) = dsn.strip_prefix("memory:") {
        return memory(name);
    }
    let Some((scheme, rest)) = dsn.split_once("://") else {
        return Err(bad(format!(
            "the DSN does not begin with a scheme and \"://\": write {SCHEMES}"
        )));
    };
    match scheme.to_ascii_lowercase().as_str() {
        "postgres" | "postgresql" => postgres_dsn(rest),
        "mysql" | "mariadb" => mysql_dsn(rest),
        other if is_scheme(other) => Err(bad(format!(
            "unknown scheme {other:?} in the DSN: write {SCHEMES}"
        ))),
        // Not shown: what stands before "://" is no scheme, so it may be anything.
        _ => Err(bad(format!(
            "the DSN does not begin with a scheme: write {SCHEMES}"
        ))),
    }
}

const SCHEMES: &str =
    "postgres://user:password@host/database, postgresql://…, mysql://…, mariadb://…, or memory:";

/// An error that names the problem.
pub(crate) fn bad(problem: impl Into<String>) -> InitError {
    InitError::BadConfig {
        problem: problem.into(),
    }
}

/// Refuses what this build cannot do, and files that nobody would read.
#[cfg(any(feature = "postgres", feature = "mysql"))]
fn check_tls(settings: &Settings, without: &str) -> Result<(), InitError> {
    if settings.identity.is_some() && !settings.tries_tls() {
        return Err(bad(format!(
            "the DSN names a certificate, and {without} switches TLS off: remove one of them"
        )));
    }
    if settings.needs_tls() && !cfg!(feature = "tls") {
        return Err(bad(format!(
            "the DSN asks for TLS, and this program was built without it: \
             enable the feature \"tls\" of dlock-db, or write {without}"
        )));
    }
    Ok(())
}

fn is_scheme(text: &str) -> bool {
    text.len() <= 20
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text
            .chars()
            .all(|c| matches!(c, 'a'..='z' | '0'..='9' | '+' | '-' | '.'))
}

fn memory(rest: &str) -> Result<(Endpoint, Options), InitError> {
    let (name, query) = rest.split_once('?').unwrap_or((rest, ""));
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if !name.chars().all(allowed) {
        return Err(bad(
            "the name after memory: has a character that is not allowed: \
             write memory: or memory:name with ASCII letters, digits, '-', '_' and '.'",
        ));
    }
    let mut query = Query::parse(query)?;
    let options = Options::of_memory(&mut query)?;
    query.finish("memory:", &[], Options::OF_MEMORY)?;
    let name = (!name.is_empty()).then(|| Arc::from(name));
    Ok((Endpoint::Memory { name }, options))
}

#[cfg(feature = "postgres")]
fn postgres_dsn(rest: &str) -> Result<(Endpoint, Options), InitError> {
    let (parts, mut query) = split::split(rest)?;
    let options = Options::of_server(&mut query)?;
    let endpoint = postgres::endpoint(parts, query)?;
    Ok((Endpoint::Postgres(Box::new(endpoint)), options))
}

#[cfg(not(feature = "postgres"))]
fn postgres_dsn(_: &str) -> Result<(Endpoint, Options), InitError> {
    Err(bad(
        "this program was built without PostgreSQL: enable the feature \"postgres\" of dlock-db",
    ))
}

#[cfg(feature = "mysql")]
fn mysql_dsn(rest: &str) -> Result<(Endpoint, Options), InitError> {
    let (parts, mut query) = split::split(rest)?;
    let options = Options::of_server(&mut query)?;
    let endpoint = mysql::endpoint(parts, query)?;
    Ok((Endpoint::MySql(Box::new(endpoint)), options))
}

#[cfg(not(feature = "mysql"))]
fn mysql_dsn(_: &str) -> Result<(Endpoint, Options), InitError> {
    Err(bad(
        "this program was built without MySQL: enable the feature \"mysql\" of dlock-db",
    ))
}

#[cfg(all(test, feature = "postgres", feature = "mysql", feature = "tls"))]
mod fuzz;
#[cfg(test)]
mod tests;
