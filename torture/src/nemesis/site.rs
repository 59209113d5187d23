//! Where the locks are kept, and the networks that lead there.

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use dlock::{Config, Locker};
use xtask::proxy::Proxy;
use xtask::servers::{self, Kind, Server, USER};

use super::admin::Admin;
use super::{KEYS, LIMIT, Orders, Place, Strategy};
use crate::checker::recovery;
use crate::clock::SECOND;
use crate::history::Process;
use crate::worker::key;

/// Where the locks are kept.
pub(super) enum Site {
    /// A server, and a network for each slot.
    Server(Box<Networked>),
    /// A file.
    File(PathBuf),
}

/// A server and its networks.
pub(super) struct Networked {
    pub(super) server: Server,
    pub(super) proxies: Vec<Proxy>,
    pub(super) admin: Admin,
}

impl Site {
    pub(super) fn open(orders: &Orders) -> Result<Site> {
        let kind = match orders.place {
            Place::Sqlite => return Ok(Site::File(orders.directory.join("locks.db"))),
            Place::Server(kind) => kind,
        };
        let server = Server::start(kind)?;
        let proxies = (0..orders.processes).map(|_| Proxy::start(server.address()));
        let proxies = proxies.collect::<Result<_>>()?;
        let mut admin = Admin::new(kind, server.admin_url())?;
        if orders.strategy == Strategy::Lease && kind != Kind::Postgres {
            // The servers of tests may forget the last second when they are killed. Rows must not; locks of sessions do.
            admin.ask("SET GLOBAL innodb_flush_log_at_trx_commit = 2")?;
        }
        Ok(Site::Server(Box::new(Networked {
            server,
            proxies,
            admin,
        })))
    }

    /// The server with its networks, where there is one.
    pub(super) fn networked(&mut self) -> Result<&mut Networked> {
        match self {
            Site::Server(networked) => Ok(networked),
            Site::File(_) => anyhow::bail!("a file has no network to break"),
        }
    }

    pub(super) fn server_version(&self) -> Result<String> {
        match self {
            Site::Server(networked) => servers::version(&networked.server.url()),
            Site::File(_) => Ok("SQLite".to_owned()),
        }
    }

    /// The way to the locks for a worker.
    pub(super) fn dsn(&self, process: Process, orders: &Orders) -> String {
        let options = orders.dsn_options();
        match self {
            Site::Server(networked) => {
                let url = networked.server.url();
                let url = networked.proxies[process.slot].url(&url);
                format!("{url}?{options}&application_name=torture-{process}")
            }
            Site::File(path) => format!("sqlite:{}?{options}", path.display()),
        }
    }

    /// What is still there when every worker has left. What dead connections have left may stay for as long as the limit:
    /// no lock and no waiter may stay longer, also behind a half-open connection. Sessions are counted when the network has
    /// given such connections up: one that was cut off before its limit could be set has none, and holds nothing.
    pub(super) fn what_is_left(&mut self, orders: &Orders) -> Result<Vec<(String, usize)>> {
        let mut left = Vec::new();
        if let Site::Server(networked) = self {
            let admin = &mut networked.admin;
            left = until(|| {
                let locks = admin.locks()?;
                let none = locks.iter().all(|(_, count)| *count == 0);
                Ok((none, locks))
            })?;
        }
        left.push((
            "keys that nobody can take".to_owned(),
            self.untakeable(orders)?,
        ));
        if let Site::Server(networked) = self {
            for proxy in &networked.proxies {
                proxy.cut();
            }
            let admin = &mut networked.admin;
            let sessions = until(|| {
                let sessions = admin.sessions()?;
                Ok((sessions == 0, sessions))
            })?;
            left.push(("sessions".to_owned(), sessions));
        }
        Ok(left)
    }

    /// How many keys cannot be taken by somebody who comes without a fault on the way.
    fn untakeable(&self, orders: &Orders) -> Result<usize> {
        let options = orders.dsn_options();
        let direct = match self {
            Site::Server(networked) => format!("{}?{options}", networked.server.url()),
            Site::File(path) => format!("sqlite:{}?{options}", path.display()),
        };
        let locker = Locker::connect_blocking(Config::from_dsn(&direct)?)
            .context("nobody can connect when every worker has left")?;
        let patience = recovery::bound(&orders.setting(String::new())) / SECOND;
        let mut untakeable = 0;
        for number in 0..KEYS {
            let lock = locker.lock(key(number)).timeout(patience);
            match lock.acquire_blocking() {
                Ok(guard) => guard.release_blocking()?,
                Err(_) => untakeable += 1,
            }
        }
        locker.shutdown_blocking(Duration::from_secs(5));
        Ok(untakeable)
    }
}

/// Looks until nothing is left, or what is left has had its time; gives the last look.
fn until<T>(mut look: impl FnMut() -> Result<(bool, T)>) -> Result<T> {
    let deadline = Instant::now() + Duration::from_secs(LIMIT + 5);
    loop {
        let (nothing, seen) = look()?;
        if nothing || Instant::now() > deadline {
            return Ok(seen);
        }
        thread::sleep(Duration::from_millis(100));
    }
}

/// The account of the workers, for the administrator.
pub(super) const ACCOUNT: &str = USER;
