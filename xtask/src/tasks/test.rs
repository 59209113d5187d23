//! `cargo xtask test`: all tests of the workspace, on all three servers.

use std::process::ExitCode;

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
    // Dropped with every outcome, also by a panic: the servers end here.
    let status = interrupt.run(&mut command);
    drop(cluster);
    let code = status?
        .code()
        .and_then(|code| u8::try_from(code).ok())
        .unwrap_or(1);
    Ok(ExitCode::from(code))
}
