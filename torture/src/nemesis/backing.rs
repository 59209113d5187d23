//! The servers that keep the locks: one, two, or three.

use anyhow::{Result, bail};
use xtask::servers::{self, Galera, Kind, Server, Setup};

use super::pair::Pair;
use super::{Orders, Place, Strategy};

pub(super) enum Backing {
    One(Box<Server>),
    Pair(Box<Pair>),
    Cluster(Galera),
}

/// How many nodes a cluster has.
pub(super) const NODES: usize = 3;

impl Backing {
    pub(super) fn start(kind: Kind, orders: &Orders) -> Result<Backing> {
        Ok(match orders.place {
            Place::Failover => Backing::Pair(Box::new(Pair::start()?)),
            Place::Galera => Backing::Cluster(Galera::start()?),
            _ if orders.strategy == Strategy::Lease && kind != Kind::Postgres => {
                // The servers of tests may forget the last second when they are killed. Rows must not; locks of sessions do.
                let keeps = "innodb-flush-log-at-trx-commit=2";
                Backing::One(Box::new(Setup::new(kind).setting(keeps).start()?))
            }
            _ => Backing::One(Box::new(Server::start(kind)?)),
        })
    }

    /// The server that the worker of a slot talks to.
    pub(super) fn of(&self, slot: usize) -> &Server {
        match self {
            Backing::One(server) => server,
            Backing::Pair(pair) => pair.primary(),
            Backing::Cluster(cluster) => cluster.node(slot % NODES),
        }
    }

    /// How many servers there are to talk to.
    pub(super) fn count(&self) -> usize {
        match self {
            Backing::One(_) | Backing::Pair(_) => 1,
            Backing::Cluster(_) => NODES,
        }
    }

    pub(super) fn one(&mut self) -> Result<&mut Server> {
        match self {
            Backing::One(server) => Ok(server),
            _ => bail!("this fault needs a single server"),
        }
    }

    pub(super) fn pair(&mut self) -> Result<&mut Pair> {
        match self {
            Backing::Pair(pair) => Ok(pair),
            _ => bail!("this fault needs a standby"),
        }
    }

    pub(super) fn cluster(&mut self) -> Result<&mut Galera> {
        match self {
            Backing::Cluster(cluster) => Ok(cluster),
            _ => bail!("this fault needs a cluster"),
        }
    }

    /// What it is, in words.
    pub(super) fn version(&self) -> Result<String> {
        let version = servers::version(&self.of(0).url())?;
        Ok(match self {
            Backing::One(_) => version,
            Backing::Pair(_) => format!("{version} with a synchronous standby"),
            Backing::Cluster(_) => format!("{version} as a Galera cluster"),
        })
    }
}
