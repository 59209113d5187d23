//! One line of the table.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::rounds::Outcome;
use crate::spread::Spread;

/// One line of the table.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// The row of the benchmark, as `--only` takes it.
    pub(crate) row: String,
    pub(crate) server: String,
    /// Who was measured.
    pub(crate) who: String,
    pub(crate) measured: Spread,
    pub(crate) unit: String,
    /// What the ratio compares with; `None` where nothing was.
    pub(crate) against: Option<String>,
    pub(crate) ratio: Option<Spread>,
    pub(crate) target: Option<Target>,
    /// Counted from the server.
    pub(crate) connections: Option<u64>,
    /// Counted from the server, for one operation.
    pub(crate) statements: Option<f64>,
    /// For one operation: what a longer way to the server adds to its time.
    pub(crate) round_trips: Option<f64>,
}

/// What a line is meant to reach.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Target {
    RatioAtMost(f64),
    RatioAtLeast(f64),
    /// The median.
    AtMost(f64),
    /// The worst of all rounds.
    NeverAbove(f64),
    /// The worst ratio of all rounds.
    RatioNeverAbove(f64),
}

impl Entry {
    pub(crate) fn new(
        row: impl Into<String>,
        server: impl Into<String>,
        who: impl Into<String>,
        measured: Spread,
        unit: impl Into<String>,
    ) -> Entry {
        Entry {
            row: row.into(),
            server: server.into(),
            who: who.into(),
            measured,
            unit: unit.into(),
            against: None,
            ratio: None,
            target: None,
            connections: None,
            statements: None,
            round_trips: None,
        }
    }

    /// The lines of interleaved rounds; the first contender is what the others are compared with.
    pub(crate) fn of_rounds(row: &str, server: &str, outcomes: Vec<Outcome>) -> Vec<Entry> {
        let base = outcomes.first().map(|outcome| outcome.name.clone());
        let line = |outcome: Outcome| {
            let mut entry = Entry::new(row, server, outcome.name, outcome.micros, "µs");
            if base.as_ref() != Some(&entry.who) {
                entry.against.clone_from(&base);
                entry.ratio = Some(outcome.ratio);
            }
            entry
        };
        outcomes.into_iter().map(line).collect()
    }

    /// Compares with something else that was measured alike.
    #[must_use]
    pub(crate) fn against(mut self, what: impl Into<String>, ratio: Spread) -> Entry {
        self.against = Some(what.into());
        self.ratio = Some(ratio);
        self
    }

    #[must_use]
    pub(crate) fn target(mut self, target: Target) -> Entry {
        self.target = Some(target);
        self
    }

    /// Whether the target is met; `None` without one.
    pub(crate) fn is_met(&self) -> Option<bool> {
        let ratio = self.ratio.map_or(f64::NAN, |ratio| ratio.median);
        Some(match self.target? {
            Target::RatioAtMost(most) => ratio <= most,
            Target::RatioAtLeast(least) => ratio >= least,
            Target::AtMost(most) => self.measured.median <= most,
            Target::NeverAbove(most) => self.measured.worst <= most,
            Target::RatioNeverAbove(most) => self.ratio.is_some_and(|ratio| ratio.worst <= most),
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::RatioAtMost(most) => write!(f, "≤ {most} ×"),
            Target::RatioAtLeast(least) => write!(f, "≥ {least} ×"),
            Target::AtMost(most) => write!(f, "≤ {most}"),
            Target::NeverAbove(most) => write!(f, "always ≤ {most}"),
            Target::RatioNeverAbove(most) => write!(f, "always ≤ {most} ×"),
        }
    }
}
