//! PostgreSQL's DSN, as libpq reads it.
//!
//! What differs from libpq: `application_name` and `connect_timeout` are dlock's; without a host it is `localhost`; several
//! hosts need `target_session_attrs=read-write` and get it, because two processes that lock on different servers do not
//! exclude each other; the environment (`PGHOST` and kin), password and service files are not read.

mod tls;

use std::net::IpAddr;
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::{ChannelBinding, SslMode, SslNegotiation, TargetSessionAttrs};

use super::bad;
use super::options::{Options, whole};
use super::query::Query;
use super::split::{HostPort, Parts, check_host, parse_port};
use crate::endpoint::PostgresEndpoint;
use crate::error::InitError;
use crate::tls::{Mode, Settings};

const KNOWN: &[&str] = &[
    "host",
    "hostaddr",
    "port",
    "user",
    "password",
    "dbname",
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "sslsni",
    "sslnegotiation",
    "channel_binding",
    "target_session_attrs",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
    "tcp_user_timeout",
    "options",
    "client_encoding",
    "gssencmode",
];

const REFUSED: &[(&str, &str)] = &[
    ("passfile", "write the password into the DSN"),
    ("service", "write host, user and database into the DSN"),
    ("servicefile", "write host, user and database into the DSN"),
    ("fallback_application_name", "use application_name"),
    (
        "load_balance_hosts",
        "processes that lock on different servers do not exclude each other; remove it",
    ),
    (
        "replication",
        "a replication connection takes no locks; remove it",
    ),
    ("requirepeer", "it is not available; remove it"),
    (
        "require_auth",
        "use channel_binding=require or sslmode=verify-full",
    ),
    ("requiressl", "use sslmode=require"),
    ("sslcompression", "TLS is never compressed; remove it"),
    (
        "sslpassword",
        "an encrypted key cannot be read; decrypt the file of sslkey",
    ),
    (
        "sslcertmode",
        "the client's certificate is sent when sslcert is given; remove it",
    ),
    ("sslcrl", "revocation lists are not read; remove it"),
    ("sslcrldir", "revocation lists are not read; remove it"),
    (
        "ssl_min_protocol_version",
        "TLS is always 1.2 or 1.3; remove it",
    ),
    (
        "ssl_max_protocol_version",
        "TLS is always 1.2 or 1.3; remove it",
    ),
    ("sslkeylogfile", "it is not available; remove it"),
    (
        "krbsrvname",
        "GSSAPI is not available; use a password or a certificate",
    ),
    (
        "gsslib",
        "GSSAPI is not available; use a password or a certificate",
    ),
    (
        "gssdelegation",
        "GSSAPI is not available; use a password or a certificate",
    ),
    ("scram_client_key", "write the password into the DSN"),
    ("scram_server_key", "write the password into the DSN"),
    (
        "min_protocol_version",
        "the protocol is always 3.0; remove it",
    ),
    (
        "max_protocol_version",
        "the protocol is always 3.0; remove it",
    ),
];

/// Makes the endpoint.
pub(super) fn endpoint(parts: Parts, mut query: Query) -> Result<PostgresEndpoint, InitError> {
    let mut config = Config::new();
    let servers = servers(parts.hosts, &mut query)?;
    let tls = tls::settings(&mut query)?;
    let on_socket = servers.iter().any(|server| server.host.starts_with('/'));
    if on_socket && tls.needs_tls() {
        return Err(bad(
            "a Unix socket has no TLS: remove sslmode and the other ssl options from the DSN, or write a host",
        ));
    }
    config.ssl_mode(match tls.mode {
        Mode::Disable => SslMode::Disable,
        Mode::Prefer => SslMode::Prefer,
        Mode::Encrypt | Mode::VerifyChain | Mode::VerifyName => SslMode::Require,
    });
    if tls.direct {
        config.ssl_negotiation(SslNegotiation::Direct);
    }
    session(&mut config, &mut query, servers.len() > 1, &tls)?;
    sockets(&mut config, &mut query)?;
    login(
        &mut config,
        parts.user,
        parts.password,
        parts.database,
        &mut query,
    )?;
    query.finish(
        "PostgreSQL",
        REFUSED,
        &[KNOWN, Options::OF_SERVER, Options::OF_LEASES],
    )?;

    for server in &servers {
        config.host(&server.host).port(server.port);
        if let Some(address) = server.address {
            config.hostaddr(address);
        }
    }
    let address: Vec<String> = servers.iter().map(Server::shown).collect();
    Ok(PostgresEndpoint::new(config, &address.join(", "), tls))
}

