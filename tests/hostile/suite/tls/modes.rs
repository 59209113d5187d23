//! Each mode against each certificate that a server may show.

use xtask::servers::{Kind, Server};

use super::authority::{Authority, Term};
use super::{Step, app, assert_refused, lock_over};
use crate::place::on_every_server;

on_every_server! {
    every_mode_lets_in_what_it_says => modes;
}

fn modes(server: &mut Server) {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let kind = server.kind();
    let here = ["localhost", "127.0.0.1"];
    let right = ours.good_server("");
    let renamed = ours.server(
        ours.issue("db", &["elsewhere.example", "10.1.2.3"], Term::Good),
        "",
    );
    let nameless = ours.server(ours.issue("localhost", &[], Term::Good), "");
    let expired = ours.server(ours.issue("db", &here, Term::Expired), "");
    let foreign = theirs.server(theirs.issue("db", &here, Term::Good), "");

    // What is shown, and for each mode from `prefer` on the words of the refusal, if it is one.
    let table: [(&str, _, [Option<&[&str]>; 4]); 5] = [
        ("the right certificate", &right, [None; 4]),
        (
            "another name",
            &renamed,
            [
                None,
                None,
                None,
                Some(&["not valid for name", "as the host"]),
            ],
        ),
        (
            "no name but the subject's",
            &nameless,
            [
                None,
                None,
                nameless_refused(kind),
                Some(&["not valid for name", "as the host"]),
            ],
        ),
        (
            "an expired one",
            &expired,
            [
                None,
                None,
                Some(&["expired", "renew"]),
                Some(&["expired", "renew"]),
            ],
        ),
        (
            "an unknown authority's",
            &foreign,
            [
                None,
                None,
                Some(&["UnknownIssuer", "sslrootcert"]),
                Some(&["UnknownIssuer", "sslrootcert"]),
            ],
        ),
    ];
    for (what, tls, outcomes) in table {
        server
            .restart_with_tls(Some(tls))
            .expect("the server shows it");
        for host in here {
            let outcome = lock_over(server, &app(server, host, &Step::Disable.options(kind, "")));
            assert!(
                !outcome.expect("TLS is not asked for"),
                "{what}: TLS in spite of disable"
            );
            for (step, refused) in Step::ALL.into_iter().skip(1).zip(outcomes) {
                let case = format!("{kind}, {host}, {what}, {step:?}");
                let outcome = lock_over(
                    server,
                    &app(server, host, &step.options(kind, &ours.path())),
                );
                match refused {
                    None => assert!(
                        outcome.unwrap_or_else(|error| panic!("{case}: {error}")),
                        "{case}: without TLS"
                    ),
                    Some(words) => assert_refused(outcome, words, &case),
                }
            }
        }
    }

    server
        .restart_with_tls(None)
        .expect("the server has no TLS");
    for step in Step::ALL {
        let case = format!("{kind}, no TLS, {step:?}");
        let outcome = lock_over(
            server,
            &app(server, "127.0.0.1", &step.options(kind, &ours.path())),
        );
        if matches!(step, Step::Disable | Step::Prefer) {
            assert!(
                !outcome.unwrap_or_else(|error| panic!("{case}: {error}")),
                "{case}"
            );
        } else {
            assert_refused(outcome, no_tls(kind), &case);
        }
    }
}

/// A certificate without alternative names passes `VERIFY_CA` on PostgreSQL only: the other driver always looks for a name.
fn nameless_refused(kind: Kind) -> Option<&'static [&'static str]> {
    match kind {
        Kind::Postgres => None,
        Kind::MariaDb | Kind::MySql => Some(&["not valid for name", "as the host"]),
    }
}

/// The words of the refusal by a server that offers no TLS.
pub(super) fn no_tls(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Postgres => &["does not support TLS", "at the server"],
        Kind::MariaDb | Kind::MySql => &["SSL", "at the server"],
    }
}
