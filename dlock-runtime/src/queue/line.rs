//! One lock's line: who waits, and what is known of the lock.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_channel::oneshot;
use smallvec::{SmallVec, smallvec};

use super::deadlines::Timer;
use super::refusal::{ANSWERS_WITHIN, Refusal};
use super::{HandOver, Origin, Patience, Request};
use crate::backend::{Errand, Hold, Progress, Want};
use crate::error::Error;
use crate::hold::Vitality;
use crate::key::{KeyText, Mode};

/// A lock that somebody in this process holds, takes or waits for.
pub(super) struct Entry {
    /// The key, as the first caller wrote it.
    pub(super) text: KeyText,
    /// In the order of their numbers.
    pub(super) line: VecDeque<Waiting>,
    /// How many in line came for one try.
    one_tries: usize,
    /// The last of those in line, when it was last held here: up to this number all have seen it held.
    seen: u64,
    pub(super) state: State,
}

/// What this process does with the lock at present.
pub(super) enum State {
    /// An errand is under way. Those in line wait for it.
    Taking(Arc<Errand>),
    /// These callers hold it.
    Held {
        hold: Hold,
        mode: Mode,
        holders: SmallVec<[Caller; 1]>,
        stretch: Stretch,
        /// Whether it is being found out if more readers may come: they line up meanwhile.
        asking: bool,
        /// Since when these have it, or the first of readers who came one beside the other.
        since: Instant,
    },
    /// It goes back to the server.
    GivingBack,
}

/// How long this process has had the lock without the server's others getting their turn.
#[derive(Clone, Copy)]
pub(super) struct Stretch {
    since: Instant,
    /// How often it was handed over.
    times: u32,
}

impl Stretch {
    pub(super) fn begin() -> Stretch {
        Stretch {
            since: Instant::now(),
            times: 0,
        }
    }

    /// Whether this is the same stretch as the other.
    fn is(self, other: Stretch) -> bool {
        self.since == other.since
    }

    /// The stretch with one more hand-over, if that is within the bounds.
    fn longer(self, bounds: HandOver) -> Option<Stretch> {
        let within = self.times < bounds.times && self.since.elapsed() < bounds.time;
        within.then_some(Stretch {
            times: self.times + 1,
            ..self
        })
    }
}

/// Somebody who waits or holds.
#[derive(Clone, Copy)]
pub(super) struct Caller {
    pub(super) id: u64,
    /// The body that runs, or is to run, if it is one.
    pub(super) body: Option<u64>,
    pub(super) origin: Origin,
}

/// A caller in line.
pub(super) struct Waiting {
    pub(super) caller: Caller,
    pub(super) key: KeyText,
    pub(super) want: Want,
    pub(super) patience: Patience,
    pub(super) name_holder: bool,
    pub(super) since: Instant,
    /// Whether it came to wait, and not for one try.
    pub(super) timed: bool,
    pub(super) reply: oneshot::Sender<Result<Arc<Vitality>, Error>>,
    pub(super) timer: Option<Timer>,
    /// For a turn: what vouches for the enclosing body's hold.
    pub(super) turn: Option<Arc<Vitality>>,
}

/// Whether a reader gets in beside others.
pub(super) enum Share {
    Granted(Arc<Vitality>),
    /// After this is found out for the stretch.
    Ask(Stretch),
    No,
}

/// What became of a hold when a caller let go of it.
pub(super) enum LetGo {
    /// The caller did not hold it.
    NotHolder,
    /// Other readers still do.
    OthersHold(Arc<Vitality>),
    /// It has to go back, or to the next in line.
    Last(Hold, Mode, Stretch),
}

impl Waiting {
    pub(super) fn new(
        caller: Caller,
        request: &Request<'_>,
    ) -> (Waiting, oneshot::Receiver<Result<Arc<Vitality>, Error>>) {
        let (reply, answer) = oneshot::channel();
        let waiting = Waiting {
            caller,
            key: request.key.text().clone(),
            want: request.want,
            patience: request.patience,
            name_holder: request.name_holder,
            since: match request.patience {
                // A wait is never reported shorter than the time-out that it outlasted.
                Patience::Until { asked, .. } => asked,
                Patience::OneTry { .. } | Patience::Forever => Instant::now(),
            },
            timed: !matches!(request.patience, Patience::OneTry { .. }),
            reply,
            timer: None,
            turn: request.turn.cloned(),
        };
        (waiting, answer)
    }

