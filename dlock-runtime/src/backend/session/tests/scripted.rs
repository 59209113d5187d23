//! A driver that answers as a test says. Like MySQL's, its connection carries one statement at a time, and a
//! statement that is given up half-way closes it.

use std::collections::HashMap;
use std::future::{Future, pending, ready};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::backend::session::driver::{
    Act, Answers, ConnectError, Counted, Driver, DriverError, KeyTable, Listed, Noted, Offer,
    Session, Wait,
};
use crate::backend::session::ending::Ending;
use crate::capabilities::Reach;
use crate::error::Holder;
use crate::hazard::Hazard;
use crate::key::{Key, Mode, ServerKey};
use crate::scheme::KeyScheme;

type Answer<T> = BoxFuture<'static, Result<T, DriverError>>;
type Says<T> = Mutex<Box<dyn FnMut() -> Answer<T> + Send>>;

/// What the server says.
pub(super) struct Script {
    pub(super) prepare: Says<()>,
    pub(super) try_lock: Says<bool>,
    pub(super) wait_lock: Says<Wait>,
    pub(super) interrupt: Says<()>,
    pub(super) count: Says<Counted>,
    pub(super) unlock: Says<bool>,
    pub(super) check: Says<()>,
    pub(super) holder: Says<Option<Holder>>,
    pub(super) list: Says<Listed>,
    pub(super) kill: Says<bool>,
    /// Whether there is a table of keys, what it says to a note, and what was noted.
    pub(super) key_table: AtomicBool,
    pub(super) note: Says<bool>,
    pub(super) notes: Mutex<Vec<Vec<Noted>>>,
    pub(super) opened: AtomicUsize,
    /// How many locks each batch had.
    pub(super) batches: Mutex<Vec<usize>>,
    /// New connections are not answered.
    pub(super) deaf: AtomicBool,
    /// How many connections the server has.
    pub(super) room: AtomicUsize,
    /// The name of the server.
    pub(super) identity: Mutex<Arc<str>>,
    /// What is said in place of the truth, by the number of the question, to tries and releases of the proof.
    pub(super) proof: Mutex<HashMap<usize, Result<bool, DriverError>>>,
    pub(super) asked: AtomicUsize,
    /// Told of every connection that is closed by this process.
    pub(super) closing: Mutex<Box<dyn FnMut() + Send>>,
    /// Who holds what: for the proof alone.
    held: Mutex<HashMap<ServerKey, usize>>,
}

fn says<T: Send + 'static>(value: impl Fn() -> T + Send + 'static) -> Says<T> {
    Mutex::new(Box::new(move || ready(Ok(value())).boxed()))
}

impl Script {
    /// Every lock is free, and every statement is answered at once; only waits last.
    pub(super) fn new() -> Arc<Script> {
        Arc::new(Script {
            prepare: says(|| ()),
            try_lock: says(|| true),
            wait_lock: Mutex::new(Box::new(|| pending().boxed())),
            interrupt: says(|| ()),
            count: says(|| Counted::Token(1)),
            unlock: says(|| true),
            check: says(|| ()),
            holder: says(|| None),
            list: says(|| Listed::Locks(Vec::new())),
            kill: says(|| true),
            key_table: AtomicBool::new(false),
            note: says(|| true),
            notes: Mutex::default(),
            opened: AtomicUsize::new(0),
            batches: Mutex::default(),
            deaf: AtomicBool::new(false),
            room: AtomicUsize::new(usize::MAX),
            identity: Mutex::new("one".into()),
            proof: Mutex::default(),
            asked: AtomicUsize::new(0),
            closing: Mutex::new(Box::new(|| ())),
            held: Mutex::default(),
        })
    }

    pub(super) fn set<T, F>(says: &Says<T>, answer: impl Fn() -> F + Send + 'static)
    where
        F: Future<Output = Result<T, DriverError>> + Send + 'static,
    {
        *says.lock().unwrap_or_else(PoisonError::into_inner) = Box::new(move || answer().boxed());
    }
}

impl Script {
    /// An answer within the proof, whose lock is the only one with a name: the tests lock numbers.
    fn proof(
        &self,
        truth: impl FnOnce(&mut HashMap<ServerKey, usize>) -> bool,
    ) -> Result<bool, DriverError> {
        let question = self.asked.fetch_add(1, Ordering::Relaxed) + 1;
        let truth = truth(&mut self.held.lock().unwrap_or_else(PoisonError::into_inner));
        let mut proof = self.proof.lock().unwrap_or_else(PoisonError::into_inner);
        proof.remove(&question).unwrap_or(Ok(truth))
    }
}

pub(super) struct Scripted(pub(super) Arc<Script>);

pub(super) struct Line {
    number: usize,
    identity: Arc<str>,
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
        let number = self.0.opened.fetch_add(1, Ordering::Relaxed);
        if number >= self.0.room.load(Ordering::Relaxed) {
            return Err(ConnectError::TooMany {
                reason: "too many connections".into(),
                source: None,
            });
        }
        let identity = self.0.identity.lock();
        Ok(Line {
            number,
            identity: identity.unwrap_or_else(PoisonError::into_inner).clone(),
            script: self.0.clone(),
            turn: tokio::sync::Mutex::default(),
            ending: Ending::new(),
        })
    }

