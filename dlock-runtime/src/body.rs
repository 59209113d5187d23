//! Running a body under a lock.
//!
//! The order on every path is: take the lock, run the body, drop the body, release, learn how the release went.

use std::any::Any;
use std::future::Future;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tokio::sync::futures::OwnedNotified;

use crate::error::Error;
use crate::guard::{Guard, of_release};
use crate::lock::Begun;
use crate::park::block_on;
use crate::queue::{Acquire, Admission, Leaving};

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

/// Runs a synchronous body under a lock that was taken.
pub(crate) fn call<R>(guard: Guard, body: impl FnOnce() -> R) -> Outcome<R> {
    // When the body unwinds, the release is awaited all the same: whoever catches the panic may rely on it.
    let held = ReleaseOnUnwind(Some(guard));
    // This thread may have been stopped since the grant.
    if let Some(Err(error)) = held.0.as_ref().map(Guard::check) {
        return Outcome::NotRun(error);
    }
    let output = body();
    match held.release() {
        Ok(()) => Outcome::Ran(output),
        Err(error) => Outcome::Lost(Some(output), error),
    }
}

struct ReleaseOnUnwind(Option<Guard>);

impl ReleaseOnUnwind {
    fn release(mut self) -> Result<(), Error> {
        self.0.take().map_or(Ok(()), Guard::release_blocking)
    }
}

impl Drop for ReleaseOnUnwind {
    fn drop(&mut self) {
        if let Some(guard) = self.0.take() {
            let _ = guard.release_blocking();
        }
    }
}

pin_project! {
    /// Runs an async body under a lock.
    ///
    /// The body stands before the hold: dropping this future drops the body first.
    pub(crate) struct Run<F: Future> {
        #[pin]
        body: Option<F>,
        #[pin]
        bell: Option<OwnedNotified>,
        stage: Stage<F::Output>,
    }
}

enum Stage<R> {
    /// Has not been polled.
    Begun(Result<Begun, Error>),
    /// Stands in line.
    Waiting(Arc<str>, crate::key::Mode, Acquire),
    /// The body runs.
    Running(Guard),
    /// The body has ended and was dropped; the lock goes back.
    Releasing(Arc<str>, Leaving, Ended<R>),
    Done,
}

/// How the body ended.
enum Ended<R> {
    Returned(R),
    Panicked(Box<dyn Any + Send>),
    Stopped(Error),
}

impl<F: Future> Run<F> {
    pub(crate) fn new(begun: Result<Begun, Error>, body: F) -> Run<F> {
        Run {
            body: Some(body),
            bell: None,
            stage: Stage::Begun(begun),
        }
    }
}

impl<F: Future> Future for Run<F> {
    type Output = Outcome<F::Output>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match mem::replace(this.stage, Stage::Done) {
                Stage::Begun(Ok(Begun {
                    key,
                    mode,
                    admission,
                })) => {
                    *this.stage = match admission {
                        Admission::Granted(place, vitality) => {
                            Stage::Running(Guard::new(key, mode, place, vitality))
                        }
                        Admission::Waiting(acquire) => Stage::Waiting(key, mode, acquire),
                    };
                }
                Stage::Begun(Err(error)) => return not_run(this.body, error),
                Stage::Waiting(key, mode, mut acquire) => {
                    match Pin::new(&mut acquire).poll(context) {
                        Poll::Pending => {
                            *this.stage = Stage::Waiting(key, mode, acquire);
                            return Poll::Pending;
                        }
                        Poll::Ready(Err(error)) => return not_run(this.body, error),
                        Poll::Ready(Ok((place, vitality))) => {
                            *this.stage = Stage::Running(Guard::new(key, mode, place, vitality));
                        }
                    }
                }
                Stage::Running(guard) => {
                    let ended = poll_body(&guard, this.body.as_mut(), this.bell.as_mut(), context);
                    let Poll::Ready(ended) = ended else {
                        *this.stage = Stage::Running(guard);
                        return Poll::Pending;
                    };
                    this.body.set(None);
                    this.bell.set(None);
                    let (key, leaving) = guard.leave();
                    *this.stage = Stage::Releasing(key, leaving, ended);
                }
                Stage::Releasing(key, mut leaving, ended) => {
                    let Poll::Ready(left) = Pin::new(&mut leaving).poll(context) else {
                        *this.stage = Stage::Releasing(key, leaving, ended);
                        return Poll::Pending;
                    };
                    let left = left.map_err(|error| of_release(&key, error));
                    return Poll::Ready(ended.outcome(left));
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

/// One step of the body, and none when the lock is lost.
fn poll_body<F: Future>(
    guard: &Guard,
    body: Pin<&mut Option<F>>,
    mut bell: Pin<&mut Option<OwnedNotified>>,
    context: &mut Context<'_>,
) -> Poll<Ended<F::Output>> {
    // The bell is armed before the look, so that no loss falls between the two.
    if bell.is_none() {
        bell.set(Some(guard.vitality().bell()));
    }
    if let Some(bell) = bell.as_pin_mut() {
        let _ = bell.poll(context);
    }
    if let Err(error) = guard.check() {
        return Poll::Ready(Ended::Stopped(error));
    }
    let Some(body) = body.as_pin_mut() else {
        return Poll::Pending;
    };
    match catch_unwind(AssertUnwindSafe(|| body.poll(context))) {
        Ok(output) => Poll::Ready(Ended::Returned(ready!(output))),
        Err(panic) => Poll::Ready(Ended::Panicked(panic)),
    }
}

fn not_run<F: Future>(mut body: Pin<&mut Option<F>>, error: Error) -> Poll<Outcome<F::Output>> {
    body.set(None);
    Poll::Ready(Outcome::NotRun(error))
}

/// Takes the lock of a request that stands in line, parking the thread.
pub(crate) fn settle_blocking(begun: Begun) -> Result<Guard, Error> {
    let (place, vitality) = match begun.admission {
        Admission::Granted(place, vitality) => (place, vitality),
        Admission::Waiting(acquire) => block_on(acquire)?,
    };
    Ok(Guard::new(begun.key, begun.mode, place, vitality))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{Config, Locker};

    fn lost_guard() -> Guard {
        let config = Config::from_dsn("memory:").expect("a good DSN");
        let locker = Locker::connect_blocking(config).expect("a locker");
        let guard = locker.lock("key").acquire_blocking().expect("a free lock");
        assert_eq!(locker.shutdown_blocking(Duration::ZERO).cut, 1);
        guard
    }

    #[test]
    fn a_synchronous_body_does_not_start_under_a_lock_that_is_lost_already() {
        let outcome = call(lost_guard(), || panic!("it has started"));
        assert!(matches!(outcome, Outcome::<()>::NotRun(Error::Lost(_))));
    }
}