    fn is_one_try(&self) -> bool {
        matches!(self.patience, Patience::OneTry { .. })
    }

    pub(super) fn waited(&self) -> Duration {
        if self.timed {
            self.since.elapsed()
        } else {
            Duration::ZERO
        }
    }
}

impl Entry {
    pub(super) fn held(text: KeyText, hold: Hold, mode: Mode, holder: Caller) -> Entry {
        let stretch = Stretch::begin();
        Entry {
            text,
            line: VecDeque::new(),
            one_tries: 0,
            seen: 0,
            state: State::Held {
                hold,
                mode,
                holders: smallvec![holder],
                stretch,
                asking: false,
                since: stretch.since,
            },
        }
    }

    pub(super) fn taking(errand: Arc<Errand>, first: Waiting) -> Entry {
        Entry {
            text: first.key.clone(),
            one_tries: usize::from(first.is_one_try()),
            seen: 0,
            line: VecDeque::from([first]),
            state: State::Taking(errand),
        }
    }

    /// Lets a reader in beside the readers who hold the lock, unless somebody waits already. When this process has had
    /// the lock for longer than `bound`, a writer of another may wait, and the reader lines up until that is known.
    pub(super) fn share(&mut self, caller: Caller, want: Want, bound: Option<Duration>) -> Share {
        match &mut self.state {
            State::Held {
                hold,
                mode: Mode::Shared,
                holders,
                stretch,
                asking,
                ..
            } if want.mode == Mode::Shared
                && self.line.is_empty()
                && hold.serves(want)
                && hold.vitality.stands_quietly() =>
            {
                if bound.is_some_and(|bound| stretch.since.elapsed() > bound) {
                    *asking = true;
                    return Share::Ask(*stretch);
                }
                holders.push(caller);
                Share::Granted(hold.vitality.clone())
            }
            _ => Share::No,
        }
    }

    /// It is known whether more readers may come. Those who are let in begin a new stretch; else all in line wait until
    /// the lock has gone back. The second list are those who came for one try, in vain.
    pub(super) fn admit(
        &mut self,
        of: Stretch,
        admits: bool,
    ) -> Option<(Arc<Vitality>, Vec<Waiting>, Vec<Waiting>)> {
        let State::Held {
            hold,
            mode: Mode::Shared,
            holders,
            stretch,
            asking,
            ..
        } = &mut self.state
        else {
            return None;
        };
        if !stretch.is(of) || !std::mem::take(asking) {
            return None;
        }
        let vitality = hold.vitality.clone();
        let mut granted = Vec::new();
        if admits && vitality.stands_quietly() {
            *stretch = Stretch::begin();
            while self
                .line
                .front()
                .is_some_and(|first| first.want.mode == Mode::Shared && hold.serves(first.want))
                && let Some(waiting) = self.line.pop_front()
            {
                self.one_tries -= usize::from(waiting.is_one_try());
                holders.push(waiting.caller);
                granted.push(waiting);
            }
        }
        Some((vitality, granted, self.remove_one_tries()))
    }

    /// Why a newcomer need not even line up.
    pub(super) fn refusal_of(&self, newcomer: &Waiting) -> Option<Refusal> {
        if !matches!(newcomer.patience, Patience::OneTry { .. }) {
            return None;
        }
        match &self.state {
            State::Held {
                asking: true,
                mode: Mode::Shared,
                ..
            } if newcomer.want.mode == Mode::Shared
                && self
                    .line
                    .iter()
                    .all(|waiting| waiting.want.mode == Mode::Shared) =>
            {
                None
            }
            State::Held { .. } => Some(self.held_here()),
            // What it found out is old by now; the next errand asks anew.
            State::Taking(errand) if errand.is_called_off() => None,
            State::Taking(errand) => match errand.progress() {
                // An errand that was called off leaves the lock behind free; its last report is of the past.
                Progress::Busy if !errand.is_called_off() => {
                    Some(Refusal::HeldElsewhere { asked_now: false })
                }
                // As good as held, by the first in line.
                Progress::Counting { .. } => Some(self.held_here()),
                _ => None,
            },
            State::GivingBack => None,
        }
    }

