//! Running a body under its locks.
//!
//! The order on every path is: take the locks, run the body, drop the body, release, learn how the release went.

use std::any::Any;
use std::future::Future;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use smallvec::SmallVec;
use tokio::sync::futures::OwnedNotified;

use crate::entry::{Begun, Entry};
use crate::error::Error;
use crate::hold::Vitality;
use crate::hold::frame::{self, Frame, Leave};
use crate::key::Mode;
use crate::park::block_on;
use crate::taking::Held;
use crate::tenure::{Ending, Tenure, Terms};

/// How it went.
#[derive(Debug)]
pub enum Outcome<R> {
    /// The body ran to its end under the lock.
    Ran(R),
    /// The body ran, but the lock was lost meanwhile. `None`: the body was stopped.
    Lost(Option<R>, Error),
    /// The body did not run.
    NotRun(Error),
}

/// Runs a synchronous body.
pub(crate) fn call<R>(entry: Entry, body: impl FnOnce() -> R) -> Outcome<R> {
    match Running::start(entry) {
        Ok(running) => {
            // This thread may have been stopped since the grant.
            if let Err(error) = running.check() {
                // With what it has captured, before the locks go.
                drop(body);
                return Outcome::NotRun(error);
            }
            let output = body();
            running.end(output)
        }
        Err(error) => Outcome::NotRun(error),
    }
}

/// A synchronous body that runs on this thread. When it unwinds, the release is awaited all the same: whoever catches
/// the panic may rely on it.
pub(crate) struct Running {
    leave: Option<Leave>,
    tenure: Option<Tenure>,
}

impl Running {
    /// Takes the locks, parking the thread.
    pub(crate) fn start(entry: Entry) -> Result<Running, Error> {
        let begun = entry.begin(true)?;
        let agreed = Agreed::of(&begun);
        let tenure = agreed.tenure(begun.taking.wait()?, false);
        Ok(Running {
            leave: Some(frame::push(tenure.frame())),
            tenure: Some(tenure),
        })
    }

    /// Whether the locks are held at this moment.
    pub(crate) fn check(&self) -> Result<(), Error> {
        self.tenure
            .as_ref()
            .map_or(Ok(()), |tenure| tenure.frame().check())
    }

    /// The body has returned.
    pub(crate) fn end<R>(mut self, output: R) -> Outcome<R> {
        match self.release() {
            Ok(()) => Outcome::Ran(output),
            Err(error) => Outcome::Lost(Some(output), error),
        }
    }

    fn release(&mut self) -> Result<(), Error> {
        drop(self.leave.take());
        let tenure = self.tenure.take();
        tenure.map_or(Ok(()), |tenure| block_on(tenure.end()))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.release();
    }
}

/// What is known of a body before its locks are.
struct Agreed {
    id: u64,
    mode: Mode,
    terms: Terms,
    queue: Arc<crate::queue::Queue>,
    caller: Option<Arc<Frame>>,
}

impl Agreed {
    fn of(begun: &Begun) -> Agreed {
        Agreed {
            id: begun.id,
            mode: begun.mode,
            terms: begun.terms,
            queue: begun.taking.queue().clone(),
            caller: begun.taking.caller().cloned(),
        }
    }

    fn tenure(self, held: SmallVec<[Held; 1]>, stoppable: bool) -> Tenure {
        let Agreed {
            id,
            mode,
            terms,
            queue,
            caller,
        } = self;
        Tenure::begin(id, mode, queue, caller, held, terms, stoppable)
    }
}

pin_project! {
    /// Runs an async body.
    ///
    /// The body stands before the tenure: it is dropped first, and under its frame.
    pub(crate) struct Run<F: Future> {
        #[pin]
        body: Option<F>,
        #[pin]
        bell: Option<OwnedNotified>,
        // Of several locks, and of `max_hold`.
        bells: Vec<Pin<Box<OwnedNotified>>>,
        stage: Stage<F::Output>,
    }

    impl<F: Future> PinnedDrop for Run<F> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            if let Stage::Running { tenure, .. } = this.stage {
                let frame = tenure.frame().clone();
                frame.look_around();
                frame::enter(&frame, || this.body.set(None));
            }
        }
    }
}

enum Stage<R> {
    /// Has not been polled.
    Begun(Option<Entry>),
    /// The locks are on their way. What can be taken on the spot needs no box.
    Taking(Box<Begun>),
    /// The body runs.
    Running {
        tenure: Tenure,
        /// Also when its lock is lost.
        finish: bool,
        /// It was polled before.
        begun: bool,
    },
    /// The body has ended and was dropped; the locks go back.
    Releasing(Ending, Ended<R>),
    Done,
}

/// How the body ended.
enum Ended<R> {
    Returned(R),
    Panicked(Box<dyn Any + Send>),
    Stopped(Error),
}

impl<F: Future> Run<F> {
    pub(crate) fn new(entry: Entry, body: F) -> Run<F> {
        Run {
            body: Some(body),
            bell: None,
            bells: Vec::new(),
            stage: Stage::Begun(Some(entry)),
        }
    }
}

