//! The end of a session: said once, heard by everybody who asks.

use std::sync::Arc;

use tokio::sync::watch;

/// Whether a session has ended, and why.
#[derive(Clone)]
pub(super) struct Ending {
    reason: Arc<watch::Sender<Option<Arc<str>>>>,
}

impl Ending {
    pub(super) fn new() -> Self {
        Ending {
            reason: Arc::new(watch::Sender::new(None)),
        }
    }

    /// Says why the session has ended. The first reason stays: what follows is its consequence.
    pub(super) fn end(&self, reason: &str) {
        self.reason.send_if_modified(|said| {
            let first = said.is_none();
            if first {
                *said = Some(reason.into());
            }
            first
        });
    }

    /// The reason, where the session has ended.
    pub(super) fn reason(&self) -> Option<Arc<str>> {
        self.reason.borrow().clone()
    }

    /// Completes when the session has ended.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing: the reason stays.
    pub(super) async fn ended(&self) -> Arc<str> {
        let mut heard = self.reason.subscribe();
        match heard
            .wait_for(Option::is_some)
            .await
            .map(|said| said.clone())
        {
            Ok(Some(reason)) => reason,
            // The sender is `self`: it cannot be dropped while this future borrows it.
            _ => std::future::pending().await,
        }
    }
}
