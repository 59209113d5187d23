use std::ffi::OsString;

use super::*;

fn config(dsn: &str) -> Config {
    Config::from_dsn(dsn).expect(dsn)
}

fn lookup(variables: &[(&str, &str)]) -> Result<Config, InitError> {
    Config::from_lookup(|name| {
        let (_, value) = variables.iter().find(|(other, _)| *other == name)?;
        Some(OsString::from(value))
    })
}

#[test]
fn the_defaults_are_as_documented() {
    let config = config("memory:");
    config.check().expect("the defaults fit");
    assert_eq!(config.get_timeout(), Timeout::NONE);
    assert_eq!(config.get_namespace(), "");
    assert_eq!(config.get_connect_timeout(), Duration::from_secs(10));
    assert_eq!(config.get_limit(), Duration::from_secs(30));
    assert_eq!(config.get_heartbeat(), Duration::from_secs(5));
    assert_eq!(config.get_max_waiters(), 8);
}

#[test]
fn the_heartbeat_follows_a_shorter_limit() {
    let config = config("memory:").limit(Duration::from_secs(6));
    assert_eq!(config.get_heartbeat(), Duration::from_secs(1));
    config.check().expect("the defaults fit");
}

#[test]
fn setters_replace_what_the_dsn_says() {
    let config = config("memory:?timeout=1&namespace=a")
        .timeout(Duration::from_millis(5))
        .namespace("b")
        .connect_timeout(Duration::from_secs(1))
        .limit(Duration::from_secs(60))
        .heartbeat(Duration::from_secs(2))
        .max_waiters(1)
        .application_name("é".repeat(40));
    config.check().expect("they fit");
    assert_eq!(
        config.get_timeout(),
        Timeout::from(Duration::from_millis(5))
    );
    assert_eq!(config.get_namespace(), "b");
    assert_eq!(config.get_connect_timeout(), Duration::from_secs(1));
    assert_eq!(config.get_limit(), Duration::from_secs(60));
    assert_eq!(config.get_heartbeat(), Duration::from_secs(2));
    assert_eq!(config.get_max_waiters(), 1);
    assert_eq!(config.program_name(), "é".repeat(31));
    assert_eq!(config.timeout(None).get_timeout(), Timeout::NONE);
}

#[cfg(all(feature = "postgres", feature = "mysql"))]
#[test]
fn the_namespace_is_the_database_where_locks_are_of_the_whole_server() {
    for (dsn, namespace) in [
        ("mysql://u@h/app", "app"),
        ("mysql://u@h", ""),
        ("mysql://u@h/app?namespace=", ""),
        ("mysql://u@h/app?namespace=n", "n"),
        ("postgres://u@h/app", ""),
        ("postgres://u@h/app?namespace=n", "n"),
    ] {
        assert_eq!(config(dsn).get_namespace(), namespace, "{dsn}");
    }
}

#[cfg(feature = "postgres")]
#[test]
fn hazards_are_allowed_by_name_and_add_up() {
    let config = config("postgres://u@h/db?allow=standby").allow(Hazard::Unproved);
    let allowed = config.get_allowed();
    for hazard in Hazard::ALL {
        let expected = [Hazard::Unproved, Hazard::Standby].contains(&hazard);
        assert_eq!(allowed.contains(hazard), expected, "{hazard}");
        let again = config.clone().allow(hazard).allow(hazard);
        assert_eq!(
            again.get_allowed().to_vec().len(),
            3 - usize::from(expected)
        );
    }
}

#[test]
fn values_that_do_not_fit_are_named() {
    let base = || config("memory:");
    let seconds = Duration::from_secs;
    for (config, needles) in [
        (
            base().limit(Duration::from_millis(2500)),
            ["limit 2.5s", "whole seconds"],
        ),
        (
            base().limit(Duration::from_millis(30_001)),
            ["limit 30.001s", "whole seconds"],
        ),
        (base().limit(seconds(2)), ["limit 2s", "3s"]),
        (base().limit(seconds(86_401)), ["limit 86401s", "86400s"]),
        (
            base().heartbeat(seconds(15)),
            ["heartbeat 15s", "limit 30s"],
        ),
        (base().heartbeat(Duration::ZERO), ["heartbeat 0ns", "100ms"]),
        (
            base().limit(seconds(8)).heartbeat(seconds(4)),
            ["heartbeat 4s", "limit 8s"],
        ),
        (
            base().connect_timeout(Duration::ZERO),
            ["connect_timeout 0ns", "10ms"],
        ),
        (
            base().connect_timeout(Duration::MAX),
            ["connect_timeout", "3600s"],
        ),
        (base().max_held(0), ["max_held 0", "1 or more"]),
        (base().max_waiters(0), ["max_waiters 0", "1 to 1000"]),
        (base().max_waiters(1001), ["max_waiters 1001", "1 to 1000"]),
        (base().namespace("a\0b"), ["namespace", "NUL"]),
        (base().namespace("n".repeat(1025)), ["namespace", "1024"]),
        (base().application_name(""), ["application_name", "empty"]),
        (base().application_name("a\0"), ["application_name", "NUL"]),
    ] {
        let error = config.check().expect_err(needles[0]);
        assert!(config.endpoint().is_err());
        for needle in needles {
            assert!(error.to_string().contains(needle), "{error} lacks {needle}");
        }
    }
}

