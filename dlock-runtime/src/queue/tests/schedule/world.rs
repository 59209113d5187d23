//! The queue before a server of which the schedule says everything.

use std::collections::BTreeSet;
use std::sync::MutexGuard;

use tokio::runtime::Runtime;

use super::super::*;
use super::{Kind, Scenario, Step};
use crate::backend::{Offered, Untold};
use crate::hold::frame;

type Checked = Result<(), String>;

/// The server, and what it saw.
#[derive(Default)]
struct Server {
    /// The errands under way.
    errands: Vec<(Arc<Errand>, oneshot::Sender<Taken>)>,
    /// What this process has on the server.
    locked: Option<(Mode, Arc<Vitality>)>,
    /// The answer to the release that is under way.
    returning: Option<Returning>,
    /// The answers to whether more readers may come.
    questions: Vec<oneshot::Sender<bool>>,
    problems: Vec<&'static str>,
}

enum Returning {
    Release(oneshot::Sender<Result<(), Arc<str>>>),
    /// A release that asks for the lock again, in the mode in which it is held.
    Offer(oneshot::Sender<Offered>),
}

impl Returning {
    /// The lock is free, or lost.
    fn end(self, given_back: Result<(), Arc<str>>) {
        match self {
            Returning::Release(returned) => drop(returned.send(given_back)),
            Returning::Offer(returned) => {
                let again = None;
                drop(returned.send(Offered { given_back, again }));
            }
        }
    }
}

#[derive(Clone, Default)]
struct Played(Arc<Mutex<Server>>);

impl Played {
    fn server(&self) -> MutexGuard<'_, Server> {
        self.0.lock().expect("the schedule is one thread")
    }
}

impl Backend for Played {
    fn server_key(&self, key: &Key) -> ServerKey {
        ServerKey::Name(key.text().clone())
    }

    fn shared_mode(&self) -> Result<(), Unsupported> {
        Ok(())
    }

    fn take(self: Arc<Self>, errand: Arc<Errand>) -> BoxFuture<'static, Taken> {
        let (home, taken) = oneshot::channel();
        self.server().errands.push((errand, home));
        async move { taken.await.expect("the schedule answers every errand") }.boxed()
    }

    fn admits_reader<'a>(&'a self, _: &'a ServerKey) -> BoxFuture<'a, bool> {
        let (answer, admits) = oneshot::channel();
        self.server().questions.push(answer);
        async move { admits.await.expect("the schedule answers every question") }.boxed()
    }

    fn holder<'a>(&'a self, _: &'a ServerKey) -> BoxFuture<'a, Result<Option<Holder>, Untold>> {
        std::future::ready(Ok(None)).boxed()
    }

    fn close(&self, _: &str) {}
}

/// A lock on that server.
struct Lent {
    server: Played,
    vitality: Arc<Vitality>,
    given_back: bool,
}

impl Grant for Lent {
    fn give_back(mut self: Box<Self>) -> GivenBack {
        self.given_back = true;
        if let Some(reason) = self.vitality.lost() {
            return GivenBack::Now(Err(reason));
        }
        let (returned, answer) = oneshot::channel();
        self.server.server().returning = Some(Returning::Release(returned));
        GivenBack::Later(
            async move { answer.await.expect("the schedule answers every release") }.boxed(),
        )
    }

    fn offer(&mut self) -> Option<BoxFuture<'static, Offered>> {
        if self.vitality.lost().is_some() {
            return None;
        }
        self.given_back = true;
        let (returned, answer) = oneshot::channel();
        self.server.server().returning = Some(Returning::Offer(returned));
        Some(async move { answer.await.expect("the schedule answers every release") }.boxed())
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if !self.given_back {
            let problem = "a lock was thrown away in place of being given back";
            self.server.server().problems.push(problem);
        }
    }
}

enum Stage {
    Away,
    Asking(u64, Acquire),
    Holding(u64, Place),
    Done,
}

impl Stage {
    fn id(&self) -> Option<u64> {
        match self {
            Stage::Asking(id, _) | Stage::Holding(id, _) => Some(*id),
            Stage::Away | Stage::Done => None,
        }
    }
}

/// What the line looks like from outside.
#[derive(Default)]
struct View {
    line: Vec<u64>,
    holders: Vec<u64>,
    held: Option<(Mode, Arc<Vitality>)>,
    taking: Option<Arc<Errand>>,
    giving_back: bool,
    first: Option<Want>,
}

