//! Locks that bodies run under: `Lock::run` and the attribute.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::thread;

use dlock::{Error, Timeout};
use tokio::time::sleep;

use super::choice::{Plan, key};
use super::errand::{Errand, Look};
use super::guards::lock;
use crate::clock::now;
use crate::history::Mode;

/// What a body needs: its errand, and what its caller sees of it.
struct Work<'a> {
    errand: &'a Errand<'a>,
    plan: &'a Plan,
    /// When the future around the body was last polled, which is before the library has looked at the hold.
    polled: AtomicU64,
    /// Whether the body has begun.
    begun: std::sync::atomic::AtomicBool,
}

impl<'a> Work<'a> {
    fn new(errand: &'a Errand<'a>, plan: &'a Plan) -> Work<'a> {
        Work {
            errand,
            plan,
            polled: AtomicU64::new(0),
            begun: false.into(),
        }
    }

    /// An async body. The library looks at the hold before each of its polls: the body runs on only when it is held.
    async fn body(&self) {
        let mut end = Stopped {
            errand: self.errand,
            armed: true,
        };
        self.begun.store(true, Ordering::SeqCst);
        if self.errand.acquired(token(), look) {
            for pause in self.errand.pauses(self.plan) {
                sleep(pause).await;
                // It runs on: the library found it held.
                let look = Look {
                    held: true,
                    ..look()
                };
                self.errand
                    .step_at(self.polled.load(Ordering::SeqCst), &look);
            }
        }
        end.armed = false;
        self.errand.releasing();
    }

    /// A synchronous body, which looks by itself.
    fn body_blocking(&self) {
        self.begun.store(true, Ordering::SeqCst);
        if self.errand.acquired(token(), look) {
            for pause in self.errand.pauses(self.plan) {
                thread::sleep(pause);
                if !self.errand.step(look) {
                    break;
                }
            }
        }
        self.errand.releasing();
    }

    fn end(&self, outcome: &Result<(), Error>) {
        match outcome {
            Err(error) if !self.begun.load(Ordering::SeqCst) => self.errand.failed(error),
            outcome => self.errand.released(outcome),
        }
    }
}

fn look() -> Look {
    Look {
        held: dlock::check().is_ok(),
        validity: dlock::current().and_then(|current| current.validity()),
    }
}

fn token() -> Option<u64> {
    dlock::current().and_then(|current| current.token())
}

/// Writes down that a body was stopped.
struct Stopped<'a> {
    errand: &'a Errand<'a>,
    armed: bool,
}

impl Drop for Stopped<'_> {
    fn drop(&mut self) {
        if self.armed {
            self.errand.told();
        }
    }
}

/// Notes when it polls what it is made of.
struct Noting<'a, F> {
    polled: &'a AtomicU64,
    future: Pin<&'a mut F>,
}

impl<F: Future> Future for Noting<'_, F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        self.polled.store(now(), Ordering::SeqCst);
        self.future.as_mut().poll(context)
    }
}

async fn noting<F: Future>(work: &Work<'_>, future: F) -> F::Output {
    let future = pin!(future);
    Noting {
        polled: &work.polled,
        future,
    }
    .await
}

/// `Lock::run`.
pub(super) async fn run(errand: &Errand<'_>, plan: &Plan) {
    let work = Work::new(errand, plan);
    let lock = lock(errand, plan);
    work.end(&noting(&work, lock.run(work.body())).await);
}

/// `Lock::run_blocking`.
pub(super) fn run_blocking(errand: &Errand<'_>, plan: &Plan) {
    let work = Work::new(errand, plan);
    work.end(&lock(errand, plan).run_blocking(|| work.body_blocking()));
}

/// The attribute on an async function.
pub(super) async fn attribute(errand: &Errand<'_>, plan: &Plan) {
    let work = Work::new(errand, plan);
    let (key, wait) = (key(plan.keys[0]), plan.timeout());
    let outcome = match plan.mode {
        Mode::Exclusive => noting(&work, exclusive(&key, wait, &work)).await,
        Mode::Shared => noting(&work, shared(&key, wait, &work)).await,
    };
    work.end(&outcome);
}

/// The attribute on a synchronous function.
pub(super) fn attribute_blocking(errand: &Errand<'_>, plan: &Plan) {
    let work = Work::new(errand, plan);
    let (key, wait) = (key(plan.keys[0]), plan.timeout());
    let outcome = match plan.mode {
        Mode::Exclusive => exclusive_blocking(&key, wait, &work),
        Mode::Shared => shared_blocking(&key, wait, &work),
    };
    work.end(&outcome);
}

#[dlock::db_locked(key = "{key}", timeout = wait)]
async fn exclusive(key: &str, wait: Timeout, work: &Work<'_>) -> Result<(), Error> {
    work.body().await;
    Ok(())
}

#[dlock::db_locked(key = "{key}", timeout = wait, mode = shared)]
async fn shared(key: &str, wait: Timeout, work: &Work<'_>) -> Result<(), Error> {
    work.body().await;
    Ok(())
}

#[dlock::db_locked(key = "{key}", timeout = wait)]
fn exclusive_blocking(key: &str, wait: Timeout, work: &Work<'_>) -> Result<(), Error> {
    work.body_blocking();
    Ok(())
}

#[dlock::db_locked(key = "{key}", timeout = wait, mode = shared)]
fn shared_blocking(key: &str, wait: Timeout, work: &Work<'_>) -> Result<(), Error> {
    work.body_blocking();
    Ok(())
}
