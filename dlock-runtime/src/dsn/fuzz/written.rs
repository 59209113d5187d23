//! A DSN that was read, written anew in another way, means the same.

mod writer;

use super::*;
use writer::{write_mysql, write_options, write_postgres};

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
        maybe("max_held", &["1", "20000"]).boxed(),
        maybe("application_name", &["my%20app", "a%27b", "%E2%80%AE"]).boxed(),
        maybe("fencing", &["true", "false", "0", "1"]).boxed(),
        maybe("fencing_table", &["fences", "app.Fences_2"]).boxed(),
        maybe("key_table", &["keys", "app.Keys_2"]).boxed(),
        maybe("ttl", DURATIONS).boxed(),
        maybe("retry", DURATIONS).boxed(),
        maybe("auto_renew", &["true", "false", "0", "1"]).boxed(),
        maybe("table", &["locks", "app.Locks_2"]).boxed(),
        maybe("owner", &["web-1%20pid%207"]).boxed(),
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
        maybe(
            "key_scheme",
            &[
                "native",
                "raw",
                "with-advisory-lock:app",
                "sqlalchemy-dlock",
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

/// What a DSN means, in the driver's words and ours.
fn meaning(dsn: &str) -> String {
    match parse(dsn).unwrap_or_else(|error| panic!("{dsn}: {error}")) {
        (Endpoint::Postgres(endpoint), options) => {
            format!("{:?} {:?} {options:?}", endpoint.config(), endpoint.tls())
        }
        (Endpoint::MySql(endpoint), options) => {
            format!("{:?} {:?} {options:?}", endpoint.opts(), endpoint.tls())
        }
        #[cfg(feature = "sqlite")]
        (Endpoint::Sqlite { path }, options) => format!("{} {options:?}", path.display()),
        (Endpoint::Memory { .. }, options) => format!("{options:?}"),
    }
}

/// Writing anew cannot see what reading has forgotten. Of an option, only that which changes something was read.
#[test]
fn every_option_has_an_effect() {
    const OWN: &[&str] = &[
        "timeout=1",
        "namespace=n",
        "connect_timeout=1",
        "limit=60",
        "heartbeat=1",
        "max_waiters=1",
        "max_held=1",
        "application_name=a",
        "hand_over=1",
        "hand_over_time=1ms",
        "allow=standby",
        "key_scheme=raw",
        "fencing=true",
        "fencing_table=app.fences",
        "key_table=app.keys",
        "ttl=10",
        "auto_renew=false",
        "retry=50ms",
        "table=app.locks",
        "owner=web-1",
    ];
    for (base, options) in [
        (
            "postgres:///?sslmode=verify-full",
            [
                "host=h",
                "hostaddr=10.0.0.1",
                "port=1",
                "user=u",
                "password=p",
                "dbname=d",
                "sslrootcert=/r",
                "sslcert=/c&sslkey=/k",
                "sslsni=0",
                "sslnegotiation=direct",
                "channel_binding=require",
                "target_session_attrs=read-write",
                "keepalives=0",
                "keepalives_idle=9",
                "keepalives_interval=9",
                "keepalives_count=9",
                "tcp_user_timeout=60000",
                "options=-c%20x%3Dy",
            ]
            .as_slice(),
        ),
        (
            "mysql:///?ssl-mode=VERIFY_IDENTITY",
            ["ssl-ca=/r", "ssl-cert=/c&ssl-key=/k"].as_slice(),
        ),
        ("mysql:///?", ["socket=/s", "ssl-mode=DISABLED"].as_slice()),
        ("postgres:///?", ["sslmode=disable"].as_slice()),
    ] {
        let without = meaning(base);
        for option in OWN.iter().chain(options) {
            assert_ne!(meaning(&format!("{base}&{option}")), without, "{option}");
        }
    }
}
