//! The smallest runtime that the generated code can run against: it records the order of events and
//! fails on demand. Each thread has its own record.

#![allow(
    missing_docs,
    dead_code,
    unreachable_pub,
    reason = "each test file uses another part"
)]

use std::cell::RefCell;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

thread_local! {
    static LOG: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    static FATE: RefCell<Fate> = const { RefCell::new(Fate::Granted) };
}

/// What happens to the next locks of this thread.
#[derive(Clone, Copy, PartialEq)]
pub enum Fate {
    Granted,
    Busy,
    Unavailable,
    LostAtTheEnd,
    LostInTheMiddle,
}

pub fn note(event: impl Into<String>) {
    LOG.with_borrow_mut(|log| log.push(event.into()));
}

/// The events since the last call.
pub fn events() -> Vec<String> {
    LOG.take()
}

/// Runs with another fate than `Granted`.
pub fn with_fate<R>(fate: Fate, run: impl FnOnce() -> R) -> R {
    FATE.set(fate);
    let out = run();
    FATE.set(Fate::Granted);
    out
}

/// Polls a future that never has to wait.
pub fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    match future
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
    {
        Poll::Ready(out) => out,
        Poll::Pending => panic!("the future waits"),
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum Error {
    Busy(String),
    Unavailable(String),
    Lost(String),
}

impl Error {
    pub fn is_busy(&self) -> bool {
        matches!(self, Error::Busy(_))
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self:?}")
    }
}

impl std::error::Error for Error {}

