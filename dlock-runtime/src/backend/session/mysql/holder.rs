//! Who holds a lock, pieced together from what the account may see.

use super::{MySqlSession, column};
use crate::backend::session::driver::DriverError;
use crate::error::Holder;

/// Tried in turn: an account may not see one of them, a version may not have it.
const PROCESSES: [&str; 2] = [
    "SELECT user, host FROM performance_schema.processlist WHERE id = ?",
    "SELECT user, host FROM information_schema.processlist WHERE id = ?",
];
const PROGRAMS: [&str; 2] = [
    "SELECT MAX(IF(attr_name = 'program_name', attr_value, NULL)), MAX(IF(attr_name = '_pid', attr_value, NULL))
     FROM performance_schema.session_connect_attrs WHERE processlist_id = ?",
    "SELECT MAX(IF(attr_name = 'program_name', attr_value, NULL)), MAX(IF(attr_name = '_pid', attr_value, NULL))
     FROM performance_schema.session_account_connect_attrs WHERE processlist_id = ?",
];

pub(super) async fn of(session: &MySqlSession, name: &str) -> Result<Option<Holder>, DriverError> {
    let Some(id) = session
        .value::<u64>("SELECT IS_USED_LOCK(?)", (name,))
        .await?
    else {
        return Ok(None);
    };
    let client = first(session, &PROCESSES, id).await?;
    let program = first(session, &PROGRAMS, id).await?;
    Ok(Some(Holder {
        program: program.map(|(name, process)| match process {
            // The name that dlock gives itself has the number in it.
            Some(process) if !name.contains(&process) => format!("{name} (process {process})"),
            _ => name,
        }),
        client: client.map(|(user, host)| match host {
            Some(host) => format!("{user}@{host}"),
            None => user,
        }),
        session: i64::try_from(id).ok(),
        this_process: id == session.facts.id,
    }))
}

/// The two columns of the first statement that answers with a value in the first.
async fn first(
    session: &MySqlSession,
    statements: &[&'static str],
    id: u64,
) -> Result<Option<(String, Option<String>)>, DriverError> {
    for sql in statements {
        match session.row((*sql).into(), (id,)).await {
            Ok(Some(row)) => {
                if let Some(value) = column(&row, 0)? {
                    return Ok(Some((value, column(&row, 1)?)));
                }
            }
            // Not to be told is not an error.
            Ok(None) | Err(DriverError::Refused { .. }) => {}
            Err(error @ DriverError::Gone { .. }) => return Err(error),
        }
    }
    Ok(None)
}
