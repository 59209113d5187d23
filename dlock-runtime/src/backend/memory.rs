//! Locks kept in the memory of this process, for tests of programs that use dlock.
//!
//! `memory:` belongs to one locker; `memory:name` is shared by the lockers of the process that name it, so that a
//! test can play several processes.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::Notify;

use super::{
    Backend, Errand, GivenBack, Grant, Hold, NotKicked, Progress, Taken, Untold, Want, Warrant,
};
use crate::capabilities::Strategy;
use crate::error::{Holder, Unsupported};
use crate::hold::Vitality;
use crate::key::{Key, Mode, ServerKey};
use crate::listing::{LockInfo, Party};
use crate::scheme::KeyScheme;

/// A locker's view of a store.
pub(crate) struct Memory {
    store: Arc<Store>,
    /// In front of every key, with a NUL behind it: neither can contain one. Empty without a namespace.
    prefix: Arc<str>,
    /// One for all holds of this locker: they end together, when the locker is closed.
    vitality: Arc<Vitality>,
}

struct Store {
    /// A key that nobody holds or waits for has no entry.
    locks: Mutex<HashMap<ServerKey, Lock>>,
    changed: Notify,
    /// The last fencing token: one counter for all keys, which is as good as one for each.
    token: AtomicU64,
}

#[derive(Default)]
struct Lock {
    state: State,
    /// When it was taken last.
    since: Option<Instant>,
    /// The lockers that wait, the longest waiting first: nobody is let in before them who would keep them out.
    line: VecDeque<Waiter>,
}

struct Waiter {
    errand: Arc<Errand>,
    /// What the holds of its locker have in common.
    locker: Arc<Vitality>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Free,
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

    fn hold(&self, key: &ServerKey, want: Want) -> Hold {
        let vitality = if want.fenced {
            // Counted by who has the lock already, so in the order of the holds.
            let token = self.store.token.fetch_add(1, Ordering::AcqRel) + 1;
            self.vitality.fenced(token)
        } else {
            self.vitality.clone()
        };
        Hold {
            vitality,
            grant: Box::new(Taking {
                store: self.store.clone(),
                key: key.clone(),
            }),
        }
    }
}

impl Lock {
    /// Takes the lock, if it is free for this mode and nobody waits who came before. An errand that has to wait
    /// joins the line.
    fn take(&mut self, mode: Mode, asking: Option<(&Arc<Errand>, &Arc<Vitality>)>) -> bool {
        let errand = asking.map(|(errand, _)| errand);
        // Looked at under the store's mutex: whoever saw an errand called off and frees the lock then can take it.
        self.line.retain(|waiting| !waiting.errand.is_called_off());
        if errand.is_some_and(|errand| errand.is_called_off()) {
            return false;
        }
        let is_me =
            |waiting: &Waiter| errand.is_some_and(|errand| Arc::ptr_eq(&waiting.errand, errand));
        let ahead = self.line.iter().take_while(|waiting| !is_me(waiting));
        let first = match mode {
            Mode::Exclusive => ahead.count() == 0,
            Mode::Shared => ahead
                .into_iter()
                .all(|waiting| waiting.errand.want.mode == Mode::Shared),
        };
        let next = match (self.state, mode) {
            (State::Free, Mode::Exclusive) => Some(State::Exclusive),
            (State::Free, Mode::Shared) => Some(State::Shared(1)),
            (State::Shared(holders), Mode::Shared) => Some(State::Shared(holders + 1)),
            (State::Exclusive, _) | (State::Shared(_), Mode::Exclusive) => None,
        };
        match (next.filter(|_| first), asking) {
            (Some(next), _) => {
                self.line.retain(|waiting| !is_me(waiting));
                if self.state == State::Free {
                    self.since = Some(Instant::now());
                }
                self.state = next;
                true
            }
            (None, Some((errand, locker))) => {
                if !self.line.iter().any(is_me) {
                    self.line.push_back(Waiter {
                        errand: errand.clone(),
                        locker: locker.clone(),
                    });
                }
                false
            }
            (None, None) => false,
        }
    }

    fn give_back(&mut self) {
        self.state = match self.state {
            State::Shared(holders) if holders > 1 => State::Shared(holders - 1),
            _ => State::Free,
        };
    }

    /// What is told of the lock. All who hold it or wait for it are of this process.
    fn info(&self, key: &ServerKey, text: &str) -> LockInfo {
        let here = |mode| {
            let who = Holder {
                this_process: true,
                ..Holder::default()
            };
            Party::new(who, mode)
        };
        let mut info = LockInfo::new(Strategy::Memory, key.clone());
        info.key = Some(text.into());
        info.holders = match self.state {
            State::Free => Vec::new(),
            State::Exclusive => vec![here(Mode::Exclusive)],
            State::Shared(holders) => vec![here(Mode::Shared); holders],
        };
        let waiting = self
            .line
            .iter()
            .filter(|waiter| !waiter.errand.is_called_off());
        info.waiters = waiting
            .map(|waiter| here(waiter.errand.want.mode))
            .collect();
        info.complete()
    }

