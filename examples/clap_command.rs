//! How does a command with arguments and an async `main` start dlock and take its lock in one line?
//!
//! ```sh
//! DATABASE_URL=postgres://app@localhost/app cargo run --example clap_command -- import orders.csv --seconds 5
//! ```
//!
//! `#[db_locked]` stands above `#[tokio::main]`: dlock starts first, the lock is taken inside the runtime, and when it
//! cannot be had, the command says so and ends.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

/// Maintains the catalogue. Only one copy of it works at a time.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// How long the work takes.
    #[arg(long, global = true, default_value_t = 2)]
    seconds: u64,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Reads a file into the catalogue.
    Import {
        /// The file.
        file: String,
    },
    /// Throws out what is old.
    Prune,
}

#[dlock::db_locked(
    key = "catalogue",
    timeout = "3s",
    init = dlock::Config::from_env(),
    on_error = explain
)]
#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match &arguments.command {
        Command::Import { file } => println!("importing {file}"),
        Command::Prune => println!("pruning"),
    }
    tokio::time::sleep(Duration::from_secs(arguments.seconds)).await;
    println!("done");
    ExitCode::SUCCESS
}

/// Where every failure of the lock goes: an exit code cannot carry it.
#[allow(
    clippy::needless_pass_by_value,
    reason = "handlers are given the error"
)]
fn explain(error: dlock::Error) -> ExitCode {
    eprintln!("clap_command: {error}");
    ExitCode::FAILURE
}
