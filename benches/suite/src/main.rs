//! Measures dlock against the raw drivers and against other lock libraries: `cargo xtask bench`.

mod contenders;
mod counting;
mod entry;
mod floor;
mod plot;
mod publish;
mod python;
mod rounds;
mod rows;
mod server;
mod spread;
#[cfg_attr(not(feature = "peers"), path = "no_sqlx.rs")]
mod sqlx;
mod table;
mod worker;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Result, bail};
use clap::Parser;
use xtask::servers::{Kind, version};

use crate::entry::Entry;
use crate::rows::Effort;
use crate::server::Server;

/// Measures dlock against the raw drivers and against other lock libraries.
#[derive(Parser)]
struct Arguments {
    /// Only this row: uncontended, delayed, distinct, same-key, hand-over, held, waiting, loss, bound,
    /// lease-uncontended, lease-hand-over, lease-renewal, growth, memory or python; may be given several times.
    #[arg(long, value_name = "ROW")]
    only: Vec<String>,
    /// Only this server: postgres, mariadb or mysql; may be given several times.
    #[arg(long, value_name = "S")]
    server: Vec<String>,
    /// A few short rounds, to see that everything runs. The figures mean nothing.
    #[arg(long)]
    quick: bool,
    /// Writes the table and the plot into docs/benchmarks.md and docs/benchmarks.svg.
    #[arg(long)]
    publish: bool,
    /// The folder of the project.
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    project: PathBuf,
}

impl Arguments {
    fn check(&self) -> Result<()> {
        for row in &self.only {
            let others = [rows::GROWTH, rows::MEMORY, python::ROW];
            if !rows::ON_SERVERS.contains(&&**row) && !others.contains(&&**row) {
                bail!("there is no row `{row}`; see --help");
            }
        }
        let ids = Kind::ALL.map(id);
        if let Some(unknown) = self.server.iter().find(|server| !ids.contains(*server)) {
            bail!("there is no server `{unknown}`: {}", ids.join(", "));
        }
        Ok(())
    }

    fn wants(&self, row: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == row)
    }

    fn servers(&self) -> Vec<Kind> {
        let wants = |kind: &Kind| self.server.is_empty() || self.server.contains(&id(*kind));
        Kind::ALL.into_iter().filter(wants).collect()
    }
}

fn id(kind: Kind) -> String {
    format!("{kind:?}").to_lowercase()
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, word, variable] = &*arguments
        && word == "worker"
    {
        return worker::main(variable);
    }
    let arguments = Arguments::parse();
    arguments.check()?;
    // As `#[tokio::main]` makes it for users, on the smallest machine that has parallelism.
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?
        .block_on(measure(&arguments))
}

async fn measure(arguments: &Arguments) -> Result<()> {
    let effort = if arguments.quick {
        Effort::quick()
    } else {
        Effort::full()
    };
    let folder = arguments.project.join("target/bench");
    let mut entries = Vec::new();
    let mut versions = Vec::new();
    if arguments.wants(rows::MEMORY) {
        show(&mut entries, rows::memory::run(effort).await?);
    }
    for kind in arguments.servers() {
        let server = Arc::new(Server::reach(kind).await?);
        versions.push(version(server.url())?);
        for row in rows::ON_SERVERS.into_iter().chain([rows::GROWTH]) {
            if arguments.wants(row) {
                show(&mut entries, rows::run(row, &server, effort).await?);
            }
        }
        if arguments.wants(python::ROW) {
            show(
                &mut entries,
                python::run(&server, &arguments.project, effort).await?,
            );
        }
    }
    table::write(&folder, &entries)?;
    if arguments.publish {
        publish::write(&arguments.project.join("docs"), &entries, &versions)?;
    }
    Ok(())
}

fn show(all: &mut Vec<Entry>, new: Vec<Entry>) {
    for entry in &new {
        println!("{}", table::line(entry));
    }
    all.extend(new);
}
