//! (f): no wrong kind of error, no panic, no hang past a deadline.

use super::fold::seconds;
use super::{End, Property, Request, Scene, Violation};
use crate::clock::{MILLISECOND, Moment, SECOND};
use crate::fault::Fault;
use crate::history::{Failure, FailureKind};

pub(super) fn check(scene: &Scene) -> Vec<Violation> {
    let mut violations = deaths(scene);
    for (index, it) in scene.requests.iter().enumerate() {
        let complaint = match &it.ended {
            Some((at, End::Failed(failure) | End::Spoiled(failure))) => {
                wrong_kind(scene, it, *at, failure)
            }
            _ => None,
        };
        if let Some((at, what)) = complaint.or_else(|| hang(scene, it)) {
            violations.push(Violation {
                property: Property::Answers,
                what: format!(
                    "keys {:?}: {} of process {} at {}: {what}",
                    it.keys,
                    it.way,
                    it.process,
                    seconds(scene, it.asked)
                ),
                requests: vec![index],
                stretch: (it.asked, at),
            });
        }
    }
    violations
}

fn deaths(scene: &Scene) -> Vec<Violation> {
    let panics = scene.panics.iter().map(|(at, process, message)| {
        let what = format!("process {process} panicked: {message}");
        (*at, what)
    });
    let deaths = scene.lives.iter().filter_map(|(process, life)| {
        let (at, meant, how) = life.died.as_ref()?;
        (!meant).then(|| (*at, format!("process {process} died: {how}")))
    });
    let all = panics.chain(deaths).map(|(at, what)| Violation {
        property: Property::Answers,
        what,
        requests: Vec::new(),
        stretch: (at, at),
    });
    all.collect()
}

fn wrong_kind(
    scene: &Scene,
    it: &Request,
    at: Moment,
    failure: &Failure,
) -> Option<(Moment, String)> {
    let life = scene.lives.get(&it.process);
    let wrong = match failure.kind {
        FailureKind::Unavailable | FailureKind::Lost => return None,
        FailureKind::Busy if !is_out_of_reach(scene, it, at) => return None,
        FailureKind::Busy => "busy, while nobody could be asked",
        FailureKind::ShutDown if life.is_some_and(|life| life.stopping.is_some()) => return None,
        FailureKind::ShutDown => "shut down, and nobody did",
        FailureKind::Refused if is_refusing(scene, it, at) => return None,
        FailureKind::Refused => "refused without a reason",
        FailureKind::Other => "an error that no fault explains",
    };
    Some((at, format!("{wrong}: {}", failure.text)))
}

/// Whether the server could not be asked from the beginning of a wait to its end, and nobody in the same process had the
/// lock. What the server has said just before may count for a while: as long as a wait on the server and its answer may
/// take.
fn is_out_of_reach(scene: &Scene, it: &Request, at: Moment) -> bool {
    let grace = scene.setting.limit + SECOND / 2;
    let mut outages = scene.windows_of(it.process).filter(|window| {
        window.fault.is_outage() && window.began + grace <= it.asked && at <= window.ended
    });
    if outages.next().is_none() {
        return false;
    }
    !scene.requests.iter().any(|other| {
        let until = other.ended.as_ref().map_or(scene.end, |(at, _)| *at);
        // Who takes several may have this one already while it waits for another.
        let has = other.acquired.is_some_and(|(from, _)| from <= at)
            || other.keys.len() > 1 && other.asked <= at && other.op != it.op;
        other.process == it.process
            && has
            && until >= it.asked
            && other.keys.iter().any(|key| it.keys.contains(key))
    })
}

/// Whether the server was full, or on its way down or up.
fn is_refusing(scene: &Scene, it: &Request, at: Moment) -> bool {
    let refuses = [
        Fault::TableFull,
        Fault::NoConnections,
        Fault::Restart,
        Fault::Crash,
    ];
    scene.windows_of(it.process).any(|window| {
        refuses.contains(&window.fault) && window.began <= at && it.asked <= window.ended + SECOND
    })
}

/// A wait that went on after its deadline, or a release that was not answered.
fn hang(scene: &Scene, it: &Request) -> Option<(Moment, String)> {
    let last = it.ended.as_ref().map(|(at, _)| *at);
    let waited_until = it.acquired.map(|(at, _)| at).or(last);
    let end = scene.end_of(it.process);
    let late = |from: Moment, patience: Moment, until: Moment| {
        let stopped = scene.paused(it.process, from, until);
        until.saturating_sub(from) > patience + scene.slack() + stopped
    };
    if let Some(wait) = it.wait {
        let until = waited_until.unwrap_or(end);
        if late(it.asked, wait * MILLISECOND, until) {
            return Some((until, format!("waited for {}", lasted(it.asked, until))));
        }
    }
    if let Some(releasing) = it.releasing {
        let until = last.unwrap_or(end);
        if late(releasing, 0, until) {
            let lasted = lasted(releasing, until);
            return Some((until, format!("its release took {lasted}")));
        }
    }
    let life = scene.lives.get(&it.process)?;
    let (ended, ..) = life.ended?;
    (last.is_none()).then(|| (ended, "was never answered".to_owned()))
}

fn lasted(from: Moment, until: Moment) -> String {
    format!("{} ms", (until - from) / MILLISECOND)
}
