//! What the observers are told of a line, and the refusals that callers hear.

use std::sync::Arc;

use super::line::Waiting;
use super::{Queue, Request};
use crate::backend::Trouble;
use crate::error::{Busy, Error, Holder, Unavailable};
use crate::hold::Vitality;

impl Queue {
    /// A request is not served on the spot. A turn under another body's hold is nobody's business.
    pub(super) fn watch_request(&self, id: u64, request: &Request<'_>) {
        if let (Some(watch), None) = (&self.watch, request.turn) {
            watch.asks(id, request.key.text(), request.want.mode);
        }
    }

    /// A request was served on the spot.
    pub(super) fn watch_grant(
        self: &Arc<Self>,
        id: u64,
        request: &Request<'_>,
        vitality: &Arc<Vitality>,
    ) {
        if let (Some(watch), None) = (&self.watch, request.turn)
            && watch.is_granted_at_once(id, request.key.text(), request.want.mode, vitality)
        {
            self.guard(vitality);
        }
    }

    /// Reports every hold that a vitality vouches for when it ends: one task for each session, and not for each hold.
    pub(super) fn guard(self: &Arc<Self>, vitality: &Arc<Vitality>) {
        let watch = self.watch.as_ref().map(Arc::downgrade).unwrap_or_default();
        let vitality = vitality.clone();
        self.spawn(async move {
            let reason = vitality.ended().await;
            if let Some(watch) = watch.upgrade() {
                watch.is_lost(&vitality, &reason);
            }
        });
    }

    pub(super) fn watch_release(&self, id: Option<u64>, result: &Result<(), Arc<str>>) {
        if let (Some(watch), Some(id)) = (&self.watch, id) {
            watch.has_left(id, result);
        }
    }

    pub(super) fn deny_busy(&self, waiting: Waiting, holder: Option<Holder>) {
        let error = Error::Busy(Arc::new(Busy {
            waited: waiting.waited(),
            key: waiting.key.to_shared(),
            holder,
        }));
        self.deny(waiting, error);
    }

    pub(super) fn deny_unavailable(&self, waiting: Waiting, trouble: Trouble) {
        let error = Error::Unavailable(Arc::new(Unavailable {
            waited: waiting.waited(),
            key: waiting.key.to_shared(),
            reason: trouble.reason,
            source: trouble.source,
        }));
        self.deny(waiting, error);
    }

    /// The last word to a caller who does not get the lock.
    pub(super) fn deny(&self, waiting: Waiting, error: Error) {
        if let Some(watch) = &self.watch {
            watch.fails(waiting.caller.id, &error);
        }
        let _ = waiting.reply.send(Err(error));
    }
}