impl<F: Future> Future for Run<F> {
    type Output = Outcome<F::Output>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.stage {
                Stage::Begun(entry) => {
                    let Some(entry) = entry.take() else {
                        return Poll::Pending;
                    };
                    let stage = entry.begin(false).and_then(|mut begun| {
                        Ok(match begun.taking.on_the_spot()? {
                            Some(held) => running(&begun, held),
                            None => Stage::Taking(Box::new(begun)),
                        })
                    });
                    match stage {
                        Ok(stage) => *this.stage = stage,
                        Err(error) => return not_run(this.stage, this.body, error),
                    }
                }
                Stage::Taking(begun) => match ready!(Pin::new(&mut begun.taking).poll(context)) {
                    Ok(held) => *this.stage = running(begun, held),
                    Err(error) => return not_run(this.stage, this.body, error),
                },
                Stage::Running {
                    tenure,
                    finish,
                    begun,
                } => {
                    let frame = tenure.frame().clone();
                    frame.look_around();
                    // A body that has not begun has nothing to finish.
                    let stopped = if mem::replace(begun, true) && *finish {
                        Ok(())
                    } else {
                        listen(&frame, this.bell.as_mut(), this.bells, context);
                        frame.check()
                    };
                    let ended = match stopped {
                        Ok(()) => ready!(step(&frame, this.body.as_mut(), context)),
                        Err(error) => Ended::Stopped(error),
                    };
                    frame::enter(&frame, || this.body.set(None));
                    drop(frame);
                    this.bell.set(None);
                    this.bells.clear();
                    if let Stage::Running { tenure, .. } = mem::replace(this.stage, Stage::Done) {
                        *this.stage = Stage::Releasing(tenure.end(), ended);
                    }
                }
                Stage::Releasing(ending, _) => {
                    let released = ready!(Pin::new(ending).poll(context));
                    if let Stage::Releasing(_, ended) = mem::replace(this.stage, Stage::Done) {
                        return Poll::Ready(ended.outcome(released));
                    }
                }
                Stage::Done => return Poll::Pending,
            }
        }
    }
}

impl<R> Ended<R> {
    fn outcome(self, released: Result<(), Error>) -> Outcome<R> {
        match (self, released) {
            (Ended::Returned(output), Ok(())) => Outcome::Ran(output),
            (Ended::Returned(output), Err(error)) => Outcome::Lost(Some(output), error),
            (Ended::Stopped(error), _) => Outcome::Lost(None, error),
            (Ended::Panicked(panic), _) => resume_unwind(panic),
        }
    }
}

fn running<R>(begun: &Begun, held: SmallVec<[Held; 1]>) -> Stage<R> {
    let finish = begun.terms.finish;
    Stage::Running {
        tenure: Agreed::of(begun).tenure(held, !finish),
        finish,
        begun: false,
    }
}

fn not_run<F: Future>(
    stage: &mut Stage<F::Output>,
    mut body: Pin<&mut Option<F>>,
    error: Error,
) -> Poll<Outcome<F::Output>> {
    *stage = Stage::Done;
    body.set(None);
    Poll::Ready(Outcome::NotRun(error))
}

/// One step of the body.
fn step<F: Future>(
    frame: &Arc<Frame>,
    body: Pin<&mut Option<F>>,
    context: &mut Context<'_>,
) -> Poll<Ended<F::Output>> {
    let Some(body) = body.as_pin_mut() else {
        return Poll::Pending;
    };
    let polled = AssertUnwindSafe(|| frame::enter(frame, || body.poll(context)));
    match catch_unwind(polled) {
        Ok(output) => Poll::Ready(Ended::Returned(ready!(output))),
        Err(panic) => Poll::Ready(Ended::Panicked(panic)),
    }
}

/// Arms the bells, so that the task is woken when a lock is lost: before the look, so that no loss falls between the
/// two. A bell that has rung is replaced: it may have been for somebody else.
fn listen(
    frame: &Frame,
    mut bell: Pin<&mut Option<OwnedNotified>>,
    bells: &mut Vec<Pin<Box<OwnedNotified>>>,
    context: &mut Context<'_>,
) {
    let mut vitalities = vitalities(frame);
    let Some(first) = vitalities.next() else {
        return;
    };
    if bell.is_none() {
        bell.set(Some(first.bell()));
        bells.extend(vitalities.map(|vitality| Box::pin(vitality.bell())));
    }
    while let Some(ringing) = bell.as_mut().as_pin_mut()
        && ringing.poll(context).is_ready()
    {
        bell.set(Some(first.bell()));
    }
    for (ringing, vitality) in bells.iter_mut().zip(self::vitalities(frame).skip(1)) {
        while ringing.as_mut().poll(context).is_ready() {
            ringing.set(vitality.bell());
        }
    }
}

fn vitalities(frame: &Frame) -> impl Iterator<Item = &Arc<Vitality>> {
    let locks = frame.locks.iter().map(|locked| &locked.vitality);
    locks.chain(frame.limits())
}
