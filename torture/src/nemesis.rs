//! Breaks everything around the workers, in an order that comes from the seed, and writes down when.
//!
//! One fault at a time: it begins, lasts, is mended, and then the nemesis waits until every key was taken again, or for
//! as long as that may take at most. The same seed gives the same faults in the same order, with the same aims.

mod admin;
mod site;
mod strike;
mod workers;

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use xtask::servers::Kind;

use crate::checker::recovery;
use crate::clock::{Moment, SECOND, now};
use crate::fault::Fault;
use crate::history::{Event, History, Log, Process, Reader, Setting};
use site::Site;
pub use workers::DSN;
use workers::Workers;

/// Where the locks are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// On a server of the run's own.
    Server(Kind),
    /// In a file of `SQLite`.
    Sqlite,
}

/// How the locks are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// By sessions of the server.
    Session,
    /// As rows of a table.
    Lease,
}

/// What is to be done.
#[derive(Clone, Debug)]
pub struct Orders {
    /// Where.
    pub place: Place,
    /// How.
    pub strategy: Strategy,
    /// For how long.
    pub lasts: Duration,
    /// By how many processes at a time.
    pub processes: usize,
    /// What is broken.
    pub faults: Vec<Fault>,
    /// Every choice comes from this.
    pub seed: u64,
    /// Where the history goes. What lies there is removed.
    pub directory: PathBuf,
    /// More options of the DSN, `name=value&name=value`.
    pub options: String,
    /// Repeats the run.
    pub command: String,
}

/// How long the server keeps the locks of who has fallen silent, in seconds: the shortest there is.
const LIMIT: u64 = 3;
const HEARTBEAT: Duration = Duration::from_millis(500);
const CONNECT: u64 = 2;
const KEYS: u16 = 4;

impl Place {
    /// By the name on the command line.
    pub fn named(name: &str) -> Option<Place> {
        Some(match name {
            "postgres" => Place::Server(Kind::Postgres),
            "mariadb" => Place::Server(Kind::MariaDb),
            "mysql" => Place::Server(Kind::MySql),
            "sqlite" => Place::Sqlite,
            _ => return None,
        })
    }

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Place::Server(Kind::Postgres) => "postgres",
            Place::Server(Kind::MariaDb) => "mariadb",
            Place::Server(Kind::MySql) => "mysql",
            Place::Sqlite => "sqlite",
        }
    }

    /// Whether this fault exists there.
    pub fn has(self, fault: Fault) -> bool {
        match self {
            Place::Server(Kind::Postgres) => true,
            // Named locks need no table of a fixed size.
            Place::Server(_) => fault != Fault::TableFull,
            Place::Sqlite => [Fault::Kill, Fault::ShortPause, Fault::LongPause].contains(&fault),
        }
    }
}

impl Strategy {
    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Strategy::Session => "session",
            Strategy::Lease => "lease",
        }
    }
}

impl Orders {
    fn setting(&self, server: String) -> Setting {
        Setting {
            server,
            strategy: self.strategy.name().to_owned(),
            seed: self.seed,
            keys: KEYS,
            limit: LIMIT * SECOND,
            heartbeat: u64::try_from(HEARTBEAT.as_nanos()).unwrap_or(SECOND),
            connect: CONNECT * SECOND,
            command: self.command.clone(),
        }
    }

    /// The options of every worker's DSN.
    fn dsn_options(&self) -> String {
        let mut options = match self.strategy {
            Strategy::Session => {
                let heartbeat = HEARTBEAT.as_millis();
                format!("limit={LIMIT}&heartbeat={heartbeat}ms&connect_timeout={CONNECT}")
            }
            Strategy::Lease => format!("strategy=lease&ttl={LIMIT}"),
        };
        if !self.options.is_empty() {
            options = format!("{options}&{}", self.options);
        }
        options
    }

    /// Whether readers can hold together.
    fn has_shared_mode(&self) -> bool {
        self.strategy == Strategy::Lease || self.place == Place::Server(Kind::Postgres)
    }
}

