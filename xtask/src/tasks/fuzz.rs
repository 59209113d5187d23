//! `cargo xtask fuzz`: the properties of everything that reads foreign text, over a million inputs each.
//!
//! The properties are ordinary tests in modules named `fuzz`; `cargo test` runs them too, over fewer inputs. Inputs are
//! made from a grammar and shrink when they fail, and all of it runs on a stable toolchain.

use std::{
    process::{Command, ExitCode},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail};

use super::command::{Interrupt, cargo};

/// The packages with such modules.
const PACKAGES: [&str; 2] = ["dlock-macros", "dlock-runtime"];

/// What the run does, from the command line.
struct Plan<'a> {
    inputs: u32,
    seed: u64,
    /// A part of the names of the properties to run.
    filter: &'a str,
}

pub(crate) fn run(arguments: &[&str]) -> Result<ExitCode> {
    let plan = Plan::of(arguments)?;
    let interrupt = Interrupt::watch()?;
    let mut done: Vec<(String, Duration)> = Vec::new();
    let mut failed = Vec::new();
    for package in PACKAGES {
        for name in properties(package)? {
            if !name.contains(plan.filter) {
                continue;
            }
            let start = Instant::now();
            let mut command = tests(package);
            command
                .args(["--quiet", "--", "--exact", &name])
                .env("PROPTEST_CASES", plan.inputs.to_string())
                .env("PROPTEST_RNG_SEED", plan.seed.to_string());
            if !interrupt.run(&mut command)?.success() {
                failed.push(name.clone());
            }
            done.push((name, start.elapsed()));
        }
    }
    let Plan { inputs, seed, .. } = plan;
    if done.is_empty() {
        bail!("no property has {:?} in its name", plan.filter);
    }
    println!("\n{inputs} inputs for each property, from seed {seed}:");
    for (name, duration) in &done {
        let outcome = if failed.contains(name) {
            "FAILED"
        } else {
            "ok"
        };
        println!("{:7.1} s  {outcome:6}  {name}", duration.as_secs_f32());
    }
    if failed.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    println!("again: cargo xtask fuzz --inputs {inputs} --seed {seed} <property>");
    Ok(ExitCode::FAILURE)
}

impl<'a> Plan<'a> {
    fn of(arguments: &[&'a str]) -> Result<Self> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let mut plan = Plan {
            inputs: 1_000_000,
            seed: now,
            filter: "",
        };
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            let mut value = || {
                arguments
                    .next()
                    .with_context(|| format!("{argument} needs a number"))
            };
            match *argument {
                "--inputs" => plan.inputs = value()?.parse().context("--inputs needs a number")?,
                "--seed" => plan.seed = value()?.parse().context("--seed needs a number")?,
                filter if !filter.starts_with('-') && plan.filter.is_empty() => {
                    plan.filter = filter;
                }
                other => {
                    bail!("`{other}`: usage: cargo xtask fuzz [--inputs N] [--seed S] [property]")
                }
            }
        }
        Ok(plan)
    }
}

/// The names of a package's properties.
fn properties(package: &str) -> Result<Vec<String>> {
    let told = tests(package)
        .args(["--", "--list", "fuzz::"])
        .stderr(std::process::Stdio::inherit())
        .output()
        .context("cannot run cargo")?;
    if !told.status.success() {
        bail!("the tests of {package} cannot be built");
    }
    let list = String::from_utf8_lossy(&told.stdout);
    let names = list.lines().filter_map(|line| line.strip_suffix(": test"));
    Ok(names.map(str::to_owned).collect())
}

/// Runs the unit tests of a package, optimised and with every check of arithmetic.
fn tests(package: &str) -> Command {
    let mut command = cargo();
    command.args([
        "test",
        "--profile=fuzz",
        "--lib",
        "--all-features",
        "--package",
        package,
    ]);
    command
}