#[cfg(feature = "postgres")]
#[test]
fn s1_a_longer_limit_needs_more_patient_sockets() {
    let config = config("postgres://h/db?tcp_user_timeout=30000");
    config.check().expect("30 s fit the default");
    config
        .limit(Duration::from_secs(31))
        .check()
        .expect_err("less than the limit");
}

#[test]
fn the_environment_is_asked_in_order_and_empty_is_unset() {
    let memory = |config: Config| match config.endpoint {
        Endpoint::Memory { name } => name.map(|name| name.to_string()),
        #[cfg(any(feature = "postgres", feature = "mysql", feature = "sqlite"))]
        other => panic!("{other:?}"),
    };
    for (variables, name) in [
        (
            &[("DLOCK_DSN", "memory:a"), ("DATABASE_URL", "memory:b")] as &[_],
            "a",
        ),
        (&[("DLOCK_DSN", ""), ("DATABASE_URL", "memory:b")], "b"),
        (&[("DLOCK_DSN", " \n"), ("DATABASE_URL", "memory:b\n")], "b"),
        (&[("DATABASE_URL", "memory:b")], "b"),
    ] {
        assert_eq!(
            memory(lookup(variables).expect("a DSN")).as_deref(),
            Some(name)
        );
    }
    for variables in [&[] as &[_], &[("DATABASE_URL", "")]] {
        assert!(matches!(lookup(variables), Err(InitError::NoDsn)));
    }
    // A bad DSN is not skipped in favour of the other variable, and the message says which one is bad.
    let error = lookup(&[("DLOCK_DSN", "x"), ("DATABASE_URL", "memory:b")]).expect_err("a bad DSN");
    assert!(error.to_string().contains("DLOCK_DSN"), "{error}");
}

#[cfg(unix)]
#[test]
fn a_variable_that_is_not_utf_8_is_refused_by_name() {
    use std::os::unix::ffi::OsStringExt;
    let error = Config::from_lookup(|name| {
        let dsn = b"postgres://u:hunter2\xff@h".to_vec();
        (name != "DLOCK_ENABLED").then(|| OsString::from_vec(dsn))
    })
    .expect_err("not UTF-8");
    let message = error.to_string();
    assert!(
        message.contains("DLOCK_DSN") && !message.contains("hunter2"),
        "{message}"
    );
}

#[cfg(all(feature = "postgres", feature = "mysql"))]
#[test]
fn debug_shows_no_password() {
    for dsn in ["postgres://u:hunter2@h/db", "mysql://u:hunter2@h/db"] {
        let shown = format!("{:?} {0:#?}", config(dsn));
        assert!(
            !shown.contains("hunter2") && shown.contains("***"),
            "{shown}"
        );
    }
}

#[test]
fn dlock_is_switched_off_by_the_environment_and_then_needs_no_dsn() {
    let off = lookup(&[("DLOCK_ENABLED", "0")]).expect("no DSN is needed");
    assert!(!off.is_enabled());
    let dsn = ("DATABASE_URL", "memory:");
    for (value, enabled) in [("false", false), ("1", true), ("true", true), ("", true)] {
        let config = lookup(&[dsn, ("DLOCK_ENABLED", value)]).expect(value);
        assert_eq!(config.is_enabled(), enabled, "{value}");
    }
    let error = lookup(&[dsn, ("DLOCK_ENABLED", "maybe")]).expect_err("neither yes nor no");
    assert!(error.to_string().contains("DLOCK_ENABLED"), "{error}");
    assert!(matches!(
        lookup(&[("DLOCK_ENABLED", "1")]),
        Err(InitError::NoDsn)
    ));
    // B5: a configuration that does not come from the environment is not switched off by it.
    assert!(config("memory:").is_enabled());
}

#[test]
fn the_environments_status_file_replaces_the_dsns() {
    let path = |config: Config| config.get_status_file().map(|file| file.path);
    let dsn = ("DLOCK_DSN", "memory:?status_file=of-dsn.json");
    for (value, expected) in [("", "of-dsn.json"), ("/run/a b.json", "/run/a b.json")] {
        let config = lookup(&[dsn, ("DLOCK_STATUS_FILE", value)]).expect("a configuration");
        assert_eq!(
            path(config).as_deref(),
            Some(std::path::Path::new(expected))
        );
    }
    assert_eq!(path(config("memory:")), None);
}

/// Rule B5.
#[test]
fn b5_switched_off_nobody_else_is_excluded_and_no_server_is_asked() {
    let nowhere = config("memory:shared").enabled(false);
    let [one, other] = [0, 1].map(|_| crate::Locker::connect_blocking(nowhere.clone()));
    let (one, other) = (one.expect("off"), other.expect("off"));
    let guard = one.lock("k").acquire_blocking().expect("free");
    assert_eq!(guard.fencing_token(), None);
    let second = other.lock("k").try_acquire_blocking().expect("free");
    assert!(second.is_some(), "another locker is not excluded");
    let third = one.lock("k").try_acquire_blocking().expect("an answer");
    assert!(third.is_none(), "the same locker is");
    assert!(one.server().contains("switched off"), "{}", one.server());
}

#[cfg(feature = "postgres")]
#[test]
fn switched_off_a_server_that_is_not_there_is_no_matter() {
    let config = config("postgres://nobody@127.0.0.1:1/none").enabled(false);
    crate::Locker::connect_blocking(config).expect("nobody is asked");
}
