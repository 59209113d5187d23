//! Who holds a lock, asked of the server for those who waited in vain.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time;

use crate::backend::{Backend, Untold};
use crate::clock::Moment;
use crate::error::Holder;
use crate::key::ServerKey;

/// How many questions are under way at a time. They go through the connection that holds the locks, and one may cost the
/// server as much as it has locks.
const AT_ONCE: usize = 8;

/// How long a caller waits for its turn to ask.
const TURN_WITHIN: Duration = Duration::from_millis(100);

/// The questions of one locker. A thousand callers may give up in one moment: then most of them hear no name, but all hear
/// in time that the lock is busy.
pub(super) struct Questions {
    turns: Semaphore,
    /// When the server last answered one, in nanoseconds of the clock.
    answered: AtomicU64,
}

impl Questions {
    pub(super) fn new() -> Questions {
        Questions {
            turns: Semaphore::new(AT_ONCE),
            answered: AtomicU64::new(0),
        }
    }

    /// Who holds the lock. `None` also where too many ask and the server has shown with its answers to others that it is
    /// there.
    pub(super) async fn ask(
        &self,
        backend: &dyn Backend,
        key: &ServerKey,
    ) -> Result<Option<Holder>, Untold> {
        let since = Moment::now();
        let mut turn = std::pin::pin!(self.turns.acquire());
        let _turn = loop {
            match time::timeout(TURN_WITHIN, &mut turn).await {
                Ok(turn) => break turn,
                Err(_) if self.answered_since(since) => return Ok(None),
                // Its place in the line of turns stays.
                Err(_) => {}
            }
        };
        let answer = backend.holder(key).await;
        if !matches!(answer, Err(Untold::Trouble(_))) {
            self.answered
                .fetch_max(Moment::now().as_nanos(), Ordering::AcqRel);
        }
        answer
    }

    fn answered_since(&self, moment: Moment) -> bool {
        self.answered.load(Ordering::Acquire) > moment.as_nanos()
    }
}
