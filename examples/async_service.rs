//! How do the methods of a service behind a trait object take locks, all of them at once?
//!
//! ```sh
//! DATABASE_URL=mysql://app@localhost/app cargo run --example async_service
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;

#[async_trait]
trait Billing: Send + Sync {
    async fn charge(&self, account: u64, cents: u64) -> anyhow::Result<u64>;
    async fn close_the_day(&self) -> anyhow::Result<Option<u64>>;
    fn name(&self) -> &str;
}

struct Ledger {
    name: String,
    total: AtomicU64,
}

/// Every method is locked, under a key of its own.
#[dlock::db_locked(timeout = 10)]
#[async_trait]
impl Billing for Ledger {
    /// One account at a time, in place of one call at a time.
    #[db_locked(key = "charge/{account}", timeout = 10)]
    async fn charge(&self, account: u64, cents: u64) -> anyhow::Result<u64> {
        println!("charging {cents} cents to account {account}");
        tokio::time::sleep(Duration::from_millis(100)).await;
        Ok(self.total.fetch_add(cents, Ordering::Relaxed) + cents)
    }

    /// Somebody else closing it is as good.
    #[db_locked(key = "close-the-day", timeout = 0, on_busy = skip)]
    async fn close_the_day(&self) -> anyhow::Result<Option<u64>> {
        tokio::time::sleep(Duration::from_millis(100)).await;
        Ok(Some(self.total.swap(0, Ordering::Relaxed)))
    }

    #[db_locked(skip)]
    fn name(&self) -> &str {
        &self.name
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    dlock::init_with(dlock::Config::from_env()?)?;
    let billing: Arc<dyn Billing> = Arc::new(Ledger {
        name: "ledger".to_owned(),
        total: AtomicU64::new(0),
    });
    let charges: Vec<_> = (0..4)
        .map(|call| {
            let billing = billing.clone();
            tokio::spawn(async move { billing.charge(call % 2, 5).await })
        })
        .collect();
    for charge in charges {
        charge.await??;
    }
    let (first, second) = tokio::join!(billing.close_the_day(), billing.close_the_day());
    println!("{}: {:?} and {:?}", billing.name(), first?, second?);
    dlock::shutdown(Duration::from_secs(5));
    Ok(())
}