    /// The refusal while this process has the lock.
    pub(super) fn held_here(&self) -> Refusal {
        let (since, lost) = match &self.state {
            State::Held { since, hold, .. } => (Some(*since), !hold.vitality.stands_quietly()),
            State::Taking(_) | State::GivingBack => (None, false),
        };
        Refusal::HeldHere {
            since,
            lost,
            waiting: self.line.len(),
        }
    }

    pub(super) fn push(&mut self, waiting: Waiting) {
        match &self.state {
            State::Taking(errand) => errand.wait_until(waiting.patience.deadline()),
            State::Held { .. } | State::GivingBack => self.seen = waiting.caller.id,
        }
        self.one_tries += usize::from(waiting.is_one_try());
        self.line.push_back(waiting);
    }

    /// When the last in line gives up; `None`: never.
    pub(super) fn patience(&self) -> Option<Instant> {
        let deadlines = self.line.iter().map(|waiting| waiting.patience.deadline());
        deadlines.reduce(|one, other| Some(one?.max(other?)))?
    }

    /// Takes a caller out of the line.
    pub(super) fn remove(&mut self, id: u64) -> Option<Waiting> {
        let waiting = self.take_at(self.position(id)?);
        self.call_off_unless_wanted();
        waiting
    }

    /// Where in line a caller is.
    pub(super) fn position(&self, id: u64) -> Option<usize> {
        self.line
            .binary_search_by_key(&id, |waiting| waiting.caller.id)
            .ok()
    }

    fn take_at(&mut self, position: usize) -> Option<Waiting> {
        let waiting = self.line.remove(position)?;
        self.one_tries -= usize::from(waiting.is_one_try());
        Some(waiting)
    }

    /// Whether others of this process held the lock while this one waited.
    pub(super) fn saw_it_held(&self, waiting: &Waiting) -> bool {
        waiting.caller.id <= self.seen
    }

    /// A caller's deadline has passed before the server has answered for the first time: a wait of a millisecond is
    /// worth one try all the same. `Some`: it has a new deadline, until which the answer may come.
    pub(super) fn grant_an_answer(&mut self, id: u64) -> Option<&mut Waiting> {
        let State::Taking(errand) = &self.state else {
            return None;
        };
        // An errand that was called off was not the caller's; its own is sent when that one is home.
        let answers = match errand.progress() {
            Progress::Asked => true,
            // The answer came, and is not complete. Who has waited already is owed no more time than it had asked for.
            Progress::Counting { waited } => !waited,
            Progress::Busy | Progress::Trouble(_) => false,
        };
        if !errand.is_called_off() && !answers {
            return None;
        }
        let position = self.position(id)?;
        let waiting = self.line.get_mut(position)?;
        if waiting.caller.id <= self.seen || waiting.is_one_try() {
            return None;
        }
        let answer_by = Instant::now() + ANSWERS_WITHIN;
        waiting.patience = Patience::OneTry { answer_by };
        self.one_tries += 1;
        Some(waiting)
    }

    /// Takes those out of the line who came for one try.
    pub(super) fn remove_one_tries(&mut self) -> Vec<Waiting> {
        if self.one_tries == 0 {
            return Vec::new();
        }
        let (gone, staying): (Vec<_>, Vec<_>) = self.line.drain(..).partition(Waiting::is_one_try);
        self.line = staying.into();
        self.one_tries = 0;
        self.call_off_unless_wanted();
        gone
    }

    /// Takes the first out of the line, if it asked for this.
    pub(super) fn pop(&mut self, want: Want) -> Option<Waiting> {
        self.wants(want).then(|| self.take_at(0)).flatten()
    }