struct Server {
    host: String,
    address: Option<IpAddr>,
    port: u16,
}

impl Server {
    fn shown(&self) -> String {
        let Server { host, port, .. } = self;
        if host.starts_with('/') {
            format!("{}/.s.PGSQL.{port}", host.trim_end_matches('/'))
        } else if host.contains(':') {
            format!("[{host}]:{port}")
        } else {
            format!("{host}:{port}")
        }
    }
}

/// The servers to try, in turn: of the DSN's first part, where `host`, `hostaddr` and `port` of the query do not say more.
fn servers(given: Vec<HostPort>, query: &mut Query) -> Result<Vec<Server>, InitError> {
    let mut hosts = given;
    if let Some(list) = query.take(&["host"])? {
        // `user@localhost/db?host=/socket`: the first part only satisfies those who demand a host.
        let empty = hosts
            .iter()
            .all(|one| matches!(one.host.as_str(), "" | "localhost"));
        if !empty || hosts.len() > 1 {
            return Err(bad(
                "the DSN has two hosts, before the database and as option host: write one",
            ));
        }
        let port = hosts.first().and_then(|one| one.port);
        hosts = list
            .split(',')
            .map(|host| {
                check_host(host, true).map(|()| HostPort {
                    host: host.to_owned(),
                    port,
                })
            })
            .collect::<Result<_, _>>()?;
    }
    let addresses = take_list(query, "hostaddr", "IP addresses between commas", |text| {
        text.parse::<IpAddr>().ok()
    })?;
    if hosts.is_empty() {
        // Without a name the address stands for it, also towards the certificate.
        hosts = addresses
            .iter()
            .map(|address| HostPort {
                host: address.to_string(),
                port: None,
            })
            .collect();
    }
    if hosts.is_empty() {
        hosts.push(HostPort {
            host: String::new(),
            port: None,
        });
    }
    if !addresses.is_empty() && addresses.len() != hosts.len() {
        return Err(bad(
            "option hostaddr of the DSN has to name as many addresses as there are hosts",
        ));
    }
    let ports = take_list(
        query,
        "port",
        "numbers from 1 to 65535 between commas",
        parse_port,
    )?;
    if ports.len() > 1 && ports.len() != hosts.len() {
        return Err(bad(
            "option port of the DSN has to name one port, or as many as there are hosts",
        ));
    }
    if !ports.is_empty() && hosts.iter().any(|one| one.port.is_some()) {
        return Err(bad(
            "the DSN has two ports, behind the host and as option port: write one",
        ));
    }
    Ok(hosts
        .into_iter()
        .enumerate()
        .map(|(index, one)| Server {
            port: one
                .port
                .or(ports.get(index).or(ports.first()).copied())
                .unwrap_or(5432),
            address: addresses.get(index).copied(),
            host: if one.host.is_empty() {
                "localhost".to_owned()
            } else {
                one.host
            },
        })
        .collect())
}

fn take_list<T>(
    query: &mut Query,
    name: &str,
    allowed: &str,
    read: impl Fn(&str) -> Option<T>,
) -> Result<Vec<T>, InitError> {
    let list = query.take_as(&[name], allowed, |text| text.split(',').map(read).collect())?;
    Ok(list.unwrap_or_default())
}

fn login(
    config: &mut Config,
    user: Option<String>,
    password: Option<String>,
    database: Option<String>,
    query: &mut Query,
) -> Result<(), InitError> {
    if let Some(user) = once("user", user, query)? {
        config.user(user);
    }
    if let Some(password) = once("password", password, query)? {
        config.password(password);
    }
    if let Some(database) = once("dbname", database, query)? {
        config.dbname(database);
    }
    Ok(())
}

