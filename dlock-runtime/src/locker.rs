//! The handle on one server.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_channel::oneshot;

use crate::backend::{self, Opened, Want};
use crate::capabilities::{Capabilities, Strategy};
use crate::config::Config;
use crate::error::{Error, InitError, unsupported};
use crate::global;
use crate::io::Io;
use crate::key::{Key, Mode};
use crate::listing::{LockInfo, Party};
use crate::lock::Lock;
use crate::observer::Watch;
use crate::park::block_on;
use crate::queue::{Patience, Queue};
use crate::scheme::KeyScheme;
use crate::scope::{self, Scoped};
use crate::timeout::Timeout;

/// How long a shutdown waits at most for the observers.
const OBSERVERS_WITHIN: Duration = Duration::from_secs(1);

/// A connected server, from which locks are taken.
///
/// A cheap clone: all clones share the connections and the lines in this process. The connections close when the
/// last clone, guard and waiting request are gone, or with [`shutdown`](Self::shutdown).
#[derive(Clone)]
pub struct Locker {
    inner: Arc<Inner>,
}

struct Inner {
    config: Config,
    capabilities: Capabilities,
    queue: Arc<Queue>,
}

/// What [`Locker::shutdown`] found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// How many locks were still held when the patience ended. Their holders were told that they are lost, and the
    /// server freed them with the connections.
    pub cut: usize,
}

impl Locker {
    /// Connects to the server of a configuration, and returns when it was reached, its settings were confirmed, and two
    /// connections were seen to exclude each other. The second is closed when nobody has waited for a lock for ten seconds.
    ///
    /// # Errors
    ///
    /// [`InitError`]: the settings contradict each other, the server cannot be reached within the connect time-out,
    /// refuses the login, or cannot keep these locks.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the connection that was being opened.
    pub async fn connect(config: Config) -> Result<Locker, InitError> {
        config.check()?;
        let io = Io::get()?;
        let (reply, answer) = oneshot::channel();
        let connecting = io.clone();
        let task = io.spawn(
            async move {
                let _ = reply.send(open(config, connecting).await);
            },
            |_| {},
        );
        let _abort = AbortOnDrop(task);
        match answer.await {
            Ok(locker) => locker,
            Err(oneshot::Canceled) => Err(InitError::Thread {
                reason: "it panicked while connecting".into(),
            }),
        }
    }

    /// As [`connect`](Self::connect), for callers that are not async.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect).
    pub fn connect_blocking(config: Config) -> Result<Locker, InitError> {
        block_on(Locker::connect(config))
    }

    /// The lock of a key: 1 to 1024 bytes of UTF-8 without NUL, unless another [`KeyScheme`] has other rules. Whether the
    /// key is valid shows when it is acquired.
    pub fn lock(&self, key: impl Into<Key>) -> Lock {
        Lock::new(self.clone(), key.into().0)
    }

    /// The locks of several keys, all or none. They are taken in one order, which is the same for everybody who takes
    /// several; a key that is given twice is taken once.
    pub fn lock_all<K: Into<Key>>(&self, keys: impl IntoIterator<Item = K>) -> Lock {
        let keys = keys.into_iter().map(|key| key.into().0);
        Lock::all(self.clone(), keys.collect())
    }

    /// Makes this locker the one that `#[db_locked]` functions and the functions of the crate use.
    ///
    /// # Errors
    ///
    /// [`InitError::AlreadyInitialized`] when there is one, and `dlock::shutdown` was not called.
    pub fn install_global(&self) -> Result<(), InitError> {
        global::install(self)
    }

    /// Polls a future with this locker in place of the global one: for tests that run side by side in one process.
    /// Tasks that the future spawns do not inherit it.
    pub fn scope<F: Future>(&self, future: F) -> Scoped<F> {
        Scoped::new(self.clone(), future)
    }

    /// Calls a closure with this locker in place of the global one. Threads that it starts do not inherit it.
    pub fn scope_sync<R>(&self, f: impl FnOnce() -> R) -> R {
        scope::enter(self.clone(), f)
    }

    /// What the server is: `PostgreSQL 15.18`, `MariaDB 10.11.19`, `MySQL 9.7.4`, `memory`.
    pub fn server(&self) -> &str {
        &self.inner.capabilities.server
    }

    /// What was found out about the server when this locker connected: what it is, how it keeps locks, and which
    /// hazards are allowed and present.
    pub fn capabilities(&self) -> &Capabilities {
        &self.inner.capabilities
    }

    /// The locks in use: who holds each, who waits for it, and since when, as far as the server tells.
    ///
    /// Of session locks all that the server has are listed (PostgreSQL: of the database), whoever took them; of leases those
    /// of this locker's namespace, in its table. The sessions' own sentinels, by which dlock notices a reset, are left out. Locks
    /// with a key come in the order of the keys.
    ///
    /// It is a look, for people and monitors: what it tells can have changed when it arrives. On PostgreSQL it reads `pg_locks`,
    /// which stops the lock manager for some milliseconds per 10,000 locks; ask seldom.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] where the server does not tell, or not to this account, with what to switch on or to grant;
    /// [`Error::Refused`] with the server's own words where that is not known; [`Error::Unavailable`] when it cannot be reached
    /// within the connect time-out; [`Error::ShutDown`], [`Error::RuntimeStopped`], [`Error::Forked`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing. The query is run to its end.
    pub async fn list(&self) -> Result<Vec<LockInfo>, Error> {
        let within = self.connect_timeout();
        self.queue().list(None, "".into(), within).await
    }

