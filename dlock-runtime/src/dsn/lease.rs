//! The options of leases.

use super::bad;
use super::options::{DURATION, Options, duration, switch, table};
use super::query::Query;
use crate::capabilities::Strategy;
use crate::config::{LeaseOptions, TABLE_RULE};
use crate::error::InitError;

/// For messages.
pub(super) const NAMES: &[&str] = &["ttl", "auto_renew", "retry", "table", "owner"];

/// Takes the strategy, and what goes with leases.
pub(super) fn take(query: &mut Query) -> Result<LeaseOptions, InitError> {
    let strategy = |text: &str| match text {
        "session" => Some(Strategy::Session),
        "lease" => Some(Strategy::Lease),
        _ => None,
    };
    Ok(LeaseOptions {
        strategy: query.take_as(&["strategy"], "session or lease", strategy)?,
        ttl: query.take_as(&["ttl"], DURATION, duration)?,
        auto_renew: query.take_as(&["auto_renew"], "true or false", switch)?,
        retry: query.take_as(&["retry"], DURATION, duration)?,
        table: query.take_as(&["table"], TABLE_RULE, table)?,
        owner: query.take(&["owner"])?,
    })
}

/// Refuses the options of sessions where there are none.
pub(super) fn check(options: &Options) -> Result<(), InitError> {
    if options.lease.strategy != Some(Strategy::Lease) {
        return Ok(());
    }
    let unused = [
        ("limit", options.limit.is_some(), "use ttl"),
        (
            "heartbeat",
            options.heartbeat.is_some(),
            "leases are renewed each third of ttl",
        ),
        (
            "max_waiters",
            options.max_waiters.is_some(),
            "nobody waits on a connection",
        ),
        (
            "max_held",
            options.max_held.is_some(),
            "rows are no room in a lock table",
        ),
        ("hand_over", options.hand_over.is_some(), HANDED_OVER),
        (
            "hand_over_time",
            options.hand_over_time.is_some(),
            HANDED_OVER,
        ),
    ];
    match unused.into_iter().find(|(_, is_set, _)| *is_set) {
        None => Ok(()),
        Some((name, _, instead)) => Err(bad(format!(
            "option {name} of the DSN is one of session locks: leave it out with strategy=lease ({instead})"
        ))),
    }
}

const HANDED_OVER: &str = "each holder gets a fencing token of its own, so none is handed over";
