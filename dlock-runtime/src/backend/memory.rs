//! Locks kept in the memory of this process, for tests of programs that use dlock.
//!
//! `memory:` belongs to one locker; `memory:name` is shared by the lockers of the process that name it, so that a
//! test can play several processes.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::Notify;

use super::{Backend, Errand, GivenBack, Grant, Hold, Progress, Taken, Trouble};
use crate::error::{Holder, Unsupported};
use crate::hold::Vitality;
use crate::key::{Key, Mode, ServerKey};

/// A locker's view of a store.
pub(crate) struct Memory {
    store: Arc<Store>,
    /// In front of every key, with a NUL behind it: neither can contain one. Empty without a namespace.
    prefix: Arc<str>,
    /// One for all holds of this locker: they end together, when the locker is closed.
    vitality: Arc<Vitality>,
}

struct Store {
    held: Mutex<HashMap<ServerKey, Held>>,
    freed: Notify,
}

#[derive(Clone, Copy)]
enum Held {
    Exclusive,
    Shared(usize),
}

static NAMED: Mutex<Vec<(Arc<str>, Weak<Store>)>> = Mutex::new(Vec::new());

impl Memory {
    /// The store of that name, or one of its own.
    pub(crate) fn open(name: Option<&Arc<str>>, namespace: &str) -> Memory {
        Memory {
            store: name.map_or_else(Store::new, Store::named),
            prefix: if namespace.is_empty() {
                namespace.into()
            } else {
                format!("{namespace}\0").into()
            },
            vitality: Vitality::new(None),
        }
    }

    fn take_if(&self, key: &ServerKey, mode: Mode, wanted: impl FnOnce() -> bool) -> Option<Hold> {
        self.store.take(key, mode, wanted).then(|| Hold {
            vitality: self.vitality.clone(),
            grant: Box::new(Taking {
                store: self.store.clone(),
                key: key.clone(),
            }),
        })
    }
}

impl Store {
    fn new() -> Arc<Store> {
        Arc::new(Store {
            held: Mutex::default(),
            freed: Notify::new(),
        })
    }

    fn named(name: &Arc<str>) -> Arc<Store> {
        let mut named = NAMED.lock().unwrap_or_else(PoisonError::into_inner);
        named.retain(|(_, store)| store.strong_count() > 0);
        let known = named
            .iter()
            .find(|(other, _)| other == name)
            .and_then(|(_, store)| store.upgrade());
        known.unwrap_or_else(|| {
            let store = Store::new();
            named.push((name.clone(), Arc::downgrade(&store)));
            store
        })
    }

    fn held(&self) -> MutexGuard<'_, HashMap<ServerKey, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, key: &ServerKey, mode: Mode, wanted: impl FnOnce() -> bool) -> bool {
        let mut held = self.held();
        if !wanted() {
            return false;
        }
        match (held.entry(key.clone()), mode) {
            (Entry::Vacant(free), Mode::Exclusive) => {
                free.insert(Held::Exclusive);
                true
            }
            (Entry::Vacant(free), Mode::Shared) => {
                free.insert(Held::Shared(1));
                true
            }
            (Entry::Occupied(mut taken), Mode::Shared) => match taken.get_mut() {
                Held::Shared(holders) => {
                    *holders += 1;
                    true
                }
                Held::Exclusive => false,
            },
            (Entry::Occupied(_), Mode::Exclusive) => false,
        }
    }

    fn give_back(&self, key: &ServerKey) {
        {
            let mut held = self.held();
            match held.get_mut(key) {
                Some(Held::Shared(holders)) if *holders > 1 => *holders -= 1,
                _ => drop(held.remove(key)),
            }
        }
        self.freed.notify_waiters();
    }
}

impl Backend for Memory {
    fn server_key(&self, key: &Key) -> ServerKey {
        if self.prefix.is_empty() {
            return ServerKey::Name(key.text().clone());
        }
        ServerKey::Name(format!("{}{}", self.prefix, key.text()).into())
    }

    fn shared_mode(&self) -> Result<(), Unsupported> {
        Ok(())
    }

    fn take_now(&self, key: &ServerKey, mode: Mode) -> Option<Hold> {
        self.take_if(key, mode, || true)
    }

    fn take(self: Arc<Self>, errand: Arc<Errand>) -> BoxFuture<'static, Taken> {
        async move {
            loop {
                let mut freed = std::pin::pin!(self.store.freed.notified());
                freed.as_mut().enable();
                // Asked under the mutex: whoever saw the errand called off and frees the key then can take it again.
                let wanted = || !errand.is_called_off();
                if let Some(hold) = self.take_if(&errand.key, errand.mode, wanted) {
                    return Taken::Held(hold);
                }
                errand.report(Progress::Busy);
                tokio::select! {
                    () = freed => {}
                    () = errand.called_off() => return Taken::CalledOff,
                }
            }
        }
        .boxed()
    }

    fn holder<'a>(&'a self, _: &'a ServerKey) -> BoxFuture<'a, Result<Option<Holder>, Trouble>> {
        let holder = Holder {
            this_process: true,
            ..Holder::default()
        };
        std::future::ready(Ok(Some(holder))).boxed()
    }

    fn close(&self, reason: &str) {
        self.vitality.lose(reason);
    }
}

/// A lock that is taken in the store.
struct Taking {
    store: Arc<Store>,
    key: ServerKey,
}

impl Grant for Taking {
    fn give_back(self: Box<Self>) -> GivenBack {
        // Dropping it frees the key: a hold that is thrown away is given back too.
        GivenBack::Now(Ok(()))
    }
}

impl Drop for Taking {
    fn drop(&mut self) {
        self.store.give_back(&self.key);
    }
}
