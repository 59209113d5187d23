//! Leases in a table of MySQL or MariaDB, Galera clusters included.
//!
//! Two connections: one takes and releases, the other renews. Nobody can be woken here; those who wait ask.

mod connection;
mod renewals;
pub(crate) mod sql;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use mysql_async::prelude::Queryable;
use mysql_async::{Params, Row as MyRow, Value};

use super::answers_within;
use super::link::Link;
use super::row::{LastRun, Row, Stamped, parse};
use super::shared::micros;
use super::store::{
    Announced, Answer, Claim, Notice, Released, Renewal, Renewed, Store, StoreError, Swap,
};
use crate::config::LeaseSettings;
use crate::endpoint::MySqlEndpoint;
use crate::error::InitError;
use crate::key::Mode;
use connection::MySqlOpener;
use sql::Statements;

/// The table of leases in a database of MySQL or MariaDB.
pub(crate) struct MySqlStore {
    /// Takes and releases.
    main: Line,
    /// Renews.
    side: Line,
    statements: Statements,
    namespace: Arc<str>,
    is_galera: bool,
}

/// A connection, and how long a statement may take on it before it counts as stalled.
struct Line {
    link: Link<MySqlOpener>,
    answers_within: Duration,
}

/// The server's shortest limit of a wait for a row is a second, which some count by the tick of another: a shorter limit of
/// ours would cost the connection, and leave the statement waiting there.
const ROW_WAIT: Duration = Duration::from_millis(2500);

/// What a statement that changes rows brings: how many, and the number that it left.
type Changed = (u64, u64);

impl MySqlStore {
    /// Connects, and makes the table where it is missing. Also gives what the server is.
    pub(crate) async fn open(
        endpoint: MySqlEndpoint,
        settings: &LeaseSettings,
    ) -> Result<(MySqlStore, String), InitError> {
        let opener = || {
            MySqlOpener::new(
                endpoint.clone(),
                settings.table.clone(),
                &settings.program,
                settings.connect_timeout,
            )
        };
        // Renewals wait for no row.
        let answers_within = answers_within(settings.ttl);
        let line = |answers_within| Line {
            link: Link::new(opener()),
            answers_within,
        };
        let main = line(answers_within.max(ROW_WAIT));
        let side = line(answers_within);
        let connection = main.link.open().await?;
        side.link.open().await?;
        let is_galera = connection.is_galera;
        let server = connection.server.clone();
        let mut store = MySqlStore {
            main,
            side,
            statements: Statements::new(&settings.table, is_galera, connection.locked),
            namespace: settings.namespace.clone(),
            is_galera,
        };
        if !store.can_do_without().await? {
            store.wait_for_rows();
        }
        Ok((store, server))
    }

    async fn change(&self, line: &Line, sql: String, params: Vec<Value>) -> Answer<Changed> {
        let connection = line.link.get().await?;
        let params = positional(params);
        let answer = connection
            .run(line.answers_within, move |conn| {
                async move {
                    conn.exec_drop(sql, params).await?;
                    Ok((conn.affected_rows(), conn.last_insert_id().unwrap_or(0)))
                }
                .boxed()
            })
            .await;
        Self::heed(&line.link, &connection, answer)
    }

    async fn rows(&self, line: &Line, sql: String, params: Vec<Value>) -> Answer<Vec<MyRow>> {
        let connection = line.link.get().await?;
        let params = positional(params);
        let answer = connection
            .run(line.answers_within, move |conn| {
                conn.exec(sql, params).boxed()
            })
            .await;
        Self::heed(&line.link, &connection, answer)
    }

    fn heed<T>(
        link: &Link<MySqlOpener>,
        connection: &Arc<connection::MySqlConnection>,
        answer: Answer<T>,
    ) -> Answer<T> {
        if matches!(answer, Err(StoreError::Gone { .. })) {
            link.drop_connection(connection);
        }
        answer
    }

    fn named(&self, name: &str) -> [Value; 2] {
        [self.namespace.as_bytes().into(), name.as_bytes().into()]
    }