    /// As [`list`](Self::list), for callers that are not async.
    ///
    /// # Errors
    ///
    /// As [`list`](Self::list).
    pub fn list_blocking(&self) -> Result<Vec<LockInfo>, Error> {
        block_on(self.list())
    }

    /// What [`list`](Self::list) tells of one lock; `None` when nobody holds it or waits for it. Of a lease that was held before
    /// it tells that all the same ([`LockInfo::last`]), with nobody among the holders. The key is of the locker's scheme.
    ///
    /// A MySQL or MariaDB server that has no list for this account tells the holder all the same, and nothing of those who wait.
    ///
    /// # Errors
    ///
    /// Those of [`list`](Self::list), and [`Error::InvalidKey`].
    ///
    /// # Cancel safety
    ///
    /// As [`list`](Self::list).
    pub async fn inspect(&self, key: impl Into<Key>) -> Result<Option<LockInfo>, Error> {
        let key = key.into();
        let name = self.queue().name_of(&key, self.key_scheme())?;
        let (text, within) = (key.text().to_shared(), self.connect_timeout());
        let mut found = self.queue().list(Some(name), text.clone(), within).await?;
        Ok(found.pop().map(|mut lock| {
            lock.key = Some(text);
            lock
        }))
    }

    /// As [`inspect`](Self::inspect), for callers that are not async.
    ///
    /// # Errors
    ///
    /// As [`inspect`](Self::inspect).
    pub fn inspect_blocking(&self, key: impl Into<Key>) -> Result<Option<LockInfo>, Error> {
        block_on(self.inspect(key))
    }

    /// Takes the lock away from whoever holds it, and says who that was; nobody, or one who gave it back in the same moment, is no
    /// error. For people who know why.
    ///
    /// A session lock ends with its session, and with that every other lock of the session, which at dlock is nearly all that a
    /// process holds: when there are others, nobody is kicked, and the error lists them; [`kick_session`](Self::kick_session) does
    /// it all the same. The server frees the lock a moment later, and the holder is told that it is [lost](Error::Lost).
    ///
    /// A lease is revoked in its row: fence checks with its token fail at once, its next renewal fails, which tells the holder, and
    /// others get the lock when the time has passed that the lease had left.
    ///
    /// A lease that only stays taken for `min_hold` is free at once, whoever took it.
    ///
    /// What this locker holds itself is not kicked: release it. A body that ignores its loss goes on, and is not recalled.
    ///
    /// # Errors
    ///
    /// [`Error::HoldsMore`] with the session's other locks; [`Error::Refused`] when the account may not end the session
    /// (`docs/grants.md`); [`Error::Unsupported`] when the holder is this locker, or a prepared transaction of PostgreSQL, which
    /// has no session, or the server does not tell what else the session holds; [`Error::Unavailable`] when the server has not
    /// answered within the connect time-out: its `reason` says whether nobody was kicked, or somebody may still be; and those of
    /// [`inspect`](Self::inspect).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future does not undo it: the kick is run to its end.
    pub async fn kick(&self, key: impl Into<Key>) -> Result<Vec<Party>, Error> {
        self.kick_with(key.into(), false).await
    }

    /// As [`kick`](Self::kick), for callers that are not async.
    ///
    /// # Errors
    ///
    /// As [`kick`](Self::kick).
    pub fn kick_blocking(&self, key: impl Into<Key>) -> Result<Vec<Party>, Error> {
        block_on(self.kick(key))
    }

    /// As [`kick`](Self::kick), whatever else the session holds: all its locks are freed. Of leases it is the same as
    /// [`kick`](Self::kick).
    ///
    /// # Errors
    ///
    /// Those of [`kick`](Self::kick) but [`Error::HoldsMore`].
    ///
    /// # Cancel safety
    ///
    /// As [`kick`](Self::kick).
    pub async fn kick_session(&self, key: impl Into<Key>) -> Result<Vec<Party>, Error> {
        self.kick_with(key.into(), true).await
    }

    /// As [`kick_session`](Self::kick_session), for callers that are not async.
    ///
    /// # Errors
    ///
    /// As [`kick_session`](Self::kick_session).
    pub fn kick_session_blocking(&self, key: impl Into<Key>) -> Result<Vec<Party>, Error> {
        block_on(self.kick_session(key))
    }

    async fn kick_with(&self, key: Key, force: bool) -> Result<Vec<Party>, Error> {
        let name = self.queue().name_of(&key, self.key_scheme())?;
        let (text, within) = (key.text().to_shared(), self.connect_timeout());
        self.queue().kick(name, text, force, within).await
    }

