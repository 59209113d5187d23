//! A second process: takes orders by lines on its input, answers by lines on its output.
//!
//! - `wait raw|apart|dlock|sqlx KEY`: waits for the lock; answers the moment of the grant, and gives the lock back.
//! - `hold COUNT PREFIX`: takes so many locks and keeps them.
//! - `leases MILLISECONDS`: locks are leases from now on, with this ttl.
//! - `standing`: whether all locks that it has taken are still held.
//! - `memory`: how many KiB this process has in memory.
//! - `turns COUNT KEY`: takes a lock so many times, and answers the microseconds that each took.
//! - `spin raw|dlock MILLISECONDS KEY`: takes a lock and gives it back for so long; answers how often.

use std::io::{BufRead, Write, stdin, stdout};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use dlock::{Guard, Locker};
use futures_util::future::try_join_all;
use rustix::time::{ClockId, clock_gettime};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use xtask::servers::Kind;

use crate::contenders::{config, leases};
use crate::floor::apart::Apart;
use crate::floor::{Raw, raw};
use crate::sqlx;

/// A moment that another process of this machine understands, in nanoseconds.
pub(crate) fn moment() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

/// The other process, seen from here. It ends when this is dropped.
pub(crate) struct Worker {
    _child: Child,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Worker {
    pub(crate) async fn start(kind: Kind, url: &str) -> Result<Worker> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["worker", kind.url_variable()])
            .env(kind.url_variable(), url)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let orders = child.stdin.take().context("no input")?;
        let answers = child.stdout.take().context("no output")?;
        let mut worker = Worker {
            _child: child,
            orders,
            answers: BufReader::new(answers).lines(),
        };
        worker.answer().await?;
        Ok(worker)
    }

    pub(crate) async fn order(&mut self, order: &str) -> Result<()> {
        Ok(self
            .orders
            .write_all(format!("{order}\n").as_bytes())
            .await?)
    }

    pub(crate) async fn answer(&mut self) -> Result<String> {
        let answer = self.answers.next_line().await?;
        let answer = answer.context("the other process has ended")?;
        match answer.strip_prefix("failed: ") {
            Some(problem) => bail!("the other process: {problem}"),
            None => Ok(answer),
        }
    }

    pub(crate) async fn ask(&mut self, order: &str) -> Result<String> {
        self.order(order).await?;
        self.answer().await
    }
}

/// The other process itself.
pub(crate) fn main(variable: &str) -> Result<()> {
    let kind = Kind::ALL
        .into_iter()
        .find(|kind| kind.url_variable() == variable)
        .context("no such kind of server")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let url = kind.url()?;
    let mut process = runtime.block_on(async {
        anyhow::Ok(Process {
            kind,
            raw: raw(kind, &url).await?,
            apart: None,
            // Heartbeats often enough to count some.
            locker: Locker::connect(config(&url)?.heartbeat(Duration::from_secs(1))).await?,
            url,
            held: Vec::new(),
        })
    })?;
    say("ready")?;
    for order in stdin().lock().lines() {
        let answer = runtime.block_on(process.obey(&order?));
        say(&answer.unwrap_or_else(|error| format!("failed: {error:#}")))?;
    }
    Ok(())
}

fn say(answer: &str) -> Result<()> {
    writeln!(stdout(), "{answer}")?;
    Ok(stdout().flush()?)
}

struct Process {
    kind: Kind,
    raw: Raw,
    /// Once it was asked for.
    apart: Option<Apart>,
    locker: Locker,
    url: String,
    held: Vec<Guard>,
}

impl Process {
    async fn obey(&mut self, order: &str) -> Result<String> {
        let words: Vec<&str> = order.split(' ').collect();
        match words[..] {
            ["wait", "raw", key] => {
                self.raw.wait(key).await?;
                let granted = moment();
                self.raw.unlock(key).await?;
                Ok(granted.to_string())
            }
            ["wait", "apart", key] => {
                let apart = match self.apart.take() {
                    Some(apart) => apart,
                    None => Apart::open(self.kind, &self.url).await?,
                };
                apart.wait(key).await?;
                let granted = moment();
                apart.unlock(key).await?;
                self.apart = Some(apart);
                Ok(granted.to_string())
            }
            ["wait", "dlock", key] => {
                let guard = self.locker.lock(key).acquire().await?;
                let granted = moment();
                guard.release().await?;
                Ok(granted.to_string())
            }
            ["wait", "sqlx", key] => Ok(sqlx::wait(&self.url, key).await?.to_string()),
            ["hold", count, prefix] => self.hold(count.parse()?, prefix).await,
            ["leases", milliseconds] => {
                let ttl = Duration::from_millis(milliseconds.parse()?);
                let sessions = std::mem::replace(&mut self.locker, leases(&self.url, ttl).await?);
                // Nobody counts its heartbeats among the renewals.
                sessions.shutdown(Duration::from_secs(1)).await;
                Ok("leases".to_owned())
            }
            ["standing"] => {
                self.held.iter().try_for_each(Guard::check)?;
                Ok("all stand".to_owned())
            }
            ["memory"] => memory(),
            ["turns", count, key] => self.turns(count.parse()?, key).await,
            ["spin", who, milliseconds, key] => {
                self.spin(who, Duration::from_millis(milliseconds.parse()?), key)
                    .await
            }
            _ => bail!("`{order}` is no order"),
        }
    }

    async fn hold(&mut self, count: usize, prefix: &str) -> Result<String> {
        self.held.reserve_exact(count);
        let keys: Vec<usize> = (0..count).collect();
        for some in keys.chunks(256) {
            let taking = some.iter().map(|number| {
                let lock = self.locker.lock(format!("{prefix}/{number}"));
                async move { lock.acquire().await }
            });
            self.held.extend(try_join_all(taking).await?);
        }
        Ok("held".to_owned())
    }

    async fn turns(&self, count: usize, key: &str) -> Result<String> {
        let lock = self.locker.lock(key);
        let mut micros = Vec::new();
        for _ in 0..count {
            let start = Instant::now();
            let guard = lock.acquire().await?;
            micros.push(start.elapsed().as_micros().to_string());
            guard.release().await?;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(micros.join(" "))
    }

    async fn spin(&mut self, who: &str, time: Duration, key: &str) -> Result<String> {
        let lock = self.locker.lock(key);
        let start = Instant::now();
        let mut count = 0_u64;
        while start.elapsed() < time {
            if who == "raw" {
                self.raw.wait(key).await?;
                self.raw.unlock(key).await?;
            } else {
                lock.acquire().await?.release().await?;
            }
            count += 1;
        }
        Ok(count.to_string())
    }
}

fn memory() -> Result<String> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next());
    Ok(kib
        .context("the system does not tell the memory")?
        .to_owned())
}
