//! Methods that bear the attribute themselves.

use std::pin::Pin;
use std::sync::Arc;

use dlock::{Locker, db_locked};

use crate::support::{Done, Probe, async_everywhere, everywhere, memory};

struct Account {
    id: u32,
    balance: i64,
    probe: Option<Probe>,
}

impl Account {
    fn with(probe: Probe) -> Account {
        Account {
            id: 7,
            balance: 0,
            probe: Some(probe),
        }
    }

    fn note(&self, event: &str) {
        if let Some(probe) = &self.probe {
            probe.note(event);
        }
    }

    #[db_locked(key = "account/{self.id}")]
    fn by_reference(&self) -> Done {
        self.note("body");
        Ok(())
    }

    #[db_locked(key = "account/{self.id}")]
    async fn by_reference_async(&self) -> Done {
        self.note("body");
        Ok(())
    }

    #[db_locked(key = "account/{self.id}")]
    fn reborrows(&mut self, early: bool) -> Done<&mut i64> {
        self.note("body");
        if early {
            return Ok(&mut self.balance);
        }
        self.balance += 1;
        Ok(&mut self.balance)
    }

    #[db_locked(key = "account/{self.id}")]
    async fn reborrows_async(&mut self, by: i64) -> Done<&mut i64> {
        self.note("body");
        self.balance += by;
        Ok(&mut self.balance)
    }

    #[db_locked(key = "account/{self.id}")]
    fn consumes(self) -> Done<u32> {
        self.note("body");
        Ok(self.id)
    }

    #[db_locked(key = "account/{self.id}")]
    async fn consumes_async(mut self, id: u32) -> Done<u32> {
        self.id += id;
        self.note("body");
        Ok(self.id)
    }

    #[db_locked(key = "account/{self.id}")]
    fn boxed(self: Box<Self>) -> Done<u32> {
        self.note("body");
        Ok(self.id)
    }

    #[db_locked(key = "account/{self.id}")]
    async fn shared(self: Arc<Self>) -> Done<u32> {
        self.note("body");
        Ok(self.id)
    }

    #[db_locked(key = "account/{self.id}")]
    async fn pinned(self: Pin<&mut Self>) -> Done<u32> {
        self.note("body");
        Ok(self.id)
    }

    #[db_locked(key = "account/{id}")]
    fn associated(id: u32, probe: Probe) -> Done<Self> {
        probe.note("body");
        Ok(Self {
            id,
            balance: 0,
            probe: None,
        })
    }

    #[db_locked(key = "account/{self}")]
    fn displayed(&self) -> Done {
        self.note("body");
        Ok(())
    }
}

impl std::fmt::Display for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.id.fmt(f)
    }
}

const KEY: &str = "account/7";

/// The receiver that is only borrowed is dropped behind the lock.
const BORROWED: [&str; 2] = ["body, held", "dropped, free"];

#[test]
fn borrowed_receivers() {
    use crate::support::{async_everywhere_in_order, everywhere_in_order};
    everywhere_in_order(KEY, &BORROWED, |probe| {
        Account::with(probe).by_reference().unwrap();
    });
    everywhere_in_order(KEY, &BORROWED, |probe| {
        Account::with(probe).displayed().unwrap();
    });
    async_everywhere_in_order(KEY, &BORROWED, |probe| async {
        Account::with(probe).by_reference_async().await.unwrap();
    });
    everywhere_in_order(KEY, &BORROWED, |probe| {
        let mut account = Account::with(probe);
        *account.reborrows(true).unwrap() += 1;
        account.probe = None;
        *account.reborrows(false).unwrap() += 1;
        assert_eq!(account.balance, 3);
    });
    async_everywhere_in_order(KEY, &BORROWED, |probe| async {
        let mut account = Account::with(probe);
        *account.reborrows_async(2).await.unwrap() += 1;
        assert_eq!(account.balance, 3);
    });
    async_everywhere_in_order(KEY, &BORROWED, |probe| async {
        let mut account = Account::with(probe);
        assert_eq!(Pin::new(&mut account).pinned().await.unwrap(), 7);
    });
}

#[test]
fn owned_receivers() {
    everywhere(KEY, |probe| {
        assert_eq!(Account::with(probe).consumes().unwrap(), 7);
    });
    everywhere(KEY, |probe| {
        assert_eq!(Box::new(Account::with(probe)).boxed().unwrap(), 7);
    });
    everywhere(KEY, |probe| {
        assert_eq!(Account::associated(7, probe).unwrap().id, 7);
    });
    async_everywhere(KEY, |probe| async {
        assert_eq!(Account::with(probe).consumes_async(1).await.unwrap(), 8);
    });
    async_everywhere(KEY, |probe| async {
        assert_eq!(Arc::new(Account::with(probe)).shared().await.unwrap(), 7);
    });
}

trait Job {
    async fn native(&self, probe: Probe) -> Done<u8>;

    fn returned(&self, probe: Probe) -> impl Future<Output = Done<u8>> + Send;

    #[db_locked(key = "default")]
    fn by_default(&self, probe: Probe) -> Done {
        probe.note("body");
        Ok(())
    }
}

impl Job for u8 {
    #[db_locked(key = "native/{self}")]
    async fn native(&self, probe: Probe) -> Done<u8> {
        probe.note("body");
        Ok(*self)
    }

    #[db_locked(key = "native/{self}")]
    async fn returned(&self, probe: Probe) -> Done<u8> {
        probe.note("body");
        Ok(*self)
    }
}

#[test]
fn trait_methods() {
    everywhere("default", |probe| 7_u8.by_default(probe).unwrap());
    async_everywhere("native/7", |probe| async {
        assert_eq!(7_u8.native(probe).await.unwrap(), 7);
    });
    async_everywhere("native/7", |probe| async {
        assert_eq!(7_u8.returned(probe).await.unwrap(), 7);
    });
}

struct Service {
    locker: Locker,
}

impl Service {
    #[db_locked(key = "own", locker = self.locker, timeout = self.patience(), fencing = false, reentrant = true)]
    async fn with_its_own_locker(&self, probe: Probe) -> Done {
        probe.note("body");
        Ok(())
    }

    fn patience(&self) -> Option<std::time::Duration> {
        Some(std::time::Duration::from_secs(1))
    }
}

#[test]
fn a_locker_of_its_own_needs_no_scope() {
    let service = Service { locker: memory() };
    let probe = Probe::new(&service.locker, "own");
    let record = probe.record();
    smol::block_on(service.with_its_own_locker(probe)).unwrap();
    record.assert(&["body, held", "dropped, held"]);
}