    async fn take_row(&self, claim: &Claim<'_>) -> Answer<Option<u64>> {
        let ttl = micros(claim.ttl);
        let [namespace, name] = self.named(claim.name);
        let mut which: Vec<Value> = vec![namespace, name];
        if self.is_galera {
            // No row has a negative version.
            let stale = claim.stale.and_then(|version| i64::try_from(version).ok());
            which.push(stale.unwrap_or(-1).into());
        }
        let set = vec![
            claim.owner.into(),
            claim.program.into(),
            path(claim.owner, ""),
            ttl.into(),
            ttl.into(),
        ];
        let params = self.statements.ordered(which, set);
        let (count, token) = self
            .change(&self.main, self.statements.take(), params)
            .await?;
        Ok((count == 1).then_some(token))
    }
}

impl Store for MySqlStore {
    async fn take(&self, claim: &Claim<'_>) -> Answer<Option<u64>> {
        match self.take_row(claim).await {
            // Somebody has locked the row: it is busy.
            Err(StoreError::Again { .. }) if !self.is_galera => return Ok(None),
            // On a cluster it may be that another node was before it: the row tells.
            Ok(None) | Err(StoreError::Again { .. }) => {}
            answer => return answer,
        }
        if self.is_galera {
            // A lock that stayed taken for a while after its release is nobody's, whatever the clocks say.
            match self.read(claim.name).await? {
                Some(row) if row.is_given_back() => {
                    let stale = Some(row.version);
                    return match self.take_row(&Claim { stale, ..*claim }).await {
                        Err(StoreError::Again { .. }) => Ok(None),
                        answer => answer,
                    };
                }
                Some(_) => return Ok(None),
                None => {}
            }
        } else {
            let (exists, named) = (self.statements.exists(), self.named(claim.name).to_vec());
            if !self.rows(&self.main, exists, named).await?.is_empty() {
                return Ok(None);
            }
        }
        self.create(claim.name).await?;
        self.take_row(claim).await
    }

    async fn read(&self, name: &str) -> Answer<Option<Row>> {
        let named = self.named(name).to_vec();
        let rows = self.rows(&self.main, self.statements.read(), named).await?;
        let Some(row) = rows.first() else {
            return Ok(None);
        };
        read(row).map(Some)
    }

    async fn list(&self, only: Option<&str>) -> Answer<Vec<Stamped>> {
        let mut params: Vec<Value> = vec![self.namespace.as_bytes().into()];
        params.extend(only.map(|name| Value::from(name.as_bytes())));
        let sql = self.statements.list(only.is_some());
        let rows = self.rows(&self.main, sql, params).await?;
        let stamped = |row: &MyRow| {
            let name: Vec<u8> = column(row, 9)?;
            Ok(Stamped {
                row: read(row)?,
                name: String::from_utf8_lossy(&name).into_owned(),
                acquired_at: column(row, 10)?,
                last_run: LastRun::parse(column::<Option<String>>(row, 11)?.as_deref()),
            })
        };
        rows.iter().map(stamped).collect()
    }

    async fn revoke(&self, name: &str, version: u64) -> Answer<bool> {
        let [namespace, name] = self.named(name);
        let params = vec![namespace, name, version.into()];
        let (count, _) = self
            .change(&self.main, self.statements.revoke(), params)
            .await?;
        Ok(count == 1)
    }

