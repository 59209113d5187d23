//! One of the processes that take locks: through the public API only, and writing down what they see.
//!
//! A worker runs tasks and threads. Each asks for a random key again and again, in a random way, and takes its choices from the
//! seed of the run. It ends in good order when its standard input does, so it does not outlive the nemesis.

mod bodies;
mod choice;
mod errand;
mod guards;

use std::io::{BufRead, stdin};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use dlock::{Config, Locker};
use rustix::process::{Signal, set_parent_process_death_signal};

use crate::history::{Event, Log, Process};
pub(crate) use choice::key;
use choice::{Choice, Way};
use errand::Errand;

/// How a worker is set.
#[derive(Clone, Debug)]
pub struct Duty {
    /// Which process it is.
    pub process: Process,
    /// The seed of the run.
    pub seed: u64,
    /// How many keys there are.
    pub keys: u16,
    /// Whether the server has shared locks.
    pub shared: bool,
    /// How many async tasks and how many threads ask for locks.
    pub askers: (u64, u64),
}

/// What all tasks of a worker share.
#[derive(Debug)]
struct Shop {
    log: Log,
    locker: Locker,
    next_op: AtomicU64,
    stop: AtomicBool,
    /// Whether a fault is on: some holders then keep their lock until they are told of its loss.
    cling: AtomicBool,
}

/// The order on a worker's input that a fault is about to begin.
pub const CLING: &str = "cling";
/// The order that it is over.
pub const CALM: &str = "calm";

/// How long a body may still run when the worker ends.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs a worker to its end.
///
/// # Errors
///
/// When the server cannot be reached at the start, or the history cannot be written.
pub fn run(directory: &Path, dsn: &str, duty: &Duty) -> Result<()> {
    // A worker that is stopped would otherwise outlive a nemesis that is killed.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let log = Log::open(directory, &format!("worker-{}", duty.process))?;
    let locker = connect(dsn)?;
    locker.install_global()?;
    let shop = Arc::new(Shop {
        log,
        locker: locker.clone(),
        next_op: AtomicU64::new(0),
        stop: AtomicBool::new(false),
        cling: AtomicBool::new(false),
    });
    note_panics(&shop, directory, duty.process);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let rng = |number: u64| {
        let Process { slot, life } = duty.process;
        let own = (slot as u64) << 32 | (life as u64) << 16 | number;
        fastrand::Rng::with_seed(duty.seed ^ own.wrapping_mul(0x9E37_79B9_7F4A_7C15))
    };
    let (tasks, threads) = duty.askers;
    let tasks: Vec<_> = (0..tasks)
        .map(|number| {
            let (shop, choice) = (shop.clone(), Choice::new(rng(number), duty));
            runtime.spawn(async move { ask_in_turn(&shop, choice).await })
        })
        .collect();
    let threads: Vec<_> = (0..threads)
        .map(|number| {
            let (shop, choice) = (shop.clone(), Choice::new(rng(1000 + number), duty));
            thread::spawn(move || ask_blocking_in_turn(&shop, choice))
        })
        .collect();
    obey(&shop);
    shop.log.write(Event::Stopping);
    shop.stop.store(true, Ordering::SeqCst);
    shop.cling.store(false, Ordering::SeqCst);
    let report = dlock::shutdown(PATIENCE);
    runtime.block_on(async {
        for task in tasks {
            let _ = task.await;
        }
    });
    for thread in threads {
        let _ = thread.join();
    }
    drop(runtime);
    drop(locker);
    let shop = Arc::into_inner(shop).context("somebody still asks for locks")?;
    drop(shop.locker);
    shop.log.write(Event::Ended {
        cut: report.cut,
        threads: threads_of_the_library(),
    });
    Ok(())
}

/// The server may be between two faults.
fn connect(dsn: &str) -> Result<Locker> {
    let mut tries = 0;
    loop {
        match Locker::connect_blocking(Config::from_dsn(dsn)?) {
            Err(_) if tries < 40 => {
                tries += 1;
                thread::sleep(Duration::from_millis(250));
            }
            connected => return connected.context("a worker cannot connect"),
        }
    }
}

fn note_panics(shop: &Arc<Shop>, directory: &Path, process: Process) {
    // A log of its own: the shop has to be free at the end.
    let Ok(log) = Log::open(directory, &format!("worker-{process}")) else {
        return;
    };
    let before = std::panic::take_hook();
    let _ = shop;
    std::panic::set_hook(Box::new(move |panic| {
        log.write(Event::Panicked {
            message: panic.to_string(),
        });
        before(panic);
    }));
}

/// Follows the orders on the standard input, until its end.
fn obey(shop: &Shop) {
    for order in stdin().lock().lines() {
        match order.as_deref() {
            Ok(CLING) => shop.cling.store(true, Ordering::SeqCst),
            Ok(CALM) => shop.cling.store(false, Ordering::SeqCst),
            _ => return,
        }
    }
}

async fn ask_in_turn(shop: &Shop, mut choice: Choice) {
    while !shop.stop.load(Ordering::SeqCst) {
        let plan = choice.next(false);
        let errand = Errand::begin(shop, &plan);
        match plan.way {
            Way::Guard => guards::hold(&errand, &plan).await,
            Way::DroppedWait => guards::drop_wait(&errand, &plan).await,
            Way::DroppedGuard => guards::drop_guard(&errand, &plan).await,
            Way::Run => bodies::run(&errand, &plan).await,
            Way::Attribute => bodies::attribute(&errand, &plan).await,
        }
        tokio::time::sleep(plan.rest).await;
    }
}

fn ask_blocking_in_turn(shop: &Shop, mut choice: Choice) {
    while !shop.stop.load(Ordering::SeqCst) {
        let plan = choice.next(true);
        let errand = Errand::begin(shop, &plan);
        match plan.way {
            Way::Run => bodies::run_blocking(&errand, &plan),
            Way::Attribute => bodies::attribute_blocking(&errand, &plan),
            Way::Guard | Way::DroppedWait | Way::DroppedGuard => {
                guards::hold_blocking(&errand, &plan);
            }
        }
        thread::sleep(plan.rest);
    }
}

/// The threads of this process that bear the library's name.
fn threads_of_the_library() -> usize {
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else {
        return 0;
    };
    let names = tasks
        .flatten()
        .filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    names.filter(|name| name.starts_with("dlock")).count()
}
