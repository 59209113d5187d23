//! What the rows tell of locks in use.

use std::time::{Duration, SystemTime};

use super::row::{self, KEPT, REVOKED, Row, Stamped, is_forgotten, is_kept};
use crate::capabilities::Strategy;
use crate::error::Holder;
use crate::key::{Mode, ServerKey};
use crate::listing::{LastRun, LockInfo, Party};

/// A row as a lock, `None` if nobody holds it, waits for it or has held it. `nonce` is in the owners of this locker.
pub(super) fn info(stamped: Stamped, nonce: &str, doubted: bool) -> Option<LockInfo> {
    let Stamped {
        name,
        acquired_at,
        last_run,
        row,
    } = stamped;
    let text = name.clone().into();
    let mut info = LockInfo::new(Strategy::Lease, ServerKey::Name(name.into()));
    info.key = Some(text);
    if !row.is_free() && !row.owner.is_empty() {
        let mut party = party(&row.owner, Some(&row.program), Mode::Exclusive, nonce);
        party.who.kept_for = kept_for(&row.owner, row.now, row.expires_at);
        party.lasts = Some(between(acquired_at, row.now));
        if party.who.kept_for.is_none() {
            party.who.held_for = party.lasts;
        }
        info.holders.push(party);
    }
    if !row.is_free() {
        let readers = row.readers(doubted);
        info.holders.extend(readers.iter().map(|(owner, reader)| {
            let mut party = party(owner, Some(&reader.2), Mode::Shared, nonce);
            party.who.kept_for = kept_for(owner, row.now, reader.1);
            party
        }));
    }
    info.waiters = waiters(&row, doubted, nonce);
    if !info.holders.is_empty() {
        info.token = Some(row.token);
        info.expires_in = Some(between(row.now, row.expires_at));
    }
    // A lease that ran out is noted when the row changes hands.
    let ran_out = row.is_free() && is_forgotten(&row.owner);
    let forgotten = ran_out.then(|| {
        let (owner, program) = (row.owner.clone(), row.program.clone());
        row::LastRun(row.token, acquired_at, None, owner, program)
    });
    info.last = forgotten
        .or(last_run)
        .map(|run| self::last_run(&run, nonce));
    if info.holders.is_empty() && info.waiters.is_empty() && info.last.is_none() {
        return None;
    }
    Some(info.complete())
}

fn last_run(run: &row::LastRun, nonce: &str) -> LastRun {
    let row::LastRun(token, acquired, ended, owner, program) = run;
    let moment = |micros: i64| {
        let since = Duration::from_micros(u64::try_from(micros).unwrap_or(0));
        SystemTime::UNIX_EPOCH + since
    };
    LastRun {
        who: holder(owner, program, nonce),
        token: *token,
        acquired: moment(*acquired),
        released: ended.map(moment),
    }
}

/// Who waits, the longest waiting first.
fn waiters(row: &Row, doubted: bool, nonce: &str) -> Vec<Party> {
    let mut waiters: Vec<_> = row.present(doubted).collect();
    waiters.sort_by_key(|(_, waiter)| waiter.0);
    waiters
        .into_iter()
        .map(|(owner, waiter)| {
            let mode = if waiter.2 == 1 {
                Mode::Exclusive
            } else {
                Mode::Shared
            };
            let mut party = party(owner, None, mode, nonce);
            party.lasts = Some(between(waiter.0, row.now));
            party
        })
        .collect()
}

fn party(owner: &str, program: Option<&str>, mode: Mode, nonce: &str) -> Party {
    Party::new(holder(owner, program.unwrap_or_default(), nonce), mode)
}

/// How long a lock that was released stays taken.
pub(super) fn kept_for(owner: &str, now: i64, ends: i64) -> Option<Duration> {
    is_kept(owner).then(|| between(now, ends))
}

/// Who an owner is. What follows the `#` is the acquisition's.
pub(super) fn holder(owner: &str, program: &str, nonce: &str) -> Holder {
    Holder {
        program: Some(program.to_owned()).filter(|program| !program.is_empty()),
        client: Some(match owner.trim_start_matches(KEPT).split('#').next() {
            Some(owner_name) if owner != REVOKED => format!("owner {owner_name}"),
            _ => "revoked".to_owned(),
        }),
        this_process: owner.contains(nonce),
        ..Holder::default()
    }
}

fn between(from: i64, to: i64) -> Duration {
    Duration::from_micros(u64::try_from(to.saturating_sub(from)).unwrap_or(0))
}
