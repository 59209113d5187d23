use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::capabilities::Strategy;
use crate::config::LeaseOptions;
use crate::hazard::Hazards;
use crate::scheme::KeyScheme;
use crate::timeout::Timeout;

fn problem(dsn: &str) -> String {
    match parse(dsn) {
        Err(InitError::BadConfig { problem }) => problem,
        other => panic!("{dsn} gave {other:?}"),
    }
}

/// Each DSN, and what the message has to name.
fn assert_refused(table: &[(&str, &[&str])]) {
    for (dsn, needles) in table {
        let problem = problem(dsn);
        for needle in *needles {
            assert!(
                problem.contains(needle),
                "{dsn}\n  {problem}\n  lacks {needle}"
            );
        }
        assert!(
            !problem.contains("hunter2"),
            "{dsn}\n  {problem}\n  shows the password"
        );
        assert!(!problem.ends_with('.'), "{problem}");
    }
}

#[cfg(not(feature = "sqlite"))]
#[test]
fn without_the_feature_a_file_of_sqlite_is_refused_with_its_name() {
    assert_refused(&[
        ("sqlite:locks.db", &["feature \"sqlite\"", "dlock-db"]),
        ("sqlite:///locks.db", &["feature \"sqlite\""]),
    ]);
}

#[test]
fn a_text_that_is_no_dsn_is_refused_with_the_schemes() {
    assert_refused(&[
        ("", &["empty", "postgres://", "mysql://", "memory:"]),
        ("  ", &["empty"]),
        (
            "oracle://x",
            &[
                "unknown scheme \"oracle\"",
                "postgres://",
                "mariadb://",
                "memory:",
            ],
        ),
        ("redis://u:hunter2@h", &["unknown scheme \"redis\""]),
        ("hunter2", &["scheme"]),
        ("u:hunter2@h/db", &["scheme"]),
        ("hunter2 x://", &["scheme"]),
        (
            "host=h user=u password=hunter2",
            &["scheme", "postgres://user:password@host/database"],
        ),
        ("memory://x", &["memory:name"]),
        ("memory:a b", &["memory:name"]),
    ]);
}

#[test]
fn a_password_that_is_not_encoded_is_not_shown() {
    for scheme in ["postgres", "mysql"] {
        for (rest, needle) in [
            ("u:hunter2@x@h/db", "%40"),
            ("u:x@hunter2@h/db", "%40"),
            ("u:a/hunter2@h/db", "%2F"),
            ("u:hunter2/a@h/db", "%2F"),
            ("u:a?hunter2@h/db", "%3F"),
            ("u:a?hunter2=b@h/db", "%3F"),
            ("u:a#hunter2@h/db", "%23"),
            ("u:a%hunter2@h/db", "%25"),
            ("u:a@b?hunter2@h/db", "%40"),
            ("u:a@b/hunter2@h/db", "%40"),
            ("u:hunter2", "user:password@host"),
            ("u:hunter2/db", "user:password@host"),
            ("some.user:hunter2/db", "user:password@host"),
            ("u:hunter2%00@h", "NUL"),
            ("u:hunter2%ff@h", "UTF-8"),
            ("u@h/db?password=a&hunter2", "***"),
            ("u@h/db?password=hunter2&limit=hunter2", "***"),
        ] {
            assert_refused(&[(&format!("{scheme}://{rest}"), &[needle])]);
        }
    }
    assert_refused(&[
        #[cfg(feature = "postgres")]
        ("postgres:///db?password=a&hunter2=b", &["***", "sslmode"]),
        #[cfg(feature = "mysql")]
        ("mysql://h/db?hunter2=b&password=a", &["***", "ssl-mode"]),
    ]);
}