    fn server_key(&self, key: &str) -> ServerKey {
        ServerKey::Name(key.to_owned().into())
    }

    fn foreign_key(&self, _: &Key, _: &KeyScheme) -> Result<ServerKey, &'static str> {
        Err("the script knows one scheme")
    }

    fn has_shared_mode(&self) -> bool {
        true
    }

    fn reach(&self) -> Reach {
        Reach::Server
    }

    fn endpoint(&self) -> &'static str {
        "a script"
    }

    fn key_table(&self) -> Option<KeyTable> {
        let there = self.0.key_table.load(Ordering::Relaxed);
        there.then(|| KeyTable {
            name: "keys".to_owned(),
            remedy: "mend the script".to_owned(),
            connect_timeout: Duration::from_secs(10),
        })
    }
}

impl Session for Line {
    const AT_ONCE: usize = 1;

    fn batch(gathered: usize) -> usize {
        gathered.min(8)
    }

    async fn prepare(&self) -> Result<(), DriverError> {
        self.say(&self.script.prepare).await
    }

    async fn try_lock(&self, key: &ServerKey, _: Mode) -> Result<bool, DriverError> {
        if let ServerKey::Name(_) = key {
            return self
                .script
                .proof(|held| *held.entry(key.clone()).or_insert(self.number) == self.number);
        }
        self.say(&self.script.try_lock).await
    }

    async fn wait_lock(&self, _: &ServerKey, _: Mode, _: Duration) -> Result<Wait, DriverError> {
        self.say(&self.script.wait_lock).await
    }

    async fn interrupt(&self, helper: &Self) -> Result<(), DriverError> {
        helper.say(&self.script.interrupt).await
    }

    async fn count(&self, _: &ServerKey) -> Result<Counted, DriverError> {
        self.say(&self.script.count).await
    }

    async fn unlock(&self, key: &ServerKey, _: Mode) -> Result<bool, DriverError> {
        if let ServerKey::Name(_) = key {
            return self.script.proof(|held| {
                let mine = held.get(key) == Some(&self.number);
                if mine {
                    held.remove(key);
                }
                mine
            });
        }
        self.say(&self.script.unlock).await
    }

    async fn offer(&self, key: &ServerKey, mode: Mode) -> Result<Offer, DriverError> {
        if !self.unlock(key, mode).await? {
            return Ok(Offer::NotHeld);
        }
        let kept = self.try_lock(key, mode).await?;
        Ok(if kept { Offer::Kept } else { Offer::Given })
    }

    async fn all(&self, act: Act, keys: &[ServerKey], mode: Mode) -> Result<Answers, DriverError> {
        let batches = self.script.batches.lock();
        batches
            .unwrap_or_else(PoisonError::into_inner)
            .push(keys.len());
        let mut answers = Vec::new();
        for key in keys {
            let answer = match act {
                Act::Try => self.try_lock(key, mode).await,
                Act::Release => self.unlock(key, mode).await,
            };
            if let Err(error @ DriverError::Gone { .. }) = answer {
                return Err(error);
            }
            answers.push(answer);
        }
        Ok(answers)
    }

    async fn admits_reader(&self, _: &ServerKey) -> Result<bool, DriverError> {
        Ok(true)
    }

    async fn check(&self) -> Result<(), DriverError> {
        self.say(&self.script.check).await
    }

    fn id(&self) -> i64 {
        0
    }

    async fn holder(&self, _: &ServerKey, _: &[i64]) -> Result<Option<Holder>, DriverError> {
        self.say(&self.script.holder).await
    }

    async fn list(&self, _: Option<&ServerKey>, _: &[i64]) -> Result<Listed, DriverError> {
        self.say(&self.script.list).await
    }

    async fn note_keys(&self, keys: &[Noted]) -> Result<bool, DriverError> {
        let notes = self.script.notes.lock();
        notes
            .unwrap_or_else(PoisonError::into_inner)
            .push(keys.to_vec());
        self.say(&self.script.note).await
    }

    async fn noted_keys(&self, _: &[Arc<str>]) -> Result<Vec<Noted>, DriverError> {
        Ok(Vec::new())
    }

    async fn kill(&self, _: i64, _: &ServerKey) -> Result<bool, DriverError> {
        self.say(&self.script.kill).await
    }

    async fn closed(&self) -> Arc<str> {
        self.ending.ended().await
    }

    fn close(&self) {
        self.script
            .closing
            .lock()
            .unwrap_or_else(PoisonError::into_inner)();
        self.ending.end("closed by this process");
    }

    fn capacity(&self) -> Option<usize> {
        None
    }

    fn server(&self) -> &'static str {
        "Script 1.2"
    }

    fn identity(&self) -> &str {
        &self.identity
    }

    fn behind_pooler(&self) -> Option<bool> {
        Some(false)
    }

    fn hazards(&self) -> &[Hazard] {
        &[]
    }
}
