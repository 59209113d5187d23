//! Bodies that keep their lock for a `min_hold`.

use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use dlock::{Error, Locker, db_locked};

#[db_locked(key = "{key}", timeout = 0, min_hold = min_hold, locker = locker)]
pub(crate) fn short(locker: &Locker, key: &str, min_hold: Duration) -> Result<(), Error> {
    Ok(())
}

#[db_locked(key = "{key}", timeout = 0, min_hold = min_hold, locker = locker)]
fn staying(
    locker: &Locker,
    key: &str,
    min_hold: Duration,
    begun: &Sender<()>,
) -> Result<(), Error> {
    let _ = begun.send(());
    loop {
        thread::park();
    }
}

/// Begins a body that never ends, on a thread of its own, and returns when it runs.
pub(crate) fn stay(locker: &Locker, key: &str, min_hold: Duration) -> Result<()> {
    let (begun, told) = channel();
    let (locker, key) = (locker.clone(), key.to_owned());
    thread::spawn(move || {
        let ended = staying(&locker, &key, min_hold, &begun);
        eprintln!("the body ended: {ended:?}");
    });
    told.recv().context("the body did not begin")
}
