//! What the attribute costs where the lock itself costs nothing: on the memory backend, uncontended.
//!
//! ```sh
//! cargo bench --bench attribute
//! ```
//!
//! Times are medians of interleaved rounds; compare them with the floor of the same run, not with another machine's.
//! Allocations are counted, and exact.

use std::cell::RefCell;
use std::future::Future;
use std::hint::black_box;
use std::io::Write;
use std::pin::pin;
use std::sync::Mutex;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use dlock::{Config, Error, Locker, db_locked};

const ROUNDS: usize = 41;
const CALLS: u32 = 20_000;

/// What one call may cost at most.
const TARGET_NANOSECONDS: f64 = 1000.0;
const TARGET_ALLOCATIONS: f64 = 2.0;

static FLOOR: Mutex<u64> = Mutex::new(0);

fn plain(number: u64) -> Option<u64> {
    black_box(Some(number))
}

fn with_a_mutex(number: u64) -> Option<u64> {
    let mut floor = FLOOR
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    *floor += number;
    black_box(Some(*floor))
}

#[db_locked(key = "bench")]
fn literal(number: u64) -> Result<u64, Error> {
    Ok(black_box(number))
}

#[db_locked(key = "bench/{number}")]
fn captured(number: u64) -> Result<u64, Error> {
    Ok(black_box(number))
}

#[db_locked(key = "bench", timeout = 10)]
async fn literal_async(number: u64) -> Result<u64, Error> {
    Ok(black_box(number))
}

#[db_locked(key = "bench", max_hold = 10)]
fn limited(number: u64) -> Result<u64, Error> {
    Ok(black_box(number))
}

/// Polls once: nothing waits here.
fn ready<F: Future>(future: F) -> Option<F::Output> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

struct Row {
    name: &'static str,
    call: fn(u64) -> bool,
    /// Whether the targets are for this row.
    bound: bool,
    rounds: RefCell<Vec<f64>>,
}

impl Row {
    fn new(name: &'static str, bound: bool, call: fn(u64) -> bool) -> Row {
        Row {
            name,
            call,
            bound,
            rounds: RefCell::default(),
        }
    }

    fn round(&self) {
        let start = Instant::now();
        for number in 0..CALLS {
            assert!(
                (self.call)(black_box(u64::from(number % 16))),
                "{}",
                self.name
            );
        }
        let each: Duration = start.elapsed() / CALLS;
        self.rounds
            .borrow_mut()
            .push(start.elapsed().as_secs_f64() * 1e9 / f64::from(CALLS));
        black_box(each);
    }

    /// Median, and the quarter of the rounds below and above it.
    fn spread(&self) -> (f64, f64, f64) {
        let mut rounds = self.rounds.borrow().clone();
        rounds.sort_by(f64::total_cmp);
        let at = |part: usize| {
            rounds
                .get(rounds.len() * part / 4)
                .copied()
                .unwrap_or(f64::NAN)
        };
        (at(1), at(2), at(3))
    }

    #[allow(clippy::cast_precision_loss, reason = "some thousands")]
    fn allocations(&self) -> f64 {
        let counted = allocation_counter::measure(|| {
            for number in 0..1000 {
                assert!((self.call)(number % 16), "{}", self.name);
            }
        });
        counted.count_total as f64 / 1000.0
    }
}

fn main() -> anyhow::Result<()> {
    // `cargo test --benches` only wants to know that it runs.
    let rounds = if std::env::args().any(|argument| argument == "--bench") {
        ROUNDS
    } else {
        1
    };
    let locker = Locker::connect_blocking(Config::from_dsn("memory:")?)?;
    locker.install_global()?;
    let rows = [
        Row::new("plain call", false, |number| plain(number).is_some()),
        Row::new("std mutex", false, |number| with_a_mutex(number).is_some()),
        Row::new("literal key", true, |number| literal(number).is_ok()),
        Row::new("literal key, async", true, |number| {
            ready(literal_async(number)).is_some_and(|outcome| outcome.is_ok())
        }),
        Row::new("captured key", false, |number| captured(number).is_ok()),
        Row::new("literal key, max_hold", false, |number| {
            limited(number).is_ok()
        }),
    ];
    for _ in 0..rounds {
        rows.iter().for_each(Row::round);
    }
    report(&rows)
}

fn report(rows: &[Row]) -> anyhow::Result<()> {
    let floor = rows.first().map_or(f64::NAN, |row| row.spread().1);
    println!(
        "{:24}{:>10}{:>20}{:>14}{:>8}",
        "", "ns", "quartiles", "allocations", ""
    );
    let mut lines = Vec::new();
    for row in rows {
        let (low, median, high) = row.spread();
        let allocations = row.allocations();
        let over = median - floor;
        let verdict = match row.bound {
            false => "",
            true if over <= TARGET_NANOSECONDS && allocations <= TARGET_ALLOCATIONS => "met",
            true => "missed",
        };
        println!(
            "{:24}{median:>10.0}{low:>12.0}{high:>8.0}{allocations:>14.2}{verdict:>8}",
            row.name
        );
        lines.push(format!(
            "{{\"name\":{:?},\"ns\":{median:.1},\"allocations\":{allocations:.2},\"target\":{verdict:?}}}",
            row.name
        ));
    }
    println!(
        "target: at most {TARGET_NANOSECONDS} ns above the plain call, {TARGET_ALLOCATIONS} allocations"
    );
    let folder = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    std::fs::create_dir_all(&folder)?;
    let path = std::path::Path::new(&folder).join("bench-attribute.json");
    writeln!(std::fs::File::create(path)?, "[{}]", lines.join(","))?;
    Ok(())
}
