//! Leases in a table of MySQL or MariaDB, Galera clusters included.
//!
//! Two connections: one takes and releases, the other renews. Nobody can be woken here; those who wait ask.

mod connection;
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
use super::row::{Row, Stamped, parse};
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
    main: Link<MySqlOpener>,
    /// Renews.
    side: Link<MySqlOpener>,
    statements: Statements,
    namespace: Arc<str>,
    /// How long a statement may take before its connection counts as stalled.
    answers_within: Duration,
    is_galera: bool,
}

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
        let main = Link::new(opener());
        let side = Link::new(opener());
        let connection = main.open().await?;
        side.open().await?;
        let is_galera = connection.is_galera;
        let store = MySqlStore {
            main,
            side,
            statements: Statements::new(&settings.table, is_galera),
            namespace: settings.namespace.clone(),
            answers_within: answers_within(settings.ttl),
            is_galera,
        };
        Ok((store, connection.server.clone()))
    }

    async fn change(
        &self,
        link: &Link<MySqlOpener>,
        sql: String,
        params: Vec<Value>,
    ) -> Answer<Changed> {
        let connection = link.get().await?;
        let params = positional(params);
        let answer = connection
            .run(self.answers_within, move |conn| {
                async move {
                    conn.exec_drop(sql, params).await?;
                    Ok((conn.affected_rows(), conn.last_insert_id().unwrap_or(0)))
                }
                .boxed()
            })
            .await;
        Self::heed(link, &connection, answer)
    }

    async fn rows(
        &self,
        link: &Link<MySqlOpener>,
        sql: String,
        params: Vec<Value>,
    ) -> Answer<Vec<MyRow>> {
        let connection = link.get().await?;
        let params = positional(params);
        let answer = connection
            .run(self.answers_within, move |conn| {
                conn.exec(sql, params).boxed()
            })
            .await;
        Self::heed(link, &connection, answer)
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

    /// Renews exclusive leases of one ttl.
    async fn renew_writers(&self, renewals: &[&Renewal], ttl: Duration) -> Answer<Vec<Renewed>> {
        match self.renew_unless_locked(renewals, ttl).await {
            Err(StoreError::Again { .. }) => {}
            answer => return answer,
        }
        // Somebody has locked one of the rows: the others must not wait for that.
        let unlocked = self.statements.unlocked(renewals.len());
        let unlocked = self.rows(&self.side, unlocked, self.some(renewals)).await?;
        let unlocked: Vec<_> = unlocked.iter().map(identity).collect::<Answer<_>>()?;
        let is_unlocked = |renewal: &&&Renewal| unlocked.iter().any(|row| is_of(row, renewal));
        let free: Vec<&Renewal> = renewals.iter().filter(is_unlocked).copied().collect();
        let mut renewed = self.renew_unless_locked(&free, ttl).await?.into_iter();
        let locked = |renewal: &&Renewal| !free.iter().any(|other| std::ptr::eq(*other, *renewal));
        Ok(renewals
            .iter()
            .map(|renewal| {
                if locked(renewal) {
                    // Lost or locked: the next look tells.
                    Renewed::Locked
                } else {
                    renewed.next().unwrap_or(Renewed::Locked)
                }
            })
            .collect())
    }

    async fn renew_unless_locked(
        &self,
        renewals: &[&Renewal],
        ttl: Duration,
    ) -> Answer<Vec<Renewed>> {
        if renewals.is_empty() {
            return Ok(Vec::new());
        }
        let mut params = vec![micros(ttl).into(), micros(ttl).into()];
        params.extend(self.some(renewals));
        let renew = self.statements.renew(renewals.len());
        let (count, _) = self.change(&self.side, renew, params).await?;
        if usize::try_from(count) == Ok(renewals.len()) {
            return Ok(vec![Renewed::Yes; renewals.len()]);
        }
        // What was to be renewed and stands has been.
        let standing = self.statements.standing(renewals.len());
        let standing = self.rows(&self.side, standing, self.some(renewals)).await?;
        let standing: Vec<_> = standing.iter().map(identity).collect::<Answer<_>>()?;
        let outcome = |renewal: &&Renewal| {
            if standing.iter().any(|row| is_of(row, renewal)) {
                Renewed::Yes
            } else {
                Renewed::Lost
            }
        };
        Ok(renewals.iter().map(outcome).collect())
    }

    fn some(&self, renewals: &[&Renewal]) -> Vec<Value> {
        let mut params: Vec<Value> = vec![self.namespace.as_bytes().into()];
        params.extend(
            renewals
                .iter()
                .map(|renewal| renewal.name.as_bytes().into()),
        );
        for renewal in renewals {
            params.push(renewal.owner.as_bytes().into());
            params.push(renewal.token.into());
        }
        params
    }

    async fn renew_reader(&self, renewal: &Renewal) -> Answer<Renewed> {
        let (token, ends) = (path(&renewal.owner, "[0]"), path(&renewal.owner, "[1]"));
        let ttl = micros(renewal.ttl);
        let [namespace, name] = self.named(&renewal.name);
        let params = vec![
            ends.clone(),
            ttl.into(),
            ttl.into(),
            ttl.into(),
            namespace,
            name,
            token,
            renewal.token.into(),
            ends,
        ];
        match self
            .change(&self.side, self.statements.renew_reader(), params)
            .await
        {
            Ok((1, _)) => Ok(Renewed::Yes),
            Ok(_) => Ok(Renewed::Lost),
            Err(StoreError::Again { .. }) => Ok(Renewed::Locked),
            Err(error) => Err(error),
        }
    }

    async fn take_row(&self, claim: &Claim<'_>) -> Answer<Option<u64>> {
        let ttl = micros(claim.ttl);
        let [namespace, name] = self.named(claim.name);
        let mut params: Vec<Value> = vec![
            claim.owner.into(),
            claim.program.into(),
            path(claim.owner, ""),
            ttl.into(),
            ttl.into(),
            namespace,
            name,
        ];
        if self.is_galera {
            // No row has a negative version.
            let stale = claim.stale.and_then(|version| i64::try_from(version).ok());
            params.push(stale.unwrap_or(-1).into());
        }
        let (count, token) = self
            .change(&self.main, self.statements.take(), params)
            .await?;
        Ok((count == 1).then_some(token))
    }
}

