//! A DSN that was read, written anew in another way, means the same.

use std::fmt::Write;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tokio_postgres::config::{ChannelBinding, Host, TargetSessionAttrs};

use super::*;
use crate::endpoint::{MySqlEndpoint, PostgresEndpoint};
use crate::tls::{Mode, Roots};

/// One of the values, or none.
fn maybe(name: &'static str, values: &'static [&'static str]) -> impl Strategy<Value = String> {
    prop::option::weighted(0.25, prop::sample::select(values))
        .prop_map(move |value| value.map_or_else(String::new, |value| format!("&{name}={value}")))
}

/// dlock's own options.
fn own() -> impl Strategy<Value = String> {
    const DURATIONS: &[&str] = &[
        "0",
        "10",
        "2.5",
        "0.000000001",
        "500ms",
        "1.5m",
        "1h",
        "3s",
        "12345678901.000000001",
    ];
    [
        maybe(
            "timeout",
            &["none", "0", "10", "333ms", "0.1", "7.000000007"],
        )
        .boxed(),
        maybe(
            "namespace",
            &[
                "",
                "a%2Fb",
                "%F0%9F%94%92",
                "n&timeout=",
                "a+b%20c",
                "%26%3D%3F%23",
            ],
        )
        .boxed(),
        maybe("connect_timeout", DURATIONS).boxed(),
        maybe("limit", DURATIONS).boxed(),
        maybe("heartbeat", DURATIONS).boxed(),
        maybe("max_waiters", &["1", "08", "1000"]).boxed(),
        maybe("application_name", &["my%20app", "a%27b", "%E2%80%AE"]).boxed(),
        maybe("hand_over", &["0", "32", "4294967295"]).boxed(),
        maybe("hand_over_time", DURATIONS).boxed(),
        maybe(
            "allow",
            &[
                "standby",
                "no-exclusion,standby",
                "unproved,galera,no-idle-limit",
            ],
        )
        .boxed(),
    ]
    .prop_map(|options| options.concat())
}

fn of_postgres() -> impl Strategy<Value = String> {
    let hosts = prop::sample::select(vec![
        "",
        "h",
        "u@h",
        "u:p@h:1",
        "u%40:p%3A%2F%25@h:65535",
        "u@a:1,b,[::1]:3",
        "%2Ftmp:6",
        "u:p@[fe80::1%25eth0]:7",
        ":p@h",
        "u:@h",
    ]);
    let tls = prop::sample::select(vec![
        "",
        "&sslmode=disable",
        "&sslmode=prefer",
        "&sslmode=require",
        "&sslmode=require&sslrootcert=/a%20b",
        "&sslmode=verify-ca",
        "&sslmode=verify-full&sslrootcert=/ca",
        "&sslrootcert=system",
        "&sslmode=verify-full&sslsni=0",
        "&sslmode=require&sslnegotiation=direct",
        "&sslcert=/c&sslkey=/k",
        "&channel_binding=require&sslmode=require",
        "&channel_binding=disable",
    ]);
    let sockets = [
        maybe("keepalives", &["0", "1"]).boxed(),
        maybe("keepalives_idle", &["1", "32767"]).boxed(),
        maybe("keepalives_interval", &["1", "90"]).boxed(),
        maybe("keepalives_count", &["1", "127"]).boxed(),
        maybe("tcp_user_timeout", &["0", "30000", "86400000"]).boxed(),
        maybe("options", &["-c%20search_path%3Dx", "%26%3D"]).boxed(),
        maybe("target_session_attrs", &["read-write"]).boxed(),
    ];
    let database = prop::sample::select(vec!["", "db", "d%2F%C3%A9"]);
    (hosts, database, tls, sockets, own()).prop_map(|(hosts, database, tls, sockets, own)| {
        format!(
            "postgres://{hosts}/{database}?{tls}{}{own}",
            sockets.concat()
        )
    })
}

fn of_mysql() -> impl Strategy<Value = String> {
    let hosts = prop::sample::select(vec![
        "",
        "h",
        "u@h",
        "u:p@h:1",
        "u%40:p%3A%2F%25@h:65535",
        "u@%2Frun%2Fs",
        "u:p@[::1]:7",
        "localhost",
        ":p@h",
    ]);
    let tls = prop::sample::select(vec![
        "",
        "&ssl-mode=DISABLED",
        "&ssl-mode=preferred",
        "&sslmode=REQUIRED",
        "&ssl-ca=/a%20b",
        "&ssl-mode=VERIFY_CA",
        "&ssl_mode=VERIFY_IDENTITY&ssl_ca=/ca",
        "&ssl-cert=/c&ssl-key=/k",
        "&ssl-mode=VERIFY_IDENTITY&ssl_cert=/c&ssl_key=/k",
    ]);
    let database = prop::sample::select(vec!["", "db", "d%2F%C3%A9"]);
    (hosts, database, tls, own())
        .prop_map(|(hosts, database, tls, own)| format!("mysql://{hosts}/{database}?{tls}{own}"))
}

/// Writes `&name=value`.
fn push(to: &mut String, name: &str, value: &str) {
    write!(
        to,
        "&{name}={}",
        utf8_percent_encode(value, NON_ALPHANUMERIC)
    )
    .expect("memory");
}

fn write_options(to: &mut String, options: &Options) {
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
        application_name,
        hand_over,
        hand_over_time,
        allow,
    } = options;
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
    ] {
        if let Some(text) = text {
            push(to, name, text);
        }
    }
    if let Some(number) = max_waiters {
        push(to, "max_waiters", &number.to_string());
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
}

