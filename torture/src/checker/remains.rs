//! (e): nothing is left at the end.

use super::{Property, Scene, Violation};
use crate::clock::Moment;

pub(super) fn check(scene: &Scene) -> Vec<Violation> {
    let left = scene.left.iter().filter(|(_, _, count)| *count > 0);
    let on_the_server = left.map(|(at, what, count)| {
        remains(
            *at,
            format!("the server still has {what}, {count} of them, when everybody has left"),
        )
    });
    let in_processes = scene.lives.iter().filter_map(|(process, life)| {
        let (at, cut, threads) = life.ended?;
        let what = match (cut, threads) {
            (0, 0) => return None,
            (0, threads) => format!("{threads} threads of the library"),
            (cut, _) => format!("{cut} locks that the shutdown had to cut off"),
        };
        Some(remains(at, format!("process {process} ended with {what}")))
    });
    on_the_server.chain(in_processes).collect()
}

fn remains(at: Moment, what: String) -> Violation {
    Violation {
        property: Property::Remains,
        what,
        requests: Vec::new(),
        stretch: (at, at),
    }
}
