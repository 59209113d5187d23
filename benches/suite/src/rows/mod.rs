//! The rows of the table, a file each.

pub(crate) mod bound;
pub(crate) mod distinct;
pub(crate) mod growth;
pub(crate) mod handover;
pub(crate) mod held;
pub(crate) mod lease_handover;
pub(crate) mod lease_renewal;
pub(crate) mod lease_uncontended;
pub(crate) mod loss;
pub(crate) mod memory;
pub(crate) mod same_key;
pub(crate) mod uncontended;
pub(crate) mod waiting;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;

use crate::entry::Entry;
use crate::server::Server;

/// The name of the row with the memory backend, which needs no server.
pub(crate) use memory::ROW as MEMORY;

/// The rows that are measured on each server, in the order of the table.
pub(crate) const ON_SERVERS: [&str; 12] = [
    uncontended::ROW,
    uncontended::DELAYED,
    distinct::ROW,
    same_key::ROW,
    handover::ROW,
    held::ROW,
    waiting::ROW,
    loss::ROW,
    bound::ROW,
    lease_uncontended::ROW,
    lease_handover::ROW,
    lease_renewal::ROW,
];

/// The last row, which takes longest.
pub(crate) const GROWTH: &str = growth::ROW;

/// Measures one row on one server.
pub(crate) async fn run(row: &str, server: &Arc<Server>, effort: Effort) -> Result<Vec<Entry>> {
    match row {
        uncontended::ROW => uncontended::run(server, effort).await,
        uncontended::DELAYED => uncontended::run_delayed(server, effort).await,
        distinct::ROW => distinct::run(server, effort).await,
        same_key::ROW => same_key::run(server, effort).await,
        handover::ROW => handover::run(server, effort).await,
        held::ROW => held::run(server, effort).await,
        waiting::ROW => waiting::run(server, effort).await,
        loss::ROW => loss::run(server, effort).await,
        bound::ROW => bound::run(server, effort).await,
        lease_uncontended::ROW => lease_uncontended::run(server, effort).await,
        lease_handover::ROW => lease_handover::run(server, effort).await,
        lease_renewal::ROW => lease_renewal::run(server, effort).await,
        growth::ROW => growth::run(server, effort).await,
        other => anyhow::bail!("there is no row `{other}`"),
    }
}

/// How long and how often to measure.
#[derive(Clone, Copy)]
pub(crate) struct Effort {
    pub(crate) rounds: usize,
    /// The share of each contender in a round.
    pub(crate) slice: Duration,
    pub(crate) is_quick: bool,
}

impl Effort {
    pub(crate) fn full() -> Effort {
        Effort {
            rounds: 31,
            slice: Duration::from_millis(60),
            is_quick: false,
        }
    }

    /// To see that it works.
    pub(crate) fn quick() -> Effort {
        Effort {
            rounds: 3,
            slice: Duration::from_millis(10),
            is_quick: true,
        }
    }

    /// For rows whose rounds take long.
    #[must_use]
    pub(crate) fn rounds(self, full: usize) -> usize {
        if self.is_quick {
            self.rounds.min(full)
        } else {
            full
        }
    }
}