    async fn create(&self, name: &str) -> Answer<()> {
        let [namespace, name] = self.named(name);
        let params = vec![namespace.clone(), name, namespace];
        match self
            .change(&self.main, self.statements.create(), params)
            .await
        {
            // Somebody else was faster: the row is there.
            Ok(_) | Err(StoreError::Again { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn swap(&self, name: &str, change: &Swap) -> Answer<bool> {
        let [namespace, name] = self.named(name);
        let mut params: Vec<Value> = vec![change.last_run.as_deref().into()];
        params.extend(change.token.map(Value::from));
        params.extend([
            change.readers.as_str().into(),
            path(&change.owner, ""),
            change.expires_at.into(),
            micros(change.ttl).into(),
            namespace,
            name,
            change.version.into(),
        ]);
        let sql = self.statements.swap(change.token.is_some());
        match self.change(&self.main, sql, params).await {
            Ok((count, _)) => Ok(count == 1),
            Err(StoreError::Again { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn announce(&self, notice: &Notice<'_>) -> Answer<Option<Announced>> {
        let [namespace, name] = self.named(notice.name);
        let params = vec![
            path(notice.owner, ""),
            micros(notice.lasts).into(),
            i64::from(notice.mode == Mode::Exclusive).into(),
            namespace,
            name,
        ];
        let announce = self.statements.announce(notice.since);
        let (count, _) = self.change(&self.main, announce, params).await?;
        if count == 0 {
            return Ok(None);
        }
        let Some(row) = self.read(notice.name).await? else {
            return Ok(None);
        };
        for gone in row.gone(self.is_galera) {
            if gone != notice.owner {
                // What fails here is done by the next one.
                let _ = self.retract(notice.name, gone).await;
            }
        }
        let waiter = row.waiters.get(notice.owner);
        let remaining = u64::try_from(row.expires_at.saturating_sub(row.now)).unwrap_or(0);
        Ok(Some(Announced {
            since: waiter.map_or(row.now, |waiter| waiter.0),
            remaining: Duration::from_micros(remaining.max(1)),
        }))
    }

    async fn retract(&self, name: &str, owner: &str) -> Answer<bool> {
        let [namespace, name] = self.named(name);
        let path = path(owner, "");
        let params = vec![path.clone(), namespace, name, path];
        self.change(&self.main, self.statements.retract(), params)
            .await?;
        Ok(false)
    }

    async fn renew(&self, renewals: &[Renewal]) -> Answer<Vec<Renewed>> {
        self.renew_all(renewals).await
    }

    async fn release(
        &self,
        name: &str,
        owner: &str,
        token: u64,
        kept_for: Option<Duration>,
    ) -> Answer<Released> {
        let [namespace, name] = self.named(name);
        let mut params: Vec<Value> = Vec::new();
        if let Some(kept_for) = kept_for.map(micros) {
            params.extend([kept_for.into(), kept_for.into()]);
        }
        params.extend([namespace, name, owner.into(), token.into()]);
        let release = self.statements.release(kept_for.is_some());
        let (count, wanted) = self.change(&self.main, release, params).await?;
        Ok(Released {
            was_held: count == 1,
            is_wanted: count == 1 && wanted == 1,
        })
    }

    async fn wake(&self, _: &str) {}

    fn wakes(&self) -> bool {
        false
    }

    fn doubts_clock(&self) -> bool {
        self.is_galera
    }

    async fn pause(&self) {
        self.main.link.pause().await;
    }

    fn connections(&self) -> usize {
        let lines = [&self.main, &self.side].into_iter();
        lines.filter(|line| line.link.is_open()).count()
    }

    fn close(&self, reason: &str) {
        self.main.link.close(reason);
        self.side.link.close(reason);
    }
}

/// The columns that every read of a row begins with.
fn read(row: &MyRow) -> Answer<Row> {
    Ok(Row {
        token: column(row, 0)?,
        owner: column(row, 1)?,
        program: column(row, 2)?,
        readers: parse(&column::<String>(row, 3)?),
        waiters: parse(&column::<String>(row, 4)?),
        version: column(row, 5)?,
        expires_at: column(row, 6)?,
        ttl: column(row, 7)?,
        now: column(row, 8)?,
    })
}

fn positional(params: Vec<Value>) -> Params {
    if params.is_empty() {
        Params::Empty
    } else {
        Params::Positional(params)
    }
}

/// Where an owner's entry stands in a column of JSON. Owners have no quotes and no backslashes.
fn path(owner: &str, part: &str) -> Value {
    format!("$.\"{owner}\"{part}").into()
}

fn column<T: mysql_async::prelude::FromValue>(row: &MyRow, index: usize) -> Answer<T> {
    match row.get_opt(index) {
        Some(Ok(value)) => Ok(value),
        _ => Err(StoreError::Gone {
            reason: format!("unexpected answer of the server: column {index}"),
            source: None,
        }),
    }
}
