//! The locks in use, from `pg_locks`, with what `pg_stat_activity` tells of their sessions.

use std::time::Duration;

use tokio_postgres::{Error, Row};

use super::settings::sentinel;
use super::{PostgresSession, advisory_key};
use crate::backend::session::driver::{DriverError, Listed};
use crate::capabilities::Strategy;
use crate::error::Holder;
use crate::key::{Mode, ServerKey};
use crate::listing::{Party, gather};
use crate::scheme::AdvisoryKey;

pub(super) async fn read(
    session: &PostgresSession,
    only: Option<&ServerKey>,
    own: &[i64],
) -> Result<Listed, DriverError> {
    let only = match only {
        Some(key) => Some(Place::of(&advisory_key(key)?)),
        None => None,
    };
    let (class, object, space) = match only {
        Some(place) => (Some(place.class), Some(place.object), Some(place.space)),
        None => (None, None, None),
    };
    let parties = async {
        let statement = session.statements.list.get(&session.client).await?;
        let rows = session
            .client
            .query(statement, &[&class, &object, &space])
            .await?;
        let parties = rows.iter().map(|row| party(row, own));
        parties
            .filter_map(Result::transpose)
            .collect::<Result<Vec<_>, Error>>()
    };
    let parties = parties.await.map_err(|error| session.explain(error))?;
    Ok(Listed::Locks(gather(Strategy::Session, parties)))
}

/// Ends a session, if it holds the lock.
pub(super) async fn kill(
    session: &PostgresSession,
    pid: i64,
    key: &ServerKey,
) -> Result<bool, DriverError> {
    let Place {
        class,
        object,
        space,
    } = Place::of(&advisory_key(key)?);
    let Ok(pid) = i32::try_from(pid) else {
        return Ok(false);
    };
    let killed = async {
        let statement = session.statements.kill.get(&session.client).await?;
        session
            .client
            .query(statement, &[&pid, &class, &object, &space])
            .await
    };
    killed
        .await
        .map(|ended| !ended.is_empty())
        .map_err(|error| session.explain(error))
}

/// A lock as the list has it: the numbers without their signs.
#[derive(Clone, Copy)]
struct Place {
    class: i64,
    object: i64,
    /// 1: one number of 64 bits; 2: two of 32.
    space: i32,
}

impl Place {
    fn of(key: &AdvisoryKey) -> Place {
        match *key {
            AdvisoryKey::Number(number) => Place {
                class: (number >> 32) & 0xffff_ffff,
                object: number & 0xffff_ffff,
                space: 1,
            },
            AdvisoryKey::Pair(first, second) => Place {
                class: i64::from(first) & 0xffff_ffff,
                object: i64::from(second) & 0xffff_ffff,
                space: 2,
            },
        }
    }

    fn key(self) -> ServerKey {
        if self.space == 1 {
            return ServerKey::Number(self.class << 32 | self.object);
        }
        ServerKey::Pair(signed(self.class), signed(self.object))
    }
}

/// The signed number of the same 32 bits.
fn signed(number: i64) -> i32 {
    let bits = u32::try_from(number & 0xffff_ffff).unwrap_or_default();
    bits.cast_signed()
}

/// Somebody at a lock; `None`: a session of dlock at its sentinel.
fn party(row: &Row, own: &[i64]) -> Result<Option<(ServerKey, bool, Party)>, Error> {
    // The locks of a prepared transaction belong to no session.
    let pid: Option<i32> = row.try_get(0)?;
    let place = Place {
        class: row.try_get(1)?,
        object: row.try_get(2)?,
        space: row.try_get(3)?,
    };
    let key = place.key();
    if let ServerKey::Pair(class, object) = key
        && pid.is_some_and(|pid| object == sentinel(class, pid))
    {
        return Ok(None);
    }
    let mode = if row.try_get(4)? {
        Mode::Shared
    } else {
        Mode::Exclusive
    };
    let program: Option<String> = row.try_get(6)?;
    let who = Holder {
        program: program.filter(|name| !name.is_empty()),
        client: row.try_get(7)?,
        session: pid.map(i64::from),
        this_process: pid.is_some_and(|pid| own.contains(&pid.into())),
        connected_for: micros(row.try_get(9)?),
        ..Holder::default()
    };
    let mut party = Party::new(who, mode);
    party.lasts = micros(row.try_get(8)?);
    Ok(Some((key, row.try_get(5)?, party)))
}

fn micros(micros: Option<i64>) -> Option<Duration> {
    micros.map(|micros| Duration::from_micros(u64::try_from(micros).unwrap_or(0)))
}
