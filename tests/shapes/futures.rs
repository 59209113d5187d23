//! Functions that return a future without being `async`, and async-trait: the lock goes into the future.

#![allow(
    clippy::manual_async_fn,
    clippy::needless_return,
    reason = "the forms are the point"
)]

use std::pin::Pin;

use async_trait::async_trait;
use dlock::db_locked;

use crate::support::{Done, Probe, async_everywhere, memory};

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

#[db_locked(key = "future/{id}")]
fn returns_impl(id: u8, probe: Probe) -> impl Future<Output = Done<u8>> + Send {
    async move {
        probe.note("body");
        Ok(id)
    }
}

#[db_locked(key = "future/{id}", on_error = panic)]
fn returns_boxed(id: &str, probe: Probe) -> BoxFuture<'_, &str> {
    Box::pin(async move {
        probe.note("body");
        id
    })
}

#[db_locked(key = "future/{id}")]
fn returns_pin(id: u8, probe: Probe) -> Pin<Box<dyn Future<Output = Done<u8>> + Send>> {
    return Box::pin(async move {
        probe.note("body");
        Err(dlock::Error::NotInitialized)?;
        Ok(id)
    });
}

#[test]
fn the_future_is_locked_and_not_its_making() {
    async_everywhere("future/7", |probe| async {
        assert_eq!(returns_impl(7, probe).await.unwrap(), 7);
    });
    async_everywhere("future/7", |probe| async {
        assert_eq!(returns_boxed("7", probe).await, "7");
    });
    async_everywhere("future/7", |probe| async {
        assert!(returns_pin(7, probe).await.is_err());
    });
    let probe = Probe::new(&memory(), "future/7");
    let record = probe.record();
    drop(returns_impl(7, probe));
    record.assert(&["dropped, free"]);
}

struct Service {
    id: u8,
}

#[async_trait]
trait Job: Send + Sync {
    async fn run(&self, pair: (u8, u8), name: String, probe: Probe) -> Done<String>;
    async fn count(self: Box<Self>, by: &u8, probe: Probe) -> Done<u8>;
    async fn late(&mut self, probe: Probe) -> Done;

    #[db_locked(key = "default/{name}")]
    async fn by_default(&self, name: &str, probe: Probe) -> Done {
        probe.note("body");
        Ok(())
    }
}

#[async_trait]
impl Job for Service {
    #[db_locked(key = "{self.id}/{a}/{b}/{name}")]
    async fn run(&self, (a, b): (u8, u8), name: String, probe: Probe) -> Done<String> {
        probe.note("body");
        if a > b {
            return Err(dlock::Error::NotInitialized);
        }
        Ok(name)
    }

    #[db_locked(key = format!("{}+{by}", self.id))]
    async fn count(mut self: Box<Self>, by: &u8, probe: Probe) -> Done<u8> {
        probe.note("body");
        self.id += by;
        Ok(self.id)
    }

    #[db_locked(key = "late")]
    async fn late(&mut self, probe: Probe) -> Done {
        probe.note("body");
        Ok(())
    }
}

#[test]
fn async_trait_methods_are_locked_inside_their_box() {
    async_everywhere("7/1/2/n", |probe| async {
        let job: &dyn Job = &Service { id: 7 };
        assert_eq!(job.run((1, 2), "n".to_owned(), probe).await.unwrap(), "n");
    });
    async_everywhere("7/2/1/", |probe| async {
        assert!(
            Service { id: 7 }
                .run((2, 1), String::new(), probe)
                .await
                .is_err()
        );
    });
    async_everywhere("7+2", |probe| async {
        assert_eq!(
            Box::new(Service { id: 7 }).count(&2, probe).await.unwrap(),
            9
        );
    });
    async_everywhere("late", |probe| async {
        Service { id: 7 }.late(probe).await.unwrap();
    });
    async_everywhere("default/d", |probe| async {
        Service { id: 7 }.by_default("d", probe).await.unwrap();
    });
}

#[async_trait]
trait Task: Send + Sync {
    async fn above(&self, probe: Probe) -> Done<u8>;
    async fn displayed(&self, probe: Probe) -> Done<u8>;
}

struct Above(u8);

#[db_locked(on_lost = cancel)]
#[async_trait]
impl Task for Above {
    async fn above(&self, probe: Probe) -> Done<u8> {
        probe.note("body");
        Ok(self.0)
    }

    #[db_locked(key = "displayed/{self}")]
    async fn displayed(&self, probe: Probe) -> Done<u8> {
        probe.note("body");
        Ok(self.0)
    }
}

impl std::fmt::Display for Above {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

struct Below(u8);

#[async_trait]
#[db_locked]
impl Task for Below {
    async fn above(&self, probe: Probe) -> Done<u8> {
        probe.note("body");
        Ok(self.0)
    }

    #[db_locked(key = "displayed/{self.0}")]
    async fn displayed(&self, probe: Probe) -> Done<u8> {
        probe.note("body");
        Ok(self.0)
    }
}

#[test]
fn whole_impl_blocks_of_async_trait() {
    async_everywhere("shapes::futures::<Above as Task>::above", |probe| async {
        assert_eq!(Above(1).above(probe).await.unwrap(), 1);
    });
    async_everywhere("displayed/1", |probe| async {
        assert_eq!(Above(1).displayed(probe).await.unwrap(), 1);
    });
    async_everywhere("shapes::futures::<Below as Task>::above", |probe| async {
        assert_eq!(Below(1).above(probe).await.unwrap(), 1);
    });
    async_everywhere("displayed/1", |probe| async {
        assert_eq!(Below(1).displayed(probe).await.unwrap(), 1);
    });
}
