//! The tasks of the workspace: `cargo xtask servers`, `cargo xtask test`, `cargo xtask bench`, `cargo xtask ci`.

mod tasks;

use std::{env, process::ExitCode};

use anyhow::{Result, bail};

use crate::tasks::{bench, ci, fuzz, servers, test, torture};

const USAGE: &str = "\
usage: cargo xtask <task>

  servers up       start PostgreSQL, MariaDB and Oracle MySQL, and leave them running
  servers down     stop them and remove their data
  servers status   say what is up
  servers env      print the environment variables that tests read
  test [args…]     run all tests on all three servers; the arguments go to `cargo test`
  test --interop [args…]
                   test locks that are shared with the libraries of Python and with sqlx
  bench [args…]    measure against the raw drivers and other libraries; `--help` lists rows and options
  fuzz [--inputs N] [--seed S] [property]
                   the properties of everything that reads foreign text, over a million inputs each
  test --clusters [args…]
                   the tests of poolers, clusters and other releases, which start their own servers
  torture [args…]  break everything around the locks, and check what their holders saw; `--short`: as CI does,
                   `--sabotage`: see that a broken library is noticed
  ci               everything that must pass before a change lands

DLOCK_TEST_POSTGRES_URL, DLOCK_TEST_MARIADB_URL and DLOCK_TEST_MYSQL_URL name servers
of yours, which are then used in place of own ones.";

fn main() -> ExitCode {
    match dispatch() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch() -> Result<ExitCode> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["servers", "up"] => servers::up(),
        ["servers", "down"] => servers::down(),
        ["servers", "status"] => servers::status(),
        ["servers", "env"] => servers::env(),
        ["test", "--clusters", rest @ ..] => test::run_clusters(rest),
        ["test", rest @ ..] => test::run(rest),
        ["bench", rest @ ..] => bench::run(rest),
        ["fuzz", rest @ ..] => fuzz::run(rest),
        ["torture", rest @ ..] => torture::run(rest),
        ["ci"] => ci::run(),
        [] | ["help" | "--help" | "-h", ..] => {
            println!("{USAGE}");
            Ok(ExitCode::SUCCESS)
        }
        _ => bail!("unknown task `{}`\n\n{USAGE}", words.join(" ")),
    }
}
