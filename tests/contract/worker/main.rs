//! A process of its own, for the contract suite: takes orders by lines on its input, answers by lines on its output.
//!
//! It holds guards by their keys, so that the suite can play several processes: `try KEY`, `acquire KEY MILLISECONDS`
//! (`-`: without limit), `shared KEY MILLISECONDS`, `held KEY`, `release KEY`, `drop KEY`, `count KEY FILE ROUNDS`,
//! `globals KEY`, and with a `min_hold` in milliseconds `body KEY MIN_HOLD`, whose body ends at once, and `stay KEY MIN_HOLD`,
//! whose body stays. The server comes from `DLOCK_DSN`.

mod bodies;
mod count;
mod globals;

use std::collections::HashMap;
use std::io::{BufRead, Write, stdin, stdout};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use dlock::{Config, Error, Guard, Lock, Locker, Timeout};

fn main() -> Result<()> {
    let mut process = Process {
        locker: Locker::connect_blocking(Config::from_env()?)?,
        guards: HashMap::new(),
    };
    say("ready")?;
    for order in stdin().lock().lines() {
        let answer = process.obey(&order?);
        say(&answer.unwrap_or_else(|error| format!("failed: {error:#}")))?;
    }
    Ok(())
}

struct Process {
    locker: Locker,
    guards: HashMap<String, Guard>,
}

impl Process {
    fn obey(&mut self, order: &str) -> Result<String> {
        let words: Vec<&str> = order.split(' ').collect();
        match words[..] {
            ["try", key] => Ok(match self.locker.lock(key).try_acquire_blocking()? {
                Some(guard) => self.keep(guard),
                None => "busy".into(),
            }),
            ["acquire", key, timeout] => {
                let lock = self.locker.lock(key).timeout(read(timeout)?);
                Ok(self.acquire(&lock))
            }
            ["shared", key, timeout] => {
                let lock = self.locker.lock(key).shared().timeout(read(timeout)?);
                Ok(self.acquire(&lock))
            }
            ["held", key] => Ok(self.guard(key)?.is_held().to_string()),
            ["release", key] => Ok(match self.take(key)?.release_blocking() {
                Ok(()) => "released".into(),
                Err(error) => kind(&error).into(),
            }),
            ["drop", key] => {
                drop(self.take(key)?);
                Ok("dropped".into())
            }
            ["count", key, file, rounds] => {
                count::up(&self.locker, key, file.as_ref(), rounds.parse()?)?;
                Ok("counted".into())
            }
            ["body", key, min_hold] => {
                bodies::short(&self.locker, key, read_time(min_hold)?)?;
                Ok("done".into())
            }
            ["stay", key, min_hold] => {
                bodies::stay(&self.locker, key, read_time(min_hold)?)?;
                Ok("running".into())
            }
            ["globals", key] => {
                globals::check(key)?;
                Ok("checked".into())
            }
            _ => bail!("no such order: {order}"),
        }
    }

    fn acquire(&mut self, lock: &Lock) -> String {
        match lock.acquire_blocking() {
            Ok(guard) => self.keep(guard),
            Err(error) => kind(&error).into(),
        }
    }

    fn keep(&mut self, guard: Guard) -> String {
        self.guards.insert(guard.key().to_owned(), guard);
        "held".into()
    }

    fn guard(&self, key: &str) -> Result<&Guard> {
        self.guards.get(key).context("no such guard")
    }

    fn take(&mut self, key: &str) -> Result<Guard> {
        self.guards.remove(key).context("no such guard")
    }
}

fn read(timeout: &str) -> Result<Timeout> {
    if timeout == "-" {
        return Ok(Timeout::NONE);
    }
    Ok(read_time(timeout)?.into())
}

fn read_time(milliseconds: &str) -> Result<Duration> {
    Ok(Duration::from_millis(milliseconds.parse()?))
}

fn kind(error: &Error) -> &'static str {
    match error {
        Error::Busy(_) => "busy",
        Error::Unavailable(_) => "unavailable",
        Error::Lost(_) => "lost",
        Error::ShutDown => "shut down",
        _ => "another error",
    }
}

fn say(answer: &str) -> Result<()> {
    let mut output = stdout().lock();
    writeln!(output, "{answer}")?;
    output.flush()?;
    Ok(())
}