#[test]
fn dlocks_own_options_are_read() {
    let query = "timeout=500ms&namespace=a%2Fb%20%F0%9F%94%92&connect_timeout=2.5&limit=1m&heartbeat=3s\
                 &max_waiters=3&max_held=500&application_name=my+app&hand_over=0&hand_over_time=5ms&strategy=session\
                 &allow=standby,no-exclusion&key_scheme=with-advisory-lock:a&fencing=true&fencing_table=app.fences\
                 &key_table=app.keys&status_file=%2Frun%2Fmy%20app.json";
    let expected = Options {
        timeout: Some(Timeout::from(Duration::from_millis(500))),
        namespace: Some("a/b 🔒".to_owned()),
        connect_timeout: Some(Duration::from_millis(2500)),
        limit: Some(Duration::from_secs(60)),
        heartbeat: Some(Duration::from_secs(3)),
        max_waiters: Some(3),
        max_held: Some(500),
        application_name: Some("my+app".to_owned()),
        hand_over: Some(0),
        hand_over_time: Some(Duration::from_millis(5)),
        allow: Hazards::parse("no-exclusion,standby"),
        key_scheme: Some(KeyScheme::with_advisory_lock("a")),
        fencing: Some(true),
        fencing_table: Some("app.fences".to_owned()),
        key_table: Some("app.keys".to_owned()),
        lease: LeaseOptions {
            strategy: Some(Strategy::Session),
            ..LeaseOptions::default()
        },
        status_file: Some("/run/my app.json".to_owned()),
    };
    for scheme in ["postgres", "postgresql", "mysql", "mariadb", "MySQL"] {
        let (_, options) = parse(&format!("{scheme}://u@h/db?{query}")).expect("a good DSN");
        assert_eq!(options, expected, "{scheme}");
    }
    let (_, options) =
        parse("memory:a?timeout=none&namespace=n&status_file=a.json").expect("a good DSN");
    assert_eq!(options.timeout, Some(Timeout::NONE));
    assert_eq!(options.namespace.as_deref(), Some("n"));
    assert_eq!(options.status_file.as_deref(), Some("a.json"));
}

#[test]
fn a_wrong_option_is_named_with_what_is_allowed() {
    for scheme in ["postgres", "mysql"] {
        for (query, needles) in [
            ("timeout=soon", &["\"soon\"", "timeout", "500ms"] as &[&str]),
            ("timeout=-1", &["\"-1\"", "timeout"]),
            ("timeout=", &["\"\"", "timeout"]),
            ("status_file=", &["\"\"", "status_file", "path"]),
            ("limit=1e3", &["\"1e3\"", "limit"]),
            ("connect_timeout=x", &["\"x\"", "connect_timeout"]),
            ("heartbeat=5d", &["\"5d\"", "heartbeat"]),
            ("max_waiters=-1", &["\"-1\"", "max_waiters"]),
            ("max_waiters=many", &["\"many\"", "max_waiters"]),
            ("allow=pooler", &["\"pooler\"", "allow", "no-exclusion"]),
            ("allow=standby,all", &["allow", "galera"]),
            ("allow=", &["\"\"", "allow", "unproved"]),
            ("strategy=x", &["\"x\"", "strategy", "session or lease"]),
            (
                "tiemout=1",
                &["unknown option \"tiemout\"", "timeout", "limit", "strategy"],
            ),
            ("timeout", &["\"timeout\"", "no value"]),
            ("timeout=1&timeout=2", &["\"timeout\"", "twice"]),
            ("namespace=%f", &["namespace", "%25"]),
            ("namespace=%00", &["namespace", "NUL"]),
        ] {
            assert_refused(&[(&format!("{scheme}://u:hunter2@h/db?{query}"), needles)]);
        }
    }
    assert_refused(&[(
        "memory:?limit=30",
        &["unknown option \"limit\"", "timeout, namespace"],
    )]);
}

