//! The fixture: one behaviour's own ground on one server, which must be empty when the behaviour has ended.

use std::future::Future;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use dlock::{Config, Lock, Locker};
use xtask::proxy::Proxy;
use xtask::servers::{DATABASE, PASSWORD, Server, USER};

use crate::admin::Admin;
use crate::leases;
use crate::names;
use crate::place::{Family, Place};
use crate::worker::Worker;

/// How long anything that must happen may take on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// The file of SQLite in a test's directory.
const FILE: &str = "locks.db";

/// Names that no other behaviour uses: they run side by side, on the same servers.
pub(crate) struct Site {
    place: Place,
    /// The beginning of every application name, and the namespace.
    tag: String,
    /// The account. On MySQL and MariaDB it is this test's own: their list of processes shows nothing else that tells
    /// the sessions of one test from those of others.
    account: String,
    dsn: String,
    admin: Option<Admin>,
    admin_url: String,
    server: Option<Mutex<Server>>,
    /// The directory of a file of SQLite.
    directory: Option<PathBuf>,
    lockers: Mutex<Vec<Locker>>,
    /// Namespace and key of every lock that was asked for.
    used: Mutex<Vec<(String, String)>>,
    workers: AtomicU32,
}

impl Site {
    /// A ground on the server that the run's environment names.
    pub(crate) fn new(place: Place) -> Result<Site> {
        match place.kind() {
            None => Site::on(place, String::new(), String::new(), None),
            Some(kind) => Site::on(place, kind.url()?, kind.admin_url()?, None),
        }
    }

    /// A ground on a server of its own, which may be broken.
    pub(crate) fn with_own_server(place: Place) -> Result<Site> {
        let kind = place.kind().context("memory is no server")?;
        let server = Server::start(kind)?;
        Site::on(place, server.url(), server.admin_url(), Some(server))
    }

