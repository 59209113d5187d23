//! Asking about a lock, without wanting it.

use std::sync::Arc;
use std::time::Duration;

use futures_channel::oneshot;
use tokio::time;

use super::Queue;
use super::line::State;
use crate::error::Error;
use crate::key::ServerKey;

impl Queue {
    /// Whether anybody holds the lock. `None`: the server could not be asked.
    pub(crate) async fn is_held(
        self: &Arc<Self>,
        key: &ServerKey,
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
                Ok(Ok(holder)) => Some(holder.is_some()),
                Ok(Err(_)) | Err(_) => None,
            };
            let _ = reply.send(held);
        });
        answer.await.map_err(|_| Error::RuntimeStopped)
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