/// Everything as an option, nothing before the database.
fn write_postgres(endpoint: &PostgresEndpoint) -> String {
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
    push(
        &mut dsn,
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
        push(&mut dsn, "sslrootcert", path.to_str().expect("UTF-8"));
    }
    if let Some(identity) = &tls.identity {
        push(
            &mut dsn,
            "sslcert",
            identity.certificate.to_str().expect("UTF-8"),
        );
        push(&mut dsn, "sslkey", identity.key.to_str().expect("UTF-8"));
    }
    push(
        &mut dsn,
        "sslnegotiation",
        if tls.direct { "direct" } else { "postgres" },
    );
    push(&mut dsn, "sslsni", if tls.without_sni { "0" } else { "1" });
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

fn write_mysql(endpoint: &MySqlEndpoint) -> String {
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

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_dsn_of_postgresql_written_anew_means_the_same(dsn in of_postgres()) {
        let Ok((Endpoint::Postgres(endpoint), options)) = parse(&dsn) else {
            // The table has pairs that do not go together, such as a socket with TLS.
            return Ok(());
        };
        let mut written = write_postgres(&endpoint);
        write_options(&mut written, &options);
        let again = parse(&written).map_err(|error| TestCaseError::fail(format!("{dsn}\n{written}\n{error}")))?;
        let (Endpoint::Postgres(other), same) = again else {
            return Err(TestCaseError::fail("another kind of server"));
        };
        prop_assert!(endpoint.config() == other.config(), "{}\n{}\n{:?}\n{:?}", dsn, written, endpoint.config(), other.config());
        prop_assert_eq!(&endpoint.address, &other.address);
        prop_assert_eq!(endpoint.tls(), other.tls());
        prop_assert_eq!(options, same, "{}", dsn);
    }

    #[test]
    fn a_dsn_of_mysql_written_anew_means_the_same(dsn in of_mysql()) {
        let Ok((Endpoint::MySql(endpoint), options)) = parse(&dsn) else {
            return Ok(());
        };
        let mut written = write_mysql(&endpoint);
        write_options(&mut written, &options);
        let again = parse(&written).map_err(|error| TestCaseError::fail(format!("{dsn}\n{written}\n{error}")))?;
        let (Endpoint::MySql(other), same) = again else {
            return Err(TestCaseError::fail("another kind of server"));
        };
        prop_assert_eq!(endpoint.opts(), other.opts(), "{}\n{}", dsn, written);
        prop_assert_eq!(&endpoint.address, &other.address);
        prop_assert_eq!(endpoint.tls(), other.tls());
        prop_assert_eq!(options, same, "{}", dsn);
    }
}

/// The tables above make DSNs that are good, mostly: what is refused tests nothing.
#[test]
fn most_of_the_dsns_are_read() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    let mut runner = TestRunner::deterministic();
    for strategy in [of_postgres().boxed(), of_mysql().boxed()] {
        let read = (0..500).filter(|_| {
            let dsn = strategy.new_tree(&mut runner).expect("a DSN").current();
            parse(&dsn).is_ok()
        });
        assert!(read.count() > 250);
    }
}
