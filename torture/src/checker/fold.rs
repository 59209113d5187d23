//! From records to requests, each with its whole story.

use std::collections::HashMap;

use crate::clock::{MILLISECOND, Moment, SECOND};
use crate::fault::Fault;
use crate::history::{Event, Failure, History, Mode, Process, Record, Setting};

/// A history, put together.
#[derive(Clone, Debug)]
pub struct Scene {
    /// How the run was set.
    pub setting: Setting,
    /// Every request of every process, by the moment at which it was made.
    pub requests: Vec<Request>,
    /// What was broken, and when.
    pub windows: Vec<Window>,
    /// What became of each process.
    pub lives: HashMap<Process, Life>,
    /// What was left at the end.
    pub left: Vec<(Moment, String, usize)>,
    /// What panicked.
    pub panics: Vec<(Moment, Process, String)>,
    /// When the last record was written.
    pub end: Moment,
}

/// How long news of a hold, of its grant or of its loss, may be on its way from the server or the queue to the record that its
/// caller writes, on a busy machine.
pub(super) const ON_ITS_WAY: Moment = SECOND / 2;

/// The end of a process.
#[derive(Clone, Debug, Default)]
pub struct Life {
    /// When it began to end in good order.
    pub stopping: Option<Moment>,
    /// When it had ended in good order, how many locks were cut off, and how many threads were left.
    pub ended: Option<(Moment, usize, usize)>,
    /// When it was no more, whether that was meant, and its exit status.
    pub died: Option<(Moment, bool, String)>,
}

/// One request for locks.
#[derive(Clone, Debug)]
pub struct Request {
    /// Whose.
    pub process: Process,
    /// Its number there.
    pub op: u64,
    /// The keys.
    pub keys: Vec<u16>,
    /// The mode.
    pub mode: Mode,
    /// Through which part of the API.
    pub way: String,
    /// How many milliseconds it may wait.
    pub wait: Option<u64>,
    /// When it was made.
    pub asked: Moment,
    /// When it was granted, and with which token.
    pub acquired: Option<(Moment, Option<u64>)>,
    /// The last moment that the library has vouched for.
    pub vouched: Option<Moment>,
    /// Until when the last look has vouched for it, if nothing is heard before.
    valid_until: Option<Moment>,
    /// When a look first said that the lock is lost.
    pub denied: Option<Moment>,
    /// When the holder was told of the loss.
    pub told: Option<Moment>,
    /// A moment that was vouched for after the holder had been told.
    pub revived: Option<Moment>,
    /// When the release began.
    pub releasing: Option<Moment>,
    /// When and how it ended.
    pub ended: Option<(Moment, End)>,
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The lock was held to the end.
    Released,
    /// It was held, but not to the end.
    Spoiled(Failure),
    /// It was not granted.
    Failed(Failure),
    /// The caller went away.
    Dropped,
}

/// The time in which something was broken.
#[derive(Clone, Debug)]
pub struct Window {
    /// The fault's number.
    pub number: usize,
    /// What.
    pub fault: Fault,
    /// Whose; `None`: everybody's.
    pub target: Option<usize>,
    /// Since when.
    pub began: Moment,
    /// Until when; the end of the history where it was not mended.
    pub ended: Moment,
}

impl Window {
    /// Whether it concerns a process.
    pub fn concerns(&self, process: Process) -> bool {
        self.target.is_none_or(|slot| slot == process.slot)
    }

    /// Until when holds of a session that this fault has ended may still be vouched for: the next heartbeat finds out, and it
    /// has a third of the limit to be answered.
    pub fn excuse(&self, setting: &Setting) -> Moment {
        self.ended + setting.heartbeat + setting.limit / 3 + SECOND / 2
    }

    fn overlap(&self, from: Moment, to: Moment) -> Moment {
        self.ended.min(to).saturating_sub(self.began.max(from))
    }
}

impl Request {
    /// The time in which the library has vouched for the hold.
    pub fn hold(&self) -> Option<(Moment, Moment)> {
        Some((self.acquired?.0, self.vouched?))
    }

    fn vouch(&mut self, at: Moment) {
        self.vouched = self.vouched.max(Some(at));
        if self.told.is_some() || self.denied.is_some() {
            self.revived.get_or_insert(at);
        }
    }

    /// Nothing was heard between the last look and this moment: the look's validity counts, less the time for which the library
    /// may have known of a loss that is about to be written down.
    fn outlive(&mut self, at: Moment) {
        if let Some(valid_until) = self.valid_until.take() {
            let until = valid_until.min(at.saturating_sub(ON_ITS_WAY));
            self.vouched = self.vouched.max(Some(until));
        }
    }

    fn look(&mut self, at: Moment, held: bool, validity: Option<u64>) {
        if held {
            self.vouch(at);
            self.valid_until = validity.map(|validity| at + validity * MILLISECOND);
        } else {
            self.denied.get_or_insert(at);
        }
    }

