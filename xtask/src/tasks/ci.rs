//! `cargo xtask ci`: everything that must pass before a change lands.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::{
    command::{Interrupt, cargo},
    rust_version, test,
};

/// The feature sets that are linted: each that somebody may be the only one to use.
const FEATURE_SETS: [(&str, &[&str]); 7] = [
    ("all features", &["--all-features"]),
    ("default features", &[]),
    ("no features", &["--no-default-features"]),
    (
        "postgres",
        &["--no-default-features", "--features=postgres"],
    ),
    ("mysql", &["--no-default-features", "--features=mysql"]),
    (
        "postgres, tls, metrics",
        &["--no-default-features", "--features=postgres,tls,metrics"],
    ),
    (
        "mysql, tls, tracing",
        &["--no-default-features", "--features=mysql,tls,tracing"],
    ),
];

/// The crates that are published, each after those it depends on.
const PUBLISHED: [&str; 3] = ["dlock-macros", "dlock-runtime", "dlock-db"];

pub(crate) fn run() -> Result<ExitCode> {
    let interrupt = Interrupt::watch()?;
    let mut steps = Steps {
        interrupt: &interrupt,
        done: Vec::new(),
    };
    let outcome = steps.run_all();
    for (name, duration) in &steps.done {
        println!("{:7.1} s  {name}", duration.as_secs_f32());
    }
    outcome?;
    // Last, so that the run ends with cargo's own words on the tests.
    println!("\n== tests");
    test::run_with(&interrupt, &[])
}

struct Steps<'a> {
    interrupt: &'a Interrupt,
    done: Vec<(String, Duration)>,
}

impl Steps<'_> {
    fn run_all(&mut self) -> Result<()> {
        self.cargo("format", &["fmt", "--all", "--check"], &[])?;
        self.step("rust-version", |_| rust_version::check())?;
        for (name, features) in FEATURE_SETS {
            let mut arguments = vec!["clippy", "--locked", "--workspace", "--all-targets"];
            arguments.extend(features);
            arguments.extend(["--", "-D", "warnings"]);
            self.cargo(&format!("clippy, {name}"), &arguments, &[])?;
        }
        self.cargo(
            "docs",
            &[
                "doc",
                "--locked",
                "--workspace",
                "--no-deps",
                "--all-features",
            ],
            &[("RUSTDOCFLAGS", "-D warnings")],
        )?;
        // A tree with changes is packaged too: what is tested is what lies there.
        let mut arguments = vec!["package", "--locked", "--allow-dirty"];
        arguments.extend(PUBLISHED.iter().flat_map(|name| ["--package", name]));
        self.cargo("packages", &arguments, &[])
    }

    fn cargo(&mut self, name: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Result<()> {
        self.step(name, |interrupt| {
            let mut command = cargo();
            command.args(arguments).envs(variables.iter().copied());
            let status = interrupt.run(&mut command)?;
            if !status.success() {
                bail!("`cargo {}` failed ({status})", arguments.join(" "));
            }
            Ok(())
        })
    }

    fn step(&mut self, name: &str, work: impl FnOnce(&Interrupt) -> Result<()>) -> Result<()> {
        println!("\n== {name}");
        let start = Instant::now();
        work(self.interrupt).with_context(|| format!("the step `{name}` failed"))?;
        self.done.push((name.to_owned(), start.elapsed()));
        Ok(())
    }
}
