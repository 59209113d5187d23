//! The parts of a DSN after its scheme: `user:password@host:port,host:port/database?name=value&…`.
//!
//! A password whose special characters are not percent-encoded spills into the parts behind it. So a raw `@` may stand
//! once, before the host, and a raw `#` nowhere; where that does not hold the message says how to encode and shows
//! nothing. Text behind the `@` is shown; without an `@` the "port" may be a password (`user:password` and no host), and
//! only what stands behind a host that cannot be a user's name is shown.

use std::borrow::Cow;
use std::net::IpAddr;

use percent_encoding::percent_decode_str;

use super::bad;
use super::query::Query;
use crate::error::InitError;

/// What stands before the query, percent-decoded.
pub(super) struct Parts {
    pub(super) user: Option<String>,
    pub(super) password: Option<String>,
    pub(super) hosts: Vec<HostPort>,
    pub(super) database: Option<String>,
}

/// One server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HostPort {
    /// A name, an address without brackets, or the absolute path of a socket. Empty: not given.
    pub(super) host: String,
    pub(super) port: Option<u16>,
}

const ENCODE: &str = "a special character in the user, the password or an option has to be percent-encoded: \
                      '@' as %40, ':' as %3A, '/' as %2F, '?' as %3F, '#' as %23, '&' as %26, '%' as %25";

/// Takes a DSN without its scheme and `://` apart.
pub(super) fn split(rest: &str) -> Result<(Parts, Query), InitError> {
    if rest.contains('#') {
        return Err(bad(format!("the DSN has a '#': {ENCODE}")));
    }
    let (before_query, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, path) = before_query.split_once('/').unwrap_or((before_query, ""));
    let signs = rest.matches('@').count();
    if signs > 1 || (signs == 1 && !authority.contains('@')) {
        return Err(bad(format!(
            "the DSN has an '@' that does not stand between the password and the host: {ENCODE}"
        )));
    }
    let (credentials, hosts) = match authority.split_once('@') {
        Some((credentials, hosts)) => (Some(credentials), hosts),
        None => (None, authority),
    };
    let (user, password) = match credentials.map(|text| text.split_once(':').unwrap_or((text, "")))
    {
        Some((user, password)) => (given(user, "user")?, given(password, "password")?),
        None => (None, None),
    };
    if path.contains('/') {
        return Err(bad(
            "the name of the database in the DSN has a '/': write it as %2F",
        ));
    }
    let parts = Parts {
        user,
        password,
        hosts: split_hosts(hosts, credentials.is_some())?,
        database: given(path, "database")?,
    };
    Ok((parts, Query::parse(query)?))
}

/// Reads `host`, `host:port`, `[address]:port`, several of them between commas; nothing gives nothing.
fn split_hosts(text: &str, has_credentials: bool) -> Result<Vec<HostPort>, InitError> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    text.split(',')
        .map(|one| split_host(one, has_credentials))
        .collect()
}

fn split_host(text: &str, has_credentials: bool) -> Result<HostPort, InitError> {
    let (host, port) = if let Some(bracketed) = text.strip_prefix('[') {
        let (host, port) = bracketed.split_once(']').ok_or_else(|| {
            bad("an address in the DSN has a '[' without a ']': write [::1], for instance")
        })?;
        let port = match port.strip_prefix(':') {
            None if !port.is_empty() => {
                return Err(bad(
                    "after the ']' of an address the DSN has something else than ':' and a port: write [::1]:5432, for instance",
                ));
            }
            port => port,
        };
        let host = decode(host, "host")?;
        // A zone (`fe80::1%eth0`) is the resolver's business.
        let address = host.split_once('%').map_or(&*host, |(address, _)| address);
        if !matches!(address.parse(), Ok(IpAddr::V6(_))) {
            return Err(bad(
                "between the '[' and the ']' of the DSN there is no IPv6 address: write [::1], for instance, and a name without brackets",
            ));
        }
        (host, port)
    } else {
        let (host, port) = match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        };
        (decode(host, "host")?, port)
    };
    check_host(&host, has_credentials)?;
    let certain = has_credentials || host == "localhost" || host.parse::<IpAddr>().is_ok();
    let port = match port.filter(|port| !port.is_empty()) {
        None => None,
        Some(port) => Some(parse_port(port).ok_or_else(|| wrong_port(&host, port, certain))?),
    };
    Ok(HostPort { host, port })
}

/// A port: 1 to 65535.
pub(super) fn parse_port(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| digits && *port != 0)
}

fn wrong_port(host: &str, port: &str, certain: bool) -> InitError {
    let range = "write a number from 1 to 65535";
    if certain {
        let port = super::query::cut(port);
        bad(format!(
            "the port {port:?} of host {host:?} is not a port: {range}"
        ))
    } else {
        bad(format!(
            "the port of host {host:?} is not a port: {range} (it is not shown: without an '@' it may be a password; \
             then write user:password@host)"
        ))
    }
}

/// A host that the resolver can be asked for, or a path. `certain`: the text cannot be a piece of a password.
pub(super) fn check_host(host: &str, certain: bool) -> Result<(), InitError> {
    let fits = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '%');
    if host.starts_with('/') || host.chars().all(fits) {
        return Ok(());
    }
    let shown = if certain {
        format!(" {:?}", super::query::cut(host))
    } else {
        String::new()
    };
    Err(bad(format!(
        "the host{shown} of the DSN has a character that no host has: \
         write a name, an address (IPv6 in brackets), or the path of a socket (each '/' as %2F)"
    )))
}

/// The decoded text, or nothing for an empty one.
fn given(text: &str, what: &str) -> Result<Option<String>, InitError> {
    if text.is_empty() {
        return Ok(None);
    }
    decode(text, what).map(Some)
}

/// Percent-decodes; `what` stands in the message in place of the text.
pub(super) fn decode(text: &str, what: &str) -> Result<String, InitError> {
    let mut rest = text;
    while let Some((_, after)) = rest.split_once('%') {
        if after.bytes().take(2).filter(u8::is_ascii_hexdigit).count() != 2 {
            return Err(bad(format!(
                "the {what} in the DSN has a '%' that begins no code: {ENCODE}"
            )));
        }
        rest = after;
    }
    let decoded = percent_decode_str(text)
        .decode_utf8()
        .map(Cow::into_owned)
        .map_err(|_| {
            bad(format!(
                "the {what} in the DSN is not UTF-8 once it is decoded: encode the bytes of its UTF-8 form"
            ))
        })?;
    if decoded.contains('\0') {
        return Err(bad(format!(
            "the {what} in the DSN has a NUL character: remove it"
        )));
    }
    Ok(decoded)
}