    fn on(place: Place, url: String, admin: String, server: Option<Server>) -> Result<Site> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let tag = format!("c{}x{count}", std::process::id());
        let admin_url = admin;
        let admin = place
            .family()
            .map(|family| Admin::new(family, admin_url.clone()));
        let (mut account, mut made) = (USER.to_owned(), None);
        let dsn = match (place.family(), &admin) {
            // On a server of its own the test is alone. (And an account does not survive a crash: the servers of
            // tests write nothing through.)
            (Some(Family::MySql), Some(admin)) if server.is_none() => {
                account.clone_from(&tag);
                create_account(admin, &account)?;
                as_account(&url, &account)?
            }
            (Some(_), _) => url,
            (None, _) if place == Place::Sqlite => {
                let directory = std::env::temp_dir().join(format!("dlock-contract-file-{tag}"));
                std::fs::create_dir(&directory)?;
                let file = format!("sqlite:{}", directory.join(FILE).display());
                made = Some(directory);
                file
            }
            (None, _) => format!("memory:{tag}"),
        };
        let dsn = if place.is_lease() {
            with_option(&dsn, "strategy=lease")
        } else {
            dsn
        };
        Ok(Site {
            place,
            tag,
            account,
            dsn,
            admin,
            admin_url,
            server: server.map(Mutex::new),
            directory: made,
            lockers: Mutex::default(),
            used: Mutex::default(),
            workers: AtomicU32::new(0),
        })
    }

    pub(crate) fn place(&self) -> Place {
        self.place
    }

    pub(crate) fn family(&self) -> Family {
        self.place.family().expect("this place has a server")
    }

    pub(crate) fn tag(&self) -> &str {
        &self.tag
    }

    /// The configuration of this test's lockers.
    pub(crate) fn config(&self) -> Config {
        self.config_of(&self.dsn)
    }

    /// The configuration of a locker that reaches the server through a proxy.
    pub(crate) fn config_via(&self, proxy: &Proxy) -> Config {
        self.config_of(&with_address(&self.dsn, proxy.addr()))
    }

    /// The configuration of a locker that is given no namespace.
    pub(crate) fn config_without_namespace(&self) -> Config {
        self.named(&self.dsn)
    }

    fn config_of(&self, dsn: &str) -> Config {
        self.named(dsn).namespace(&*self.tag)
    }

    fn named(&self, dsn: &str) -> Config {
        let config = Config::from_dsn(dsn).expect("the test's DSN");
        config.application_name(format!("{}.suite", self.tag))
    }

    /// A locker with connections of its own: for the server it is another process.
    pub(crate) fn locker(&self) -> Locker {
        self.locker_of(self.config())
    }

    /// A locker of a configuration.
    pub(crate) fn locker_of(&self, config: Config) -> Locker {
        let locker = Locker::connect_blocking(config).expect("a locker");
        lock(&self.lockers).push(locker.clone());
        locker
    }

    /// The test's only reference to its lockers from now on is the behaviour's.
    pub(crate) fn forget_lockers(&self) {
        lock(&self.lockers).clear();
    }

    /// A key, remembered: nobody may hold it when the behaviour has ended.
    pub(crate) fn key(&self, key: &str) -> String {
        self.key_in(&self.tag, key)
    }

    /// A key of a locker with another namespace.
    pub(crate) fn key_in(&self, namespace: &str, key: &str) -> String {
        lock(&self.used).push((namespace.to_owned(), key.to_owned()));
        key.to_owned()
    }

    /// The lock of a key of this test.
    pub(crate) fn lock(&self, locker: &Locker, key: &str) -> Lock {
        locker.lock(self.key(key))
    }

    /// The name of a key on the server.
    pub(crate) fn name(&self, key: &str) -> String {
        names::on_server(self.family(), &self.tag, key)
    }

    /// The sessions of this test.
    pub(crate) fn sessions(&self) -> Vec<i64> {
        self.admin().sessions(&self.mark())
    }

    /// The sessions of this test that wait in the server's queue.
    pub(crate) fn waiters(&self) -> Vec<i64> {
        if self.place.is_lease() {
            return leases::waiters(&self.lease_rows(&self.tag));
        }
        self.admin().waiters(&self.mark())
    }

    /// The sessions of this test that wait for a row that another transaction has locked.
    pub(crate) fn writers(&self) -> Vec<i64> {
        self.admin().writers(&self.mark())
    }

    /// What the server shows with each session of this test.
    fn mark(&self) -> String {
        match self.family() {
            Family::Postgres => format!("application_name LIKE '{}.%'", self.tag),
            Family::MySql => self.account.clone(),
        }
    }

    /// The server's own view.
    pub(crate) fn admin(&self) -> &Admin {
        self.admin.as_ref().expect("this place has a server")
    }

    /// The sessions that hold a key of this test; of leases: their tokens.
    pub(crate) fn holders(&self, key: &str) -> Vec<i64> {
        if self.place.is_lease() {
            return leases::tokens(&self.lease_rows(&self.tag), key);
        }
        self.admin().holders(&self.name(key))
    }

    /// How long the row of a key stays taken by somebody who has released it.
    pub(crate) fn kept_for(&self, key: &str) -> Option<Duration> {
        leases::kept_for(&self.lease_rows(&self.tag), key)
    }

    /// The rows of leases in a namespace.
    fn lease_rows(&self, namespace: &str) -> Vec<leases::Row> {
        match &self.directory {
            Some(directory) => leases::in_file(&directory.join(FILE), namespace),
            None => leases::on_server(self.admin(), namespace),
        }
    }

    /// Another connection of the administrator's, for a transaction.
    pub(crate) fn second_admin(&self) -> Admin {
        Admin::new(self.family(), self.admin_url.clone())
    }

    /// The server of this test's own.
    pub(crate) fn server(&self) -> MutexGuard<'_, Server> {
        lock(self.server.as_ref().expect("a server of its own"))
    }

    /// A proxy before the server.
    pub(crate) fn proxy(&self) -> Proxy {
        Proxy::start(address(&self.dsn).expect("the server's address")).expect("a proxy")
    }

    /// A process of its own, with a locker of this test's configuration.
    pub(crate) fn worker(&self) -> Worker {
        self.worker_with("")
    }

    /// A process of its own, with further options in its DSN, such as `limit=3`.
    pub(crate) fn worker_with(&self, options: &str) -> Worker {
        let number = self.workers.fetch_add(1, Ordering::Relaxed);
        if self.place == Place::Memory {
            return Worker::start(&self.dsn);
        }
        let tag = &self.tag;
        let mut options =
            format!("namespace={tag}&application_name={tag}.worker{number}&{options}");
        if self.place.is_lease() && !options.contains("&ttl=") {
            // What a worker holds when it is killed must be free before the test's patience ends.
            options = format!("{}&ttl=6", options.trim_end_matches('&'));
        }
        Worker::start(&with_option(&self.dsn, options.trim_end_matches('&')))
    }

    /// A configuration whose holds end after this much silence, by a server's limit or a lease's ttl.
    pub(crate) fn limited(&self, config: Config, limit: Duration) -> Config {
        if self.place.is_lease() {
            config.ttl(limit)
        } else {
            config.limit(limit).heartbeat(limit / 6)
        }
    }

    /// The option for that in a worker's DSN.
    pub(crate) fn limit_option(&self, seconds: u32) -> String {
        let name = if self.place.is_lease() {
            "ttl"
        } else {
            "limit"
        };
        format!("{name}={seconds}")
    }

    /// Returns when that many sessions of this test wait in the server's queue. Memory has no such view: there, whoever
    /// was polled once is in line.
    pub(crate) fn until_waiting(&self, count: usize) {
        if self.place != Place::Memory {
            until(&format!("{count} sessions wait on the server"), || {
                self.waiters().len() == count
            });
        }
    }

    /// Says what is left of the behaviour, and removes the ground.
    pub(crate) fn finish(self) -> Result<()> {
        let locks = self.check_locks();
        // Workers have ended with the behaviour; the last handles are these.
        lock(&self.lockers).clear();
        let sessions = self.check_sessions();
        if let Some(admin) = &self.admin
            && self.account == self.tag
        {
            admin.rows(&format!("DROP USER '{}'@'%'", self.account))?;
        }
        if let Some(directory) = &self.directory {
            std::fs::remove_dir_all(directory)?;
        }
        locks.and(sessions)
    }

    /// No lock and no waiter, while the lockers still live.
    fn check_locks(&self) -> Result<()> {
        let mut used = std::mem::take(&mut *lock(&self.used));
        used.sort();
        used.dedup();
        if self.place == Place::Memory {
            let probe = Locker::connect_blocking(self.config())?;
            for (_, key) in used {
                let free = || matches!(probe.lock(&*key).try_acquire_blocking(), Ok(Some(_)));
                check(&format!("{key:?} is free"), free)?;
            }
            return Ok(());
        }
        check("nobody waits", || self.waiters().is_empty())?;
        for (namespace, key) in used {
            if self.place.is_lease() {
                check(&format!("{key:?} is free"), || {
                    leases::tokens(&self.lease_rows(&namespace), &key).is_empty()
                })?;
                continue;
            }
            let name = names::on_server(self.family(), &namespace, &key);
            check(&format!("{key:?} is free"), || {
                self.admin().holders(&name).is_empty()
            })?;
        }
        Ok(())
    }

    /// No connection, when nobody has a locker any more.
    fn check_sessions(&self) -> Result<()> {
        if self.admin.is_none() {
            return Ok(());
        }
        check("every connection is closed", || self.sessions().is_empty())
    }
}

