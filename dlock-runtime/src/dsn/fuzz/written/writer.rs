//! Writes what a DSN has become as another DSN.

use std::fmt::Write;
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tokio_postgres::config::{ChannelBinding, Host, TargetSessionAttrs};

use crate::capabilities::Strategy;
use crate::config::LeaseOptions;
use crate::dsn::Options;
use crate::endpoint::{MySqlEndpoint, PostgresEndpoint};
use crate::tls::{Mode, Roots, Settings};

/// Writes `&name=value`.
fn push(to: &mut String, name: &str, value: &str) {
    write!(
        to,
        "&{name}={}",
        utf8_percent_encode(value, NON_ALPHANUMERIC)
    )
    .expect("memory");
}

pub(super) fn write_options(to: &mut String, options: &Options) {
    let seconds =
        |duration: Duration| format!("{}.{:09}", duration.as_secs(), duration.subsec_nanos());
    // A new field has to be written too.
    let Options {
        timeout,
        namespace,
        connect_timeout,
        limit,
        heartbeat,
        max_waiters,
        max_held,
        application_name,
        hand_over,
        hand_over_time,
        allow,
        key_scheme,
        fencing,
        fencing_table,
        key_table,
        lease,
        status_file,
    } = options;
    write_leases(to, lease);
    for (name, duration) in [
        ("connect_timeout", connect_timeout),
        ("limit", limit),
        ("heartbeat", heartbeat),
        ("hand_over_time", hand_over_time),
    ] {
        if let Some(duration) = duration {
            push(to, name, &seconds(*duration));
        }
    }
    if let Some(timeout) = timeout {
        push(
            to,
            "timeout",
            &timeout.duration().map_or("none".to_owned(), seconds),
        );
    }
    for (name, text) in [
        ("namespace", namespace),
        ("application_name", application_name),
        ("status_file", status_file),
        ("fencing_table", fencing_table),
        ("key_table", key_table),
    ] {
        if let Some(text) = text {
            push(to, name, text);
        }
    }
    for (name, number) in [("max_waiters", max_waiters), ("max_held", max_held)] {
        if let Some(number) = number {
            push(to, name, &number.to_string());
        }
    }
    if let Some(number) = hand_over {
        push(to, "hand_over", &number.to_string());
    }
    if let Some(allow) = allow {
        let names: Vec<&str> = allow
            .to_vec()
            .into_iter()
            .map(crate::hazard::Hazard::name)
            .collect();
        push(to, "allow", &names.join(","));
    }
    if let Some(fencing) = fencing {
        push(to, "fencing", &fencing.to_string());
    }
    if let Some(scheme) = key_scheme {
        push(to, "key_scheme", &scheme.to_string());
    }
}

fn write_leases(to: &mut String, options: &LeaseOptions) {
    let LeaseOptions {
        strategy,
        ttl,
        auto_renew,
        retry,
        table,
        owner,
    } = options;
    match strategy {
        Some(Strategy::Session) => push(to, "strategy", "session"),
        Some(Strategy::Lease) => push(to, "strategy", "lease"),
        Some(Strategy::Memory) => panic!("no DSN says that"),
        None => {}
    }
    for (name, duration) in [("ttl", ttl), ("retry", retry)] {
        if let Some(duration) = duration {
            let seconds = format!("{}.{:09}", duration.as_secs(), duration.subsec_nanos());
            push(to, name, &seconds);
        }
    }
    if let Some(renew) = auto_renew {
        push(to, "auto_renew", &renew.to_string());
    }
    for (name, text) in [("table", table), ("owner", owner)] {
        if let Some(text) = text {
            push(to, name, text);
        }
    }
}