    fn is_idle(&self) -> bool {
        self.state == State::Free && self.line.is_empty()
    }
}

impl Store {
    fn new() -> Arc<Store> {
        Arc::new(Store {
            locks: Mutex::default(),
            changed: Notify::new(),
            token: AtomicU64::new(0),
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

    /// Changes one lock.
    fn with<R>(&self, key: &ServerKey, change: impl FnOnce(&mut Lock) -> R) -> R {
        let mut locks = self.locks();
        // Only a new entry needs a key of its own.
        let Some(lock) = locks.get_mut(key) else {
            let mut lock = Lock::default();
            let result = change(&mut lock);
            if !lock.is_idle() {
                locks.insert(key.clone(), lock);
            }
            return result;
        };
        let result = change(lock);
        if lock.is_idle() {
            locks.remove(key);
        }
        result
    }

    fn locks(&self) -> MutexGuard<'_, HashMap<ServerKey, Lock>> {
        self.locks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Backend for Memory {
    fn server_key(&self, key: &Key) -> ServerKey {
        if self.prefix.is_empty() {
            return ServerKey::Name(key.text().clone());
        }
        ServerKey::Name(format!("{}{}", self.prefix, key.text()).into())
    }

    /// Nobody shares this memory who would use another library: a key is what it reads as, whatever the scheme.
    fn foreign_key(&self, key: &Key, _: &KeyScheme) -> Result<ServerKey, &'static str> {
        Ok(self.server_key(key))
    }

    fn shared_mode(&self) -> Result<(), Unsupported> {
        Ok(())
    }

    fn is_local(&self) -> bool {
        true
    }

    fn take_now(&self, key: &ServerKey, want: Want) -> Option<Hold> {
        let taken = self.store.with(key, |lock| lock.take(want.mode, None));
        taken.then(|| self.hold(key, want))
    }

    fn take(self: Arc<Self>, errand: Arc<Errand>) -> BoxFuture<'static, Taken> {
        async move {
            let key = &errand.key;
            loop {
                let mut changed = std::pin::pin!(self.store.changed.notified());
                changed.as_mut().enable();
                let take =
                    |lock: &mut Lock| lock.take(errand.want.mode, Some((&errand, &self.vitality)));
                if self.store.with(key, take) {
                    return Taken::Held(self.hold(key, errand.want));
                }
                errand.report(Progress::Busy);
                tokio::select! {
                    () = changed => {}
                    () = errand.called_off() => {
                        // Those behind may be let in now.
                        self.store.with(key, |lock| {
                            lock.line.retain(|waiting| !waiting.errand.is_called_off());
                        });
                        self.store.changed.notify_waiters();
                        return Taken::CalledOff;
                    }
                }
            }
        }
        .boxed()
    }

    fn admits_reader<'a>(&'a self, key: &'a ServerKey) -> BoxFuture<'a, bool> {
        let admits = self.store.with(key, |lock| {
            lock.line.iter().all(|waiting| {
                waiting.errand.want.mode == Mode::Shared || waiting.errand.is_called_off()
            })
        });
        std::future::ready(admits).boxed()
    }

    fn holder<'a>(&'a self, key: &'a ServerKey) -> BoxFuture<'a, Result<Option<Holder>, Untold>> {
        let is_other = |waiting: &&Waiter| {
            !waiting.errand.is_called_off() && !Arc::ptr_eq(&waiting.locker, &self.vitality)
        };
        let holder = self.store.with(key, |lock| {
            (lock.state != State::Free).then(|| Holder {
                this_process: true,
                held_for: lock.since.map(|since| since.elapsed()),
                waiting: u64::try_from(lock.line.iter().filter(is_other).count()).ok(),
                ..Holder::default()
            })
        });
        std::future::ready(Ok(holder)).boxed()
    }

    fn list<'a>(
        &'a self,
        only: Option<&'a ServerKey>,
    ) -> BoxFuture<'a, Result<Vec<LockInfo>, Untold>> {
        let locks = self.store.locks();
        let mine = locks.iter().filter_map(|(key, lock)| {
            let ServerKey::Name(name) = key else {
                return None;
            };
            let text = name.strip_prefix(&*self.prefix)?;
            // What is in another namespace has a NUL in it.
            let is_mine = !text.contains('\0') && only.is_none_or(|only| only == key);
            is_mine.then(|| lock.info(key, text))
        });
        let infos = mine.filter(|info| !info.holders.is_empty() || !info.waiters.is_empty());
        let infos = infos.collect();
        std::future::ready(Ok(infos)).boxed()
    }

    /// Whoever holds a lock in memory is of this process.
    fn kick<'a>(
        &'a self,
        key: &'a ServerKey,
        _: bool,
        _: Arc<Warrant>,
    ) -> BoxFuture<'a, Result<Vec<Party>, NotKicked>> {
        let held = self.store.with(key, |lock| lock.state != State::Free);
        let answer = if held {
            Err(NotKicked::Own)
        } else {
            Ok(Vec::new())
        };
        std::future::ready(answer).boxed()
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
        self.store.with(&self.key, Lock::give_back);
        self.store.changed.notify_waiters();
    }
}