pub(super) struct World<'a> {
    scenario: &'a Scenario,
    runtime: &'a Runtime,
    queue: Arc<Queue>,
    server: Played,
    stages: Vec<Stage>,
    /// A report that the queue has not read.
    unread: bool,
    /// Whether the server was out of reach, or a deadline has passed twice: the server had its time to answer.
    may_be_unavailable: bool,
    expired: BTreeSet<usize>,
    closed: bool,
    holders: BTreeSet<u64>,
    /// How many got the lock that the server granted last, one behind the other.
    in_a_row: u32,
    last_token: u64,
    /// The tokens that somebody got.
    tokens: BTreeSet<u64>,
}

impl<'a> World<'a> {
    pub(super) fn new(scenario: &'a Scenario, runtime: &'a Runtime) -> World<'a> {
        let server = Played::default();
        let io = Arc::new(Io::played(runtime.handle().clone()));
        let mut hand_over = hand_over(scenario.hand_overs);
        if scenario.asks {
            hand_over.time = Duration::ZERO;
        }
        World {
            scenario,
            runtime,
            queue: Queue::new(Arc::new(server.clone()), io, hand_over, None),
            server,
            stages: scenario.callers.iter().map(|_| Stage::Away).collect(),
            unread: false,
            may_be_unavailable: false,
            expired: BTreeSet::new(),
            closed: false,
            holders: BTreeSet::new(),
            in_a_row: 0,
            last_token: 0,
            tokens: BTreeSet::new(),
        }
    }

    fn view(&self) -> View {
        let table = self.queue.table();
        let Some(entry) = table.entries.get(&name()) else {
            return View::default();
        };
        let mut view = View {
            line: entry.line.iter().map(|waiting| waiting.caller.id).collect(),
            first: entry.line.front().map(|first| first.want),
            ..View::default()
        };
        match &entry.state {
            State::Taking(errand) => view.taking = Some(errand.clone()),
            State::Held {
                hold,
                mode,
                holders,
                ..
            } => {
                view.held = Some((*mode, hold.vitality.clone()));
                view.holders = holders.iter().map(|holder| holder.id).collect();
            }
            State::GivingBack => view.giving_back = true,
        }
        view
    }

    /// Every step that can come next.
    pub(super) fn possible(&self) -> Vec<Step> {
        let view = self.view();
        let mut steps = Vec::new();
        // Callers come in the order of their numbers: the scenarios are all orders of their kinds.
        let next = self
            .stages
            .iter()
            .position(|stage| matches!(stage, Stage::Away));
        steps.extend(next.map(Step::Join));
        for (caller, stage) in self.stages.iter().enumerate() {
            let Some(id) = stage.id() else { continue };
            let (in_line, holds) = (view.line.contains(&id), view.holders.contains(&id));
            if in_line || (holds && matches!(stage, Stage::Asking(..))) {
                steps.push(Step::Drop(caller));
            }
            if holds {
                steps.push(Step::Leave(caller));
            }
            let ends = matches!(
                self.scenario.callers[caller],
                Kind::OneTry | Kind::SharedTry | Kind::Timed
            );
            if in_line && ends {
                steps.push(Step::Expire(caller));
            }
        }
        let server = self.server.server();
        if self.unread {
            steps.push(Step::Heed);
        }
        if let Some((errand, _)) = server.errands.first() {
            if !self.unread {
                steps.extend([Step::Busy, Step::Trouble]);
            }
            steps.extend([Step::Grant, Step::Refuse]);
            if errand.is_called_off() {
                steps.push(Step::CalledOff);
            }
        }
        if server.locked.is_some() {
            steps.push(Step::Lose);
        }
        match server.returning {
            Some(Returning::Offer(_)) => steps.extend([Step::Return, Step::Keep]),
            Some(Returning::Release(_)) => steps.push(Step::Return),
            None => {}
        }
        if !server.questions.is_empty() {
            steps.extend([Step::Admit(true), Step::Admit(false)]);
        }
        if self.scenario.closes && !self.closed {
            steps.push(Step::Close);
        }
        steps
    }

    pub(super) fn play(&mut self, step: Step) -> Checked {
        let had = self.server.server().locked.clone();
        match step {
            Step::Join(caller) => self.join(caller)?,
            Step::Drop(caller) => self.stages[caller] = Stage::Done,
            Step::Leave(caller) => self.leave(caller)?,
            Step::Expire(caller) => {
                let id = self.stages[caller].id().ok_or("nobody waits there")?;
                self.queue.expire(&name(), id);
            }
            Step::Busy => self.report(Progress::Busy),
            Step::Trouble => self.report(Progress::Trouble(Trouble {
                reason: "as the schedule says".into(),
                source: None,
            })),
            Step::Heed => {}
            Step::Grant => self.grant()?,
            Step::Refuse => self.come_home(Taken::Refused {
                code: "1".into(),
                message: "no".into(),
                source: None,
            }),
            Step::CalledOff => self.come_home(Taken::CalledOff),
            Step::Lose => {
                let locked = self.server.server().locked.take();
                locked.ok_or("no lock to lose")?.1.lose("killed");
                self.holders_lost();
            }
            Step::Return => {
                let mut server = self.server.server();
                server.locked = None;
                let returning = server.returning.take().ok_or("no release")?;
                returning.end(Ok(()));
            }
            Step::Keep => self.keep()?,
            Step::Admit(admits) => {
                let mut server = self.server.server();
                if !server.questions.is_empty() {
                    let _ = server.questions.remove(0).send(admits);
                }
            }
            Step::Close => {
                self.closed = true;
                self.queue.close(&Error::ShutDown);
            }
        }
        if matches!(step, Step::Busy | Step::Trouble) {
            self.may_be_unavailable |= step == Step::Trouble;
            self.unread = true;
        } else {
            self.drive();
        }
        if let Step::Expire(caller) = step {
            self.hear(caller)?;
        }
        self.check(had.is_some())
    }

    /// A release that is under way on a session that ends is answered with that.
    fn holders_lost(&self) {
        if let Some(returning) = self.server.server().returning.take() {
            returning.end(Err("killed".into()));
        }
    }

    fn join(&mut self, caller: usize) -> Checked {
        let far = Instant::now() + Duration::from_secs(3600);
        let (mode, patience) = match self.scenario.callers[caller] {
            Kind::Exclusive | Kind::Fenced => (Mode::Exclusive, Patience::Forever),
            Kind::Shared => (Mode::Shared, Patience::Forever),
            Kind::OneTry => (Mode::Exclusive, Patience::OneTry { answer_by: far }),
            Kind::SharedTry => (Mode::Shared, Patience::OneTry { answer_by: far }),
            Kind::Timed => (Mode::Exclusive, until(Duration::from_secs(3600))),
        };
        // A body that holds other locks already: its wait is one that others may come to depend on.
        let asked = self.queue.join(&Request {
            want: Want {
                mode,
                fenced: self.scenario.callers[caller] == Kind::Fenced,
            },
            patience,
            body: Some(frame::next_id()),
            partial: true,
            ..request(&Key::new("key").expect("a good key"), &name())
        });
        let id = self.queue.table().next_id;
        self.stages[caller] = match asked {
            Ok(Admission::Waiting(acquire)) => Stage::Asking(id, acquire),
            Ok(Admission::Granted(place, _)) => Stage::Holding(id, place),
            Err(Error::ShutDown) if self.closed => Stage::Done,
            Err(error) => return Err(format!("caller {caller} was turned away: {error}")),
        };
        Ok(())
    }

    fn leave(&mut self, caller: usize) -> Checked {
        let place = match std::mem::replace(&mut self.stages[caller], Stage::Done) {
            Stage::Asking(_, mut acquire) => match (&mut acquire).now_or_never() {
                Some(Ok((place, _))) => place,
                Some(Err(error)) => {
                    return Err(format!("caller {caller} holds, and hears: {error}"));
                }
                None => return Err(format!("caller {caller} holds, and hears nothing")),
            },
            Stage::Holding(_, place) => place,
            Stage::Away | Stage::Done => return Err(format!("caller {caller} has no place")),
        };
        drop(place.leave());
        Ok(())
    }

    /// A caller whose time is over hears that the server is out of reach only if it is.
    fn hear(&mut self, caller: usize) -> Checked {
        let Stage::Asking(id, acquire) = &mut self.stages[caller] else {
            return Ok(());
        };
        // One try has no other deadline than the time that the server has to answer.
        let first = self.expired.insert(caller);
        let in_time = first && self.scenario.callers[caller] == Kind::Timed;
        let stage = match acquire.now_or_never() {
            Some(Ok((place, _))) => Stage::Holding(*id, place),
            Some(Err(Error::Unavailable(why))) if in_time && !self.may_be_unavailable => {
                return Err(format!(
                    "caller {caller} hears of an outage: {}",
                    why.reason
                ));
            }
            Some(Err(_)) => Stage::Done,
            None => return Ok(()),
        };
        self.stages[caller] = stage;
        Ok(())
    }

    fn report(&self, progress: Progress) {
        if let Some((errand, _)) = self.server.server().errands.first() {
            errand.report(progress);
        }
    }

    fn grant(&mut self) -> Checked {
        let mut vitality = Vitality::new(None);
        {
            let mut server = self.server.server();
            if server.locked.is_some() {
                // A session is re-entrant: it would be granted the lock a second time.
                return Err("an errand is under way for a lock that this process has".into());
            }
            let (errand, _) = server.errands.first().ok_or("no errand to grant")?;
            if errand.want.fenced {
                self.last_token += 1;
                vitality = vitality.fenced(self.last_token);
            }
            server.locked = Some((errand.want.mode, vitality.clone()));
        }
        self.in_a_row = 0;
        let hold = self.lend(vitality);
        self.come_home(Taken::Held(hold));
        Ok(())
    }

    /// Nobody else wanted a lock that was offered: it is this process's again.
    fn keep(&mut self) -> Checked {
        let vitality = Vitality::new(None);
        let returned = {
            let mut server = self.server.server();
            let (mode, _) = server.locked.take().ok_or("no lock to keep")?;
            server.locked = Some((mode, vitality.clone()));
            match server.returning.take() {
                Some(Returning::Offer(returned)) => returned,
                _ => return Err("no offer".into()),
            }
        };
        self.in_a_row = 0;
        let again = Some(self.lend(vitality));
        let given_back = Ok(());
        let _ = returned.send(Offered { given_back, again });
        Ok(())
    }

    fn lend(&self, vitality: Arc<Vitality>) -> Hold {
        let grant = Box::new(Lent {
            server: self.server.clone(),
            vitality: vitality.clone(),
            given_back: false,
        });
        Hold { vitality, grant }
    }

    fn come_home(&mut self, taken: Taken) {
        let mut server = self.server.server();
        if !server.errands.is_empty() {
            let (_, home) = server.errands.remove(0);
            let _ = home.send(taken);
        }
    }

    /// Lets the queue's tasks run as far as they get.
    fn drive(&mut self) {
        self.unread = false;
        self.runtime.block_on(async {
            for _ in 0..4 {
                tokio::task::yield_now().await;
            }
        });
    }

    /// The invariants. `had`: the lock was the server's word before the step.
    fn check(&mut self, had: bool) -> Checked {
        let view = self.view();
        let server = self.server.server();
        let rule = |holds: bool, rule: &str| holds.then_some(()).ok_or_else(|| rule.to_owned());
        if let Some(problem) = server.problems.first() {
            return Err((*problem).to_owned());
        }
        let errands = server.errands.len();
        rule(errands <= 1, "two errands for one name")?;
        rule(
            (errands == 1) == view.taking.is_some(),
            "an errand, and a line that does not take; or the other way round",
        )?;
        if let Some(errand) = &view.taking {
            rule(
                view.first == Some(errand.want) || errand.is_called_off(),
                "an errand that nobody wants was not called off",
            )?;
        }
        rule(
            view.giving_back == server.returning.is_some(),
            "a release that nobody waits for, or the other way round",
        )?;
        if let Some((mode, vitality)) = &view.held {
            rule(!view.holders.is_empty(), "held by nobody")?;
            rule(
                *mode == Mode::Shared || view.holders.len() == 1,
                "two exclusive holders",
            )?;
            if vitality.stands() {
                let locked = server.locked.as_ref();
                let same = locked.is_some_and(|(on_server, confirmed)| {
                    on_server == mode && Arc::ptr_eq(confirmed, vitality)
                });
                rule(same, "held here, and not on the server")?;
            }
        } else {
            rule(
                server.locked.is_none() || view.giving_back,
                "the server keeps a lock that nobody holds",
            )?;
        }
        drop(server);
        self.check_turns(&view, had)
    }

    /// Who holds, by the order in which they came.
    fn check_turns(&mut self, view: &View, had: bool) -> Checked {
        let mut seen = BTreeSet::new();
        for id in view.holders.iter().chain(&view.line) {
            if !seen.insert(*id) {
                return Err("a caller is there twice".into());
            }
        }
        let overtaken = view
            .holders
            .iter()
            .any(|holder| view.line.iter().any(|waiting| waiting < holder));
        if overtaken {
            return Err("somebody was overtaken".into());
        }
        let table = self.queue.table();
        if let Some(entry) = table.entries.get(&name()) {
            entry.check_counts()?;
        }
        let noted: BTreeSet<u64> = table.nested.iter().map(NestedWait::id).collect();
        drop(table);
        if noted != view.line.iter().copied().collect() {
            return Err("the waits that are known to the search for deadlocks are others".into());
        }
        let known: BTreeSet<u64> = self.stages.iter().filter_map(Stage::id).collect();
        if seen.iter().any(|id| !known.contains(id)) {
            return Err("the line knows somebody who has gone".into());
        }
        let holders: BTreeSet<u64> = view.holders.iter().copied().collect();
        let new = holders.difference(&self.holders).count();
        if let Some((mode, vitality)) = &view.held {
            if new > 0 && !vitality.stands() {
                return Err("somebody was given a lost lock".into());
            }
            let needs_token = |(caller, stage): (usize, &Stage)| {
                let holds = stage.id().is_some_and(|id| view.holders.contains(&id));
                holds && self.scenario.callers[caller] == Kind::Fenced
            };
            if vitality.token().is_none() && self.stages.iter().enumerate().any(needs_token) {
                return Err("somebody who needs a token has none".into());
            }
            if let Some(token) = vitality.token()
                && new > 0
                && !self.tokens.insert(token)
            {
                return Err("two have one token".into());
            }
            if *mode == Mode::Exclusive && new > 0 {
                self.in_a_row += 1;
                if had && self.in_a_row > 1 + self.scenario.hand_overs {
                    return Err("the lock was handed over too often".into());
                }
            }
        }
        self.holders = holders;
        Ok(())
    }

    /// Lets everybody who came get the lock and leave, and looks what is left.
    pub(super) fn run_to_the_end(&mut self) -> Checked {
        for _ in 0..100 {
            self.drive();
            let called_off = {
                let server = self.server.server();
                server
                    .errands
                    .first()
                    .map(|(errand, _)| errand.is_called_off())
            };
            let asked = !self.server.server().questions.is_empty();
            let returning = self.server.server().returning.is_some();
            let told = self.stages.iter_mut().position(|stage| match stage {
                Stage::Asking(id, acquire) => match acquire.now_or_never() {
                    Some(Ok((place, _))) => {
                        *stage = Stage::Holding(*id, place);
                        true
                    }
                    Some(Err(_)) => {
                        *stage = Stage::Done;
                        true
                    }
                    None => false,
                },
                Stage::Holding(..) => true,
                Stage::Away | Stage::Done => false,
            });
            match (told, called_off, returning) {
                (Some(caller), ..) => {
                    if let Stage::Holding(..) = self.stages[caller] {
                        self.play(Step::Leave(caller))?;
                    }
                }
                (None, ..) if asked => self.play(Step::Admit(false))?,
                (None, Some(true), _) => self.play(Step::CalledOff)?,
                (None, Some(false), _) => self.play(Step::Grant)?,
                (None, None, true) => self.play(Step::Return)?,
                (None, None, false) => break,
            }
        }
        let unanswered = self
            .stages
            .iter()
            .position(|stage| !matches!(stage, Stage::Away | Stage::Done));
        if let Some(caller) = unanswered {
            return Err(format!("caller {caller} is never answered"));
        }
        let table = self.queue.table();
        if !table.entries.is_empty() || !table.nested.is_empty() {
            return Err("the table keeps an entry that nobody uses".into());
        }
        drop(table);
        let server = self.server.server();
        if server.locked.is_some() || !server.errands.is_empty() {
            return Err("something is left on the server".into());
        }
        server
            .problems
            .first()
            .map_or(Ok(()), |problem| Err((*problem).to_owned()))
    }
}
