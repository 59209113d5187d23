//! Breaks everything around the workers, in an order that comes from the seed, and writes down when.
//!
//! One fault at a time: it begins, lasts, is mended, and then the nemesis waits until every key was taken again, or for
//! as long as that may take at most. The same seed gives the same faults in the same order, with the same aims.

mod admin;
mod backing;
mod file;
mod orders;
mod pair;
mod site;
mod strike;
mod workers;

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use xtask::servers::FakeClock;

use crate::checker::recovery;
use crate::clock::{Moment, SECOND, now};
use crate::fault::Fault;
use crate::history::{Event, History, Log, Process, Reader, Setting};
use orders::{KEYS, LIMIT};
pub use orders::{Orders, Place, Strategy};
use site::Site;
pub use workers::DSN;
use workers::Workers;

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
    let faults = faults(orders);
    let log = Log::open(&orders.directory, "nemesis")?;
    let mut site = Site::open(orders)?;
    let setting = orders.setting(site.server_version()?);
    log.write(Event::Began(setting.clone()));
    let clocks = faults.contains(&Fault::ClockJump);
    let mut workers = Workers::new(orders, &log, clocks);
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
            deck.clone_from(&faults);
            nemesis.rng.shuffle(&mut deck);
        }
        let Some(fault) = deck.pop() else {
            thread::sleep(Duration::from_millis(100));
            continue;
        };
        nemesis.strike(fault, &mut site, &mut workers)?;
        site.complete()?;
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

/// The faults of a run that exist where it is made.
fn faults(orders: &Orders) -> Vec<Fault> {
    let mut faults = orders.faults.clone();
    faults.retain(|fault| orders.has(*fault));
    // Downloaded once, where it is not there.
    let clock = faults.contains(&Fault::ClockJump);
    if let Some(error) = clock.then(|| FakeClock::ahead(0).err()).flatten() {
        eprintln!("{} is left out: {error:#}", Fault::ClockJump);
        faults.retain(|fault| *fault != Fault::ClockJump);
    }
    faults
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
