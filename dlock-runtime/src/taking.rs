//! Taking one lock, or several: in one order for everybody, all or none.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use smallvec::SmallVec;

use crate::backend::Want;
use crate::clock::Moment;
use crate::error::{Error, InvalidKey, Unsupported, WouldDeadlock};
use crate::hold::frame::{self, Frame, Locked};
use crate::hold::{promise_all, renew_all};
use crate::key::{Key, KeyText, Mode, ServerKey};
use crate::park::block_on;
use crate::queue::{Acquire, Admission, Origin, Patience, Place, Queue, Request, lost};
use crate::scheme::KeyScheme;

/// How long a wait may take that has no deadline of its own, while other locks are held: another process may wait
/// the other way round, and no server sees both.
const NESTED_PATIENCE: Duration = Duration::from_secs(30);

const IN_BODY: &str = "a body that this call belongs to holds it; let the body finish first, or call a `#[db_locked]` \
     function, which runs under the body's lock";
const NOT_REENTRANT: &str =
    "a body that this call belongs to holds it, and `reentrant = false` forbids to run under that";
const SHARED_BY_BODY: &str = "a body that this call belongs to holds it in shared mode, and an exclusive lock inside would \
     wait for that body; take it exclusively outside";

/// How to take the locks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manner {
    /// Fenced: each lock is to come with a token that the strategy gives to who asks.
    pub(crate) want: Want,
    pub(crate) patience: Patience,
    /// Whether a refusal has to name the holder.
    pub(crate) name_holder: bool,
    /// The number of the body that is to run; `None` for a guard, which never runs under another's hold.
    pub(crate) body: Option<u64>,
    /// Whether the body may run under the hold of a body that calls it.
    pub(crate) reentrant: bool,
    /// Whether the caller parks its thread.
    pub(crate) parks: bool,
    /// How long a lease is to last, other than the configuration says.
    pub(crate) ttl: Option<Duration>,
    /// How long the body keeps the locks at least.
    pub(crate) min_hold: Option<Duration>,
}

/// A lock that was taken.
pub(crate) struct Held {
    pub(crate) locked: Locked,
    pub(crate) place: Place,
}

/// Locks on their way. Dropping it gives back what it has and leaves the lines.
pub(crate) struct Taking {
    queue: Arc<Queue>,
    manner: Manner,
    caller: Option<Arc<Frame>>,
    origin: Origin,
    /// The next one last.
    todo: SmallVec<[Wanted; 1]>,
    waiting: Option<(Wanted, Acquire)>,
    held: SmallVec<[Held; 1]>,
    /// All are taken, and get the ttl, and the time to stay, that they are to have.
    renewing: Option<BoxFuture<'static, Result<(), Error>>>,
}

struct Wanted {
    key: Key,
    name: ServerKey,
    under: Option<Arc<Frame>>,
}

impl Taking {
    /// Makes ready, without joining a line.
    pub(crate) fn new(
        queue: &Arc<Queue>,
        keys: SmallVec<[KeyText; 1]>,
        scheme: &KeyScheme,
        mut manner: Manner,
    ) -> Result<Taking, Error> {
        if keys.is_empty() {
            return Err(Error::InvalidKey(Arc::new(InvalidKey {
                key: String::new(),
                rule: "at least one key has to be given",
            })));
        }
        let caller = frame::current();
        if manner.patience == Patience::Forever && (caller.is_some() || keys.len() > 1) {
            let asked = Instant::now();
            manner.patience = Patience::Until {
                asked,
                deadline: asked + NESTED_PATIENCE,
            };
        }
        let wanted = |key| {
            let key = Key(key);
            Ok(Wanted {
                name: queue.name_of(&key, scheme)?,
                key,
                under: None,
            })
        };
        let todo = keys.into_iter().map(wanted);
        let mut todo = todo.collect::<Result<SmallVec<[Wanted; 1]>, Error>>()?;
        if todo.len() > 1 {
            todo.sort_by(|one, other| other.name.cmp(&one.name));
            todo.dedup_by(|one, other| one.name == other.name);
        }
        Ok(Taking {
            queue: queue.clone(),
            manner,
            caller,
            origin: Origin::here(),
            todo,
            waiting: None,
            held: SmallVec::new(),
            renewing: None,
        })
    }

