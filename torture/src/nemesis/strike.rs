//! How each fault is brought about, and mended.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use rustix::process::Signal;

use super::backing::NODES;
use super::site::{Networked, Site};
use super::workers::Workers;
use super::{LIMIT, Nemesis};
use crate::fault::Fault;
use crate::history::Event;

const LIMIT_TIME: Duration = Duration::from_secs(LIMIT);

/// Shorter than anything that ends a session.
fn short() -> Duration {
    LIMIT_TIME / 3
}

/// Longer than anything that is vouched for.
fn long() -> Duration {
    LIMIT_TIME * 2
}

/// How long the workers have to take the locks that they keep through the fault.
const CLINGING: Duration = Duration::from_millis(250);

/// How late an answer may be: one that takes a third of the limit would end the session.
const LATE: Duration = Duration::from_millis(LIMIT * 280);

/// How long a fault lasts that works at once.
const MOMENT: Duration = Duration::from_millis(1200);

impl Nemesis<'_> {
    /// Brings one fault about, lets it last, and mends it.
    pub(super) fn strike(
        &mut self,
        fault: Fault,
        site: &mut Site,
        workers: &mut Workers<'_>,
    ) -> Result<()> {
        let slot = self.rng.usize(0..workers.slots());
        let target = fault.is_aimed().then_some(slot);
        workers.tell(target, true);
        sleep(CLINGING);
        let number = self.next;
        self.next += 1;
        self.log.write(Event::FaultBegan {
            number,
            fault,
            target,
        });
        match fault {
            Fault::Kill => workers.replace(slot, site)?,
            Fault::ShortPause => pause(workers, slot, short()),
            Fault::LongPause => pause(workers, slot, long()),
            Fault::LateThenPaused => {
                let proxy = &site.networked()?.proxies[slot];
                let began = Instant::now();
                proxy.hold_answers();
                sleep(LATE);
                proxy.resume();
                // The late answers arrive.
                sleep(Duration::from_millis(30));
                workers.signal(slot, Signal::STOP);
                let past_the_limit = Duration::from_millis(self.rng.u64(380..580));
                sleep((LIMIT_TIME + past_the_limit).saturating_sub(began.elapsed()));
                workers.signal(slot, Signal::CONT);
            }
            Fault::ClockJump => workers.set_clock(slot, wrong(&mut self.rng))?,
            Fault::ShortWrite => site.file()?.write_for(short())?,
            Fault::LongWrite => site.file()?.write_for(long())?,
            Fault::FrozenNode | Fault::KilledNode | Fault::QuorumLoss => {
                self.strike_cluster(fault, site.networked()?)?;
            }
            other => self.strike_network(other, slot, site.networked()?)?,
        }
        self.log.write(Event::FaultEnded { number });
        workers.tell(target, false);
        Ok(())
    }

    fn strike_network(&mut self, fault: Fault, slot: usize, site: &mut Networked) -> Result<()> {
        let proxy = &site.proxies[slot];
        match fault {
            Fault::ShortStall | Fault::LongStall => {
                proxy.stall();
                sleep(if fault == Fault::ShortStall {
                    short()
                } else {
                    long()
                });
                proxy.resume();
            }
            Fault::LateThenSilent => {
                proxy.hold_answers();
                sleep(LATE);
                proxy.resume();
                // The late answers arrive, and nothing after them.
                sleep(Duration::from_millis(30));
                proxy.stall();
                sleep(long());
                proxy.resume();
            }
            Fault::HalfOpen => {
                proxy.strand();
                sleep(LIMIT_TIME);
            }
            Fault::Reset => proxy.cut(),
            Fault::CutAnswer => {
                for _ in 0..4 {
                    proxy.cut_after(self.rng.usize(1..400));
                    sleep(MOMENT / 4);
                }
                proxy.resume();
            }
            Fault::Delay => {
                proxy.delay(Duration::from_millis(self.rng.u64(5..80)));
                sleep(MOMENT);
                proxy.delay(Duration::ZERO);
            }
            Fault::Split => {
                proxy.split(self.rng.usize(1..6));
                sleep(MOMENT);
                proxy.split(0);
            }
            Fault::EndSession => {
                let mut ports = proxy.ports();
                self.rng.shuffle(&mut ports);
                // One, or several.
                ports.truncate(self.rng.usize(1..4));
                for port in ports {
                    site.admin(slot).end_session(port)?;
                }
            }
            Fault::NoConnections => {
                let connection = site.admin(0).refuse_connections()?;
                sleep(MOMENT);
                site.admin(0).let_connections_in(connection)?;
            }
            Fault::TableFull => {
                let connection = site.admin(0).fill_lock_table()?;
                sleep(MOMENT);
                site.admin(0).close(connection);
            }
            other => strike_server(other, site)?,
        }
        Ok(())
    }

    fn strike_cluster(&mut self, fault: Fault, site: &mut Networked) -> Result<()> {
        let cluster = site.backing.cluster()?;
        let first = self.rng.usize(0..NODES);
        let [one, two, three] = [first, (first + 1) % NODES, (first + 2) % NODES];
        match fault {
            Fault::FrozenNode => {
                cluster.freeze(one)?;
                cluster.wait_for_size(two, NODES - 1)?;
                sleep(MOMENT);
                cluster.thaw(one)?;
            }
            Fault::KilledNode => {
                cluster.kill(one)?;
                cluster.wait_for_size(two, NODES - 1)?;
                sleep(MOMENT);
                cluster.start_again(one)?;
            }
            _ => {
                cluster.freeze(one)?;
                cluster.freeze(two)?;
                cluster.wait_for_quorum_loss(three)?;
                sleep(MOMENT);
                cluster.thaw(one)?;
                cluster.thaw(two)?;
            }
        }
        for node in 0..NODES {
            cluster.wait_for_size(node, NODES)?;
            cluster.wait_until_synced(node)?;
        }
        Ok(())
    }
}

/// Breaks the server itself.
fn strike_server(fault: Fault, site: &mut Networked) -> Result<()> {
    match fault {
        Fault::Restart => site.backing.one()?.restart()?,
        Fault::Crash => {
            let server = site.backing.one()?;
            server.kill()?;
            sleep(MOMENT / 4);
            server.start_again()?;
        }
        Fault::ShortFreeze | Fault::LongFreeze => {
            let server = site.backing.one()?;
            server.freeze()?;
            sleep(if fault == Fault::ShortFreeze {
                short()
            } else {
                long()
            });
            server.thaw()?;
        }
        Fault::Failover => site.fail_over()?,
        Fault::FrozenStandby => {
            let standby = site.backing.pair()?.standby()?;
            standby.freeze()?;
            sleep(long());
            standby.thaw()?;
        }
        other => bail!("{other} is brought about elsewhere"),
    }
    Ok(())
}

/// How many seconds a worker's clock is wrong by: so few hours that no two clocks differ by a day.
pub(super) fn wrong(rng: &mut fastrand::Rng) -> i64 {
    let hours = 11 * 3600;
    rng.i64(-hours..=hours)
}

fn pause(workers: &Workers<'_>, slot: usize, lasts: Duration) {
    workers.signal(slot, Signal::STOP);
    sleep(lasts);
    workers.signal(slot, Signal::CONT);
}
