//! What a locker that is observed remembers of its requests and holds.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_channel::oneshot;
use once_cell::sync::OnceCell;

use super::post::{Note, Post, What};
use super::snapshot::{Entry, Snapshot};
use super::status::Status;
use super::{Failure, Observer};
use crate::backend::Backend;
use crate::config::StatusFile;
use crate::error::{Error, InitError};
use crate::hold::Vitality;
use crate::key::{KeyText, Mode};

/// The pause between two reports that one request waits for a server that cannot be asked.
const BETWEEN_OUTAGES: Duration = Duration::from_secs(5);

/// The queue tells it what happens, by the number of the request; it tells the observers. A number that it does not know
/// is a turn under another body's hold, which is nobody's business, or one that has been reported to its end.
///
/// It may be called under the mutex of a queue: handing over an event wakes the thread of the observers at most, and
/// runs nobody's code.
pub(crate) struct Watch {
    post: Post,
    /// Where the configuration names a file.
    status: OnceCell<Status>,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    records: HashMap<u64, Record>,
    /// The addresses of those vitalities whose end somebody waits for.
    guarded: HashSet<usize>,
}

struct Record {
    key: KeyText,
    mode: Mode,
    /// When the stage began.
    since: Instant,
    stage: Stage,
}

enum Stage {
    Waiting {
        /// Whether it was reported that others hold the lock.
        told: bool,
        last_outage: Option<Instant>,
    },
    Held(Arc<Vitality>),
    /// On its way back: the answer to the release decides what is reported.
    Leaving {
        hold: Duration,
        vitality: Arc<Vitality>,
    },
}

impl Watch {
    /// For these observers, on a thread of their own, and for a status file. `None` when there are none.
    pub(crate) async fn start(
        observers: &[Arc<dyn Observer>],
        file: Option<StatusFile>,
        redact: bool,
    ) -> Result<Option<Arc<Watch>>, InitError> {
        if observers.is_empty() && file.is_none() {
            return Ok(None);
        }
        let watch = Arc::new(Watch {
            post: Post::start(observers.to_vec(), redact)?,
            status: OnceCell::new(),
            table: Mutex::default(),
        });
        if let Some(file) = file {
            let status = Status::start(file, Arc::downgrade(&watch), redact).await?;
            let _ = watch.status.set(status);
        }
        Ok(Some(watch))
    }

    /// What there is at this moment.
    pub(super) fn snapshot(&self) -> Snapshot {
        let table = self.table();
        Snapshot::of(table.records.iter().map(|(request, record)| {
            let vitality = match &record.stage {
                Stage::Waiting { .. } => None,
                Stage::Held(vitality) | Stage::Leaving { vitality, .. } => Some(vitality),
            };
            let entry = Entry {
                request: *request,
                key: record.key.clone(),
                mode: record.mode,
                since: record.since,
                token: vitality.and_then(|vitality| vitality.token()),
                remaining: vitality.and_then(|vitality| vitality.vouched_for()),
            };
            (vitality.is_some(), entry)
        }))
    }

    /// The status file is behind.
    fn mark(&self) {
        if let Some(status) = self.status.get() {
            status.mark();
        }
    }

    /// Nothing is held any more. Answered when the status file says so; `None`: there is none.
    pub(crate) fn ends_status(&self) -> Option<oneshot::Receiver<()>> {
        Some(self.status.get()?.end())
    }

    /// From now on the counts have the connections of this backend in them.
    pub(crate) fn count_connections_of(&self, backend: &Arc<dyn Backend>) {
        // There is one queue to a watch: it is set once.
        let _ = self.post.tally.backend.set(Arc::downgrade(backend));
    }

    /// A request asks for a lock that is not to be had on the spot.
    pub(crate) fn asks(&self, id: u64, key: &KeyText, mode: Mode) {
        let mut table = self.table();
        let record = Record {
            key: key.clone(),
            mode,
            since: Instant::now(),
            stage: Stage::Waiting {
                told: false,
                last_outage: None,
            },
        };
        table.records.insert(id, record);
        self.post.tally.waiters.fetch_add(1, Ordering::Relaxed);
        self.mark();
    }

    /// A request waits for others who have the lock. Reported once.
    pub(crate) fn waits(&self, id: u64, local: bool) {
        if let Some(record) = self.table().records.get_mut(&id)
            && let Stage::Waiting { told, .. } = &mut record.stage
            && !std::mem::replace(told, true)
        {
            self.post.send(record.note(id, What::Waits { local }));
        }
    }

    /// A request waits for a server that cannot be asked. Reported from time to time.
    pub(crate) fn has_trouble(&self, id: u64, reason: &str) {
        if let Some(record) = self.table().records.get_mut(&id)
            && let Stage::Waiting { last_outage, .. } = &mut record.stage
            && last_outage.is_none_or(|last| last.elapsed() >= BETWEEN_OUTAGES)
        {
            *last_outage = Some(Instant::now());
            let what = What::Unavailable {
                wait: record.since.elapsed(),
                reason: reason.into(),
            };
            self.post.send(record.note(id, what));
        }
    }

