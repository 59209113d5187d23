//! The worker processes, from the outside.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};
use xtask::servers::FakeClock;

use super::strike::wrong;
use super::{KEYS, Orders, Site};
use crate::history::{Event, Log, Process};
use crate::worker::{CALM, CLING};

/// How long a worker may take to end in good order.
const PATIENCE: Duration = Duration::from_secs(45);

/// The environment variable in which a worker finds its DSN.
pub const DSN: &str = "DLOCK_TORTURE_DSN";

/// The workers of a run, one in each slot.
pub(super) struct Workers<'a> {
    orders: &'a Orders,
    log: &'a Log,
    /// Whether each worker has a wall clock of its own, which is wrong.
    clocks: bool,
    all: Vec<Worker>,
}

struct Worker {
    process: Process,
    child: Child,
}

impl<'a> Workers<'a> {
    pub(super) fn new(orders: &'a Orders, log: &'a Log, clocks: bool) -> Workers<'a> {
        Workers {
            orders,
            log,
            clocks,
            all: Vec::new(),
        }
    }

    /// Starts the first worker of the next slot.
    pub(super) fn start(&mut self, slot: usize, site: &Site) -> Result<()> {
        let worker = self.spawn(Process { slot, life: 0 }, site)?;
        self.all.push(worker);
        Ok(())
    }

    fn spawn(&self, process: Process, site: &Site) -> Result<Worker> {
        let orders = self.orders;
        // The same program, also when another was built in its place meanwhile.
        let mut command = Command::new("/proc/self/exe");
        command
            .arg("worker")
            .arg(&orders.directory)
            .args([process.slot, process.life].map(|number| number.to_string()))
            .arg(orders.seed.to_string())
            .arg(KEYS.to_string())
            .arg(orders.has_shared_mode().to_string())
            .env(DSN, site.dsn(process, orders))
            .stdin(Stdio::piped());
        if self.clocks {
            let seed = orders.seed.wrapping_add(process.slot as u64);
            let ahead = wrong(&mut fastrand::Rng::with_seed(seed));
            let place = self.clock(process.slot);
            fs::create_dir_all(&place)?;
            // The next worker of the slot finds the clock as the last one has left it.
            FakeClock::ahead(ahead)?.show_by_file(&mut command, &place)?;
        }
        let child = command.spawn().context("cannot start a worker")?;
        self.log.write(Event::Started(process));
        Ok(Worker { process, child })
    }

    /// Where the clock of a slot is set.
    fn clock(&self, slot: usize) -> PathBuf {
        self.orders.directory.join(format!("clock-{slot}"))
    }

    /// Sets the clock of a slot, and returns when its worker sees it.
    pub(super) fn set_clock(&self, slot: usize, seconds_ahead: i64) -> Result<()> {
        FakeClock::change(&self.clock(slot), seconds_ahead)
    }

    pub(super) fn slots(&self) -> usize {
        self.all.len()
    }

    /// Tells one worker, or all, that a fault is about to begin, or over.
    pub(super) fn tell(&mut self, target: Option<usize>, cling: bool) {
        let order = if cling { CLING } else { CALM };
        for worker in &mut self.all {
            if target.is_none_or(|slot| slot == worker.process.slot)
                && let Some(input) = &mut worker.child.stdin
            {
                // One that has died is noticed elsewhere.
                let _ = writeln!(input, "{order}");
            }
        }
    }

    pub(super) fn signal(&self, slot: usize, signal: Signal) {
        if let Some(worker) = self.all.get(slot)
            && let Some(pid) = pid(&worker.child)
        {
            let _ = kill_process(pid, signal);
        }
    }

    /// Kills the worker of a slot, and starts another.
    pub(super) fn replace(&mut self, slot: usize, site: &Site) -> Result<()> {
        let worker = self.all.get_mut(slot).context("no such slot")?;
        let before = worker.process;
        // One that has died by itself is not to be taken for a victim.
        let meant = worker.child.try_wait()?.is_none();
        worker.child.kill()?;
        let how = worker.child.wait()?.to_string();
        self.log.write(Event::Died {
            process: before,
            meant,
            how,
        });
        let next = Process {
            slot,
            life: before.life + 1,
        };
        self.all[slot] = self.spawn(next, site)?;
        Ok(())
    }

    /// Lets every worker end in good order.
    pub(super) fn stop(&mut self) {
        for worker in &mut self.all {
            drop(worker.child.stdin.take());
        }
        let deadline = Instant::now() + PATIENCE;
        for worker in &mut self.all {
            let how = loop {
                match worker.child.try_wait() {
                    Ok(Some(status)) => break (status.success(), status.to_string()),
                    Ok(None) if Instant::now() > deadline => {
                        break (false, format!("did not end within {PATIENCE:?}"));
                    }
                    Ok(None) => thread::sleep(Duration::from_millis(20)),
                    Err(error) => break (false, error.to_string()),
                }
            };
            let (meant, how) = how;
            let process = worker.process;
            self.log.write(Event::Died {
                process,
                meant,
                how,
            });
        }
    }
}

impl Drop for Workers<'_> {
    fn drop(&mut self) {
        for worker in &mut self.all {
            let _ = worker.child.kill();
            let _ = worker.child.wait();
        }
    }
}

fn pid(child: &Child) -> Option<Pid> {
    Pid::from_raw(i32::try_from(child.id()).ok()?)
}
