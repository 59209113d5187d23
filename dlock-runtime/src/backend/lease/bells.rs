//! Who is woken when a lock becomes free.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// One bell for each name that this locker waits for.
#[derive(Clone, Default)]
pub(crate) struct Bells {
    hung: Arc<Mutex<HashMap<Arc<str>, Arc<Notify>>>>,
}

/// A bell, taken down when it is dropped.
pub(super) struct Bell {
    bells: Bells,
    name: Arc<str>,
    rung: Arc<Notify>,
}

impl Bells {
    /// Hangs up a bell. At most one errand for a name is under way in a locker.
    pub(super) fn hang(&self, name: &Arc<str>) -> Bell {
        let rung = Arc::new(Notify::new());
        self.lock().insert(name.clone(), rung.clone());
        Bell {
            bells: self.clone(),
            name: name.clone(),
            rung,
        }
    }

    /// Somebody says that the lock has become free. Keeps until the bell is heard.
    pub(crate) fn ring(&self, name: &str) {
        if let Some(rung) = self.lock().get(name) {
            rung.notify_one();
        }
    }

    /// What was said meanwhile is unknown: everybody looks.
    pub(crate) fn ring_all(&self) {
        self.lock().values().for_each(|rung| rung.notify_one());
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Arc<Notify>>> {
        self.hung.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Bell {
    pub(super) async fn rung(&self) {
        self.rung.notified().await;
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        let mut hung = self.bells.lock();
        if hung
            .get(&self.name)
            .is_some_and(|rung| Arc::ptr_eq(rung, &self.rung))
        {
            hung.remove(&self.name);
        }
    }
}
