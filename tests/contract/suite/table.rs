//! From the table to the tests that the run executes.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use dlock::{Config, InitError};
use libtest_mimic::{Arguments, Failed, Trial};
use xtask::servers::Kind;

use crate::place::{Family, Place};
use crate::site::Site;

/// How many behaviours run at a time. They wait for servers and for time to pass, more than they compute.
const AT_A_TIME: usize = 8;

/// A behaviour that takes longer hangs.
const TOO_LONG: Duration = Duration::from_secs(150);

/// One sentence of the contract.
#[derive(Clone, Copy)]
pub(crate) struct Behaviour {
    pub(crate) name: &'static str,
    pub(crate) scope: Scope,
    pub(crate) body: fn(&Site),
}

/// Where a behaviour applies.
#[expect(non_camel_case_types, reason = "the words of the table")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    everywhere,
    /// Memory has no connections, no other processes and no network.
    servers,
    /// As `servers`, on a server that the behaviour may break.
    own_server,
    /// A lease outlives the session that took it, and has its name in a table.
    sessions,
    /// As `sessions`, on a server that the behaviour may break.
    own_sessions,
    /// What only leases have: tokens, a ttl, rows.
    leases,
    /// As `leases`, on a server that the behaviour may break.
    own_leases,
    /// MySQL and MariaDB have no notifications.
    woken_leases,
    shared_mode,
    /// With other processes, which memory does not reach.
    shared_mode_of_servers,
    /// The named locks of MySQL and MariaDB are exclusive only.
    named_locks,
    /// As `named_locks`, on a server that the behaviour may break.
    own_named_locks,
    /// The MySQL protocol's driver does not read an idle connection.
    postgres,
    /// As `postgres`, on a server of its own.
    own_postgres,
}

impl Scope {
    fn includes(self, place: Place) -> bool {
        let is_server = place != Place::Memory;
        match self {
            Scope::everywhere => true,
            Scope::servers | Scope::own_server => is_server,
            Scope::sessions | Scope::own_sessions => is_server && !place.is_lease(),
            Scope::leases | Scope::own_leases => place.is_lease(),
            Scope::woken_leases => place == Place::PostgresLease,
            Scope::shared_mode => place.has_shared_mode(),
            Scope::shared_mode_of_servers => is_server && place.has_shared_mode(),
            Scope::named_locks | Scope::own_named_locks => {
                place.family() == Some(Family::MySql) && !place.is_lease()
            }
            Scope::postgres | Scope::own_postgres => place == Place::Postgres,
        }
    }
}

macro_rules! contract {
    ($($topic:ident { $($name:ident: $scope:ident,)* })*) => {
        const BEHAVIOURS: &[table::Behaviour] = &[$($(
            table::Behaviour {
                name: concat!(stringify!($topic), "::", stringify!($name)),
                scope: table::Scope::$scope,
                body: $topic::$name,
            },
        )*)*];
    };
}
pub(crate) use contract;

