//! (a) and (b): who holds a lock, holds it alone, or with readers only.

use super::fold::{ON_ITS_WAY, seconds};
use super::{Property, Request, Scene, Violation, Window};
use crate::clock::Moment;
use crate::history::Mode;

/// An overlap that the server's own end of a session explains.
#[derive(Clone, Copy, Debug)]
pub(super) struct Excused {
    pub(super) lasted: Moment,
}

pub(super) fn check(scene: &Scene) -> (Vec<Violation>, Vec<Excused>) {
    let mut violations = revivals(scene);
    violations.extend(dead_grants(scene));
    let mut excused = Vec::new();
    for key in 0..scene.setting.keys {
        overlaps(scene, key, &mut violations, &mut excused);
    }
    (violations, excused)
}

fn overlaps(scene: &Scene, key: u16, violations: &mut Vec<Violation>, excused: &mut Vec<Excused>) {
    let holds = scene.requests.iter().enumerate().filter_map(|(index, it)| {
        let (from, to) = it.hold().filter(|_| it.keys.contains(&key))?;
        Some((from, to, index))
    });
    let mut holds: Vec<_> = holds.collect();
    holds.sort_unstable();
    // Those that reach beyond the beginning of the one that is looked at.
    let mut open: Vec<(Moment, usize)> = Vec::new();
    for (from, to, index) in holds {
        open.retain(|(end, _)| *end >= from);
        for (end, earlier) in &open {
            let (one, other) = (&scene.requests[*earlier], &scene.requests[index]);
            if (one.mode, other.mode) == (Mode::Shared, Mode::Shared) {
                continue;
            }
            let until = to.min(*end);
            // Whoever waits for several keys holds the first of them long before it has them all; and a single one for as
            // long as its grant is on its way.
            let had_it =
                |window: &Window| other.keys.len() > 1 || from <= window.ended + ON_ITS_WAY;
            if ended_by_the_server(scene, one, from, until, |_| true)
                || ended_by_the_server(scene, other, from, until, had_it)
            {
                excused.push(Excused {
                    lasted: until - from,
                });
                continue;
            }
            let property = if (one.mode, other.mode) == (Mode::Exclusive, Mode::Exclusive) {
                Property::Exclusion
            } else {
                Property::ReadersAndWriters
            };
            violations.push(Violation {
                property,
                what: format!(
                    "key {key}: {} of process {} was vouched for until {}, and {} of process {} had the lock from {}",
                    one.way,
                    one.process,
                    seconds(scene, *end),
                    other.way,
                    other.process,
                    seconds(scene, from)
                ),
                requests: vec![*earlier, index],
                stretch: (from, until),
            });
        }
        open.push((to, index));
    }
}

/// Whether the server has ended the session of a holder, who had the lock there already, before the overlap began, and the
/// holder has noticed in time.
fn ended_by_the_server(
    scene: &Scene,
    holder: &Request,
    from: Moment,
    until: Moment,
    had_it: impl Fn(&Window) -> bool,
) -> bool {
    let excuses = |window: &Window| {
        window.fault.ends_sessions()
            && had_it(window)
            && window.began <= from
            && window.ended >= holder.asked
            && until <= window.excuse(&scene.setting)
    };
    // A lease does not end with a session.
    scene.setting.strategy == "session" && scene.windows_of(holder.process).any(excuses)
}

/// A hold that was lost, and held again.
fn revivals(scene: &Scene) -> Vec<Violation> {
    let revived = scene.requests.iter().enumerate().filter_map(|(index, it)| {
        let at = it.revived?;
        let lost = it.told.into_iter().chain(it.denied).min()?;
        Some((index, it, lost, at))
    });
    let violations = revived.map(|(index, it, lost, at)| Violation {
        property: Property::Exclusion,
        what: format!(
            "keys {:?}: {} of process {} was told at {} that its hold is lost, and later that it was held at {}",
            it.keys,
            it.way,
            it.process,
            seconds(scene, lost),
            seconds(scene, at)
        ),
        requests: vec![index],
        stretch: (lost.min(at), lost.max(at)),
    });
    violations.collect()
}

/// A hold that was lost already when it was granted, in a process that knew: what was told of one holder's lock holds for
/// the next holder of the same.
fn dead_grants(scene: &Scene) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (index, it) in scene.requests.iter().enumerate() {
        let (Some((granted, _)), None, Some(_)) = (it.acquired, it.vouched, it.denied) else {
            continue;
        };
        let informed = scene.requests.iter().enumerate().filter(|(_, other)| {
            other.process == it.process && other.keys.iter().any(|key| it.keys.contains(key))
        });
        // The last that was told; a grant in that very moment may have been on its way, unless it could only come after the
        // release of the one that was told.
        let told = informed
            .filter_map(|(other, request)| Some((request.told.or(request.denied)?, other, request)))
            .filter(|(told, other, request)| {
                let apart = (it.mode, request.mode) != (Mode::Shared, Mode::Shared);
                let left = request.releasing.filter(|left| apart && left >= told);
                let after = left.unwrap_or(told + ON_ITS_WAY);
                *other != index && after < granted
            })
            .map(|(told, other, _)| (told, other))
            .max();
        let Some((told, other)) = told else { continue };
        // A pause or a broken connection may have come between grant and look. In a mere silence nothing is granted.
        let between = |window: &Window| {
            (window.fault.ends_sessions() || !window.fault.is_outage())
                && window.began <= granted
                && window.ended + ON_ITS_WAY >= told
        };
        if scene.windows_of(it.process).any(between) {
            continue;
        }
        violations.push(Violation {
            property: Property::Exclusion,
            what: format!(
                "keys {:?}: {} of process {} was granted a hold at {} that the process knew at {} to be lost",
                it.keys,
                it.way,
                it.process,
                seconds(scene, granted),
                seconds(scene, told)
            ),
            requests: vec![other, index],
            stretch: (told, granted),
        });
    }
    violations
}