fn once(name: &str, given: Option<String>, query: &mut Query) -> Result<Option<String>, InitError> {
    match (given, query.take(&[name])?.filter(|text| !text.is_empty())) {
        (Some(_), Some(_)) => Err(bad(format!(
            "the DSN has {name} twice, before the options and among them: write it once"
        ))),
        (given, option) => Ok(given.or(option)),
    }
}

fn session(
    config: &mut Config,
    query: &mut Query,
    many: bool,
    tls: &Settings,
) -> Result<(), InitError> {
    let targets = "any (one host) or read-write (a lock needs a server that accepts writes)";
    let target = query.take_as(&["target_session_attrs"], targets, |text| match text {
        "any" if !many => Some(TargetSessionAttrs::Any),
        "read-write" => Some(TargetSessionAttrs::ReadWrite),
        _ => None,
    })?;
    let default = if many {
        TargetSessionAttrs::ReadWrite
    } else {
        TargetSessionAttrs::Any
    };
    config.target_session_attrs(target.unwrap_or(default));

    let binding =
        query.take_as(
            &["channel_binding"],
            "disable, prefer or require",
            |text| match text {
                "disable" => Some(ChannelBinding::Disable),
                "prefer" => Some(ChannelBinding::Prefer),
                "require" => Some(ChannelBinding::Require),
                _ => None,
            },
        )?;
    if let Some(binding) = binding {
        if binding == ChannelBinding::Require && matches!(tls.mode, Mode::Disable | Mode::Prefer) {
            return Err(bad(
                "option channel_binding=require of the DSN needs TLS: write sslmode=require or stronger too",
            ));
        }
        config.channel_binding(binding);
    }
    if let Some(options) = query.take(&["options"])? {
        config.options(options);
    }
    let utf8 = |text: &str| {
        matches!(
            text.to_ascii_lowercase().as_str(),
            "utf8" | "utf-8" | "auto"
        )
        .then_some(())
    };
    query.take_as(&["client_encoding"], "UTF8, the only one there is", utf8)?;
    let gss = |text: &str| matches!(text, "disable" | "prefer").then_some(());
    query.take_as(
        &["gssencmode"],
        "disable or prefer (GSSAPI is not available)",
        gss,
    )?;
    Ok(())
}

/// The client's own sockets. That they do not give up before `limit` is checked with the rest of the configuration.
fn sockets(config: &mut Config, query: &mut Query) -> Result<(), InitError> {
    let seconds = |text: &str| whole::<u32>(text).filter(|seconds| (1..=32_767).contains(seconds));
    let allowed = "whole seconds from 1 to 32767";
    let switch = |text: &str| match text {
        "0" => Some(false),
        "1" => Some(true),
        _ => None,
    };
    if let Some(on) = query.take_as(&["keepalives"], "0 or 1", switch)? {
        config.keepalives(on);
    }
    if let Some(idle) = query.take_as(&["keepalives_idle"], allowed, seconds)? {
        config.keepalives_idle(Duration::from_secs(idle.into()));
    }
    if let Some(interval) = query.take_as(&["keepalives_interval"], allowed, seconds)? {
        config.keepalives_interval(Duration::from_secs(interval.into()));
    }
    let count = |text: &str| whole::<u32>(text).filter(|count| (1..=127).contains(count));
    let names = &["keepalives_count", "keepalives_retries"];
    if let Some(count) = query.take_as(names, "a whole number from 1 to 127", count)? {
        config.keepalives_retries(count);
    }
    let milliseconds = |text: &str| whole::<u32>(text).filter(|value| *value <= 86_400_000);
    let allowed = "whole milliseconds, at most 86400000";
    if let Some(value) = query.take_as(&["tcp_user_timeout"], allowed, milliseconds)? {
        config.tcp_user_timeout(Duration::from_millis(value.into()));
    }
    Ok(())
}
