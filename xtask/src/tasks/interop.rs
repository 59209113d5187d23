//! `cargo xtask test --interop`: locks that are shared with other libraries, which hold them for real.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Result, bail};
use xtask::servers::Cluster;

use super::command::{Interrupt, cargo};

/// The manifest of these tests, in the project's folder.
pub(crate) const MANIFEST: &str = "tests/interop/Cargo.toml";

/// An environment of Python: the variable that names its interpreter, its folder, and the packages in it.
const ENVIRONMENTS: [(&str, &str, &[&str]); 2] = [
    (
        "DLOCK_INTEROP_PYTHON",
        "new",
        &[
            "sqlalchemy-dlock==0.9.0",
            "PyMySQLLock==0.2.0",
            "PyMySQL",
            "psycopg[binary]",
            // For MySQL's own way to log in.
            "cryptography",
        ],
    ),
    (
        "DLOCK_INTEROP_PYTHON_OLD",
        "old",
        &["sqlalchemy-dlock==0.1.2", "SQLAlchemy<2", "psycopg2-binary"],
    ),
];

/// Written when the packages are there, with their names.
const DONE: &str = "packages.txt";

pub(crate) fn run(interrupt: &Interrupt, arguments: &[&str]) -> Result<ExitCode> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut interpreters = Vec::new();
    for (variable, name, packages) in ENVIRONMENTS {
        let folder = workspace.join("target/interop").join(name);
        interpreters.push((variable, environment(interrupt, &folder, packages)?));
    }
    let cluster = Cluster::start()?;
    let mut command = cargo();
    command
        .args(["test", "--locked", "--manifest-path"])
        .arg(workspace.join(MANIFEST))
        .arg("--target-dir")
        .arg(workspace.join("target/interop/build"))
        .args(arguments)
        .envs(interpreters)
        .envs(cluster.environment());
    let status = interrupt.run(&mut command);
    drop(cluster);
    let code = status?.code().and_then(|code| u8::try_from(code).ok());
    Ok(ExitCode::from(code.unwrap_or(1)))
}

/// Makes an environment, unless it is there with these packages; its interpreter.
fn environment(interrupt: &Interrupt, folder: &Path, packages: &[&str]) -> Result<PathBuf> {
    let interpreter = folder.join("bin/python");
    let wanted = packages.join("\n");
    if fs::read_to_string(folder.join(DONE)).is_ok_and(|present| present == wanted) {
        return Ok(interpreter);
    }
    let mut make = Command::new("python3");
    step(interrupt, make.args(["-m", "venv", "--clear"]).arg(folder))?;
    let mut install = Command::new(&interpreter);
    install.args([
        "-m",
        "pip",
        "--quiet",
        "--disable-pip-version-check",
        "install",
    ]);
    step(interrupt, install.args(packages))?;
    fs::write(folder.join(DONE), wanted)?;
    Ok(interpreter)
}

fn step(interrupt: &Interrupt, command: &mut Command) -> Result<()> {
    let status = interrupt.run(command)?;
    if !status.success() {
        bail!("{command:?} failed ({status})");
    }
    Ok(())
}
