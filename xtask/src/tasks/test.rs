//! `cargo xtask test`: all tests of the workspace, on all three servers; with `--clusters`, those that start others.

use std::{env, process::ExitCode, thread};

use anyhow::Result;
use xtask::servers::Cluster;

use super::command::{Interrupt, cargo};
use super::interop;

pub(crate) fn run(arguments: &[&str]) -> Result<ExitCode> {
    let interrupt = Interrupt::watch()?;
    match arguments {
        ["--interop", rest @ ..] => interop::run(&interrupt, rest),
        _ => run_with(&interrupt, arguments),
    }
}

/// How many tests of a program run at a time, as its harness reads it.
const THREADS: &str = "RUST_TEST_THREADS";

pub(crate) fn run_with(interrupt: &Interrupt, arguments: &[&str]) -> Result<ExitCode> {
    let cluster = Cluster::start()?;
    println!("testing on:");
    for (kind, version) in cluster.versions()? {
        println!("  {kind}: {version}");
    }
    let mut command = cargo();
    command.arg("test");
    let names_packages = arguments
        .iter()
        .take_while(|argument| **argument != "--")
        .any(|argument| {
            ["-p", "--package", "--workspace"].contains(argument)
                || argument.starts_with("--package=")
        });
    if !names_packages {
        command.arg("--workspace");
    }
    command
        .args(["--all-features", "--no-fail-fast"])
        .args(arguments)
        .envs(cluster.environment());
    // Most of them wait for a server most of the time.
    if env::var_os(THREADS).is_none() {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        command.env(THREADS, cores.max(4).to_string());
    }
    // Dropped with every outcome, also by a panic: the servers end here.
    let status = interrupt.run(&mut command);
    drop(cluster);
    let code = status?
        .code()
        .and_then(|code| u8::try_from(code).ok())
        .unwrap_or(1);
    Ok(ExitCode::from(code))
}

/// The arguments of the `cargo test` that runs the tests which start poolers, clusters and other releases.
///
/// Few at a time: each has several servers, and a cluster counts the seconds in which a node does not answer.
pub(crate) const CLUSTERS: [&str; 8] = [
    "test",
    "--locked",
    "--package=xtask",
    "--package=dlock-clusters",
    "--all-features",
    "--no-fail-fast",
    "--test=clusters",
    "--",
];

pub(crate) fn run_clusters(arguments: &[&str]) -> Result<ExitCode> {
    let mut command = cargo();
    command
        .args(CLUSTERS)
        .arg("--test-threads=3")
        .args(arguments.iter().filter(|argument| **argument != "--"));
    let status = Interrupt::watch()?.run(&mut command)?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(ExitCode::from(code.unwrap_or(1)))
}