    /// Empties the line.
    pub(super) fn clear(&mut self) -> Vec<Waiting> {
        let all = self.line.drain(..).collect();
        self.one_tries = 0;
        self.call_off_unless_wanted();
        all
    }

    /// Gives a lock to the first in line, and to the readers right behind a first reader. The second list are those
    /// who came for one try and see it held. `Err`: nobody wants it.
    pub(super) fn grant(
        &mut self,
        hold: Hold,
        want: Want,
        stretch: Stretch,
    ) -> Result<(SmallVec<[Waiting; 1]>, Vec<Waiting>), Hold> {
        let mut granted = SmallVec::new();
        let mut holders = SmallVec::new();
        while let Some(waiting) = self.pop(want) {
            holders.push(waiting.caller);
            granted.push(waiting);
            if want.mode == Mode::Exclusive {
                break;
            }
        }
        if granted.is_empty() {
            self.state = State::GivingBack;
            return Err(hold);
        }
        self.state = State::Held {
            hold,
            mode: want.mode,
            holders,
            stretch,
            asking: false,
            since: Instant::now(),
        };
        match self.line.back() {
            Some(last) => self.seen = last.caller.id,
            // A lock that nobody waits for keeps no room for a line, however long it is held.
            None => self.line = VecDeque::new(),
        }
        Ok((granted, self.remove_one_tries()))
    }

    /// A holder is gone, and its hold stays for a while: nobody's progress depends on it any more.
    pub(super) fn keep(&mut self, id: u64) {
        if let State::Held { holders, .. } = &mut self.state
            && let Some(holder) = holders.iter_mut().find(|holder| holder.id == id)
        {
            holder.body = None;
            holder.origin = Origin::default();
        }
    }

    /// Whether the next in line can have the lock as it is, without the server: the stretch that this begins. A token is one
    /// holder's alone: neither a hold that has one is handed over, nor another to a caller who needs one.
    pub(super) fn next_stretch(
        &self,
        hold: &Hold,
        mode: Mode,
        stretch: Stretch,
        bounds: HandOver,
    ) -> Option<Stretch> {
        let first = self.line.front()?;
        let stands = hold.vitality.stands_quietly();
        #[cfg(dlock_sabotage)]
        let stands = stands || crate::sabotage::is_on("lost-hand-over");
        let suits = first.want == Want::plain(mode) && hold.vitality.token().is_none() && stands;
        suits.then(|| stretch.longer(bounds)).flatten()
    }

    /// Whether what is counted beside the line is what is in it.
    #[cfg(test)]
    pub(super) fn check_counts(&self) -> Result<(), String> {
        let one_tries = self.line.iter().filter(|waiting| waiting.is_one_try());
        if one_tries.count() != self.one_tries {
            return Err("another number of single tries is noted than is in line".into());
        }
        let ids = self.line.iter().map(|waiting| waiting.caller.id);
        if !ids.is_sorted() {
            return Err("the line is out of order".into());
        }
        Ok(())
    }

    /// Whether the next in line wants the lock like this.
    pub(super) fn wants(&self, want: Want) -> bool {
        self.line.front().is_some_and(|first| first.want == want)
    }

    /// A holder lets go.
    pub(super) fn let_go(&mut self, id: u64) -> LetGo {
        let State::Held { hold, holders, .. } = &mut self.state else {
            return LetGo::NotHolder;
        };
        let Some(position) = holders.iter().position(|holder| holder.id == id) else {
            return LetGo::NotHolder;
        };
        holders.swap_remove(position);
        if !holders.is_empty() {
            return LetGo::OthersHold(hold.vitality.clone());
        }
        match std::mem::replace(&mut self.state, State::GivingBack) {
            State::Held {
                hold,
                mode,
                stretch,
                ..
            } => LetGo::Last(hold, mode, stretch),
            State::Taking(_) | State::GivingBack => LetGo::NotHolder,
        }
    }

    /// An errand goes on as long as the first in line wants what it fetches.
    fn call_off_unless_wanted(&self) {
        if let State::Taking(errand) = &self.state
            && self
                .line
                .front()
                .is_none_or(|first| first.want != errand.want)
        {
            errand.call_off();
        }
    }
}
