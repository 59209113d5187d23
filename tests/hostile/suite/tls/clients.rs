//! Certificates of clients, and accounts that come in with TLS only, or without it only.

use std::time::Duration;

use xtask::servers::{DATABASE, Kind, Server};

use super::authority::{Authority, Term};
use super::{Step, assert_refused, lock_over};
use crate::place::{connect, create_account, dsn, on_every_server, until, waiters};

on_every_server! {
    a_clients_certificate_lets_it_in_and_nothing_else_does => certificates;
    an_account_comes_in_the_way_it_must => ways;
    a_wait_is_called_off_over_tls => calling_off;
}

const RULES: &str = "hostssl all certified 127.0.0.1/32 cert\n\
                     hostnossl all certified 127.0.0.1/32 reject\n\
                     hostnossl all tls_only 127.0.0.1/32 reject\n\
                     hostssl all plain_only 127.0.0.1/32 reject\n";

/// A server with TLS, and an account that may do nothing but come in, on a condition.
fn prepare(server: &mut Server, ours: &Authority, account: &str, condition: &str) {
    server
        .restart_with_tls(Some(&ours.good_server(RULES)))
        .expect("a server with TLS");
    create_account(server, account, condition);
}

fn account(server: &Server, name: &str, options: &str) -> String {
    match server.kind() {
        Kind::Postgres => dsn(server, "127.0.0.1", name, DATABASE, options),
        _ => dsn(server, "127.0.0.1", name, "", options),
    }
}

fn certificates(server: &mut Server) {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let kind = server.kind();
    prepare(
        server,
        &ours,
        "certified",
        "REQUIRE SUBJECT '/CN=certified'",
    );
    let step = Step::VerifyFull.options(kind, &ours.path());
    let with = |authority: &Authority, subject: &str, term| {
        let issued = authority.issue(subject, &[], term);
        format!("{step}&{}", authority.client(kind, "client", &issued))
    };
    let good = with(&ours, "certified", Term::Good);
    assert!(
        lock_over(server, &account(server, "certified", &good)).expect("its certificate is good")
    );

    let refused = |what: &str, options: &str, words: &[&str]| {
        let case = format!("{kind}, {what}");
        assert_refused(
            lock_over(server, &account(server, "certified", options)),
            words,
            &case,
        );
    };
    let denied: &[&str] = match kind {
        Kind::Postgres => &["28000", "certificate"],
        Kind::MariaDb | Kind::MySql => &["1045", "denied"],
    };
    refused("no certificate", &step, denied);
    refused(
        "another's certificate",
        &with(&ours, "somebody", Term::Good),
        denied,
    );
    // What the server says to these is an alert of TLS.
    refused(
        "a certificate of an unknown authority",
        &with(&theirs, "certified", Term::Good),
        &["does not take the client's certificate"],
    );
    refused(
        "an expired certificate",
        &with(&ours, "certified", Term::Expired),
        &["does not take the client's certificate"],
    );
    let mixed = {
        let one = ours.issue("certified", &[], Term::Good);
        let other = ours.issue("certified", &[], Term::Good);
        let certificate = ours.file("mixed.pem", &one.certificate);
        let key = ours.file("mixed.key", &other.key);
        match kind {
            Kind::Postgres => format!("{step}&sslcert={certificate}&sslkey={key}"),
            _ => format!("{step}&ssl-cert={certificate}&ssl-key={key}"),
        }
    };
    refused("a key of another certificate", &mixed, &["mixed.pem"]);
    refused(
        "no TLS at all",
        &Step::Disable.options(kind, ""),
        match kind {
            Kind::Postgres => &["28000", "reject"],
            Kind::MariaDb | Kind::MySql => &["1045", "denied"],
        },
    );
}

fn ways(server: &mut Server) {
    let ours = Authority::new();
    let kind = server.kind();
    prepare(server, &ours, "tls_only", "REQUIRE SSL");
    for step in Step::ALL {
        let options = step.options(kind, &ours.path());
        let outcome = lock_over(server, &account(server, "tls_only", &options));
        if step == Step::Disable {
            assert_refused(
                outcome,
                &["refused the login"],
                &format!("{kind}, tls_only without TLS"),
            );
        } else {
            assert!(outcome.expect("with TLS it gets in"), "{step:?}");
        }
    }
    if kind == Kind::Postgres {
        create_account(server, "plain_only", "");
        for step in Step::ALL {
            let options = step.options(kind, &ours.path());
            let outcome = lock_over(server, &account(server, "plain_only", &options));
            if matches!(step, Step::Disable | Step::Prefer) {
                assert!(!outcome.expect("without TLS it gets in"), "{step:?}");
            } else {
                assert_refused(
                    outcome,
                    &["refused the login", "28000"],
                    &format!("plain_only, {step:?}"),
                );
            }
        }
    }
}

/// On PostgreSQL the request to cancel is a connection of its own, which needs TLS and the certificate too.
fn calling_off(server: &mut Server) {
    let ours = Authority::new();
    let kind = server.kind();
    prepare(server, &ours, "certified", "REQUIRE X509");
    let issued = ours.issue("certified", &[], Term::Good);
    let options = format!(
        "{}&{}",
        Step::VerifyFull.options(kind, &ours.path()),
        ours.client(kind, "client", &issued)
    );
    let one = connect(&account(server, "certified", &options)).expect("let in");
    let other = connect(&account(server, "certified", &options)).expect("let in");
    let guard = one.lock("k").acquire_blocking().expect("free");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let lock = other.lock("k");
        let waiting = tokio::spawn(async move { lock.acquire().await });
        until("a session waits", || waiters(server, "certified") == 1);
        waiting.abort();
    });
    until("the wait was called off", || {
        waiters(server, "certified") == 0
    });
    let busy = other
        .lock("k")
        .timeout(Duration::from_millis(10))
        .acquire_blocking();
    assert!(busy.expect_err("held").is_busy());
    guard.release_blocking().expect("held to the end");
}
