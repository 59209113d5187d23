//! The named locks in use. MySQL tells them; MariaDB only when it was set up to.
//!
//! Whether a list is complete its own session's sentinel shows: an instrument that was switched on late knows nothing of the
//! locks that were taken before.

use std::collections::HashMap;
use std::time::Duration;

use mysql_async::Row;
use mysql_async::prelude::{FromValue, Queryable};

use super::settings::{Flavor, SENTINEL};
use super::{MySqlSession, column, errors, holder, name};
use crate::backend::session::driver::{DriverError, Listed};
use crate::capabilities::Strategy;
use crate::error::Holder;
use crate::key::{Mode, ServerKey};
use crate::listing::{Party, gather};

/// Name, whether it is granted, session. MariaDB has the name in the place of the schema.
const INSTRUMENT: &str = "SELECT COALESCE(NULLIF(held.OBJECT_NAME, ''), held.OBJECT_SCHEMA), held.LOCK_STATUS = 'GRANTED',
        thread.PROCESSLIST_ID
     FROM performance_schema.metadata_locks AS held
     JOIN performance_schema.threads AS thread ON thread.THREAD_ID = held.OWNER_THREAD_ID
     WHERE held.OBJECT_TYPE = 'USER LEVEL LOCK' AND held.LOCK_STATUS IN ('GRANTED', 'PENDING')
        AND thread.PROCESSLIST_ID IS NOT NULL";

/// MariaDB's plugin, which tells of granted locks alone.
const PLUGIN: &str = "SELECT TABLE_SCHEMA, 1, THREAD_ID FROM information_schema.METADATA_LOCK_INFO
     WHERE LOCK_TYPE = 'User lock'";

const PROGRAMS: &str = "SELECT PROCESSLIST_ID, MAX(IF(ATTR_NAME = 'program_name', ATTR_VALUE, NULL)),
        MAX(IF(ATTR_NAME = '_pid', ATTR_VALUE, NULL))
     FROM performance_schema.session_connect_attrs WHERE ATTR_NAME IN ('program_name', '_pid') GROUP BY PROCESSLIST_ID";

