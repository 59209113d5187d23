//! The peers in Python, measured by a script in a virtual environment of its own.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use tokio::process::Command;

use crate::entry::Entry;
use crate::rows::Effort;
use crate::server::Server;

pub(crate) const ROW: &str = "python";

/// The packages that are measured, and their drivers.
const PACKAGES: [&str; 8] = [
    "sqlalchemy-dlock==0.9.0",
    "PyMySQLLock==0.2.0",
    "django-database-locks==0.5",
    "sqlalchemy",
    "django",
    "psycopg[binary]",
    "pymysql",
    "cryptography",
];

pub(crate) async fn run(server: &Server, project: &Path, effort: Effort) -> Result<Vec<Entry>> {
    let environment = project.join("target/bench/python");
    let python = environment.join("bin/python");
    let ready = environment.join("ready");
    if !ready.exists() {
        let mut venv = Command::new("python3");
        venv.args(["-m", "venv"]).arg(&environment);
        succeed(&mut venv).await?;
        let mut pip = Command::new(&python);
        pip.args(["-m", "pip", "install", "--quiet"]).args(PACKAGES);
        succeed(&mut pip).await?;
        std::fs::write(&ready, PACKAGES.join("\n"))?;
    }
    let script = project.join("benches/suite/peers.py");
    let output = Command::new(&python)
        .arg(script)
        .args([server.url(), &server.name(), &effort.rounds(15).to_string()])
        .stderr(std::process::Stdio::inherit())
        .output()
        .await?;
    ensure!(
        output.status.success(),
        "the peers' script failed: {}",
        output.status
    );
    serde_json::from_slice(&output.stdout).context("the peers' script gave no results")
}

async fn succeed(command: &mut Command) -> Result<()> {
    // Its words are for who waits, not among the results.
    command.stdout(std::io::stderr());
    let status = command.status().await?;
    ensure!(status.success(), "{:?} failed: {status}", command.as_std());
    Ok(())
}