    fn note(&mut self, at: Moment, event: &Event) {
        self.outlive(at);
        match event {
            Event::Acquired {
                held,
                validity,
                token,
                ..
            } => {
                self.acquired = Some((at, *token));
                self.look(at, *held, *validity);
            }
            Event::Step { held, validity, .. } => self.look(at, *held, *validity),
            Event::Told { .. } => {
                self.told.get_or_insert(at);
            }
            Event::Releasing { .. } => self.releasing = Some(at),
            Event::Released { failed: None, .. } => {
                if let Some(releasing) = self.releasing {
                    self.vouch(releasing);
                }
                self.ended = Some((at, End::Released));
            }
            Event::Released {
                failed: Some(why), ..
            } => self.ended = Some((at, End::Spoiled(why.clone()))),
            Event::Failed { failure, .. } => {
                self.ended = Some((at, End::Failed(failure.clone())));
            }
            Event::Dropped { .. } => self.ended = Some((at, End::Dropped)),
            _ => {}
        }
    }
}

impl Scene {
    /// Puts a history together.
    pub(super) fn fold(setting: Setting, history: &History) -> Scene {
        let all = history.workers.iter().flat_map(|(_, records)| records);
        let end = all.chain(&history.nemesis).map(|record| record.at).max();
        let mut scene = Scene {
            setting,
            requests: Vec::new(),
            windows: Vec::new(),
            lives: HashMap::new(),
            left: Vec::new(),
            panics: Vec::new(),
            end: end.unwrap_or(0),
        };
        for record in &history.nemesis {
            scene.note(record);
        }
        for (process, records) in &history.workers {
            scene.of_worker(*process, records);
        }
        scene.requests.sort_by_key(|request| request.asked);
        scene
    }

    fn note(&mut self, Record { at, event }: &Record) {
        match event {
            Event::FaultBegan {
                number,
                fault,
                target,
            } => self.windows.push(Window {
                number: *number,
                fault: *fault,
                target: *target,
                began: *at,
                ended: self.end,
            }),
            Event::FaultEnded { number } => {
                let mut windows = self.windows.iter_mut();
                if let Some(window) = windows.find(|window| window.number == *number) {
                    window.ended = *at;
                }
            }
            Event::Left { what, count } => self.left.push((*at, what.clone(), *count)),
            Event::Died {
                process,
                meant,
                how,
            } => {
                self.lives.entry(*process).or_default().died = Some((*at, *meant, how.clone()));
            }
            Event::Started(process) => {
                self.lives.entry(*process).or_default();
            }
            _ => {}
        }
    }

    fn of_worker(&mut self, process: Process, records: &[Record]) {
        let mut known: HashMap<u64, usize> = HashMap::new();
        for Record { at, event } in records {
            match event {
                Event::Asked {
                    op,
                    keys,
                    mode,
                    way,
                    wait,
                } => {
                    known.insert(*op, self.requests.len());
                    self.requests.push(Request {
                        process,
                        op: *op,
                        keys: keys.clone(),
                        mode: *mode,
                        way: way.clone(),
                        wait: *wait,
                        asked: *at,
                        acquired: None,
                        vouched: None,
                        valid_until: None,
                        denied: None,
                        told: None,
                        revived: None,
                        releasing: None,
                        ended: None,
                    });
                }
                Event::Panicked { message } => self.panics.push((*at, process, message.clone())),
                Event::Stopping => {
                    self.lives.entry(process).or_default().stopping = Some(*at);
                }
                Event::Ended { cut, threads } => {
                    self.lives.entry(process).or_default().ended = Some((*at, *cut, *threads));
                }
                Event::Acquired { op, .. }
                | Event::Step { op, .. }
                | Event::Told { op }
                | Event::Releasing { op }
                | Event::Released { op, .. }
                | Event::Failed { op, .. }
                | Event::Dropped { op } => {
                    if let Some(request) = known.get(op).and_then(|it| self.requests.get_mut(*it)) {
                        request.note(*at, event);
                    }
                }
                _ => {}
            }
        }
    }

    /// How long a process was stopped within a time.
    pub(super) fn paused(&self, process: Process, from: Moment, to: Moment) -> Moment {
        self.windows_of(process)
            .filter(|window| window.fault.is_pause())
            .map(|window| window.overlap(from, to))
            .sum()
    }

    /// What was broken for a process.
    pub(super) fn windows_of(&self, process: Process) -> impl Iterator<Item = &Window> {
        self.windows
            .iter()
            .filter(move |window| window.concerns(process))
    }

    /// When a process has written its last.
    pub(super) fn end_of(&self, process: Process) -> Moment {
        let life = self.lives.get(&process);
        life.and_then(|life| life.died.as_ref())
            .map_or(self.end, |(at, ..)| *at)
    }

    /// How long the library may take beyond a deadline, on a machine that has other things to do: the last try may need a
    /// new connection, and a question that is under way is answered or given up.
    pub(super) fn slack(&self) -> Moment {
        self.setting.connect + self.setting.limit + 3 * SECOND
    }
}

/// A moment as seconds since the beginning of a run, for people.
pub(crate) fn seconds(scene: &Scene, at: Moment) -> String {
    let start = scene.start();
    let since = at.saturating_sub(start) / (MILLISECOND / 10);
    format!("{}.{:04} s", since / 10_000, since % 10_000)
}

impl Scene {
    /// When the first request was made.
    pub fn start(&self) -> Moment {
        self.requests.first().map_or(0, |request| request.asked)
    }
}