pub(super) async fn read(
    session: &MySqlSession,
    only: Option<&ServerKey>,
    own: &[i64],
) -> Result<Listed, DriverError> {
    let wanted = match only {
        Some(key) => Some(name(key, Mode::Exclusive)?),
        None => None,
    };
    let (sources, remedy): (&[&'static str], &str) = match session.facts.flavor {
        Flavor::MySql => (
            &[INSTRUMENT],
            "grant the account SELECT on performance_schema.metadata_locks and performance_schema.threads, and have the \
             performance schema and its instrument wait/lock/metadata/sql/mdl switched on when the locks are taken",
        ),
        Flavor::MariaDb => (
            &[INSTRUMENT, PLUGIN],
            "install the plugin metadata_lock_info (INSTALL SONAME 'metadata_lock_info'), or start the server with \
             performance_schema=ON and performance-schema-instrument='wait/lock/metadata/sql/mdl=ON' and grant the account \
             SELECT on performance_schema.metadata_locks and performance_schema.threads",
        ),
    };
    let mut refusal = None;
    for source in sources {
        match claims(session, source).await {
            Ok(claims) if claims.iter().any(|claim| claim.is_sentinel_of(session)) => {
                return tell(session, claims, wanted, own).await;
            }
            // It does not know the lock that this session holds.
            Ok(_) => {}
            // There is no such plugin.
            Err(DriverError::Refused { code, .. }) if code == "1109" => {}
            Err(DriverError::Refused { code, message, .. }) => {
                refusal = Some(format!("; the server said: {message} ({code})"));
            }
            Err(error @ DriverError::Gone { .. }) => return Err(error),
        }
    }
    match wanted {
        // One lock's holder everybody is told.
        Some(wanted) => {
            let held = holder::of(session, wanted, own).await?;
            let key = ServerKey::Name(wanted.to_owned().into());
            let party = held.map(|who| (key, true, Party::new(who, Mode::Exclusive)));
            Ok(Listed::Locks(gather(Strategy::Session, party)))
        }
        None => Ok(Listed::Untold {
            remedy: format!("{remedy}{}", refusal.unwrap_or_default()),
        }),
    }
}

/// A session at a lock.
struct Claim {
    name: String,
    granted: bool,
    session: u64,
}

impl Claim {
    fn is_sentinel_of(&self, session: &MySqlSession) -> bool {
        self.granted && self.session == session.facts.id && self.name == session.facts.sentinel
    }
}

async fn claims(session: &MySqlSession, sql: &'static str) -> Result<Vec<Claim>, DriverError> {
    let rows = session
        .slot
        .run(move |conn| conn.query::<Row, _>(sql))
        .await?;
    rows.iter()
        .map(|row| {
            let name: Vec<u8> = value(row, 0)?;
            Ok(Claim {
                name: String::from_utf8_lossy(&name).into_owned(),
                granted: value::<i64>(row, 1)? == 1,
                session: value(row, 2)?,
            })
        })
        .collect()
}

/// Adds what is known of the sessions, and leaves the sentinels out.
async fn tell(
    session: &MySqlSession,
    mut claims: Vec<Claim>,
    wanted: Option<&str>,
    own: &[i64],
) -> Result<Listed, DriverError> {
    claims.retain(|claim| match wanted {
        Some(wanted) => claim.name == wanted,
        None => !claim.name.starts_with(SENTINEL),
    });
    let processes = processes(session).await?;
    let programs = programs(session).await?;
    let mut parties: Vec<_> = claims
        .into_iter()
        .map(|claim| {
            let process = processes.get(&claim.session);
            let who = Holder {
                program: programs.get(&claim.session).cloned(),
                client: process.and_then(|process| process.client.clone()),
                session: i64::try_from(claim.session).ok(),
                this_process: i64::try_from(claim.session).is_ok_and(|id| own.contains(&id)),
                ..Holder::default()
            };
            let mut party = Party::new(who, Mode::Exclusive);
            // The time of a session is that of its statement, which in a wait is the wait.
            party.lasts = process
                .filter(|process| !claim.granted && process.waits)
                .map(|process| process.time);
            (ServerKey::Name(claim.name.into()), claim.granted, party)
        })
        .collect();
    // Who has waited longest comes first.
    parties.sort_by_key(|(_, _, party)| (std::cmp::Reverse(party.lasts), party.who.session));
    Ok(Listed::Locks(gather(Strategy::Session, parties)))
}

/// A row of the process list.
struct Process {
    client: Option<String>,
    time: Duration,
    waits: bool,
}

/// The sessions that the account may see: its own, unless it has `PROCESS`.
///
/// `SHOW`, and not the table `information_schema.processlist`: see [`holder`].
async fn processes(session: &MySqlSession) -> Result<HashMap<u64, Process>, DriverError> {
    let asked = session
        .slot
        .run(|conn| conn.query::<Row, _>("SHOW PROCESSLIST"))
        .await;
    let mut processes = HashMap::new();
    for row in unless_refused(asked)? {
        let user: Option<String> = column(&row, 1)?;
        let host: Option<String> = column(&row, 2)?;
        let client = match (user, host) {
            (Some(user), Some(host)) => Some(format!("{user}@{host}")),
            (user, _) => user,
        };
        let seconds: Option<i64> = column(&row, 5)?;
        let state: Option<String> = column(&row, 6)?;
        let process = Process {
            client,
            time: Duration::from_secs(u64::try_from(seconds.unwrap_or(0)).unwrap_or(0)),
            waits: state.as_deref() == Some("User lock"),
        };
        processes.insert(value(&row, 0)?, process);
    }
    Ok(processes)
}

/// What the sessions say of themselves, where the account may see it.
async fn programs(session: &MySqlSession) -> Result<HashMap<u64, String>, DriverError> {
    let asked = session
        .slot
        .run(|conn| conn.query::<Row, _>(PROGRAMS))
        .await;
    let mut programs = HashMap::new();
    for row in unless_refused(asked)? {
        let (program, process): (Option<String>, Option<String>) =
            (column(&row, 1)?, column(&row, 2)?);
        if let Some(program) = program {
            programs.insert(value(&row, 0)?, holder::program(program, process));
        }
    }
    Ok(programs)
}

/// Not to be told is not an error.
fn unless_refused(asked: Result<Vec<Row>, DriverError>) -> Result<Vec<Row>, DriverError> {
    match asked {
        Err(DriverError::Refused { .. }) => Ok(Vec::new()),
        answer => answer,
    }
}

fn value<T: FromValue>(row: &Row, index: usize) -> Result<T, DriverError> {
    column(row, index)?.ok_or_else(|| errors::unexpected("NULL in a list of locks"))
}