#[test]
fn a_wrong_host_or_port_is_named() {
    for scheme in ["postgres", "mysql"] {
        for (rest, needles) in [
            (
                "u:hunter2@h:99999/db",
                &["\"99999\"", "\"h\"", "65535"] as &[&str],
            ),
            ("u:hunter2@h:0/db", &["\"0\"", "65535"]),
            ("u:hunter2@h:+1/db", &["\"+1\"", "65535"]),
            ("u:hunter2@h:54x2/db", &["\"54x2\"", "65535"]),
            ("u:hunter2@[::1]:x/db", &["\"x\"", "\"::1\""]),
            ("localhost:99999/db", &["\"99999\"", "localhost"]),
            ("10.0.0.1:99999/db", &["\"99999\"", "10.0.0.1"]),
            ("u:hunter2@[::1/db", &["]"]),
            ("u:hunter2@[::1]5/db", &["]"]),
            ("u:hunter2@[h]/db", &["IPv6"]),
            ("u:hunter2@a b/db", &["\"a b\"", "host"]),
            ("u:hunter2@h/a/b", &["%2F"]),
        ] {
            assert_refused(&[(&format!("{scheme}://{rest}"), needles)]);
        }
    }
}

#[cfg(feature = "postgres")]
mod postgres {
    use super::*;
    use crate::endpoint::PostgresEndpoint;

    fn endpoint(dsn: &str) -> PostgresEndpoint {
        match parse(dsn) {
            Ok((Endpoint::Postgres(endpoint), _)) => *endpoint,
            other => panic!("{dsn} gave {other:?}"),
        }
    }

    #[test]
    fn every_way_to_say_where_the_server_is() {
        for (dsn, address) in [
            ("postgres://h/db", "h:5432"),
            ("postgres://u:p@h:1/db", "h:1"),
            (" postgres://u@h\n", "h:5432"),
            ("postgres://u@[::1]/db", "[::1]:5432"),
            ("postgres://u@[fe80::1%25eth0]:7/db", "[fe80::1%eth0]:7"),
            (
                "postgres://u@%2Fvar%2Frun%2Fpostgresql/db",
                "/var/run/postgresql/.s.PGSQL.5432",
            ),
            ("postgres://u@%2Ftmp:6/db", "/tmp/.s.PGSQL.6"),
            ("postgres:///db?host=/tmp&port=6&user=u", "/tmp/.s.PGSQL.6"),
            ("postgres://u:p@localhost:6/db?host=/tmp", "/tmp/.s.PGSQL.6"),
            ("postgres:///db", "localhost:5432"),
            ("postgres://", "localhost:5432"),
            ("postgres://u@a:1,b,[::1]:3/db", "a:1, b:5432, [::1]:3"),
            ("postgres:///db?host=a,b&port=1,2", "a:1, b:2"),
            ("postgres:///db?host=a,b&port=7", "a:7, b:7"),
            ("postgres:///db?hostaddr=10.0.0.1", "10.0.0.1:5432"),
            ("postgres://h/db?hostaddr=10.0.0.1", "h:5432"),
        ] {
            assert_eq!(&*endpoint(dsn).address, address, "{dsn}");
        }
    }

    #[test]
    fn user_password_and_database_are_decoded() {
        let endpoint = endpoint("postgres://us%40er:p%3A%2F%3F%23%5B%5D%40%25w:x@h/d%2Fb%C3%A9");
        let config = endpoint.config();
        assert_eq!(config.get_user(), Some("us@er"));
        assert_eq!(config.get_password(), Some(b"p:/?#[]@%w:x".as_slice()));
        assert_eq!(config.get_dbname(), Some("d/bé"));
    }

    #[test]
    fn several_hosts_are_asked_for_one_that_accepts_writes() {
        use tokio_postgres::config::TargetSessionAttrs::{Any, ReadWrite};
        for (dsn, target) in [
            ("postgres://a,b/db", ReadWrite),
            ("postgres://a/db", Any),
            ("postgres://a/db?target_session_attrs=read-write", ReadWrite),
        ] {
            assert_eq!(
                endpoint(dsn).config().get_target_session_attrs(),
                target,
                "{dsn}"
            );
        }
    }

