//! The DSN of MySQL and MariaDB.
//!
//! Without a host and a socket it is `localhost`, over TCP: what `localhost` means does not depend on the driver's taste.

use std::collections::HashMap;
use std::path::PathBuf;

use mysql_async::OptsBuilder;

use super::bad;
use super::options::Options;
use super::query::Query;
use super::split::{HostPort, Parts};
use crate::endpoint::{MySqlEndpoint, MySqlPlace};
use crate::error::InitError;
use crate::tls::{Identity, Mode, Roots, Settings};

const KNOWN: &[&str] = &[
    "socket", "ssl-mode", "ssl-ca", "ssl-cert", "ssl-key", "charset",
];

const REFUSED: &[(&str, &str)] = &[
    ("user", "write mysql://user:password@host/database"),
    ("password", "write mysql://user:password@host/database"),
    ("host", "write mysql://user:password@host/database"),
    ("port", "write mysql://user:password@host:port/database"),
    ("require_ssl", "use ssl-mode=REQUIRED or stronger"),
    ("verify_ca", "use ssl-mode=VERIFY_CA"),
    ("verify_identity", "use ssl-mode=VERIFY_IDENTITY"),
    (
        "built_in_roots",
        "the system's authorities are used, or those of ssl-ca",
    ),
    ("ssl", "use ssl-mode=REQUIRED or stronger"),
    ("useSSL", "use ssl-mode=REQUIRED or stronger"),
    (
        "ssl-capath",
        "put the certificates into one file and use ssl-ca",
    ),
    ("ssl-crl", "revocation lists are not read; remove it"),
    (
        "ssl-cipher",
        "the ciphers are those of TLS 1.2 and 1.3 that rustls has; remove it",
    ),
    ("tls-version", "TLS is always 1.2 or 1.3; remove it"),
    ("collation", "names of locks are ASCII; remove it"),
    ("timezone", "no time of the server is read; remove it"),
    ("time_zone", "no time of the server is read; remove it"),
    ("prefer_socket", "use socket"),
    (
        "tcp_keepalive",
        "the heartbeat finds a dead connection; use heartbeat",
    ),
    ("tcp_nodelay", "it is always on; remove it"),
    ("compression", "statements are a few bytes; remove it"),
    (
        "enable_cleartext_plugin",
        "a password is never sent in the clear; remove it",
    ),
    (
        "secure_auth",
        "the old way to send passwords is never used; remove it",
    ),
    ("pool_min", "dlock has no pool; use max_waiters"),
    ("pool_max", "dlock has no pool; use max_waiters"),
    ("inactive_connection_ttl", "dlock has no pool; remove it"),
    ("ttl_check_interval", "dlock has no pool; remove it"),
    (
        "conn_ttl",
        "a connection that holds a lock lives as long as the lock; remove it",
    ),
    ("wait_timeout", "use limit, which sets it"),
    (
        "stmt_cache_size",
        "dlock has a handful of statements; remove it",
    ),
];

/// Makes the endpoint.
pub(super) fn endpoint(parts: Parts, mut query: Query) -> Result<MySqlEndpoint, InitError> {
    let tls = tls(&mut query)?;
    let place = place(parts.hosts, &mut query)?;
    if matches!(place, MySqlPlace::Socket(_)) && tls.needs_tls() {
        return Err(bad(
            "a Unix socket has no TLS: remove the ssl options from the DSN, or write a host in place of the socket",
        ));
    }
    let charset = |text: &str| (text.eq_ignore_ascii_case("utf8mb4")).then_some(());
    query.take_as(&["charset"], "utf8mb4, the only one there is", charset)?;
    query.finish(
        "MySQL",
        REFUSED,
        &[KNOWN, Options::OF_SERVER, Options::OF_LEASES],
    )?;

    let opts = OptsBuilder::default()
        .user(parts.user)
        .pass(parts.password)
        .db_name(parts.database)
        // A connection to "localhost" would open a second one over the socket that the server names.
        .prefer_socket(false)
        .tcp_nodelay(true)
        .stmt_cache_size(32)
        // Otherwise the driver asks for both at each connect: a round trip for values that it uses in pools.
        .max_allowed_packet(Some(16 * 1024 * 1024))
        .wait_timeout(Some(28_800))
        .connect_attributes(HashMap::from([
            ("_client_name".to_owned(), "dlock".to_owned()),
            (
                "_client_version".to_owned(),
                env!("CARGO_PKG_VERSION").to_owned(),
            ),
            ("_pid".to_owned(), std::process::id().to_string()),
        ]));
    Ok(MySqlEndpoint::new(opts, place, tls))
}

