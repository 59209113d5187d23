//! A caller leaves, and the lock goes to the next in line or back to where it came from.

use std::sync::Arc;

use futures_channel::oneshot;
use futures_util::FutureExt;
use futures_util::future::Either;

use super::line::{LetGo, Stretch};
use super::{Leaving, Queue};
use crate::backend::{GivenBack, Hold, Offered, Want};
use crate::key::{Mode, ServerKey};

/// What a release is told that finds nothing to release.
const UNKNOWN: &str = "this process did not hold the lock";

impl Queue {
    /// A caller leaves: its wait ends, or its hold. `heard`: it wants to know how that went.
    pub(super) fn leave(self: &Arc<Self>, key: &ServerKey, id: u64, heard: bool) -> Leaving {
        let mut table = self.table();
        let nothing = || Leaving::done(if heard { Err(UNKNOWN.into()) } else { Ok(()) });
        let Some(entry) = table.entries.get_mut(key) else {
            return nothing();
        };
        if let Some(waiting) = entry.remove(id) {
            table.forget_wait(id);
            drop(table);
            drop(waiting);
            if let Some(watch) = &self.watch {
                watch.is_cancelled(id);
            }
            return nothing();
        }
        match entry.let_go(id) {
            LetGo::NotHolder => nothing(),
            LetGo::OthersHold(vitality) => {
                drop(table);
                let result = vitality.lost().map_or(Ok(()), Err);
                if let Some(watch) = &self.watch {
                    watch.has_left(id, &result);
                }
                Leaving::done(result)
            }
            LetGo::Last(hold, mode, stretch) => {
                let stretch = entry.next_stretch(&hold, mode, stretch, self.hand_over);
                // In memory there is nobody to save a round trip to, and the store lets all lockers take turns.
                if let Some(stretch) = stretch.filter(|_| !self.local) {
                    let vitality = hold.vitality.clone();
                    // It stood a moment ago. Under the mutex: the next holder's grant is reported behind the release.
                    self.watch_release(Some(id), &Ok(()));
                    let want = Want::plain(mode);
                    self.hand_out(table, key, want, hold, stretch);
                    return Leaving::done(vitality.lost().map_or(Ok(()), Err));
                }
                let want = Want::plain(mode);
                let again = (hold.vitality.token().is_none() && entry.wants(want)).then_some(want);
                drop(table);
                if let Some(watch) = &self.watch {
                    watch.leaves(id);
                }
                self.give_back(key, hold, Some(id), heard, again)
            }
        }
    }

    /// A hold stays although its holder has gone.
    pub(super) fn keep(&self, key: &ServerKey, id: u64) {
        if let Some(entry) = self.table().entries.get_mut(key) {
            entry.keep(id);
        }
    }

    /// `id`: who held it. `again`: the next in line would take it again like this, if nobody else does.
    pub(super) fn give_back(
        self: &Arc<Self>,
        key: &ServerKey,
        hold: Hold,
        id: Option<u64>,
        heard: bool,
        again: Option<Want>,
    ) -> Leaving {
        let Hold {
            vitality,
            mut grant,
        } = hold;
        let offered = again.and_then(|want| Some((want, grant.offer()?)));
        let (want, giving_back) = match offered {
            Some((want, offered)) => (want, Either::Left(offered)),
            None => match grant.give_back() {
                GivenBack::Now(result) => {
                    let result = vitality.lost().map_or(result, Err);
                    #[cfg(dlock_sabotage)]
                    let result = match crate::sabotage::is_on("release-unowned") {
                        true => Ok(()),
                        false => result,
                    };
                    self.watch_release(id, &result);
                    self.advance(self.table(), key);
                    return Leaving::done(result);
                }
                GivenBack::Later(giving_back) => {
                    let alone = giving_back.map(|given_back| Offered {
                        given_back,
                        again: None,
                    });
                    (Want::plain(Mode::Exclusive), Either::Right(alone))
                }
            },
        };
        let (ack, answer) = heard.then(oneshot::channel).unzip();
        let queue = self.clone();
        let key = key.clone();
        self.spawn(async move {
            // The strategy's word is the last: a session that is closed once it is free was not lost.
            let Offered { given_back, again } = giving_back.await;
            queue.watch_release(id, &given_back);
            match again {
                Some(hold) => {
                    queue.hand_out(queue.table(), &key, want, hold, Stretch::begin());
                }
                None => queue.advance(queue.table(), &key),
            }
            if let Some(ack) = ack {
                let _ = ack.send(given_back);
            }
        });
        answer.map_or(Leaving::done(Ok(())), Leaving::Asked)
    }
}
