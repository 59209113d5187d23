//! The time in which a body has its locks: from the grant to the release.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use smallvec::SmallVec;
use tokio::task::AbortHandle;

use crate::clock::Moment;
use crate::error::Error;
use crate::guard::{leave_all, of_release};
use crate::hold::Vitality;
use crate::hold::frame::{Frame, Limit, Locked};
use crate::key::Mode;
use crate::queue::{Leaving, Place, Queue};
use crate::taking::Held;

/// What is agreed for a body beside its locks.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Terms {
    /// The locks are kept at least this long, also after a shorter body.
    pub(crate) min_hold: Option<Duration>,
    /// The body has its locks at most this long.
    pub(crate) max_hold: Option<Duration>,
    /// An async body goes on when its lock is lost.
    pub(crate) finish: bool,
}

/// A body's locks, as long as it has them. Dropping it gives them back without waiting.
pub(crate) struct Tenure {
    frame: Arc<Frame>,
    queue: Arc<Queue>,
    places: Places,
    timer: Option<AbortHandle>,
}

type PlaceList = SmallVec<[Place; 1]>;

enum Places {
    Own(PlaceList),
    /// `max_hold` takes them from a body that cannot be stopped.
    Limited(Arc<Mutex<PlaceList>>),
}

impl Tenure {
    /// Begins with locks that were just granted. `stoppable`: the body can be dropped when its time is over.
    pub(crate) fn begin(
        id: u64,
        mode: Mode,
        queue: Arc<Queue>,
        caller: Option<Arc<Frame>>,
        held: SmallVec<[Held; 1]>,
        terms: Terms,
        stoppable: bool,
    ) -> Tenure {
        let mut locks = SmallVec::<[Locked; 1]>::new();
        let mut places = PlaceList::new();
        for Held { locked, place } in held {
            locks.push(locked);
            places.push(place);
        }
        let limit = terms.max_hold.map(|max_hold| Limit {
            max_hold,
            vitality: Vitality::new(Some(Moment::now().plus(max_hold))),
        });
        let address = Arc::as_ptr(&queue).addr();
        let frame = Frame::new(id, address, mode, locks, limit, caller);
        if let Some(min_hold) = terms.min_hold
            && !kept_by_leases(&frame, min_hold)
            && let Some(until) = Instant::now().checked_add(min_hold)
        {
            frame.keep_until(until);
        }
        let mut tenure = Tenure {
            frame,
            queue,
            places: Places::Own(places),
            timer: None,
        };
        tenure.set_timer(stoppable);
        tenure
    }

    pub(crate) fn frame(&self) -> &Arc<Frame> {
        &self.frame
    }

    fn set_timer(&mut self, stoppable: bool) {
        let Some(limit) = &self.frame.limit else {
            return;
        };
        let (max_hold, vitality) = (limit.max_hold, limit.vitality.clone());
        let places = match &mut self.places {
            Places::Own(places) if !stoppable => {
                let places = Arc::new(Mutex::new(std::mem::take(places)));
                self.places = Places::Limited(places.clone());
                Some(places)
            }
            _ => None,
        };
        let timer = self.queue.later(max_hold, move || {
            vitality.lose("its time is over");
            if let Some(places) = places {
                let taken = std::mem::take(&mut *locked(&places));
                drop(taken);
            }
        });
        self.timer = Some(timer);
    }

    /// The body has ended, and was dropped. Gives the locks back, or keeps them for the rest of `min_hold`.
    pub(crate) fn end(mut self) -> Ending {
        let verdict = self.frame.check();
        let places = self.take_places();
        // `max_hold` may have taken the places since the first look.
        let verdict = verdict.and_then(|()| self.frame.check());
        self.frame.end();
        let kept = self.frame.kept_until().filter(|_| verdict.is_ok());
        let Some(until) = kept else {
            let leaving = leave_all(places);
            return Ending {
                frame: self.frame.clone(),
                verdict,
                leaving,
                next: 0,
            };
        };
        self.keep(places, until);
        Ending {
            frame: self.frame.clone(),
            verdict,
            leaving: SmallVec::new(),
            next: 0,
        }
    }

    /// Keeps the server's locks until then; a turn under another body's hold is given back at once, since that body
    /// keeps its locks as long.
    fn keep(&self, places: PlaceList, until: Instant) {
        let own: PlaceList = places
            .into_iter()
            .zip(&self.frame.locks)
            .filter(|(_, locked)| locked.under.is_none())
            .map(|(place, _)| place)
            .collect();
        if !own.is_empty() {
            own.iter().for_each(Place::keep);
            let rest = until.saturating_duration_since(Instant::now());
            self.queue.later(rest, move || drop(own));
        }
    }

    fn take_places(&mut self) -> PlaceList {
        if let Some(timer) = self.timer.take() {
            timer.abort();
        }
        match &mut self.places {
            Places::Own(places) => std::mem::take(places),
            Places::Limited(places) => std::mem::take(&mut *locked(places)),
        }
    }
}

impl Drop for Tenure {
    fn drop(&mut self) {
        let places = self.take_places();
        if places.is_empty() {
            return;
        }
        self.frame.end();
        match self.frame.kept_until() {
            Some(until) => self.keep(places, until),
            None => drop(places),
        }
    }
}

/// The end of a tenure: the locks are on their way back.
pub(crate) struct Ending {
    frame: Arc<Frame>,
    verdict: Result<(), Error>,
    leaving: SmallVec<[Leaving; 1]>,
    next: usize,
}

impl Future for Ending {
    /// Whether the locks were held to the end.
    type Output = Result<(), Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        while let Some(leaving) = this.leaving.get_mut(this.next) {
            let left = ready!(Pin::new(leaving).poll(context));
            if let (Err(error), Ok(())) = (left, &this.verdict) {
                let key = this
                    .frame
                    .locks
                    .get(this.next)
                    .map_or("", |locked| &locked.key);
                this.verdict = Err(of_release(key, error));
            }
            this.next += 1;
        }
        Poll::Ready(std::mem::replace(&mut this.verdict, Ok(())))
    }
}

/// Leaves it to the rows of leases to stay taken. `false`: the locks are none.
fn kept_by_leases(frame: &Frame, min_hold: Duration) -> bool {
    let until = Moment::now().plus(min_hold);
    let mut locks = frame.locks.iter();
    // A locker keeps all its locks in one way.
    locks.all(|locked| locked.vitality.keep(until))
}

fn locked(places: &Mutex<PlaceList>) -> std::sync::MutexGuard<'_, PlaceList> {
    places.lock().unwrap_or_else(PoisonError::into_inner)
}
