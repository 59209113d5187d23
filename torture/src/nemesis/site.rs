//! Where the locks are kept, and the networks that lead there.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use dlock::{Config, Locker};
use xtask::proxy::Proxy;
use xtask::servers::USER;

use super::admin::Admin;
use super::backing::Backing;
use super::file::File;
use super::{KEYS, LIMIT, Orders, Strategy};
use crate::checker::recovery;
use crate::clock::SECOND;
use crate::history::Process;
use crate::worker::key;

/// Where the locks are kept.
pub(super) enum Site {
    /// Servers, and a network for each slot.
    Servers(Box<Networked>),
    /// A file.
    File(File),
}

/// Servers and the networks that lead to them.
pub(super) struct Networked {
    pub(super) backing: Backing,
    pub(super) proxies: Vec<Proxy>,
    admins: Vec<Admin>,
}

impl Site {
    pub(super) fn open(orders: &Orders) -> Result<Site> {
        let Some(kind) = orders.place.kind() else {
            return Ok(Site::File(File(orders.directory.join("locks.db"))));
        };
        let backing = Backing::start(kind, orders)?;
        let proxies = (0..orders.processes).map(|slot| Proxy::start(backing.of(slot).address()));
        let proxies = proxies.collect::<Result<_>>()?;
        let admins =
            (0..backing.count()).map(|node| Admin::new(kind, backing.of(node).admin_url()));
        let admins = admins.collect::<Result<_>>()?;
        Ok(Site::Servers(Box::new(Networked {
            backing,
            proxies,
            admins,
        })))
    }

    /// The servers with their networks, where there are any.
    pub(super) fn networked(&mut self) -> Result<&mut Networked> {
        match self {
            Site::Servers(networked) => Ok(networked),
            Site::File(_) => anyhow::bail!("a file has no network to break"),
        }
    }

    /// The file, where there is one.
    pub(super) fn file(&self) -> Result<&File> {
        match self {
            Site::File(file) => Ok(file),
            Site::Servers(_) => anyhow::bail!("a server's files are its own"),
        }
    }

    pub(super) fn server_version(&self) -> Result<String> {
        match self {
            Site::Servers(networked) => networked.backing.version(),
            Site::File(_) => Ok(format!("SQLite {}", rusqlite::version())),
        }
    }

    /// The way to the locks for a worker.
    pub(super) fn dsn(&self, process: Process, orders: &Orders) -> String {
        let options = orders.dsn_options();
        match self {
            Site::Servers(networked) => {
                let url = networked.backing.of(process.slot).url();
                let url = networked.proxies[process.slot].url(&url);
                format!("{url}?{options}&application_name=torture-{process}")
            }
            Site::File(file) => format!("sqlite:{}?{options}", file.0.display()),
        }
    }

    /// Replaces what a fault has used up.
    pub(super) fn complete(&mut self) -> Result<()> {
        if let Site::Servers(networked) = self
            && let Backing::Pair(pair) = &mut networked.backing
        {
            pair.complete()?;
        }
        Ok(())
    }

    /// What is still there when every worker has left. What dead connections have left may stay for as long as the limit:
    /// no lock and no waiter may stay longer, also behind a half-open connection. Sessions are counted when the network has
    /// given such connections up: one that was cut off before its limit could be set has none, and holds nothing.
    pub(super) fn what_is_left(&mut self, orders: &Orders) -> Result<Vec<(String, usize)>> {
        let mut left = Vec::new();
        if let Site::Servers(networked) = self {
            let admin = networked.admin(0);
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
        if orders.strategy == Strategy::Lease {
            let held = match self {
                Site::Servers(networked) => networked.admin(0).held()?,
                Site::File(file) => file.held()?,
            };
            left.push(("rows with a holder".to_owned(), held));
        }
        if let Site::Servers(networked) = self {
            for proxy in &networked.proxies {
                proxy.cut();
            }
            let admins = &mut networked.admins;
            let sessions = until(|| {
                let sessions = admins.iter_mut().map(Admin::sessions).sum::<Result<_>>()?;
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
            Site::Servers(networked) => format!("{}?{options}", networked.backing.of(0).url()),
            Site::File(file) => format!("sqlite:{}?{options}", file.0.display()),
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

impl Networked {
    /// The administrator of the server that the worker of a slot talks to.
    pub(super) fn admin(&mut self, slot: usize) -> &mut Admin {
        let count = self.admins.len();
        &mut self.admins[slot % count]
    }

    /// Kills the primary, and leads everybody to the standby.
    pub(super) fn fail_over(&mut self) -> Result<()> {
        let pair = self.backing.pair()?;
        let address = pair.fail_over()?;
        let url = pair.primary().admin_url();
        for proxy in &mut self.proxies {
            proxy.lead_to(address)?;
        }
        self.admin(0).goes_to(url);
        Ok(())
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