#[derive(Clone)]
pub struct Locker(pub &'static str);

pub mod __private {
    use std::time::Duration;

    use super::*;

    pub struct Entry {
        key: Arc<str>,
    }

    pub struct Timeout(pub Option<Duration>);

    impl From<Duration> for Timeout {
        fn from(timeout: Duration) -> Self {
            Timeout(Some(timeout))
        }
    }

    impl From<Option<Duration>> for Timeout {
        fn from(timeout: Option<Duration>) -> Self {
            Timeout(timeout)
        }
    }

    impl From<u64> for Timeout {
        fn from(seconds: u64) -> Self {
            Timeout(Some(Duration::from_secs(seconds)))
        }
    }

    pub trait IntoInit {
        fn text(self) -> String;
    }

    impl IntoInit for &str {
        fn text(self) -> String {
            self.to_owned()
        }
    }

    impl Entry {
        pub fn new(key: impl Into<Arc<str>>) -> Self {
            Entry { key: key.into() }
        }

        #[must_use]
        pub fn timeout(self, timeout: impl Into<Timeout>) -> Self {
            note(format!("timeout {:?}", timeout.into().0));
            self
        }

        #[must_use]
        #[allow(clippy::needless_pass_by_value)]
        pub fn all<const N: usize>(keys: [Arc<str>; N]) -> Self {
            Entry {
                key: keys.join("+").into(),
            }
        }

        #[must_use]
        pub fn min_hold(self, length: impl Into<Timeout>) -> Self {
            note(format!("min_hold {:?}", length.into().0));
            self
        }

        #[must_use]
        pub fn max_hold(self, length: impl Into<Timeout>) -> Self {
            note(format!("max_hold {:?}", length.into().0));
            self
        }

        #[must_use]
        pub fn ttl(self, length: impl Into<Timeout>) -> Self {
            note(format!("ttl {:?}", length.into().0));
            self
        }

        #[must_use]
        pub fn fencing(self, on: bool) -> Self {
            note(format!("fencing {on}"));
            self
        }

        #[must_use]
        pub fn reentrant(self, on: bool) -> Self {
            note(format!("reentrant {on}"));
            self
        }

        #[must_use]
        pub fn finish_when_lost(self) -> Self {
            note("finish when lost");
            self
        }

        #[must_use]
        pub fn shared(self) -> Self {
            note("shared");
            self
        }

        #[must_use]
        pub fn locker(self, locker: &Locker) -> Self {
            note(format!("locker {}", locker.0));
            self
        }

        #[must_use]
        pub fn init(self, source: impl IntoInit) -> Self {
            note(format!("init {}", source.text()));
            self
        }

        fn acquire(self) -> Result<Hold, Error> {
            match FATE.with_borrow(|fate| *fate) {
                Fate::Busy => Err(Error::Busy(self.key.to_string())),
                Fate::Unavailable => Err(Error::Unavailable(self.key.to_string())),
                _ => {
                    note(format!("acquire {}", self.key));
                    Ok(Hold(self.key))
                }
            }
        }
    }

    pub struct Hold(Arc<str>);

    impl Hold {
        fn lost(&self, fate: Fate) -> Option<Error> {
            FATE.with_borrow(|now| *now == fate)
                .then(|| Error::Lost(self.0.to_string()))
        }
    }

    impl Drop for Hold {
        fn drop(&mut self) {
            note(format!("release {}", self.0));
        }
    }

    pub enum Outcome<R> {
        Ran(R),
        Lost(Option<R>, Error),
        NotRun(Error),
    }

    pub fn call<R>(entry: Entry, body: impl FnOnce() -> R) -> Outcome<R> {
        let hold = match entry.acquire() {
            Ok(hold) => hold,
            Err(error) => return Outcome::NotRun(error),
        };
        let out = body();
        match hold.lost(Fate::LostAtTheEnd) {
            Some(error) => Outcome::Lost(Some(out), error),
            None => Outcome::Ran(out),
        }
    }

    #[allow(clippy::missing_errors_doc)]
    pub fn enter(entry: Entry) -> Result<Hold, Error> {
        entry.acquire()
    }

    #[allow(clippy::needless_pass_by_value)]
    pub fn leave<R>(hold: Hold, out: R) -> Outcome<R> {
        match hold.lost(Fate::LostAtTheEnd) {
            Some(error) => Outcome::Lost(Some(out), error),
            None => Outcome::Ran(out),
        }
    }

    pin_project_lite::pin_project! {
        /// By hand, since an `async fn` would store the body twice.
        pub struct Run<F> {
            entry: Option<Entry>,
            #[pin]
            body: Option<F>,
            hold: Option<Hold>,
        }
    }

    pub fn run<F: Future>(entry: Entry, body: F) -> Run<F> {
        Run {
            entry: Some(entry),
            body: Some(body),
            hold: None,
        }
    }

    impl<F: Future> Future for Run<F> {
        type Output = Outcome<F::Output>;

        fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
            let mut this = self.project();
            if let Some(entry) = this.entry.take() {
                match entry.acquire() {
                    Ok(hold) => *this.hold = Some(hold),
                    Err(error) => return Poll::Ready(Outcome::NotRun(error)),
                }
            }
            let hold = this.hold.as_ref().expect("not polled again");
            if let Some(error) = hold.lost(Fate::LostInTheMiddle) {
                this.body.set(None);
                *this.hold = None;
                return Poll::Ready(Outcome::Lost(None, error));
            }
            let body = this.body.as_mut().as_pin_mut().expect("not polled again");
            let out = std::task::ready!(body.poll(cx));
            let error = hold.lost(Fate::LostAtTheEnd);
            this.body.set(None);
            *this.hold = None;
            Poll::Ready(match error {
                Some(error) => Outcome::Lost(Some(out), error),
                None => Outcome::Ran(out),
            })
        }
    }

    pub fn key(args: std::fmt::Arguments<'_>) -> Arc<str> {
        args.as_str()
            .map_or_else(|| args.to_string().into(), Into::into)
    }

    pub fn handle<R>(handler: impl FnOnce(Error) -> R, error: Error) -> R {
        handler(error)
    }

    #[allow(clippy::needless_pass_by_value, clippy::missing_panics_doc)]
    pub fn panic(error: Error) -> ! {
        panic!("{error}")
    }

    #[diagnostic::on_unimplemented(message = "`{Self}` cannot carry a lock error")]
    pub trait FromLockError: Sized {
        fn from_lock_error(error: Error) -> Self;
    }

    #[diagnostic::do_not_recommend]
    impl<T, E: From<Error>> FromLockError for Result<T, E> {
        fn from_lock_error(error: Error) -> Self {
            Err(error.into())
        }
    }

    pub trait Skippable: Sized {
        fn skipped() -> Self;
    }

    impl Skippable for () {
        fn skipped() -> Self {}
    }

    impl<T> Skippable for Option<T> {
        fn skipped() -> Self {
            None
        }
    }

    impl<T: Skippable, E> Skippable for Result<T, E> {
        fn skipped() -> Self {
            Ok(T::skipped())
        }
    }

    pub struct Failed<'a, R>(pub &'a R);

    impl<T, E> Failed<'_, Result<T, E>> {
        pub fn failed(&self) -> bool {
            self.0.is_err()
        }
    }

    pub trait NotFailed {
        fn failed(&self) -> bool {
            false
        }
    }

    impl<R> NotFailed for Failed<'_, R> {}
}