/// Everything as an option, nothing before the database.
pub(super) fn write_postgres(endpoint: &PostgresEndpoint) -> String {
    let (config, tls) = (endpoint.config(), endpoint.tls());
    let mut dsn = "postgresql:///?".to_owned();
    let hosts: Vec<String> = config
        .get_hosts()
        .iter()
        .map(|host| match host {
            Host::Tcp(name) => name.clone(),
            Host::Unix(path) => path.to_str().expect("UTF-8").to_owned(),
        })
        .collect();
    push(&mut dsn, "host", &hosts.join(","));
    let ports: Vec<String> = config.get_ports().iter().map(ToString::to_string).collect();
    push(&mut dsn, "port", &ports.join(","));
    if let Some(user) = config.get_user() {
        push(&mut dsn, "user", user);
    }
    if let Some(password) = config.get_password() {
        push(
            &mut dsn,
            "password",
            str::from_utf8(password).expect("UTF-8"),
        );
    }
    if let Some(database) = config.get_dbname() {
        push(&mut dsn, "dbname", database);
    }
    if let Some(options) = config.get_options() {
        push(&mut dsn, "options", options);
    }
    write_tls(&mut dsn, tls);
    push(
        &mut dsn,
        "channel_binding",
        match config.get_channel_binding() {
            ChannelBinding::Disable => "disable",
            ChannelBinding::Require => "require",
            _ => "prefer",
        },
    );
    if config.get_target_session_attrs() == TargetSessionAttrs::ReadWrite {
        push(&mut dsn, "target_session_attrs", "read-write");
    }
    push(
        &mut dsn,
        "keepalives",
        if config.get_keepalives() { "1" } else { "0" },
    );
    for (name, value) in [
        (
            "keepalives_idle",
            Some(config.get_keepalives_idle().as_secs()).filter(|idle| *idle < 32_768),
        ),
        (
            "keepalives_interval",
            config
                .get_keepalives_interval()
                .map(|interval| interval.as_secs()),
        ),
        (
            "keepalives_count",
            config.get_keepalives_retries().map(u64::from),
        ),
        (
            "tcp_user_timeout",
            config
                .get_tcp_user_timeout()
                .map(|timeout| timeout.as_secs() * 1000),
        ),
    ] {
        if let Some(value) = value {
            push(&mut dsn, name, &value.to_string());
        }
    }
    dsn
}

fn write_tls(to: &mut String, tls: &Settings) {
    push(
        to,
        "sslmode",
        match tls.mode {
            Mode::Disable => "disable",
            Mode::Prefer => "prefer",
            Mode::Encrypt => "require",
            Mode::VerifyChain => "verify-ca",
            Mode::VerifyName => "verify-full",
        },
    );
    if let Roots::File(path) = &tls.roots {
        push(to, "sslrootcert", path.to_str().expect("UTF-8"));
    }
    if let Some(identity) = &tls.identity {
        push(to, "sslcert", identity.certificate.to_str().expect("UTF-8"));
        push(to, "sslkey", identity.key.to_str().expect("UTF-8"));
    }
    push(
        to,
        "sslnegotiation",
        if tls.direct { "direct" } else { "postgres" },
    );
    push(to, "sslsni", if tls.without_sni { "0" } else { "1" });
}

pub(super) fn write_mysql(endpoint: &MySqlEndpoint) -> String {
    let (opts, tls) = (endpoint.opts(), endpoint.tls());
    let encoded =
        |text: Option<&str>| utf8_percent_encode(text.unwrap_or(""), NON_ALPHANUMERIC).to_string();
    let place = match opts.socket() {
        Some(path) => encoded(Some(path)),
        None if opts.ip_or_hostname().contains(':') => {
            format!("[{}]:{}", opts.ip_or_hostname(), opts.tcp_port())
        }
        None => format!("{}:{}", opts.ip_or_hostname(), opts.tcp_port()),
    };
    let mut dsn = format!(
        "mariadb://{}:{}@{place}/{}?",
        encoded(opts.user()),
        encoded(opts.pass()),
        encoded(opts.db_name())
    );
    push(
        &mut dsn,
        "ssl-mode",
        match tls.mode {
            Mode::Disable => "DISABLED",
            Mode::Prefer => "PREFERRED",
            Mode::Encrypt => "REQUIRED",
            Mode::VerifyChain => "VERIFY_CA",
            Mode::VerifyName => "VERIFY_IDENTITY",
        },
    );
    if let Roots::File(path) = &tls.roots {
        push(&mut dsn, "ssl-ca", path.to_str().expect("UTF-8"));
    }
    if let Some(identity) = &tls.identity {
        push(
            &mut dsn,
            "ssl-cert",
            identity.certificate.to_str().expect("UTF-8"),
        );
        push(&mut dsn, "ssl-key", identity.key.to_str().expect("UTF-8"));
    }
    dsn
}
