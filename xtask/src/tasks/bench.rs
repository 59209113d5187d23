//! `cargo xtask bench`: builds the benchmarks, a workspace of their own, and runs them on all three servers.

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Result, bail};
use xtask::servers::Cluster;

use super::command::{Interrupt, cargo};

/// The manifest of the benchmarks, in the project's folder.
pub(crate) const MANIFEST: &str = "benches/suite/Cargo.toml";

pub(crate) fn run(arguments: &[&str]) -> Result<ExitCode> {
    let interrupt = Interrupt::watch()?;
    let project = project();
    let target = target(&project);
    let mut build = cargo();
    build
        .args(["build", "--release", "--manifest-path"])
        .arg(project.join(MANIFEST))
        .arg("--target-dir")
        .arg(&target);
    if !interrupt.run(&mut build)?.success() {
        bail!("the benchmarks do not compile");
    }
    let cluster = Cluster::start()?;
    println!("measuring on:");
    for (kind, version) in cluster.versions()? {
        println!("  {kind}: {version}");
    }
    let mut bench = Command::new(target.join("release/dlock-bench"));
    bench
        .args(arguments)
        .arg("--project")
        .arg(&project)
        .envs(cluster.environment());
    let status = interrupt.run(&mut bench);
    drop(cluster);
    let code = status?
        .code()
        .and_then(|code| u8::try_from(code).ok())
        .unwrap_or(1);
    Ok(ExitCode::from(code))
}

/// The folder of the project.
pub(crate) fn project() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// Where the project's own build goes too: what both need is compiled once.
pub(crate) fn target(project: &Path) -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| project.join("target"), PathBuf::from)
}
