//! How does an async handler serialise the work on one account, and leave the others alone?
//!
//! ```sh
//! DATABASE_URL=mysql://app@localhost/app cargo run --example async_handler
//! ```

use std::time::{Duration, Instant};

use tokio::time::sleep;

struct Account {
    id: u64,
}

#[dlock::db_locked(key = "settle/{account.id}", timeout = 10)]
async fn settle(account: &Account, request: usize) -> anyhow::Result<Duration> {
    let start = Instant::now();
    println!("request {request}: settling account {}", account.id);
    sleep(Duration::from_millis(200)).await;
    println!("request {request}: done with account {}", account.id);
    Ok(start.elapsed())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    dlock::init_with(dlock::Config::from_env()?)?;

    // Requests 0 and 2 are for one account, 1 and 3 for the other: two at a time.
    let requests: Vec<_> = (0..4)
        .map(|request| {
            let id = request as u64 % 2;
            tokio::spawn(async move { settle(&Account { id }, request).await })
        })
        .collect();
    for request in requests {
        request.await??;
    }

    dlock::shutdown(Duration::from_secs(5));
    Ok(())
}
