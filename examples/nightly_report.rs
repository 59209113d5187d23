//! How does a management command make sure that only one copy of it runs?
//!
//! ```sh
//! cargo run --example nightly_report
//! ```
//!
//! It keeps its lock in the database that `DATABASE_URL` names; without one, in an `SQLite` file in the temp directory.
//! Things to try meanwhile, from another terminal:
//!
//! - start it again: the second copy says who has the lock, and exits with 75 (`EX_TEMPFAIL`); `--wait 30` has it wait;
//! - press Ctrl-C: the report stops between two accounts, and the lock is free when the command ends;
//! - kill it with `kill -9`: the database frees the lock by itself;
//! - end its session on the server, or the server: before the next account the command finds the lock lost, and stops
//!   with 1, since another copy may run by now.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use signal_hook::consts::{SIGINT, SIGTERM};

/// What the shell is told when the command should be tried again later (`EX_TEMPFAIL`), and when it was interrupted.
const BUSY: u8 = 75;
const INTERRUPTED: u8 = 130;

/// Writes the nightly report. Only one copy of it works at a time, on all machines that use the database.
#[derive(Debug, Parser)]
struct Arguments {
    /// How many accounts the report covers.
    #[arg(long, default_value_t = 100)]
    accounts: u64,
    /// How long each of them takes, in milliseconds.
    #[arg(long, default_value_t = 100)]
    millis: u64,
    /// How many seconds to wait while another copy works.
    #[arg(long, default_value_t = 0)]
    wait: u64,
    /// Print the summary as JSON.
    #[arg(long)]
    json: bool,
}

/// What the command has done, for people and for programs.
#[derive(Debug, Serialize)]
struct Summary {
    outcome: &'static str,
    /// What went wrong, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    accounts: u64,
    seconds: f64,
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Lock(#[from] dlock::Error),
    #[error(transparent)]
    Start(#[from] dlock::InitError),
    #[error("interrupted; run it again to write the report from the beginning")]
    Interrupted,
}

impl Failure {
    /// The word in the summary, and what the shell is told.
    fn outcome(&self) -> (&'static str, u8) {
        match self {
            Failure::Lock(error) if error.is_busy() => ("busy", BUSY),
            Failure::Lock(error) if error.is_lost() => ("lost", 1),
            Failure::Interrupted => ("interrupted", INTERRUPTED),
            Failure::Lock(_) | Failure::Start(_) => ("failed", 1),
        }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let start = Instant::now();
    let progress = ProgressBar::new(arguments.accounts).with_style(style());
    let result = run(&arguments, &progress);
    let summary = |outcome, error| Summary {
        outcome,
        error,
        accounts: progress.position(),
        seconds: start.elapsed().as_secs_f64(),
    };
    match result {
        Ok(()) => {
            progress.finish_and_clear();
            tell(&arguments, &summary("written", None));
            ExitCode::SUCCESS
        }
        Err(failure) => {
            progress.abandon();
            let (outcome, code) = failure.outcome();
            tell(&arguments, &summary(outcome, Some(failure.to_string())));
            ExitCode::from(code)
        }
    }
}

/// Starts dlock, does the work, and ends dlock: when this returns, the lock is free.
fn run(arguments: &Arguments, progress: &ProgressBar) -> Result<(), Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // The first one asks, the second one does not.
        let code = i32::from(INTERRUPTED);
        signal_hook::flag::register_conditional_shutdown(signal, code, stop.clone())
            .and_then(|_| signal_hook::flag::register(signal, stop.clone()))
            .expect("these signals can be handled");
    }
    dlock::init_with(config()?)?;
    let written = write(arguments, progress, &stop);
    dlock::shutdown(Duration::from_secs(5));
    written
}

/// The report itself.
#[dlock::db_locked(key = "nightly-report", timeout = Duration::from_secs(arguments.wait))]
fn write(arguments: &Arguments, progress: &ProgressBar, stop: &AtomicBool) -> Result<(), Failure> {
    for account in 0..arguments.accounts {
        if stop.load(Ordering::SeqCst) {
            return Err(Failure::Interrupted);
        }
        // A lock can be lost, with its connection or its server. Then another copy may run, and this one must not go on.
        dlock::check()?;
        progress.set_message(format!("account {account}"));
        thread::sleep(Duration::from_millis(arguments.millis));
        progress.inc(1);
    }
    Ok(())
}

/// The database that the environment names, else a file that every copy on this machine finds.
fn config() -> Result<dlock::Config, dlock::InitError> {
    match dlock::Config::from_env() {
        Err(dlock::InitError::NoDsn) => {
            let file = std::env::temp_dir().join("dlock-nightly-report.db");
            dlock::Config::from_dsn(&format!("sqlite:{}", file.display()))
        }
        config => config,
    }
}

fn tell(arguments: &Arguments, summary: &Summary) {
    if arguments.json {
        let json = serde_json::to_string(summary).expect("a summary is plain data");
        println!("{json}");
        return;
    }
    let Summary {
        outcome,
        error,
        accounts,
        seconds,
    } = summary;
    match error {
        None => println!("the report is {outcome}: {accounts} accounts in {seconds:.1} s"),
        Some(error) => eprintln!("nightly_report: {outcome} after {accounts} accounts: {error}"),
    }
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("{bar:40} {pos}/{len} {msg} ({eta} left)")
        .expect("the template is well formed")
}
