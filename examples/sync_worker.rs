//! How do threaded workers share jobs without running one twice?
//!
//! ```sh
//! DATABASE_URL=postgres://app@localhost/app cargo run --example sync_worker
//! ```
//!
//! Start several copies: each job is run by whoever comes first, and skipped by those who come meanwhile.

use std::thread;
use std::time::Duration;

/// `None`: somebody else is at it.
#[dlock::db_locked(key = "job/{name}", timeout = 0, on_busy = skip)]
fn work(worker: usize, name: &str) -> Result<Option<()>, dlock::Error> {
    println!("worker {worker}: {name}");
    thread::sleep(Duration::from_millis(300));
    Ok(Some(()))
}

fn main() -> anyhow::Result<()> {
    dlock::init_with(dlock::Config::from_env()?)?;
    let workers: Vec<_> = (0..3)
        .map(|worker| {
            thread::spawn(move || {
                for name in ["thumbnails", "invoices", "reminders"] {
                    if work(worker, name)?.is_none() {
                        println!("worker {worker}: {name} is taken");
                    }
                }
                Ok::<(), dlock::Error>(())
            })
        })
        .collect();
    for worker in workers {
        worker
            .join()
            .map_err(|_| anyhow::anyhow!("a worker panicked"))??;
    }
    dlock::shutdown(Duration::from_secs(5));
    Ok(())
}