    pub(crate) fn queue(&self) -> &Arc<Queue> {
        &self.queue
    }

    pub(crate) fn caller(&self) -> Option<&Arc<Frame>> {
        self.caller.as_ref()
    }

    /// Takes what can be taken on the spot. `true`: all of it.
    fn advance(&mut self) -> Result<bool, Error> {
        while let Some(mut wanted) = self.todo.pop() {
            let enclosing = self.enclosing(&wanted)?;
            let turn = enclosing.map(|(frame, position)| {
                let turn = ServerKey::Turn(frame.id, position);
                (frame, position, turn)
            });
            if let Some((frame, position, _)) = &turn {
                self.check_token(frame, *position)?;
            }
            let admission = self.queue.join(&Request {
                key: &wanted.key,
                name: turn.as_ref().map_or(&wanted.name, |(_, _, turn)| turn),
                want: Want {
                    mode: self.manner.want.mode,
                    // The token of a turn is the one of the hold around it.
                    fenced: self.manner.want.fenced && turn.is_none(),
                },
                patience: self.manner.patience,
                name_holder: self.manner.name_holder,
                turn: turn
                    .as_ref()
                    .and_then(|(frame, position, _)| frame.locks.get(*position))
                    .map(|locked| &locked.vitality),
                body: self.manner.body,
                within: self.caller.as_ref(),
                partial: !self.held.is_empty(),
                origin: self.origin,
                parks: self.manner.parks,
            })?;
            wanted.under = turn.map(|(frame, ..)| frame);
            match admission {
                Admission::Granted(place, vitality) => self.held.push(wanted.held(place, vitality)),
                Admission::Waiting(acquire) => {
                    self.waiting = Some((wanted, acquire));
                    return Ok(false);
                }
            }
        }
        self.check_first()?;
        Ok(true)
    }

    /// Of several locks those that were taken first may have been lost while the others were waited for: such a set is
    /// not handed out.
    fn check_first(&self) -> Result<(), Error> {
        if self.held.len() < 2 {
            return Ok(());
        }
        self.held.iter().try_for_each(|held| {
            let reason = held.locked.vitality.lost();
            reason.map_or(Ok(()), |reason| Err(lost(&held.locked.key, &reason)))
        })
    }

    /// The enclosing body under whose hold this lock is to be taken, and which of its locks it is.
    fn enclosing(&self, wanted: &Wanted) -> Result<Option<(Arc<Frame>, usize)>, Error> {
        let queue = Arc::as_ptr(&self.queue).addr();
        let found = self
            .caller
            .iter()
            .flat_map(Frame::callers)
            .find_map(|frame| {
                let position = frame.position(queue, &wanted.name)?;
                Some((frame.clone(), position))
            });
        let Some((frame, position)) = found else {
            return Ok(None);
        };
        let deadlock = |reason| {
            Err(Error::WouldDeadlock(Arc::new(WouldDeadlock {
                key: wanted.key.text().to_shared(),
                reason,
            })))
        };
        let one_try = matches!(self.manner.patience, Patience::OneTry { .. });
        match self.manner.body {
            Some(_) if self.manner.reentrant => {
                if frame.mode == Mode::Shared && self.manner.want.mode == Mode::Exclusive {
                    return deadlock(SHARED_BY_BODY);
                }
                Ok(Some((frame, position)))
            }
            // A try does not wait: it finds the lock busy.
            _ if one_try => Ok(None),
            Some(_) => deadlock(NOT_REENTRANT),
            None => deadlock(IN_BODY),
        }
    }

    /// A body that needs a token does not run under a hold that has none.
    fn check_token(&self, frame: &Frame, position: usize) -> Result<(), Error> {
        let around = frame.locks.get(position);
        match around.filter(|around| self.manner.want.fenced && around.vitality.token().is_none()) {
            None => Ok(()),
            Some(around) => Err(Error::Unsupported(Arc::new(Unsupported {
                what: format!(
                    "fencing = true under the lock {:?} of a body that this call belongs to, which has no token",
                    &*around.key
                ),
                remedy: "give that body fencing = true too".to_owned(),
            }))),
        }
    }

