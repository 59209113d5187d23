//! A driver that answers as a test says. Like MySQL's, its connection carries one statement at a time, and a
//! statement that is given up half-way closes it.

use std::future::{Future, pending, ready};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::backend::session::driver::{ConnectError, Driver, DriverError, Session, Wait};
use crate::backend::session::ending::Ending;
use crate::error::Holder;
use crate::key::{Mode, ServerKey};

type Answer<T> = BoxFuture<'static, Result<T, DriverError>>;
type Says<T> = Mutex<Box<dyn FnMut() -> Answer<T> + Send>>;

/// What the server says.
pub(super) struct Script {
    pub(super) try_lock: Says<bool>,
    pub(super) wait_lock: Says<Wait>,
    pub(super) interrupt: Says<()>,
    pub(super) unlock: Says<bool>,
    pub(super) check: Says<()>,
    pub(super) holder: Says<Option<Holder>>,
    pub(super) opened: AtomicUsize,
    /// New connections are not answered.
    pub(super) deaf: AtomicBool,
}

fn says<T: Send + 'static>(value: impl Fn() -> T + Send + 'static) -> Says<T> {
    Mutex::new(Box::new(move || ready(Ok(value())).boxed()))
}

impl Script {
    /// Every lock is free, and every statement is answered at once; only waits last.
    pub(super) fn new() -> Arc<Script> {
        Arc::new(Script {
            try_lock: says(|| true),
            wait_lock: Mutex::new(Box::new(|| pending().boxed())),
            interrupt: says(|| ()),
            unlock: says(|| true),
            check: says(|| ()),
            holder: says(|| None),
            opened: AtomicUsize::new(0),
            deaf: AtomicBool::new(false),
        })
    }

    pub(super) fn set<T, F>(says: &Says<T>, answer: impl Fn() -> F + Send + 'static)
    where
        F: Future<Output = Result<T, DriverError>> + Send + 'static,
    {
        *says.lock().unwrap_or_else(PoisonError::into_inner) = Box::new(move || answer().boxed());
    }
}

pub(super) struct Scripted(pub(super) Arc<Script>);

pub(super) struct Line {
    script: Arc<Script>,
    turn: tokio::sync::Mutex<()>,
    ending: Ending,
}

struct HalfWay<'a>(Option<&'a Ending>);

impl Drop for HalfWay<'_> {
    fn drop(&mut self) {
        if let Some(ending) = self.0 {
            ending.end("a statement was given up half-way");
        }
    }
}

impl Line {
    async fn say<T>(&self, says: &Says<T>) -> Result<T, DriverError> {
        let _turn = self.turn.lock().await;
        let mut half_way = HalfWay(Some(&self.ending));
        let answer = says.lock().unwrap_or_else(PoisonError::into_inner)();
        let answer = tokio::select! {
            biased;
            answer = answer => answer,
            reason = self.ending.ended() => Err(DriverError::Gone {
                reason: reason.to_string(),
                source: None,
            }),
        };
        half_way.0 = None;
        answer
    }
}

impl Driver for Scripted {
    type Session = Line;

    async fn connect(&self) -> Result<Line, ConnectError> {
        if self.0.deaf.load(Ordering::Relaxed) {
            return pending().await;
        }
        self.0.opened.fetch_add(1, Ordering::Relaxed);
        Ok(Line {
            script: self.0.clone(),
            turn: tokio::sync::Mutex::default(),
            ending: Ending::new(),
        })
    }

    fn server_key(&self, key: &str) -> ServerKey {
        ServerKey::Name(key.into())
    }

    fn has_shared_mode(&self) -> bool {
        true
    }

    fn endpoint(&self) -> &'static str {
        "a script"
    }
}

impl Session for Line {
    async fn try_lock(&self, _: &ServerKey, _: Mode) -> Result<bool, DriverError> {
        self.say(&self.script.try_lock).await
    }

    async fn wait_lock(&self, _: &ServerKey, _: Mode, _: Duration) -> Result<Wait, DriverError> {
        self.say(&self.script.wait_lock).await
    }

    async fn interrupt(&self, helper: &Self) -> Result<(), DriverError> {
        helper.say(&self.script.interrupt).await
    }

    async fn unlock(&self, _: &ServerKey, _: Mode) -> Result<bool, DriverError> {
        self.say(&self.script.unlock).await
    }

    async fn check(&self) -> Result<(), DriverError> {
        self.say(&self.script.check).await
    }

    async fn holder(&self, _: &ServerKey) -> Result<Option<Holder>, DriverError> {
        self.say(&self.script.holder).await
    }

    async fn closed(&self) -> Arc<str> {
        self.ending.ended().await
    }

    fn close(&self) {
        self.ending.end("closed by this process");
    }

    fn server(&self) -> &'static str {
        "a script"
    }
}
