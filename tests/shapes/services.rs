//! A service behind a trait object, as applications have them.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use dlock::db_locked;

use crate::support::memory;

#[derive(Debug, thiserror::Error)]
enum BillingError {
    #[error(transparent)]
    Lock(#[from] dlock::Error),
    #[error("account {0} has not enough")]
    TooLittle(u64),
}

#[async_trait]
trait Billing: Send + Sync {
    async fn charge(&self, account: u64, cents: u32) -> Result<u32, BillingError>;
}

struct InMemory {
    balance: Mutex<u32>,
}

impl InMemory {
    fn read(&self) -> u32 {
        *self.balance.lock().unwrap()
    }
}

#[async_trait]
impl Billing for InMemory {
    #[db_locked(key = "billing/{account}", timeout = 30)]
    async fn charge(&self, account: u64, cents: u32) -> Result<u32, BillingError> {
        let balance = self.read();
        // Whoever else could run here would read the same balance.
        tokio::task::yield_now().await;
        let rest = balance
            .checked_sub(cents)
            .ok_or(BillingError::TooLittle(account))?;
        *self.balance.lock().unwrap() = rest;
        Ok(rest)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_charge_is_lost() {
    let service = Arc::new(InMemory {
        balance: Mutex::new(100),
    });
    let locker = memory();
    let tasks: Vec<_> = (0..11)
        .map(|_| {
            let billing: Arc<dyn Billing> = service.clone();
            let locker = locker.clone();
            tokio::spawn(async move { locker.scope(billing.charge(7, 10)).await })
        })
        .collect();
    let mut refused = 0;
    for task in tasks {
        match task.await.unwrap() {
            Ok(_) => {}
            Err(BillingError::TooLittle(7)) => refused += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!((service.read(), refused), (0, 1));
}