impl Store for MySqlStore {
    async fn take(&self, claim: &Claim<'_>) -> Answer<Option<u64>> {
        match self.take_row(claim).await {
            Ok(None) => {}
            // Somebody has locked the row: it is busy.
            Err(StoreError::Again { .. }) if !self.is_galera => return Ok(None),
            answer => return answer,
        }
        let named = self.named(claim.name).to_vec();
        let rows = self
            .rows(&self.main, self.statements.exists(), named)
            .await?;
        if !rows.is_empty() {
            return Ok(None);
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
        let mut params: Vec<Value> = change.token.map(Value::from).into_iter().collect();
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
        let mut outcomes = vec![Renewed::Locked; renewals.len()];
        let writers = |renewal: &Renewal| renewal.mode == Mode::Exclusive;
        let mut ttls: Vec<Duration> = renewals
            .iter()
            .filter(|renewal| writers(renewal))
            .map(|renewal| renewal.ttl)
            .collect();
        ttls.sort_unstable();
        ttls.dedup();
        for ttl in ttls {
            let these = || {
                let all = renewals.iter().enumerate();
                all.filter(|(_, renewal)| writers(renewal) && renewal.ttl == ttl)
            };
            let group: Vec<&Renewal> = these().map(|(_, renewal)| renewal).collect();
            let renewed = self.renew_writers(&group, ttl).await?;
            for ((index, _), renewed) in these().zip(renewed) {
                if let Some(outcome) = outcomes.get_mut(index) {
                    *outcome = renewed;
                }
            }
        }
        for (renewal, outcome) in renewals.iter().zip(&mut outcomes) {
            if !writers(renewal) {
                *outcome = self.renew_reader(renewal).await?;
            }
        }
        Ok(outcomes)
    }

    async fn release(&self, name: &str, owner: &str, token: u64) -> Answer<Released> {
        let [namespace, name] = self.named(name);
        let params = vec![namespace, name, owner.into(), token.into()];
        let release = self.statements.release();
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
        self.main.pause().await;
    }

    fn connections(&self) -> usize {
        let links = [&self.main, &self.side].into_iter();
        links.filter(|link| link.is_open()).count()
    }

    fn close(&self, reason: &str) {
        self.main.close(reason);
        self.side.close(reason);
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

/// Name, owner and token of a row.
type Identity = (Vec<u8>, Vec<u8>, u64);

fn identity(row: &MyRow) -> Answer<Identity> {
    Ok((column(row, 0)?, column(row, 1)?, column(row, 2)?))
}

fn is_of(row: &Identity, renewal: &Renewal) -> bool {
    row.0 == renewal.name.as_bytes() && row.1 == renewal.owner.as_bytes() && row.2 == renewal.token
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