/// Runs every behaviour at every place, as the command line asks.
pub(crate) fn run(behaviours: &'static [Behaviour]) -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(AT_A_TIME);
    let mut trials = Vec::new();
    for place in Place::ALL {
        for behaviour in behaviours {
            if behaviour.scope.includes(place) {
                let name = format!("{place}::{}", behaviour.name);
                trials.push(Trial::test(name, move || check(place, *behaviour)));
            }
        }
    }
    let names: Vec<String> = trials.iter().map(|trial| trial.name().to_owned()).collect();
    trials.push(Trial::test("table::no_combination_is_missing", move || {
        no_combination_is_missing(behaviours, &names);
        Ok(())
    }));
    trials.push(Trial::test("table::no_server_is_missing", || {
        no_server_is_missing();
        Ok(())
    }));
    trials.push(Trial::test("table::no_rule_is_missing", || {
        crate::ruled::no_rule_is_missing();
        Ok(())
    }));
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// Every behaviour stands at each place, or at the places that its scope names.
fn no_combination_is_missing(behaviours: &[Behaviour], names: &[String]) {
    let mut expected = Vec::new();
    for behaviour in behaviours {
        let places: &[Place] = match behaviour.scope {
            Scope::everywhere => &Place::ALL,
            Scope::servers | Scope::own_server => &Place::SERVERS,
            Scope::sessions | Scope::own_sessions => &Place::SESSIONS,
            Scope::leases | Scope::own_leases => &Place::LEASES,
            Scope::woken_leases => &[Place::PostgresLease],
            Scope::shared_mode => &[
                Place::Memory,
                Place::Postgres,
                Place::PostgresLease,
                Place::MariaDbLease,
                Place::MySqlLease,
            ],
            Scope::shared_mode_of_servers => &[
                Place::Postgres,
                Place::PostgresLease,
                Place::MariaDbLease,
                Place::MySqlLease,
            ],
            Scope::postgres | Scope::own_postgres => &[Place::Postgres],
            Scope::named_locks | Scope::own_named_locks => &[Place::MariaDb, Place::MySql],
        };
        expected.extend(
            places
                .iter()
                .map(|place| format!("{place}::{}", behaviour.name)),
        );
    }
    let mut instantiated = names.to_vec();
    expected.sort();
    instantiated.sort();
    assert_eq!(instantiated, expected);
    assert!(names.len() > 200, "only {} combinations", names.len());
}

/// The places are the kinds of servers that the project starts, and the schemes that the library takes.
fn no_server_is_missing() {
    let mut kinds: Vec<Kind> = Place::ALL.into_iter().filter_map(Place::kind).collect();
    kinds.sort();
    kinds.dedup();
    let mut all = Kind::ALL.to_vec();
    all.sort();
    assert_eq!(kinds, all);
    for kind in all {
        let url = kind.url().expect("a server that is missing fails the run");
        assert!(xtask::servers::version(&url).is_ok(), "{kind} answers");
    }

    let Err(InitError::BadConfig { problem }) = Config::from_dsn("nowhere://") else {
        panic!("an unknown scheme is refused");
    };
    let (_, listed) = problem.split_once("write ").expect("the list of schemes");
    let mut listed: Vec<&str> = listed.split([' ', ',']).filter_map(scheme).collect();
    let mut known: Vec<&str> = Place::ALL
        .into_iter()
        .flat_map(Place::schemes)
        .map(|scheme| scheme.split(':').next().unwrap_or(scheme))
        .collect();
    listed.sort_unstable();
    known.sort_unstable();
    assert_eq!(
        listed, known,
        "the schemes of the library, and of the table"
    );
}

fn scheme(word: &str) -> Option<&str> {
    word.split_once(':').map(|(scheme, _)| scheme)
}

/// Runs one behaviour, and looks what it left behind.
fn check(place: Place, behaviour: Behaviour) -> Result<(), Failed> {
    let (reply, outcome) = mpsc::channel();
    // A thread of its own, so that one that hangs does not hang the run.
    thread::spawn(move || {
        let _ = reply.send(check_here(place, behaviour));
    });
    match outcome.recv_timeout(TOO_LONG) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(failure)) => Err(Failed::from(failure)),
        Err(_) => Err(Failed::from(format!("not done after {TOO_LONG:?}"))),
    }
}

fn check_here(place: Place, behaviour: Behaviour) -> Result<(), String> {
    let site = match behaviour.scope {
        Scope::own_server
        | Scope::own_sessions
        | Scope::own_leases
        | Scope::own_named_locks
        | Scope::own_postgres => Site::with_own_server(place),
        _ => Site::new(place),
    };
    let site = site.map_err(|error| format!("{error:#}"))?;
    let outcome = catch_unwind(AssertUnwindSafe(|| (behaviour.body)(&site)));
    let left = catch_unwind(AssertUnwindSafe(|| site.finish()));
    outcome.map_err(|panic| words(&*panic))?;
    left.map_err(|panic| words(&*panic))?
        .map_err(|error| format!("{error:#}"))
}

fn words(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned()))
        .unwrap_or_else(|| "a panic without words".to_owned())
}