    /// Refuses new requests and those that wait ([`Error::ShutDown`]), waits up to `patience` for the locks that
    /// are held to be released, and closes every connection. What is still held then is lost, and its holders are
    /// told. Once is enough; a second call finds nothing to do.
    ///
    /// Observers have what is left of the patience, but at most a second, to hear of everything, and so has the
    /// [status file](Config::status_file) to be written.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the locker refusing, with its connections open.
    pub async fn shutdown(&self, patience: Duration) -> Report {
        let queue = &self.inner.queue;
        let end = Instant::now().checked_add(patience);
        queue.close(&Error::ShutDown);
        if queue.io().check().is_err() {
            return Report::default();
        }
        let draining = queue.clone();
        self.within(patience, async move { draining.drained().await })
            .await;
        let report = Report { cut: queue.held() };
        queue.cut("dlock was shut down");
        let watch = queue.watch();
        let told = [
            watch.and_then(|watch| watch.told()),
            watch.and_then(|watch| watch.ends_status()),
        ];
        let told: Vec<_> = told.into_iter().flatten().collect();
        if !told.is_empty() {
            let rest = end.map_or(OBSERVERS_WITHIN, |end| {
                end.saturating_duration_since(Instant::now())
            });
            let told = async move {
                for told in told {
                    let _ = told.await;
                }
            };
            self.within(rest.min(OBSERVERS_WITHIN), told).await;
        }
        report
    }

    /// Waits for something, for a while. The clock is the I/O thread's.
    async fn within(&self, patience: Duration, wait: impl Future<Output = ()> + Send + 'static) {
        let (reply, answer) = oneshot::channel::<()>();
        let task = self.inner.queue.io().spawn(
            async move {
                let _ = tokio::time::timeout(patience, wait).await;
                drop(reply);
            },
            |_| {},
        );
        let _abort = AbortOnDrop(task);
        let _ = answer.await;
    }

    /// As [`shutdown`](Self::shutdown), for callers that are not async.
    pub fn shutdown_blocking(&self, patience: Duration) -> Report {
        block_on(self.shutdown(patience))
    }

    /// How long a call waits that has this time-out, or none of its own.
    pub(crate) fn patience(&self, timeout: Option<Timeout>) -> Patience {
        let timeout = timeout.unwrap_or(self.inner.config.get_timeout());
        if timeout == Timeout::from(0) {
            return self.one_try();
        }
        let asked = Instant::now();
        match timeout.deadline(asked) {
            Some(deadline) => Patience::Until { asked, deadline },
            None => Patience::Forever,
        }
    }

    pub(crate) fn one_try(&self) -> Patience {
        Patience::OneTry {
            answer_by: Instant::now() + self.inner.config.get_connect_timeout(),
        }
    }

    pub(crate) fn connect_timeout(&self) -> Duration {
        self.inner.config.get_connect_timeout()
    }

    /// How long a lock waits that has no time-out of its own.
    pub(crate) fn timeout(&self) -> Timeout {
        self.inner.config.get_timeout()
    }

    pub(crate) fn namespace(&self) -> &str {
        self.inner.config.get_namespace()
    }

    /// How a lock is to be asked for: with a token or without. Leases have one unasked.
    pub(crate) fn want(&self, mode: Mode, fencing: Option<bool>) -> Result<Want, Error> {
        let config = &self.inner.config;
        let asked = fencing.unwrap_or(config.is_fencing());
        let fenced = match self.capabilities().strategy {
            // Nobody else is excluded, so there is nothing to fence; what checks tokens refuses.
            _ if !config.is_enabled() => false,
            Strategy::Lease => false,
            Strategy::Memory => asked,
            // A token tells a holder from those before it. Readers hold at the same time: the newest one's token would turn
            // the others away.
            Strategy::Session if mode == Mode::Shared && fencing == Some(true) => {
                return Err(unsupported(
                    "fencing = true on a shared session lock".to_owned(),
                    "take it exclusively, leave fencing out, or use strategy=lease",
                ));
            }
            Strategy::Session => asked && mode == Mode::Exclusive,
        };
        Ok(Want { mode, fenced })
    }

    /// The scheme of locks that name none of their own.
    pub(crate) fn key_scheme(&self) -> &KeyScheme {
        self.inner.config.get_key_scheme()
    }

    pub(crate) fn queue(&self) -> &Arc<Queue> {
        &self.inner.queue
    }
}

impl fmt::Debug for Locker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Locker")
            .field("server", &self.server())
            .field("config", &self.inner.config)
            .finish_non_exhaustive()
    }
}

/// Stops a task of the I/O thread whose caller has gone.
struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Runs on the I/O thread.
async fn open(config: Config, io: Arc<Io>) -> Result<Locker, InitError> {
    let (observers, redact) = config.get_observers();
    let watch = Watch::start(observers, config.get_status_file(), redact).await?;
    let Opened {
        backend,
        capabilities,
    } = backend::open(&config).await?;
    Ok(Locker {
        inner: Arc::new(Inner {
            queue: Queue::new(backend, io, config.get_hand_over(), watch),
            config,
            capabilities,
        }),
    })
}