    #[test]
    fn options_of_libpq_have_their_effect_or_are_refused_by_name() {
        endpoint(
            "postgres://h/?channel_binding=disable&keepalives=1&keepalives_idle=60&keepalives_interval=10\
             &keepalives_count=6&tcp_user_timeout=60000&options=-c%20search_path%3Dx&client_encoding=UTF8\
             &gssencmode=prefer&sslmode=disable&sslsni=1&sslnegotiation=postgres&dbname=",
        );
        assert_refused(&[
            (
                "postgres://h?sslmode=allow",
                &["\"allow\"", "sslmode", "prefer", "verify-full"],
            ),
            ("postgres://h?sslmode=verify", &["\"verify\"", "sslmode"]),
            ("postgres://h?sslmode=Require", &["\"Require\"", "sslmode"]),
            (
                "postgres://h?sslrootcert=/x",
                &["sslrootcert", "verify-full"],
            ),
            (
                "postgres://h?sslmode=prefer&sslrootcert=/x",
                &["sslrootcert", "verify-full"],
            ),
            (
                "postgres://h?sslmode=require&sslrootcert=system",
                &["system", "verify-full"],
            ),
            ("postgres://h?sslcert=/x", &["sslcert", "sslkey"]),
            (
                "postgres://h?sslmode=disable&sslcert=/x&sslkey=/y",
                &["sslmode=disable"],
            ),
            (
                "postgres://h?sslnegotiation=direct",
                &["sslnegotiation", "sslmode=require"],
            ),
            (
                "postgres://h?channel_binding=require",
                &["channel_binding", "sslmode=require"],
            ),
            #[cfg(feature = "tls")]
            (
                "postgres://%2Ftmp/db?sslmode=require",
                &["socket", "sslmode"],
            ),
            (
                "postgres://h?target_session_attrs=standby",
                &["\"standby\"", "read-write"],
            ),
            (
                "postgres://a,b?target_session_attrs=any",
                &["\"any\"", "read-write"],
            ),
            (
                "postgres://h?load_balance_hosts=random",
                &["load_balance_hosts", "exclude"],
            ),
            ("postgres://h?service=x", &["service"]),
            (
                "postgres://h?sslpassword=hunter2",
                &["sslpassword", "sslkey"],
            ),
            ("postgres://h?sslcrl=x", &["sslcrl", "revocation"]),
            (
                "postgres://h?gssencmode=require",
                &["\"require\"", "gssencmode"],
            ),
            (
                "postgres://h?client_encoding=latin1",
                &["\"latin1\"", "UTF8"],
            ),
            ("postgres://h?keepalives=yes", &["\"yes\"", "keepalives"]),
            (
                "postgres://h?keepalives_idle=0",
                &["\"0\"", "keepalives_idle"],
            ),
            (
                "postgres://h?keepalives_count=1&keepalives_retries=1",
                &["keepalives_count", "keepalives_retries"],
            ),
            (
                "postgres://h?ssl-mode=REQUIRED",
                &["unknown option \"ssl-mode\"", "sslmode"],
            ),
            ("postgres://u@h?user=v", &["user", "once"]),
            (
                "postgres://u:hunter2@h?password=hunter2",
                &["password", "once"],
            ),
            ("postgres://h/a?dbname=b", &["dbname", "once"]),
            ("postgres://h/db?host=g", &["host", "one"]),
            ("postgres://h:1/db?port=2", &["port", "one"]),
            ("postgres:///db?host=a,b&port=1,2,3", &["port", "hosts"]),
            ("postgres:///db?port=99999", &["\"99999\"", "port"]),
            ("postgres://a,b/db?hostaddr=10.0.0.1", &["hostaddr"]),
            ("postgres:///db?hostaddr=h", &["\"h\"", "hostaddr"]),
        ]);
    }

    #[test]
    fn sockets_that_give_up_before_the_limit_are_refused() {
        let limit = Duration::from_secs(30);
        for good in [
            "",
            "keepalives_idle=1",
            "keepalives_idle=10&keepalives_interval=10&keepalives_count=2",
            "keepalives=0&keepalives_idle=1&keepalives_interval=1&keepalives_count=1",
            "tcp_user_timeout=30000",
            "tcp_user_timeout=0",
        ] {
            endpoint(&format!("postgres://h/db?{good}"))
                .check(limit)
                .expect(good);
        }
        for (bad, needles) in [
            (
                "keepalives_idle=1&keepalives_interval=1&keepalives_count=2",
                ["3 s", "keepalives_idle"],
            ),
            (
                "keepalives_idle=9&keepalives_interval=10&keepalives_count=2",
                ["29 s", "limit (30 s)"],
            ),
            (
                "tcp_user_timeout=29999",
                ["tcp_user_timeout=29999", "30000"],
            ),
        ] {
            let error = endpoint(&format!("postgres://h/db?{bad}"))
                .check(limit)
                .expect_err(bad);
            for needle in needles {
                assert!(error.to_string().contains(needle), "{error} lacks {needle}");
            }
        }
    }

