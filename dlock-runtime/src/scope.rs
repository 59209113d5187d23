//! A locker in place of the global one, for the length of a call or of a future's polls.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

use crate::locker::Locker;

thread_local! {
    static SCOPED: RefCell<Vec<Locker>> = const { RefCell::new(Vec::new()) };
}

/// The innermost locker in scope on this thread.
pub(crate) fn current() -> Option<Locker> {
    // Gone in the destructors of other thread-locals, where nothing is in scope.
    let innermost = SCOPED.try_with(|scoped| scoped.borrow().last().cloned());
    innermost.ok().flatten()
}

/// Calls a closure with the locker in scope.
pub(crate) fn enter<R>(locker: Locker, f: impl FnOnce() -> R) -> R {
    SCOPED.with_borrow_mut(|scoped| scoped.push(locker));
    let _leave = Leave;
    f()
}

/// Takes the innermost locker out of scope, also when the closure unwinds.
struct Leave;

impl Drop for Leave {
    fn drop(&mut self) {
        // The locker is dropped outside the borrow: it may be the last, and close its connections.
        let left = SCOPED.with_borrow_mut(Vec::pop);
        drop(left);
    }
}

pin_project! {
    /// A future that is polled with a locker in place of the global one. Made by [`Locker::scope`].
    #[must_use = "a future does nothing until it is awaited"]
    pub struct Scoped<F> {
        locker: Locker,
        #[pin]
        future: F,
    }
}

impl<F> Scoped<F> {
    pub(crate) fn new(locker: Locker, future: F) -> Scoped<F> {
        Scoped { locker, future }
    }
}

impl<F: Future> Future for Scoped<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        enter(this.locker.clone(), || this.future.poll(context))
    }
}