    /// A request ends with an error.
    pub(crate) fn fails(&self, id: u64, error: &Error) {
        self.ends(id, Failure::of(error));
    }

    /// A caller gives up its request.
    pub(crate) fn is_cancelled(&self, id: u64) {
        self.ends(id, Failure::Cancelled);
    }

    fn ends(&self, id: u64, failure: Failure) {
        if let Some(record) = self.table().records.remove(&id) {
            self.post.tally.waiters.fetch_sub(1, Ordering::Relaxed);
            let wait = record.since.elapsed();
            self.post
                .send(record.note(id, What::Failed { wait, failure }));
            self.mark();
        }
    }

    /// A request is granted its lock. `true`: nobody waits yet for the end of what vouches for it.
    #[must_use]
    pub(crate) fn is_granted(&self, id: u64, vitality: &Arc<Vitality>) -> bool {
        let mut table = self.table();
        let Some(record) = table.records.get_mut(&id) else {
            return false;
        };
        let now = Instant::now();
        let wait = now.duration_since(record.since);
        record.since = now;
        record.stage = Stage::Held(vitality.clone());
        self.post.tally.waiters.fetch_sub(1, Ordering::Relaxed);
        self.post.tally.holds.fetch_add(1, Ordering::Relaxed);
        self.post.send(record.note(id, What::Acquired { wait }));
        self.mark();
        table.guarded.insert(vitality.life())
    }

    /// As [`is_granted`](Self::is_granted), for a lock that was to be had on the spot.
    #[must_use]
    pub(crate) fn is_granted_at_once(
        &self,
        id: u64,
        key: &KeyText,
        mode: Mode,
        vitality: &Arc<Vitality>,
    ) -> bool {
        let mut table = self.table();
        let record = Record {
            key: key.clone(),
            mode,
            since: Instant::now(),
            stage: Stage::Held(vitality.clone()),
        };
        let wait = Duration::ZERO;
        self.post.tally.holds.fetch_add(1, Ordering::Relaxed);
        self.post.send(record.note(id, What::Acquired { wait }));
        table.records.insert(id, record);
        self.mark();
        table.guarded.insert(vitality.life())
    }

    /// A holder lets go. How that went comes with [`has_left`](Self::has_left).
    pub(crate) fn leaves(&self, id: u64) {
        if let Some(record) = self.table().records.get_mut(&id)
            && let Stage::Held(vitality) = &record.stage
        {
            record.stage = Stage::Leaving {
                hold: record.since.elapsed(),
                vitality: vitality.clone(),
            };
        }
    }

    /// A lock is given back; the error says why it was not held any more.
    pub(crate) fn has_left(&self, id: u64, result: &Result<(), Arc<str>>) {
        let mut table = self.table();
        let Some(record) = table.records.remove(&id) else {
            return;
        };
        let hold = record.hold();
        self.post.tally.holds.fetch_sub(1, Ordering::Relaxed);
        let what = match result {
            Ok(()) => What::Released { hold },
            Err(reason) => What::Lost {
                hold,
                reason: reason.clone(),
            },
        };
        self.post.send(record.note(id, what));
        self.mark();
    }

    /// A session has ended: every hold that it vouched for is lost, but those on their way back.
    pub(crate) fn is_lost(&self, vitality: &Arc<Vitality>, reason: &Arc<str>) {
        let mut table = self.table();
        table.guarded.remove(&vitality.life());
        let is_lost = |_: &u64, record: &mut Record| matches!(&record.stage, Stage::Held(of) if of.life() == vitality.life());
        for (id, record) in table.records.extract_if(is_lost) {
            self.post.tally.holds.fetch_sub(1, Ordering::Relaxed);
            let what = What::Lost {
                hold: record.hold(),
                reason: reason.clone(),
            };
            self.post.send(record.note(id, what));
        }
        self.mark();
    }

    /// Every session was ended: reports what is lost now, without waiting for those who guard it.
    pub(crate) fn is_cut(&self) {
        let held = |record: &Record| match &record.stage {
            Stage::Held(vitality) => Some(vitality.clone()),
            Stage::Waiting { .. } | Stage::Leaving { .. } => None,
        };
        // Looking at a vitality may wake those who wait for its end: not under the mutex.
        let held: Vec<_> = self.table().records.values().filter_map(held).collect();
        for vitality in held {
            if let Some(reason) = vitality.lost() {
                self.is_lost(&vitality, &reason);
            }
        }
    }

    /// Answered when the observers know all that has happened so far. `None`: they are far behind.
    pub(crate) fn told(&self) -> Option<oneshot::Receiver<()>> {
        self.post.receipt()
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Record {
    fn hold(&self) -> Duration {
        match self.stage {
            Stage::Leaving { hold, .. } => hold,
            Stage::Held(_) | Stage::Waiting { .. } => self.since.elapsed(),
        }
    }

    fn note(&self, request: u64, what: What) -> Note {
        Note {
            request,
            key: self.key.clone(),
            mode: self.mode,
            what,
        }
    }
}
