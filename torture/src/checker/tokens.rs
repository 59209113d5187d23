//! (c): fencing tokens of a key only grow, in the order of acquisition.

use super::fold::seconds;
use super::{Property, Scene, Violation};
use crate::history::Mode;

pub(super) fn check(scene: &Scene) -> Vec<Violation> {
    let mut violations = Vec::new();
    for key in 0..scene.setting.keys {
        let holds = scene.requests.iter().enumerate().filter_map(|(index, it)| {
            let (acquired, token) = it.acquired?;
            // A hold that nobody vouched for may have been granted long before it was seen.
            let (_, until) = it.hold()?;
            let counts = it.mode == Mode::Exclusive && it.keys == [key];
            counts.then_some((acquired, until, token?, index))
        });
        let mut holds: Vec<_> = holds.collect();
        holds.sort_unstable();
        let mut highest = None;
        for (acquired, until, token, index) in holds {
            if let Some((other, before, end)) = highest
                && end < acquired
                && before >= token
            {
                violations.push(Violation {
                    property: Property::Tokens,
                    what: format!(
                        "key {key}: token {token} at {} came after token {before}",
                        seconds(scene, acquired)
                    ),
                    requests: vec![other, index],
                    stretch: (end, acquired),
                });
            }
            if highest.is_none_or(|(_, before, _)| before < token) {
                highest = Some((index, token, until));
            }
        }
    }
    violations
}