    #[test]
    fn the_connect_time_out_is_shared_by_the_hosts() {
        let mut endpoint = endpoint("postgres://a,b/db?sslmode=disable");
        endpoint
            .prepare("me", Duration::from_secs(10))
            .expect("prepared");
        assert_eq!(
            endpoint.config().get_connect_timeout(),
            Some(&Duration::from_secs(5))
        );
        assert_eq!(endpoint.config().get_application_name(), Some("me"));
    }

    #[cfg(not(feature = "tls"))]
    #[test]
    fn tls_without_its_feature_is_refused() {
        endpoint("postgres://h/db?sslmode=prefer");
        for query in [
            "sslmode=require",
            "sslmode=verify-ca",
            "sslmode=verify-full",
            "sslrootcert=system",
            "sslsni=0",
        ] {
            assert_refused(&[(
                &format!("postgres://h/db?{query}"),
                &["feature \"tls\"", "sslmode=disable"],
            )]);
        }
    }
}

#[cfg(feature = "mysql")]
mod mysql {
    use super::*;
    use crate::endpoint::MySqlEndpoint;

    fn endpoint(dsn: &str) -> MySqlEndpoint {
        match parse(dsn) {
            Ok((Endpoint::MySql(endpoint), _)) => *endpoint,
            other => panic!("{dsn} gave {other:?}"),
        }
    }

    #[test]
    fn every_way_to_say_where_the_server_is() {
        for (dsn, address) in [
            ("mysql://h/db", "h:3306"),
            ("mariadb://u:p@h:1/db", "h:1"),
            ("mysql://u@[::1]/db", "[::1]:3306"),
            (
                "mysql://u@localhost/db?socket=/run/mysqld.sock",
                "/run/mysqld.sock",
            ),
            ("mysql:///db?socket=/run/mysqld.sock", "/run/mysqld.sock"),
            ("mysql://u@%2Frun%2Fmysqld.sock/db", "/run/mysqld.sock"),
            ("mysql:///db", "localhost:3306"),
        ] {
            assert_eq!(&*endpoint(dsn).address, address, "{dsn}");
        }
    }

    #[test]
    fn the_drivers_options_are_those_that_locks_need() {
        let endpoint = endpoint("mysql://us%40er:p%3A%2F%3F%23%40%25w:x@localhost/d%C3%A9");
        let opts = endpoint.opts();
        assert_eq!(opts.user(), Some("us@er"));
        assert_eq!(opts.pass(), Some("p:/?#@%w:x"));
        assert_eq!(endpoint.database.as_deref(), Some("dé"));
        assert!(
            !opts.prefer_socket(),
            "localhost must not turn into a socket"
        );
        assert!(opts.tcp_nodelay());
    }

