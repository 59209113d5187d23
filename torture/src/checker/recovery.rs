//! (d): after each fault every key becomes free, and is taken again.

use super::fold::seconds;
use super::{Property, Scene, Violation, Window};
use crate::clock::{Moment, SECOND};
use crate::history::Setting;

/// How long after the end of a fault a key that is asked for may remain untaken: the server frees what the fault has left
/// behind within the limit, and reconnecting has a longest pause of two seconds.
pub fn bound(setting: &Setting) -> Moment {
    setting.limit + setting.connect + 3 * SECOND
}

/// When each key was first taken after a moment; `None` in place of a key that never was.
pub(super) fn taken_after(scene: &Scene, key: u16, after: Moment) -> Option<Moment> {
    let acquired = scene.requests.iter().filter_map(|it| {
        let (acquired, _) = it.acquired.filter(|_| it.keys.contains(&key))?;
        (it.vouched.is_some() && acquired >= after).then_some(acquired)
    });
    acquired.min()
}

pub(super) fn check(scene: &Scene) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (position, window) in scene.windows.iter().enumerate() {
        let next = scene.windows.get(position + 1);
        let calm_until = next.map_or_else(|| end_of_asking(scene), |next| next.began);
        let deadline = window.ended + bound(&scene.setting);
        if calm_until < deadline {
            // The next fault came as soon as every key had been taken; what was not taken by then is the next one's to
            // recover, or was not asked for.
            continue;
        }
        for key in 0..scene.setting.keys {
            let taken = taken_after(scene, key, window.ended);
            if taken.is_some_and(|taken| taken <= deadline) || !is_wanted(scene, key, window) {
                continue;
            }
            violations.push(Violation {
                property: Property::Recovery,
                what: format!(
                    "key {key} was not taken within {} s after {} (fault {}) had ended at {}",
                    bound(&scene.setting) / SECOND,
                    window.fault,
                    window.number,
                    seconds(scene, window.ended)
                ),
                requests: Vec::new(),
                stretch: (window.began, deadline),
            });
        }
    }
    violations
}

/// When the first process began to end in good order.
fn end_of_asking(scene: &Scene) -> Moment {
    let stopping = scene.lives.values().filter_map(|life| life.stopping);
    stopping.min().unwrap_or(scene.end)
}

/// Whether somebody asked for the key, with patience, soon enough after the fault.
fn is_wanted(scene: &Scene, key: u16, window: &Window) -> bool {
    let from = window.ended;
    let to = window.ended + bound(&scene.setting) - SECOND;
    scene.requests.iter().any(|it| {
        let pending = it.ended.as_ref().map_or(scene.end, |(at, _)| *at);
        it.keys == [key] && it.asked <= to && pending >= from && it.wait != Some(0)
    })
}
