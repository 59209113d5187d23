//! `cargo xtask torture`: see the library of this package.

mod arguments;
mod short;

use std::env;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use torture::checker::{Verdict, check};
use torture::history::{Process, Reader};
use torture::nemesis::{DSN, Orders, run};
use torture::report;
use torture::worker::{self, Duty};

use crate::arguments::Arguments;

fn main() -> ExitCode {
    match dispatch() {
        Ok(true) => ExitCode::SUCCESS,
        // Not 1, which is a run that failed by itself.
        Ok(false) => ExitCode::from(2),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether nothing was broken.
fn dispatch() -> Result<bool> {
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["worker", directory, rest @ ..] => {
            work(Path::new(directory), rest)?;
            Ok(true)
        }
        ["check", directory] => {
            let directory = Path::new(directory);
            let mut reader = Reader::new(directory);
            let history = reader.poll()?;
            let verdict = check(history)?;
            println!("{}", report::write(directory, history, &verdict)?);
            Ok(verdict.violations.is_empty())
        }
        ["publish", directories @ ..] => {
            let directories: Vec<PathBuf> = directories.iter().map(PathBuf::from).collect();
            report::publish(&workspace().join("docs/torture.md"), &directories)?;
            Ok(true)
        }
        rest => {
            let arguments = Arguments::parse(rest)?;
            if arguments.short {
                return short::run(&arguments);
            }
            let orders = arguments.orders()?;
            let (text, verdict) = once(&orders)?;
            println!("{text}");
            Ok(verdict.violations.is_empty())
        }
    }
}

/// One run, with its report.
fn once(orders: &Orders) -> Result<(String, Verdict)> {
    let history = run(orders)?;
    let verdict = check(&history)?;
    let text = report::write(&orders.directory, &history, &verdict)?;
    Ok((text, verdict))
}

fn work(directory: &Path, words: &[&str]) -> Result<()> {
    let [slot, life, seed, keys, shared] = words else {
        bail!("a worker is started by the nemesis");
    };
    let duty = Duty {
        process: Process {
            slot: slot.parse()?,
            life: life.parse()?,
        },
        seed: seed.parse()?,
        keys: keys.parse()?,
        shared: shared.parse()?,
        askers: (6, 2),
    };
    let dsn = env::var(DSN).with_context(|| format!("{DSN} is not set"))?;
    worker::run(directory, &dsn, &duty)
}

/// Where the histories of runs lie.
fn histories() -> PathBuf {
    workspace().join("target/torture")
}

fn workspace() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package)
}