fn place(hosts: Vec<HostPort>, query: &mut Query) -> Result<MySqlPlace, InitError> {
    let allowed = "the absolute path of the socket";
    let socket = query.take_as(&["socket"], allowed, |path| {
        path.starts_with('/').then(|| path.to_owned())
    })?;
    let mut hosts = hosts.into_iter();
    let first = hosts.next().unwrap_or(HostPort {
        host: String::new(),
        port: None,
    });
    if hosts.next().is_some() {
        return Err(bad(
            "the DSN has several hosts: named locks of MySQL belong to one server, write the one that accepts writes",
        ));
    }
    let unnamed = matches!(first.host.as_str(), "" | "localhost") && first.port.is_none();
    match socket {
        Some(path) if unnamed => Ok(MySqlPlace::Socket(path)),
        Some(_) => Err(bad("the DSN has a host and a socket: write one of them")),
        None if first.host.starts_with('/') && first.port.is_none() => {
            Ok(MySqlPlace::Socket(first.host))
        }
        None if first.host.starts_with('/') => {
            Err(bad("a socket has no port: remove it from the DSN"))
        }
        None => Ok(MySqlPlace::Tcp {
            host: if first.host.is_empty() {
                "localhost".to_owned()
            } else {
                first.host
            },
            port: first.port.unwrap_or(3306),
        }),
    }
}

fn tls(query: &mut Query) -> Result<Settings, InitError> {
    let allowed = "DISABLED, PREFERRED, REQUIRED, VERIFY_CA or VERIFY_IDENTITY";
    let mode = query.take_as(
        &["ssl-mode", "sslmode", "ssl_mode"],
        allowed,
        |text| match text.to_ascii_uppercase().as_str() {
            "DISABLED" => Some(Mode::Disable),
            "PREFERRED" => Some(Mode::Prefer),
            "REQUIRED" => Some(Mode::Encrypt),
            "VERIFY_CA" => Some(Mode::VerifyChain),
            "VERIFY_IDENTITY" => Some(Mode::VerifyName),
            _ => None,
        },
    )?;
    let (mode, roots) = match (query.take(&["ssl-ca", "ssl_ca"])?, mode) {
        (None, mode) => (mode.unwrap_or_default(), Roots::System),
        (Some(path), None) => (Mode::VerifyChain, Roots::File(path.into())),
        (Some(path), Some(mode @ (Mode::VerifyChain | Mode::VerifyName))) => {
            (mode, Roots::File(path.into()))
        }
        (Some(_), Some(_)) => {
            return Err(bad(
                "option ssl-ca of the DSN has no effect with this ssl-mode: write VERIFY_IDENTITY or VERIFY_CA",
            ));
        }
    };
    let certificate = query.take(&["ssl-cert", "ssl_cert"])?;
    let identity = match (certificate, query.take(&["ssl-key", "ssl_key"])?) {
        (None, None) => None,
        (Some(certificate), Some(key)) => Some(Identity {
            certificate: PathBuf::from(certificate),
            key: PathBuf::from(key),
        }),
        _ => {
            return Err(bad(
                "options ssl-cert and ssl-key of the DSN belong together: write both",
            ));
        }
    };
    let settings = Settings {
        mode,
        roots,
        identity,
        ..Settings::default()
    };
    super::check_tls(&settings, "ssl-mode=DISABLED")?;
    Ok(settings)
}
