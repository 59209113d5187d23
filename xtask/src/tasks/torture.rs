//! `cargo xtask torture`: runs the program of the package `torture`, which breaks everything around the locks.

use std::{path::Path, process::ExitCode, time::Instant};

use anyhow::{Result, bail};

use super::command::{Interrupt, cargo};

/// Ways to break the library, and the run in which each is noticed: faults, seconds, processes, and options of the DSN.
const SABOTAGES: [(&str, &str, &str, &str, &str); 7] = [
    // The look whether a wait that has timed out was granted all the same is left out. It takes many who wait for one of them
    // to time out in the moment of its grant.
    ("believed-time-out", "delay,split", "60", "6", ""),
    // Validity counts from the answer, and not from the sending.
    ("validity-from-answer", "late-then-paused", "60", "3", ""),
    // A release says that all is well although the hold was lost.
    ("release-unowned", "long-stall,half-open", "20", "3", ""),
    // The wait of a caller who has gone is not ended on the server.
    ("forgotten-wait", "delay,split", "20", "3", ""),
    // A lost hold is handed to the next in line.
    (
        "lost-hand-over",
        "long-stall",
        "90",
        "3",
        "hand_over=60&hand_over_time=10",
    ),
    // A hold never grows too old.
    ("no-validity", "long-pause", "20", "3", ""),
    // A holder is told of a longer validity than it has.
    ("boasted-validity", "long-pause", "20", "3", ""),
];

pub(crate) fn run(arguments: &[&str]) -> Result<ExitCode> {
    let interrupt = Interrupt::watch()?;
    if arguments == ["--sabotage"] {
        return sabotage(&interrupt);
    }
    let mut command = cargo();
    command
        .args(["run", "--locked", "--quiet", "--package=torture", "--"])
        .args(arguments);
    let status = interrupt.run(&mut command)?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The short runs, as a step of CI.
pub(crate) fn short(interrupt: &Interrupt) -> Result<()> {
    let mut command = cargo();
    command.args(["run", "--locked", "--quiet", "--package=torture", "--"]);
    let status = interrupt.run(command.arg("--short"))?;
    if !status.success() {
        bail!("the promise was broken under faults");
    }
    Ok(())
}

/// Breaks the library in every way there is, and fails unless each is noticed.
fn sabotage(interrupt: &Interrupt) -> Result<ExitCode> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let target = workspace.join("target/sabotage");
    let mut build = cargo();
    build
        .args(["build", "--locked", "--package=torture"])
        .env("CARGO_TARGET_DIR", &target)
        .env("RUSTFLAGS", "--cfg dlock_sabotage");
    if !interrupt.run(&mut build)?.success() {
        bail!("the sabotaged library does not build");
    }
    let mut unnoticed = Vec::new();
    let mut times = Vec::new();
    for (name, faults, seconds, processes, options) in SABOTAGES {
        println!("\n== {name}");
        let start = Instant::now();
        let mut command = std::process::Command::new(target.join("debug/torture"));
        command
            .args(["--server", "postgres", "--seed", "5"])
            .args([
                "--faults",
                faults,
                "--seconds",
                seconds,
                "--processes",
                processes,
                "--options",
                options,
            ])
            .arg("--directory")
            .arg(workspace.join("target/torture").join(name))
            .env("DLOCK_SABOTAGE", name);
        let status = interrupt.run(&mut command)?;
        // 2: the checker has found a broken promise. Anything else is a run that failed by itself.
        match status.code() {
            Some(2) => {}
            Some(0) => unnoticed.push(name),
            _ => bail!("the run with {name} failed ({status})"),
        }
        times.push((name, start.elapsed()));
    }
    println!();
    for (name, time) in times {
        println!("{:7.1} s  {name}", time.as_secs_f32());
    }
    if !unnoticed.is_empty() {
        bail!("not noticed: {}", unnoticed.join(", "));
    }
    println!("\nevery sabotage was noticed");
    Ok(ExitCode::SUCCESS)
}
