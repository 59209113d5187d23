//! What a body runs under.
//!
//! A frame stands for one locked body. It is known to the code that the body calls, and to nothing else: frames lie
//! on a stack of the thread, and are there only while the body itself is called or polled. A task that the body
//! spawns is polled elsewhere and finds none. On a runtime that a body drives on its own thread the frame would be
//! seen by every task of it; so a frame counts only in the tokio task that it was entered in.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use smallvec::SmallVec;
use tokio::task::{self, Id};

use super::Vitality;
use crate::error::{Error, HoldExceeded, Lost};
use crate::key::{KeyText, Mode, ServerKey};

/// A body and its locks.
pub(crate) struct Frame {
    pub(crate) id: u64,
    /// Whose locks: the address of the locker's queue, which outlives every body under it.
    pub(crate) queue: usize,
    pub(crate) mode: Mode,
    pub(crate) locks: SmallVec<[Locked; 1]>,
    /// The end of `max_hold`, where there is one.
    pub(crate) limit: Option<Limit>,
    /// The body that this one is called by, under whatever key.
    pub(crate) caller: Option<Arc<Frame>>,
    /// The body has ended: what still runs under it does so without a lock.
    over: AtomicBool,
    /// The body was polled outside its caller, beside which it runs from then on.
    apart: AtomicBool,
    /// The ends of `max_hold` of the bodies whose holds this one runs under.
    outer_limits: Vec<Arc<Vitality>>,
    /// Until when nested bodies asked for the locks to be kept.
    keep_until: Mutex<Option<Instant>>,
}

/// One lock of a body.
pub(crate) struct Locked {
    pub(crate) key: KeyText,
    /// The name on the server, also where the body runs under another's hold.
    pub(crate) name: ServerKey,
    pub(crate) vitality: Arc<Vitality>,
    /// The body whose hold this is, where it is not this one's own.
    pub(crate) under: Option<Arc<Frame>>,
}

/// The shortest time for which one of the locks can be vouched for without another confirmation; `None`: all without limit.
pub(crate) fn shortest<'a>(locks: impl IntoIterator<Item = &'a Locked>) -> Option<Duration> {
    let times = locks
        .into_iter()
        .filter_map(|locked| match locked.vitality.lost() {
            None => locked.vitality.vouched_for(),
            Some(_) => Some(Duration::ZERO),
        });
    times.min()
}

/// The longest time that a body may hold its locks.
pub(crate) struct Limit {
    pub(crate) max_hold: Duration,
    pub(crate) vitality: Arc<Vitality>,
}

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// A number that no other body of this process has.
pub(crate) fn next_id() -> u64 {
    NEXT_ID.fetch_add(1, Ordering::Relaxed)
}

impl Frame {
    pub(crate) fn new(
        id: u64,
        queue: usize,
        mode: Mode,
        locks: SmallVec<[Locked; 1]>,
        limit: Option<Limit>,
        caller: Option<Arc<Frame>>,
    ) -> Arc<Frame> {
        let mut outer_limits = Vec::new();
        for under in locks.iter().filter_map(|locked| locked.under.as_ref()) {
            outer_limits.extend(under.limits().cloned());
        }
        Arc::new(Frame {
            id,
            queue,
            mode,
            locks,
            limit,
            caller,
            over: AtomicBool::new(false),
            apart: AtomicBool::new(false),
            outer_limits,
            keep_until: Mutex::new(None),
        })
    }

    /// The first key of the body, as it was asked for.
    pub(crate) fn key(&self) -> &str {
        self.locks.first().map_or("", |locked| &locked.key)
    }