    #[test]
    fn options_of_mysql_have_their_effect_or_are_refused_by_name() {
        endpoint("mysql://h/db?charset=utf8mb4&ssl-mode=preferred");
        endpoint("mysql://h/db?sslmode=DISABLED");
        assert_refused(&[
            (
                "mysql://h?ssl-mode=on",
                &["\"on\"", "ssl-mode", "VERIFY_IDENTITY"],
            ),
            ("mysql://h?sslmode=require", &["\"require\"", "REQUIRED"]),
            (
                "mysql://h?ssl-mode=DISABLED&ssl_mode=DISABLED",
                &["ssl-mode and ssl_mode", "once"],
            ),
            (
                "mysql://h?ssl-mode=REQUIRED&ssl-ca=/x",
                &["ssl-ca", "VERIFY_CA"],
            ),
            ("mysql://h?ssl-cert=/x", &["ssl-cert", "ssl-key"]),
            (
                "mysql://h?ssl-mode=DISABLED&ssl-cert=/x&ssl-key=/y",
                &["ssl-mode=DISABLED"],
            ),
            #[cfg(feature = "tls")]
            (
                "mysql://u@localhost?socket=/x&ssl-mode=REQUIRED",
                &["socket", "ssl"],
            ),
            ("mysql://h?socket=/x", &["host and a socket"]),
            ("mysql://localhost:1?socket=/x", &["host and a socket"]),
            ("mysql://u@%2Fx:1/db", &["socket has no port"]),
            ("mysql://h?socket=x", &["\"x\"", "absolute path"]),
            ("mysql://a,b/db", &["several hosts"]),
            ("mysql://h?charset=latin1", &["\"latin1\"", "utf8mb4"]),
            (
                "mysql://h?password=hunter2",
                &["password", "mysql://user:password@host"],
            ),
            (
                "mysql://h?require_ssl=true",
                &["require_ssl", "ssl-mode=REQUIRED"],
            ),
            ("mysql://h?pool_max=3", &["pool_max", "max_waiters"]),
            ("mysql://h?wait_timeout=3", &["wait_timeout", "limit"]),
            ("mysql://h?tcp_keepalive=3", &["tcp_keepalive", "heartbeat"]),
            (
                "mysql://h?nope=3",
                &["unknown option \"nope\"", "ssl-mode", "limit"],
            ),
        ]);
    }

    #[cfg(not(feature = "tls"))]
    #[test]
    fn tls_without_its_feature_is_refused() {
        endpoint("mysql://h/db?ssl-mode=PREFERRED");
        for query in [
            "ssl-mode=REQUIRED",
            "ssl-mode=VERIFY_CA",
            "ssl-mode=VERIFY_IDENTITY",
            "ssl-ca=/x",
        ] {
            assert_refused(&[(
                &format!("mysql://h/db?{query}"),
                &["feature \"tls\"", "ssl-mode=DISABLED"],
            )]);
        }
    }
}

#[test]
fn debug_shows_no_password() {
    for dsn in [
        "postgres://u:hunter2@h/db",
        "postgres:///db?host=h&password=hunter2",
        "mysql://u:hunter2@h/db",
    ] {
        let shown = format!("{:?}", parse(dsn).expect("a good DSN"));
        assert!(!shown.contains("hunter2"), "{shown}");
        assert!(shown.contains("\"***\"") && shown.contains("h:"), "{shown}");
    }
}

/// Text with what breaks a DSN apart.
const MESSY: &str = "[a-z0-9:@/?#%&=,+ \\[\\]é\\\\.]{0,12}";

proptest! {
    #[test]
    fn no_text_panics(text in "\\PC{0,60}", scheme in "(postgres|mysql|memory)?:?/{0,2}") {
        let _ = parse(&text);
        let _ = parse(&format!("{scheme}{text}"));
    }

    #[test]
    fn no_message_shows_a_password(
        scheme in "postgres|postgresql|mysql|mariadb|redis|Postgres",
        before in MESSY,
        after in MESSY,
        host in "h|db\\.example\\.com|\\[::1\\]|a,b|[a-z:@\\[ ]{0,5}",
        rest in "(:[0-9a-z]{0,6})?(/[a-z%]{0,5})?(\\?[a-z_&=%0-9]{0,20})?",
        query in "(&|\\?)?((timeout|limit|sslmode|ssl-mode|x)=[a-z0-9]{0,3})?",
    ) {
        // A user who forgot to encode the password, before and behind which there is anything.
        let dsn = format!("{scheme}://user:{before}hunter2{after}@{host}{rest}{query}");
        match parse(&dsn) {
            Ok(parsed) => prop_assert!(!format!("{parsed:?}").contains("hunter2"), "{}", dsn),
            Err(error) => {
                prop_assert!(!error.to_string().contains("hunter2"), "{}\n{}", dsn, error);
                prop_assert!(!format!("{error:?}").contains("hunter2"), "{}\n{:?}", dsn, error);
            }
        }
    }
}