/// Runs a future on a multi-threaded tokio runtime of its own.
pub(crate) fn run<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(future)
}

/// Returns when something has come about; it must, soon.
#[track_caller]
pub(crate) fn until(what: &str, is_so: impl FnMut() -> bool) {
    assert!(
        comes_about(is_so),
        "did not come about within {SOON:?}: {what}"
    );
}

fn check(what: &str, is_so: impl FnMut() -> bool) -> Result<()> {
    if comes_about(is_so) {
        return Ok(());
    }
    bail!("left behind; within {SOON:?} it did not come about that {what}")
}

fn comes_about(mut is_so: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + SOON;
    loop {
        if is_so() {
            return true;
        }
        if Instant::now() > deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(5));
    }
}

fn create_account(admin: &Admin, account: &str) -> Result<()> {
    let create = format!("CREATE USER '{account}'@'%' IDENTIFIED BY '{PASSWORD}'");
    admin.rows(&create).context(
        "the administrator's account must be allowed to create accounts: see DLOCK_TEST_…_ADMIN_URL",
    )?;
    admin.rows(&format!("GRANT ALL ON {DATABASE}.* TO '{account}'@'%'"))?;
    Ok(())
}

/// A URL with another account in it.
fn as_account(url: &str, account: &str) -> Result<String> {
    let (scheme, rest) = url.split_once("://").context("a URL")?;
    let (_, server) = rest.rsplit_once('@').context("a URL with an account")?;
    let password = PASSWORD.replace('/', "%2F");
    let (address, _) = server.split_once('/').context("a URL with a database")?;
    Ok(format!(
        "{scheme}://{account}:{password}@{address}/{DATABASE}"
    ))
}

/// A DSN with one more option, or several.
fn with_option(dsn: &str, option: &str) -> String {
    let mark = if dsn.contains('?') { '&' } else { '?' };
    format!("{dsn}{mark}{option}")
}

fn host(url: &str) -> Result<(&str, &str, &str)> {
    let (before, server) = url.rsplit_once('@').context("a URL with an account")?;
    let (address, after) = server.split_once('/').context("a URL with a database")?;
    Ok((before, address, after))
}

fn address(url: &str) -> Result<SocketAddr> {
    let (_, address, _) = host(url)?;
    address
        .to_socket_addrs()?
        .next()
        .context("the server's name has no address")
}

fn with_address(url: &str, address: SocketAddr) -> String {
    let (before, _, after) = host(url).expect("the server's address");
    format!("{before}@{address}/{after}")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
