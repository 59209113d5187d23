//! Impl blocks that bear the attribute: every method is locked.

use std::fmt::Debug;

use dlock::db_locked;

use crate::support::{
    Done, Probe, async_everywhere, everywhere, everywhere_in_order, memory, while_busy,
};

#[derive(Default)]
struct Account {
    id: u8,
}

#[db_locked(timeout = 0)]
impl Account {
    const SIZE: usize = 3;

    fn settle(&self, probe: Probe) -> Done<usize> {
        probe.note("body");
        Ok(Self::SIZE)
    }

    async fn close(&mut self, probe: Probe) -> Done<u8> {
        probe.note("body");
        self.id += 1;
        Ok(self.id)
    }

    fn open(probe: Probe) -> Done<Self> {
        probe.note("body");
        Ok(Self::default())
    }

    #[db_locked(skip)]
    fn unlocked(&self, probe: &Probe) -> u8 {
        probe.note("body");
        self.id
    }

    #[db_locked(key = "own/{self.id}", timeout = 0, on_busy = skip)]
    fn with_its_own(&self, probe: Probe) -> Done<Option<u8>> {
        probe.note("body");
        Ok(Some(self.id))
    }
}

struct Other;

#[db_locked]
impl Other {
    fn settle(&self, probe: Probe) -> Done {
        probe.note("body");
        Ok(())
    }
}

#[test]
fn each_method_has_a_key_of_its_own() {
    everywhere("shapes::impl_blocks::Account::settle", |probe| {
        assert_eq!(Account::default().settle(probe).unwrap(), 3);
    });
    everywhere("shapes::impl_blocks::Account::open", |probe| {
        assert_eq!(Account::open(probe).unwrap().id, 0);
    });
    everywhere("shapes::impl_blocks::Other::settle", |probe| {
        Other.settle(probe).unwrap();
    });
    async_everywhere("shapes::impl_blocks::Account::close", |probe| async {
        assert_eq!(Account::default().close(probe).await.unwrap(), 1);
    });
}

#[test]
fn a_method_may_stay_out_or_have_arguments_of_its_own() {
    everywhere_in_order(
        "shapes::impl_blocks::Account::unlocked",
        &["body, free", "dropped, free"],
        |probe| assert_eq!(Account::default().unlocked(&probe), 0),
    );
    everywhere("own/0", |probe| {
        assert_eq!(Account::default().with_its_own(probe).unwrap(), Some(0));
    });
    let locker = memory();
    let skipped = while_busy("own/0", || {
        Account::default().with_its_own(Probe::new(&locker, "own/0"))
    });
    assert_eq!(skipped.unwrap(), None);
    let busy = while_busy("shapes::impl_blocks::Account::settle", || {
        Account::default().settle(Probe::new(&locker, "own/0"))
    });
    assert!(busy.unwrap_err().is_busy());
}

struct Cache<T, const N: usize>([T; N]);

trait Store<K> {
    const NAME: &str;
    type Value: Debug;

    fn get(&self, key: K, probe: Probe) -> Done<Self::Value>;
    async fn put(&mut self, value: K, probe: Probe) -> Done<Self::Value>;
}

#[db_locked]
impl<T: Copy + Debug + From<u8> + Sync + Send, const N: usize> Store<usize> for Cache<T, N> {
    const NAME: &str = "cache";
    type Value = T;

    fn get(&self, key: usize, probe: Probe) -> Done<T> {
        probe.note("body");
        Ok(self.0[key])
    }

    #[allow(clippy::cast_possible_truncation, reason = "small on purpose")]
    async fn put(&mut self, value: usize, probe: Probe) -> Done<T> {
        probe.note("body");
        self.0[0] = T::from(value as u8);
        Ok(self.0[0])
    }
}

#[test]
fn trait_impls_name_the_trait_and_the_type_in_the_key() {
    everywhere(
        "shapes::impl_blocks::<Cache<T,N> as Store<usize>>::get",
        |probe| {
            assert_eq!(Cache([1_u16, 2]).get(1, probe).unwrap(), 2);
            assert_eq!(Cache::<u8, 1>::NAME, "cache");
        },
    );
    async_everywhere(
        "shapes::impl_blocks::<Cache<T,N> as Store<usize>>::put",
        |probe| async {
            assert_eq!(Cache([1_u16]).put(3, probe).await.unwrap(), 3);
        },
    );
}
