//! Asking about a lock, without wanting it.

use std::sync::Arc;
use std::time::Duration;

use futures_channel::oneshot;
use tokio::time;

use super::Queue;
use super::line::State;
use crate::backend::{NotKicked, Untold, Warrant};
use crate::capabilities::Strategy;
use crate::error::{Error, HoldsMore, Refused, Source, Unavailable, Unsupported};
use crate::key::ServerKey;
use crate::listing::{LockInfo, Party};

impl Queue {
    /// Whether anybody holds the lock. `None`: the server could not be asked.
    pub(crate) async fn is_held(
        self: &Arc<Self>,
        key: &ServerKey,
        about: Arc<str>,
        within: Duration,
    ) -> Result<Option<bool>, Error> {
        self.check()?;
        if self.is_held_here(key)? {
            return Ok(Some(true));
        }
        self.io.check()?;
        let (reply, answer) = oneshot::channel();
        let (queue, key) = (self.clone(), key.clone());
        self.spawn(async move {
            let asked = time::timeout(within, queue.backend.holder(&key)).await;
            let held = match asked {
                Ok(Ok(holder)) => Ok(Some(holder.is_some())),
                Ok(Err(Untold::Trouble(_))) | Err(_) => Ok(None),
                Ok(Err(untold)) => Err(self::untold(about, untold)),
            };
            let _ = reply.send(held);
        });
        answer.await.map_err(|_| Error::RuntimeStopped)?
    }

    /// The locks in use, or the one of that name.
    pub(crate) async fn list(
        self: &Arc<Self>,
        only: Option<ServerKey>,
        about: Arc<str>,
        within: Duration,
    ) -> Result<Vec<LockInfo>, Error> {
        self.check()?;
        if let Some(closed) = &self.table().closed {
            return Err(closed.clone());
        }
        self.io.check()?;
        let (reply, answer) = oneshot::channel();
        let queue = self.clone();
        self.spawn(async move {
            let asked = time::timeout(within, queue.backend.list(only.as_ref())).await;
            let listed = match asked {
                Ok(Ok(locks)) => Ok(queue.tell(locks)),
                Ok(Err(untold)) => Err(self::untold(about, untold)),
                Err(_) => {
                    let reason = format!("the server did not answer within {within:?}");
                    Err(unavailable(about, reason, None))
                }
            };
            let _ = reply.send(listed);
        });
        answer.await.map_err(|_| Error::RuntimeStopped)?
    }

    /// Ends the holds of others on the lock.
    pub(crate) async fn kick(
        self: &Arc<Self>,
        key: ServerKey,
        about: Arc<str>,
        force: bool,
        within: Duration,
    ) -> Result<Vec<Party>, Error> {
        self.check()?;
        if let Some(closed) = &self.table().closed {
            return Err(closed.clone());
        }
        self.io.check()?;
        let (reply, answer) = oneshot::channel();
        let queue = self.clone();
        self.spawn(async move {
            let warrant = Arc::<Warrant>::default();
            let asked = queue.backend.kick(&key, force, warrant.clone());
            let kicked = match time::timeout(within, asked).await {
                Ok(Ok(parties)) => Ok(parties),
                Ok(Err(not)) => Err(queue.not_kicked(about, not)),
                Err(_) if warrant.withdraw() => Err(queue.not_kicked(about, NotKicked::Withdrawn)),
                Err(_) => {
                    let reason = format!(
                        "the server did not confirm the kick within {within:?}: it may have been done, or may still be"
                    );
                    Err(unavailable(about, reason, None))
                }
            };
            let _ = reply.send(kicked);
        });
        answer.await.map_err(|_| Error::RuntimeStopped)?
    }

    fn not_kicked(&self, key: Arc<str>, not: NotKicked) -> Error {
        match not {
            NotKicked::Untold(untold) => self::untold(key, untold),
            NotKicked::Withdrawn => {
                let reason = "the server did not answer in time, and nobody was kicked";
                unavailable(key, reason.into(), None)
            }
            NotKicked::Own => Error::Unsupported(Arc::new(Unsupported {
                what: format!("kicking {key:?}, which this locker holds itself,"),
                remedy: "release it, or shut the locker down".into(),
            })),
            NotKicked::HoldsMore(others) => {
                let name = |lock: LockInfo| lock.key.unwrap_or(lock.name);
                let others = self.tell(others).into_iter().map(name).collect();
                Error::HoldsMore(Arc::new(HoldsMore { key, others }))
            }
        }
    }

    /// Adds what this process knows: the texts of its keys, and how many of its callers wait.
    fn tell(&self, mut locks: Vec<LockInfo>) -> Vec<LockInfo> {
        let table = self.table();
        for lock in &mut locks {
            let Some(entry) = table.entries.get(&lock.server_key) else {
                continue;
            };
            // What this process says itself counts for more than what somebody has noted.
            if lock.key.is_none() || lock.strategy == Strategy::Session {
                lock.key = Some(entry.text.to_shared());
            }
            lock.waiting_here = entry.line.len();
        }
        drop(table);
        locks.sort_by(|one, other| {
            let name = |lock: &LockInfo| lock.key.clone().unwrap_or_else(|| lock.name.clone());
            name(one).cmp(&name(other))
        });
        locks
    }

    fn is_held_here(&self, key: &ServerKey) -> Result<bool, Error> {
        let table = self.table();
        if let Some(closed) = &table.closed {
            return Err(closed.clone());
        }
        let entry = table.entries.get(key);
        Ok(entry.is_some_and(|entry| matches!(entry.state, State::Held { .. })))
    }
}

fn unavailable(key: Arc<str>, reason: String, source: Option<Source>) -> Error {
    Error::Unavailable(Arc::new(Unavailable {
        key,
        waited: Duration::ZERO,
        reason,
        source,
    }))
}

fn untold(key: Arc<str>, untold: Untold) -> Error {
    match untold {
        Untold::Unsupported(why) => Error::Unsupported(Arc::new(why)),
        Untold::Refused {
            code,
            message,
            source,
        } => Error::Refused(Arc::new(Refused {
            key,
            code,
            message,
            source,
        })),
        Untold::Trouble(trouble) => unavailable(key, trouble.reason, trouble.source),
    }
}
