//! Who holds a lock, pieced together from what the account may see.

use mysql_async::Row;
use mysql_async::prelude::Queryable;

use super::{MySqlSession, column};
use crate::backend::session::driver::DriverError;
use crate::error::Holder;

/// Tried in turn: an account may not see one of them, a version may not have it.
const PROGRAMS: [&str; 2] = [
    "SELECT MAX(IF(attr_name = 'program_name', attr_value, NULL)), MAX(IF(attr_name = '_pid', attr_value, NULL))
     FROM performance_schema.session_connect_attrs WHERE processlist_id = ?",
    "SELECT MAX(IF(attr_name = 'program_name', attr_value, NULL)), MAX(IF(attr_name = '_pid', attr_value, NULL))
     FROM performance_schema.session_account_connect_attrs WHERE processlist_id = ?",
];

pub(super) async fn of(
    session: &MySqlSession,
    name: &str,
    own: &[i64],
) -> Result<Option<Holder>, DriverError> {
    let Some(id) = session
        .value::<u64>("SELECT IS_USED_LOCK(?)", (name,))
        .await?
    else {
        return Ok(None);
    };
    let Processes { client, waiting } = processes(session, name, id, own).await?;
    let program = first(session, &PROGRAMS, id).await?;
    Ok(Some(Holder {
        program: program.map(|(name, process)| self::program(name, process)),
        client,
        session: i64::try_from(id).ok(),
        this_process: i64::try_from(id).is_ok_and(|id| own.contains(&id)),
        lost: false,
        held_for: None,
        connected_for: None,
        waiting,
        kept_for: None,
    }))
}

/// The name of a program, with the number of its process.
pub(super) fn program(name: String, process: Option<String>) -> String {
    match process {
        // The name that dlock gives itself has the number in it.
        Some(process) if !name.contains(&process) => format!("{name} (process {process})"),
        _ => name,
    }
}

/// What the list of processes tells of a lock, as far as the account may see it.
#[derive(Default)]
struct Processes {
    /// Where the holder comes from.
    client: Option<String>,
    /// How many sessions besides those of this process wait. `None`: some wait for a lock, and who can tell for which.
    waiting: Option<u64>,
}

/// `SHOW`, and not the table `information_schema.processlist`: MariaDB 10.11 makes a table on disk to answer that one,
/// and was seen to crash over it.
async fn processes(
    session: &MySqlSession,
    name: &str,
    holder: u64,
    own: &[i64],
) -> Result<Processes, DriverError> {
    let asked = session
        .slot
        .run(|conn| conn.query::<Row, _>("SHOW PROCESSLIST"))
        .await;
    let rows = match asked {
        Ok(rows) => rows,
        // Not to be told is not an error.
        Err(DriverError::Refused { .. }) => return Ok(Processes::default()),
        Err(error @ DriverError::Gone { .. }) => return Err(error),
    };
    let quoted = format!("'{name}'");
    let mut seen = Processes {
        client: None,
        waiting: Some(0),
    };
    for row in rows {
        let Some(id) = column::<u64>(&row, 0)? else {
            continue;
        };
        if id == holder {
            let (user, host) = (text(&row, 1)?, text(&row, 2)?);
            seen.client = match (user, host) {
                (Some(user), Some(host)) => Some(format!("{user}@{host}")),
                (user, _) => user,
            };
        }
        let is_own = i64::try_from(id).is_ok_and(|id| own.contains(&id));
        if is_own || text(&row, 6)?.as_deref() != Some("User lock") {
            continue;
        }
        let statement = text(&row, 7)?;
        match statement {
            Some(statement) if statement.contains(&quoted) => {
                seen.waiting = seen.waiting.map(|waiting| waiting + 1);
            }
            // Another name, in full. MariaDB shows `?` in its place, and so does MySQL without a log of statements.
            Some(statement) if statement.matches('\'').count() > 1 => {}
            _ => seen.waiting = None,
        }
    }
    Ok(seen)
}

/// A column of the process list. Other programs write what they like there, and the server cuts it where it likes.
fn text(row: &Row, index: usize) -> Result<Option<String>, DriverError> {
    let bytes: Option<Vec<u8>> = column(row, index)?;
    Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
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