    /// Takes the locks, if none has to be waited for. Otherwise poll this on.
    pub(crate) fn on_the_spot(&mut self) -> Result<Option<SmallVec<[Held; 1]>>, Error> {
        let all = self.advance()? && self.is_plain();
        Ok(all.then(|| std::mem::take(&mut self.held)))
    }

    /// Whether the locks are as they are to be once they are taken.
    fn is_plain(&self) -> bool {
        self.manner.ttl.is_none() && self.manner.min_hold.is_none()
    }

    /// Gives leases what they are to have beside what the configuration says.
    fn lengthen(&self) -> BoxFuture<'static, Result<(), Error>> {
        let locks = || self.held.iter().map(|held| &held.locked);
        // The locks of an enclosing body are kept too: this one's time counts for all that it runs under.
        let kept = self.manner.min_hold.map(|min_hold| {
            let until = Moment::now().plus(min_hold);
            promise_all(locks(), until)
        });
        // Those under an enclosing body's hold keep the ttl that they have.
        let own = locks().filter(|locked| locked.under.is_none());
        let renewed = self.manner.ttl.map(|ttl| renew_all(own, ttl));
        Box::pin(async move {
            if let Some(renewed) = renewed {
                renewed.await?;
            }
            match kept {
                Some(kept) => kept.await,
                None => Ok(()),
            }
        })
    }

    /// Takes the locks, parking the thread.
    pub(crate) fn wait(mut self) -> Result<SmallVec<[Held; 1]>, Error> {
        match self.on_the_spot()? {
            Some(held) => Ok(held),
            None => block_on(self),
        }
    }
}

impl Wanted {
    fn held(self, place: Place, vitality: Arc<crate::hold::Vitality>) -> Held {
        Held {
            locked: Locked {
                key: self.key.text().clone(),
                name: self.name,
                vitality,
                under: self.under,
            },
            place,
        }
    }
}

impl Future for Taking {
    type Output = Result<SmallVec<[Held; 1]>, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            if let Some((_, acquire)) = &mut self.waiting {
                let answer = ready!(Pin::new(acquire).poll(context));
                if let Some((wanted, _)) = self.waiting.take() {
                    let (place, vitality) = answer?;
                    self.held.push(wanted.held(place, vitality));
                }
            }
            if let Some(renewing) = &mut self.renewing {
                ready!(renewing.as_mut().poll(context))?;
                return Poll::Ready(Ok(std::mem::take(&mut self.held)));
            }
            if self.advance()? {
                if self.is_plain() {
                    return Poll::Ready(Ok(std::mem::take(&mut self.held)));
                }
                self.renewing = Some(self.lengthen());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Config, Locker};

    fn patience_of(locker: &Locker, keys: &[&'static str], patience: Patience) -> Patience {
        let manner = Manner {
            want: Want::plain(Mode::Exclusive),
            patience,
            name_holder: true,
            body: None,
            reentrant: true,
            parks: false,
            ttl: None,
            min_hold: None,
        };
        let keys = keys.iter().map(|key| (*key).into()).collect();
        let taking = Taking::new(locker.queue(), keys, locker.key_scheme(), manner);
        taking.expect("good keys").manner.patience
    }

    /// Other processes may hold what is waited for, and wait for what is held: nobody sees that cycle.
    #[test]
    fn b2_a_wait_while_holding_has_a_deadline_also_when_none_is_given() {
        let config = Config::from_dsn("memory:").expect("a DSN");
        let locker = Locker::connect_blocking(config).expect("memory needs no server");
        let bounded = |patience| match patience {
            Patience::Until { asked, deadline } => {
                assert_eq!(deadline - asked, Duration::from_secs(30));
                assert!(asked <= Instant::now());
            }
            other => panic!("not bounded: {other:?}"),
        };
        assert_eq!(
            patience_of(&locker, &["a"], Patience::Forever),
            Patience::Forever
        );
        bounded(patience_of(&locker, &["a", "b"], Patience::Forever));
        let nested = |patience| {
            let body = || patience_of(&locker, &["a"], patience);
            locker.lock("outer").run_blocking(body).expect("free")
        };
        bounded(nested(Patience::Forever));
        // What was given stays, be it longer.
        let asked = Instant::now();
        let given = Patience::Until {
            asked,
            deadline: asked + 10 * NESTED_PATIENCE,
        };
        assert_eq!(nested(given), given);
    }
}
