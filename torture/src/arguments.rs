//! What stands on the command line.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use torture::fault::Fault;
use torture::nemesis::{Orders, Place, Strategy};

use crate::histories;

const USAGE: &str = "\
usage: cargo xtask torture [--server postgres|mariadb|mysql|failover|galera|sqlite] [--strategy session|lease]
         [--minutes N | --seconds N] [--processes P] [--faults all|none|NAME,NAME,…] [--seed X]
         [--options NAME=VALUE&…] [--directory PATH]
       cargo xtask torture --short
       cargo xtask torture check DIRECTORY
       cargo xtask torture publish DIRECTORY…";

/// The arguments of a run.
#[derive(Clone, Debug)]
pub(crate) struct Arguments {
    pub(crate) short: bool,
    server: String,
    /// `None`: sessions, where they can keep locks.
    strategy: Option<String>,
    lasts: Duration,
    processes: usize,
    faults: String,
    seed: u64,
    options: String,
    directory: Option<PathBuf>,
}

impl Arguments {
    pub(crate) fn parse(words: &[&str]) -> Result<Arguments> {
        let mut arguments = Arguments {
            short: false,
            server: "postgres".to_owned(),
            strategy: None,
            lasts: Duration::from_secs(60),
            processes: 3,
            faults: "all".to_owned(),
            seed: fastrand::u64(0..1_000_000),
            options: String::new(),
            directory: None,
        };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            if *word == "--short" {
                arguments.short = true;
                continue;
            }
            let value = (*words.next().with_context(|| USAGE.to_owned())?).to_owned();
            match *word {
                "--server" => arguments.server = value,
                "--strategy" => arguments.strategy = Some(value),
                "--minutes" => {
                    arguments.lasts = Duration::from_secs_f64(60.0 * value.parse::<f64>()?);
                }
                "--seconds" => arguments.lasts = Duration::from_secs_f64(value.parse()?),
                "--processes" => arguments.processes = value.parse::<usize>()?.clamp(1, 64),
                "--faults" => arguments.faults = value,
                "--seed" => arguments.seed = value.parse()?,
                "--options" => arguments.options = value,
                "--directory" => arguments.directory = Some(value.into()),
                _ => bail!("unknown argument {word}\n\n{USAGE}"),
            }
        }
        Ok(arguments)
    }

    /// The orders for the nemesis.
    pub(crate) fn orders(&self) -> Result<Orders> {
        let place = Place::named(&self.server).with_context(|| {
            let (server, all) = (&self.server, Place::ALL.map(Place::name).join(", "));
            format!("no server {server:?}: write one of {all}")
        })?;
        let strategy = match self.strategy.as_deref() {
            None | Some("session") if place.has_sessions() => Strategy::Session,
            Some("session") => bail!("no sessions keep locks on {}: write lease", place.name()),
            None | Some("lease") => Strategy::Lease,
            Some(other) => bail!("no strategy {other:?}: write session or lease"),
        };
        let name = format!("{}-{}-{}", place.name(), strategy.name(), self.seed);
        let mut orders = Orders {
            place,
            strategy,
            lasts: self.lasts,
            processes: self.processes,
            faults: Vec::new(),
            seed: self.seed,
            directory: self
                .directory
                .clone()
                .unwrap_or_else(|| histories().join(name)),
            options: self.options.clone(),
            command: self.command(strategy),
        };
        orders.faults = self.faults(&orders)?;
        Ok(orders)
    }

    fn faults(&self, orders: &Orders) -> Result<Vec<Fault>> {
        let there = Fault::ALL.into_iter().filter(|fault| orders.has(*fault));
        let there: Vec<_> = there.collect();
        match self.faults.as_str() {
            "all" => Ok(there),
            "none" => Ok(Vec::new()),
            names => {
                let fault = |name: &str| {
                    let known = Fault::named(name).filter(|fault| there.contains(fault));
                    known.with_context(|| {
                        let (place, strategy) = (orders.place.name(), orders.strategy.name());
                        let all: Vec<_> = there.iter().map(|fault| fault.name()).collect();
                        let all = all.join(", ");
                        format!("no fault {name:?} on {place}, {strategy}: write some of {all}")
                    })
                };
                names.split(',').map(fault).collect()
            }
        }
    }

    fn command(&self, strategy: Strategy) -> String {
        let options = match self.options.as_str() {
            "" => String::new(),
            options => format!(" --options '{options}'"),
        };
        format!(
            "cargo xtask torture --server {} --strategy {} --seconds {} --processes {} --faults {} --seed {}{options}",
            self.server,
            strategy.name(),
            self.lasts.as_secs_f64(),
            self.processes,
            self.faults,
            self.seed
        )
    }

    /// The same for another server, with other faults and another seed, and for so long.
    pub(crate) fn on(
        &self,
        server: &str,
        strategy: &str,
        faults: &str,
        lasts: Duration,
        seed: u64,
    ) -> Arguments {
        Arguments {
            short: false,
            server: server.to_owned(),
            strategy: Some(strategy.to_owned()),
            faults: faults.to_owned(),
            lasts,
            seed,
            ..self.clone()
        }
    }
}
