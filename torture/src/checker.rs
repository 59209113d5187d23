//! Reads a history, and says where the promise was broken.
//!
//! What counts as a hold is what the library itself has vouched for. A moment is vouched for when it was read before a
//! look (`Guard::is_held`, `check`, the poll of an async body) that said "held": what is lost never comes back, so the lock
//! was held at that moment too. It is also vouched for while the last look's validity lasts and nothing else is heard of the
//! hold, and when it was read before a release that was answered without an error. A hold counts from its acquisition, which
//! was read after the grant, to the last moment vouched for; one that was found lost at the first look does not count at
//! all. So a step that began under the lock and went on beyond its validity, as it may in a process that was stopped, is not
//! counted; a step that began after the lock went to somebody else is.
//!
//! Two holds that exclude each other and overlap break the promise. There is one stated exception: when the *server* ends
//! a session of its own accord, the locks are free before the holder can know. Such an overlap is excused where the end of the
//! session was a fault of this run, and only for as long as the library may take to notice; see [`Window::excuse`].

mod answers;
mod exclusion;
mod figures;
mod fold;
pub mod recovery;
mod remains;
mod tokens;

use std::fmt;

use anyhow::{Context, Result};

pub use figures::{Figures, OfFault};
pub(crate) use fold::seconds;
pub use fold::{End, Request, Scene, Window};

use crate::clock::Moment;
use crate::history::History;

/// The properties.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Property {
    /// (a) Two holders of an exclusive lock never overlap, and what was lost never comes back.
    Exclusion,
    /// (b) Readers and writers never overlap.
    ReadersAndWriters,
    /// (c) Tokens of a key only grow.
    Tokens,
    /// (d) After a fault every key is taken again.
    Recovery,
    /// (e) Nothing is left at the end.
    Remains,
    /// (f) No wrong kind of error, no panic, no hang.
    Answers,
}

impl fmt::Display for Property {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Property::Exclusion => "(a) exclusion",
            Property::ReadersAndWriters => "(b) readers and writers",
            Property::Tokens => "(c) tokens",
            Property::Recovery => "(d) recovery",
            Property::Remains => "(e) remains",
            Property::Answers => "(f) answers",
        })
    }
}

/// Where a property was broken.
#[derive(Clone, Debug)]
pub struct Violation {
    /// Which one.
    pub property: Property,
    /// In words.
    pub what: String,
    /// The requests that show it: indices into [`Scene::requests`].
    pub requests: Vec<usize>,
    /// The shortest stretch of the history that shows it.
    pub stretch: (Moment, Moment),
}

/// What a history says.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// The history, put together.
    pub scene: Scene,
    /// What was broken, by property.
    pub violations: Vec<Violation>,
    /// What was measured.
    pub figures: Figures,
}

/// Checks a whole history.
///
/// # Errors
///
/// When it does not say how the run was set.
pub fn check(history: &History) -> Result<Verdict> {
    let setting = history.setting().context("the history has no beginning")?;
    let scene = Scene::fold(setting.clone(), history);
    let (mut violations, excused) = exclusion::check(&scene);
    violations.extend(tokens::check(&scene));
    violations.extend(recovery::check(&scene));
    violations.extend(remains::check(&scene));
    violations.extend(answers::check(&scene));
    violations.sort_by_key(|violation| (violation.property, violation.stretch.0));
    let figures = Figures::of(&scene, &excused);
    Ok(Verdict {
        scene,
        violations,
        figures,
    })
}
