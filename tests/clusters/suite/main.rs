//! dlock behind poolers, in clusters, and when a standby takes over, on real ones.

mod behind;
mod galera;
mod leases;
mod pooler;
mod releases;
mod takeover;

use std::time::Duration;

use dlock::{Config, Guard, InitError, Locker};

/// How long anything that must happen may take on a busy machine.
const SOON: Duration = Duration::from_secs(30);

/// The configuration of a URL, with heartbeats that notice a loss soon.
fn watchful(url: &str) -> Config {
    let config = Config::from_dsn(url).expect("the server's URL");
    config
        .limit(Duration::from_secs(10))
        .heartbeat(Duration::from_millis(200))
}

/// Why the server at that URL is refused, in words.
fn refusal(url: &str) -> String {
    let refused: Result<Locker, InitError> = Locker::connect_blocking(watchful(url));
    match refused {
        Ok(locker) => panic!("accepted: {:?}", locker.capabilities()),
        Err(error) => error.to_string(),
    }
}

/// Waits until the holder is told that the lock is lost.
fn is_told_lost(guard: Guard) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let told = runtime.block_on(async { tokio::time::timeout(SOON, guard.lost()).await });
    let error = told.expect("the holder is told");
    assert!(error.is_lost(), "{error}");
    assert!(!guard.is_held());
    let released = guard.release_blocking();
    assert!(released.is_err_and(|error| error.is_lost()));
}