/// Runs workers and faults to the end, and gives the history.
///
/// # Errors
///
/// When the run itself fails: a server that does not start, a worker that cannot connect. What the library does wrong
/// stands in the history.
pub fn run(orders: &Orders) -> Result<History> {
    if orders.directory.exists() {
        fs::remove_dir_all(&orders.directory)?;
    }
    fs::create_dir_all(&orders.directory)?;
    let log = Log::open(&orders.directory, "nemesis")?;
    let mut site = Site::open(orders)?;
    let setting = orders.setting(site.server_version()?);
    log.write(Event::Began(setting.clone()));
    let mut workers = Workers::new(orders, &log);
    for slot in 0..orders.processes {
        workers.start(slot, &site)?;
    }
    let mut nemesis = Nemesis {
        setting,
        log: &log,
        watcher: Watcher::new(orders),
        rng: fastrand::Rng::with_seed(orders.seed),
        next: 0,
    };
    if !nemesis.wait_until_taken(now())? {
        bail!("the workers do not take every key, before anything was broken");
    }
    let end = Instant::now() + orders.lasts;
    let mut deck = Vec::new();
    while Instant::now() < end {
        if deck.is_empty() {
            deck.clone_from(&orders.faults);
            deck.retain(|fault| orders.place.has(*fault));
            nemesis.rng.shuffle(&mut deck);
        }
        let Some(fault) = deck.pop() else {
            thread::sleep(Duration::from_millis(100));
            continue;
        };
        nemesis.strike(fault, &mut site, &mut workers)?;
        nemesis.wait_until_taken(now())?;
        thread::sleep(Duration::from_millis(nemesis.rng.u64(100..500)));
    }
    workers.stop();
    for (what, count) in site.what_is_left(orders)? {
        log.write(Event::Left { what, count });
    }
    drop(site);
    let mut reader = Reader::new(&orders.directory);
    Ok(reader.poll()?.clone())
}

/// What the nemesis knows.
struct Nemesis<'a> {
    setting: Setting,
    log: &'a Log,
    watcher: Watcher,
    rng: fastrand::Rng,
    next: usize,
}

impl Nemesis<'_> {
    /// Waits until every key was taken after a moment. `false`: that took longer than it may.
    fn wait_until_taken(&mut self, after: Moment) -> Result<bool> {
        let deadline = after + recovery::bound(&self.setting) + SECOND;
        loop {
            if self.watcher.all_taken(after)? {
                return Ok(true);
            }
            if now() > deadline {
                return Ok(false);
            }
            thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Reads along while the workers write.
struct Watcher {
    reader: Reader,
    /// How much of each worker's records was looked at.
    seen: Vec<usize>,
    /// What the open requests asked for.
    asked: std::collections::HashMap<(Process, u64), Vec<u16>>,
    /// When each key was last taken.
    taken: Vec<Moment>,
}

impl Watcher {
    fn new(orders: &Orders) -> Watcher {
        Watcher {
            reader: Reader::new(&orders.directory),
            seen: Vec::new(),
            asked: std::collections::HashMap::new(),
            taken: vec![0; KEYS.into()],
        }
    }

    fn all_taken(&mut self, after: Moment) -> Result<bool> {
        let history = self.reader.poll().context("the history, so far")?;
        self.seen.resize(history.workers.len(), 0);
        for ((process, records), seen) in history.workers.iter().zip(&mut self.seen) {
            for record in &records[*seen..] {
                match &record.event {
                    Event::Asked { op, keys, .. } => {
                        self.asked.insert((*process, *op), keys.clone());
                    }
                    Event::Acquired { op, held: true, .. } => {
                        for key in self.asked.remove(&(*process, *op)).unwrap_or_default() {
                            let taken = &mut self.taken[usize::from(key)];
                            *taken = record.at.max(*taken);
                        }
                    }
                    Event::Failed { op, .. } | Event::Dropped { op } => {
                        self.asked.remove(&(*process, *op));
                    }
                    _ => {}
                }
            }
            *seen = records.len();
        }
        Ok(self.taken.iter().all(|taken| *taken >= after))
    }
}