    /// Whether the body may go on.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.over.load(Ordering::Acquire) {
            return Err(lost(
                self.key(),
                "the body has ended, and its lock was released",
            ));
        }
        if let Some(limit) = &self.limit
            && !limit.vitality.stands()
        {
            return Err(Error::HoldExceeded(Arc::new(HoldExceeded {
                key: self.key().into(),
                max_hold: limit.max_hold,
            })));
        }
        for locked in &self.locks {
            if let Some(reason) = locked.vitality.lost() {
                return Err(lost(&locked.key, &reason));
            }
            if let Some(under) = &locked.under {
                if self.is_apart() {
                    return Err(lost(
                        &locked.key,
                        "the body was moved out of the one under whose lock it runs",
                    ));
                }
                under.check()?;
            }
        }
        Ok(())
    }

    /// The body has ended. Whoever still runs under it is told.
    pub(crate) fn end(self: &Arc<Self>) {
        self.over.store(true, Ordering::Release);
        if Arc::strong_count(self) > 1 {
            for locked in &self.locks {
                locked.vitality.ring();
            }
        }
    }

    /// Keeps the server's locks at least until then.
    pub(crate) fn keep_until(&self, until: Instant) {
        let mut keep = self
            .keep_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *keep = Some(keep.map_or(until, |other| other.max(until)));
        drop(keep);
        for under in self.locks.iter().filter_map(|locked| locked.under.as_ref()) {
            under.keep_until(until);
        }
    }

    /// Until when the locks have to be kept, where that is still to come.
    pub(crate) fn kept_until(&self) -> Option<Instant> {
        let keep = *self
            .keep_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        keep.filter(|until| *until > Instant::now())
    }

    /// The frames of the call tree, from this one outwards.
    pub(crate) fn callers(self: &Arc<Self>) -> impl Iterator<Item = &Arc<Frame>> {
        std::iter::successors(Some(self), |frame| {
            frame.caller.as_ref().filter(|_| !frame.is_apart())
        })
    }

    /// Notes where the body is about to be polled. A future can be moved: outside its caller's polls it would run at
    /// the same time, and neither under the caller's lock nor as a part of it.
    pub(crate) fn look_around(&self) {
        let Some(caller) = &self.caller else {
            return;
        };
        let inside = current().is_some_and(|innermost| {
            let mut around = innermost.callers();
            around.any(|frame| Arc::ptr_eq(frame, caller))
        });
        if !inside {
            self.apart.store(true, Ordering::Release);
        }
    }

    fn is_apart(&self) -> bool {
        self.apart.load(Ordering::Acquire)
    }

    /// What ends when a `max_hold` passes, this body's or that of one whose hold it runs under.
    pub(crate) fn limits(&self) -> impl Iterator<Item = &Arc<Vitality>> {
        let own = self.limit.iter().map(|limit| &limit.vitality);
        own.chain(&self.outer_limits)
    }

    /// Where in this body's locks the name stands.
    pub(crate) fn position(&self, queue: usize, name: &ServerKey) -> Option<usize> {
        if self.queue != queue {
            return None;
        }
        self.locks.iter().position(|locked| locked.name == *name)
    }
}

struct Entered {
    frame: Arc<Frame>,
    task: Option<Id>,
}

thread_local! {
    // Without a destructor, so that it is there for those of other thread-locals. It is empty when the thread ends.
    static INNERMOST: RefCell<ManuallyDrop<Option<Entered>>> =
        const { RefCell::new(ManuallyDrop::new(None)) };
}

/// The innermost body that the calling code belongs to.
pub(crate) fn current() -> Option<Arc<Frame>> {
    INNERMOST.with_borrow(|innermost| {
        let entered = innermost.as_ref()?;
        (entered.task == task::try_id()).then(|| entered.frame.clone())
    })
}

/// Calls or polls a body.
pub(crate) fn enter<R>(frame: &Arc<Frame>, body: impl FnOnce() -> R) -> R {
    let _entered = push(frame);
    body()
}

/// The code that follows on this thread is the body, until the returned value is dropped.
pub(crate) fn push(frame: &Arc<Frame>) -> Leave {
    let entered = Entered {
        frame: frame.clone(),
        task: task::try_id(),
    };
    Leave {
        before: replace_innermost(Some(entered)),
        on_this_thread: PhantomData,
    }
}

/// Puts the frame back that was there before, also when the body unwinds.
#[must_use]
pub(crate) struct Leave {
    before: Option<Entered>,
    on_this_thread: PhantomData<*const ()>,
}

impl Drop for Leave {
    fn drop(&mut self) {
        // The frame is dropped outside the borrow.
        drop(replace_innermost(self.before.take()));
    }
}

fn replace_innermost(entered: Option<Entered>) -> Option<Entered> {
    ManuallyDrop::into_inner(INNERMOST.replace(ManuallyDrop::new(entered)))
}

fn lost(key: &str, reason: &str) -> Error {
    Error::Lost(Arc::new(Lost {
        key: key.into(),
        reason: reason.to_owned(),
    }))
}
