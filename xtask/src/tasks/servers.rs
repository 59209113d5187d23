//! `cargo xtask servers`.

use std::{
    io::{Write, stdout},
    process::ExitCode,
    time::Instant,
};

use anyhow::{Result, bail};
use xtask::servers::{self, Kind, Status};

pub(crate) fn up() -> Result<ExitCode> {
    let start = Instant::now();
    let all = servers::up()?;
    print(&all)?;
    println!(
        "up after {:.1} s; `cargo xtask servers env` prints the variables",
        start.elapsed().as_secs_f32()
    );
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn down() -> Result<ExitCode> {
    let stopped = servers::down()?;
    println!("{stopped} stopped");
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn status() -> Result<ExitCode> {
    let all = servers::status()?;
    print(&all)?;
    let complete = all.iter().all(|status| status.url.is_some());
    Ok(if complete {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

pub(crate) fn env() -> Result<ExitCode> {
    for status in servers::status()? {
        let kind = status.kind;
        let Some(url) = &status.url else {
            bail!("{kind} is not up; `cargo xtask servers up` starts it");
        };
        export(kind.url_variable(), url)?;
        if let Some(url) = &status.admin_url {
            export(kind.admin_url_variable(), url)?;
        }
        if let Some(url) = &status.socket_url {
            export(kind.socket_url_variable(), url)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn export(variable: &str, value: &str) -> Result<()> {
    writeln!(
        stdout(),
        "export {variable}='{}'",
        value.replace('\'', r"'\''")
    )?;
    Ok(())
}

/// One line a server: its version, asked from the server itself, and where it is.
fn print(all: &[Status]) -> Result<()> {
    let width = Kind::ALL
        .map(|kind| kind.to_string().len())
        .into_iter()
        .max()
        .unwrap_or(0);
    for status in all {
        let kind = status.kind.to_string();
        if status.url.is_some() {
            writeln!(
                stdout(),
                "{kind:width$}  {}; {}",
                status.version()?,
                status.origin
            )?;
        } else {
            writeln!(stdout(), "{kind:width$}  {}", status.origin)?;
        }
    }
    Ok(())
}
