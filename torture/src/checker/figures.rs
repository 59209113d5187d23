//! What a run has measured.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::exclusion::Excused;
use super::recovery::taken_after;
use super::{End, Request, Scene, Window};
use crate::clock::Moment;
use crate::fault::Fault;
use crate::history::{FailureKind, Mode};

/// The figures of a run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Figures {
    /// How long the run was.
    pub lasted: Moment,
    /// How many processes there were.
    pub processes: usize,
    /// How many requests were made.
    pub requests: usize,
    /// How many of them were granted.
    pub holds: usize,
    /// How often an exclusive lock came from another request of the same process.
    pub local: usize,
    /// How often an exclusive lock came from another process.
    pub foreign: usize,
    /// How many requests were refused as busy.
    pub busy: usize,
    /// How many were refused because the server was out of reach.
    pub unavailable: usize,
    /// How many the server refused.
    pub refused: usize,
    /// How many callers went away.
    pub dropped: usize,
    /// How many holders were told that their hold was lost.
    pub lost: usize,
    /// How many of these without any fault that concerns them.
    pub unprovoked: usize,
    /// How often a hold was vouched for after the server had ended its session and let somebody else in.
    pub overlaps: usize,
    /// The longest of these.
    pub longest_overlap: Moment,
    /// By kind of fault.
    pub faults: BTreeMap<Fault, OfFault>,
}

/// The figures of one kind of fault.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct OfFault {
    /// How often.
    pub count: usize,
    /// How many holders were told of a loss.
    pub told: usize,
    /// The longest time from the beginning of the fault until a holder was told.
    pub detect: Moment,
    /// The longest time from the end of the fault until every key was taken again.
    pub recover: Moment,
}

impl Figures {
    pub(super) fn of(scene: &Scene, excused: &[Excused]) -> Figures {
        let mut figures = Figures {
            lasted: scene.end.saturating_sub(scene.start()),
            processes: scene.lives.len(),
            requests: scene.requests.len(),
            overlaps: excused.len(),
            longest_overlap: excused.iter().map(|it| it.lasted).max().unwrap_or(0),
            ..Figures::default()
        };
        for request in &scene.requests {
            figures.count(scene, request);
        }
        for key in 0..scene.setting.keys {
            figures.count_hand_overs(scene, key);
        }
        for (position, window) in scene.windows.iter().enumerate() {
            let next = scene.windows.get(position + 1);
            let of_fault = figures.faults.entry(window.fault).or_default();
            of_fault.add(scene, window, next.map_or(scene.end, |next| next.began));
        }
        figures
    }

    fn count(&mut self, scene: &Scene, request: &Request) {
        self.holds += usize::from(request.hold().is_some());
        if let Some(at) = told(request) {
            self.lost += 1;
            let provoked = scene.windows_of(request.process).any(|window| {
                window.began <= at && request.asked <= scene.setting.limit + window.ended
            });
            self.unprovoked += usize::from(!provoked);
        }
        match &request.ended {
            Some((_, End::Dropped)) => self.dropped += 1,
            Some((_, End::Failed(failure))) => match failure.kind {
                FailureKind::Busy => self.busy += 1,
                FailureKind::Unavailable => self.unavailable += 1,
                FailureKind::Refused => self.refused += 1,
                _ => {}
            },
            _ => {}
        }
    }

    fn count_hand_overs(&mut self, scene: &Scene, key: u16) {
        let holds = scene.requests.iter().filter_map(|it| {
            let (from, _) = it.hold()?;
            let counts = it.mode == Mode::Exclusive && it.keys.contains(&key);
            counts.then_some((from, it.process))
        });
        let mut holds: Vec<_> = holds.collect();
        holds.sort_unstable();
        for pair in holds.windows(2) {
            if pair[0].1 == pair[1].1 {
                self.local += 1;
            } else {
                self.foreign += 1;
            }
        }
    }
}

/// When a holder learned that its hold was lost.
fn told(request: &Request) -> Option<Moment> {
    request.acquired?;
    request.told.into_iter().chain(request.denied).min()
}

impl OfFault {
    fn add(&mut self, scene: &Scene, window: &Window, next: Moment) {
        self.count += 1;
        let held = scene.requests.iter().filter(|it| {
            window.concerns(it.process)
                && it.acquired.is_some_and(|(at, _)| at <= window.ended)
                && told(it).is_some_and(|at| window.began <= at && at < next)
        });
        for request in held {
            self.told += 1;
            // Who was granted it later was not cut off at the beginning.
            let since = request.acquired.map_or(0, |(at, _)| at).max(window.began);
            let at = told(request).unwrap_or(since);
            self.detect = self.detect.max(at.saturating_sub(since));
        }
        let recovered = (0..scene.setting.keys)
            .filter_map(|key| taken_after(scene, key, window.ended))
            .max();
        if let Some(recovered) = recovered.filter(|at| *at <= next) {
            self.recover = self.recover.max(recovered - window.ended);
        }
    }
}
