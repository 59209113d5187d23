//! Leases in a table of PostgreSQL.
//!
//! Two connections: one takes and releases, the other renews and listens, so that no take stands before a renewal. Behind a
//! pooler nothing is kept in a session: statements have no names, and nobody listens.

mod connection;
mod schema;
pub(crate) mod sql;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Error, Row as PgRow};

use super::answers_within;
use super::bells::Bells;
use super::link::Link;
use super::row::{LastRun, Row, Stamped, any_waits, parse};
use super::shared::micros;
use super::store::{
    Announced, Answer, Claim, Notice, Released, Renewal, Renewed, Store, StoreError, Swap,
};
use crate::config::{LeaseSettings, TableName};
use crate::endpoint::PostgresEndpoint;
use crate::error::InitError;
use crate::key::Mode;
use connection::{PostgresConnection, PostgresOpener, payload, statement};
use sql::{Sql, Statements};

/// The schema where none is given. An unqualified name would mean another table to each user with a schema of its own.
pub(crate) const SCHEMA: &str = "public";

/// The places of the prepared statements.
mod slot {
    pub(super) const TAKE: usize = 0;
    pub(super) const RELEASE: usize = 1;
    pub(super) const RENEW: usize = 2;
    pub(super) const READ: usize = 3;
    pub(super) const SWAP: usize = 4;
    pub(super) const SWAP_COUNTING: usize = 5;
}

/// The table of leases in a PostgreSQL database.
pub(crate) struct PostgresStore {
    /// Takes and releases.
    main: Link<PostgresOpener>,
    /// Renews and listens.
    side: Link<PostgresOpener>,
    statements: Statements,
    table: TableName,
    namespace: Arc<str>,
    /// How long a statement may take before its connection counts as stalled.
    answers_within: Duration,
    wakes: bool,
}

/// What was found out about the server.
pub(crate) struct Facts {
    pub(crate) server: String,
    pub(crate) behind_pooler: bool,
}

impl PostgresStore {
    /// Connects, and makes the table where it is missing.
    pub(crate) async fn open(
        mut endpoint: PostgresEndpoint,
        settings: &LeaseSettings,
        bells: &Bells,
    ) -> Result<(PostgresStore, Facts), InitError> {
        endpoint.config.application_name(&*settings.program);
        let endpoint = Arc::new(endpoint);
        let table = settings.table.clone().or_schema(SCHEMA);
        let opener = |listens| PostgresOpener {
            endpoint: endpoint.clone(),
            table: table.clone(),
            namespace: settings.namespace.clone(),
            connect_timeout: settings.connect_timeout,
            // Below what an answer may take.
            lock_timeout: answers_within(settings.ttl).mul_f64(0.75),
            listens,
        };
        let mut store = PostgresStore {
            main: Link::new(opener(None)),
            side: Link::new(opener(Some(bells.clone()))),
            statements: Statements::new(&table),
            table: table.clone(),
            namespace: settings.namespace.clone(),
            answers_within: answers_within(settings.ttl),
            wakes: true,
        };
        let main = store.main.open().await?;
        let side = store.side.open().await?;
        store.wakes = !side.is_pooled();
        let facts = Facts {
            server: main.server.clone(),
            behind_pooler: main.is_pooled(),
        };
        Ok((store, facts))
    }

    async fn often(
        &self,
        link: &Link<PostgresOpener>,
        slot: usize,
        sql: &Sql,
        params: &[&(dyn ToSql + Sync)],
    ) -> Answer<Vec<PgRow>> {
        let connection = link.get().await?;
        let asked = connection.often(slot, sql, params);
        self.answer(link, &connection, asked).await
    }

    async fn seldom(&self, sql: &Sql, params: &[&(dyn ToSql + Sync)]) -> Answer<Vec<PgRow>> {
        let connection = self.main.get().await?;
        let asked = connection.seldom(sql, params);
        self.answer(&self.main, &connection, asked).await
    }

    async fn answer(
        &self,
        link: &Link<PostgresOpener>,
        connection: &Arc<PostgresConnection>,
        asked: impl Future<Output = Result<Vec<PgRow>, Error>>,
    ) -> Answer<Vec<PgRow>> {
        // Nothing is sent before the first poll.
        let unconfirmed = connection.unconfirmed();
        let answer = match timeout(self.answers_within, asked).await {
            Ok(Ok(_)) if connection.unconfirmed() != unconfirmed => Err(StoreError::Gone {
                reason: "the server ended its wait for the synchronous standby: a failover could undo the change".to_owned(),
                source: None,
            }),
            Ok(Ok(rows)) => Ok(rows),
            Ok(Err(error)) => statement(error),
            Err(_) => Err(StoreError::Gone {
                reason: "the server has stopped answering".to_owned(),
                source: None,
            }),
        };
        if matches!(answer, Err(StoreError::Gone { .. })) {
            link.drop_connection(connection);
        }
        answer
    }
}

impl Store for PostgresStore {
    async fn take(&self, claim: &Claim<'_>) -> Answer<Option<u64>> {
        let ttl = micros(claim.ttl);
        let params: [&(dyn ToSql + Sync); 5] = [
            &&*self.namespace,
            &claim.name,
            &claim.owner,
            &claim.program,
            &ttl,
        ];
        let taken = self
            .often(&self.main, slot::TAKE, &self.statements.take, &params)
            .await?;
        if let Some(token) = token(&taken)? {
            return Ok(Some(token));
        }
        // Held by somebody, or taken for the first time.
        token(&self.seldom(&self.statements.insert, &params).await?)
    }

    async fn read(&self, name: &str) -> Answer<Option<Row>> {
        let params: [&(dyn ToSql + Sync); 2] = [&&*self.namespace, &name];
        let rows = self
            .often(&self.main, slot::READ, &self.statements.read, &params)
            .await?;
        let Some(row) = rows.first() else {
            return Ok(None);
        };
        read(row).map(Some).or_else(statement)
    }

    async fn list(&self, only: Option<&str>) -> Answer<Vec<Stamped>> {
        let params: [&(dyn ToSql + Sync); 2] = [&&*self.namespace, &only];
        let rows = self.seldom(&self.statements.list, &params).await?;
        let stamped = rows.iter().map(|row| {
            Ok(Stamped {
                row: read(row)?,
                name: row.try_get(9)?,
                acquired_at: row.try_get(10)?,
                last_run: LastRun::parse(row.try_get(11)?),
            })
        });
        stamped.collect::<Result<_, _>>().or_else(statement)
    }

    async fn revoke(&self, name: &str, version: u64) -> Answer<bool> {
        let version = signed(version);
        let params: [&(dyn ToSql + Sync); 3] = [&&*self.namespace, &name, &version];
        let rows = self.seldom(&self.statements.revoke, &params).await?;
        Ok(!rows.is_empty())
    }

    async fn create(&self, name: &str) -> Answer<()> {
        let params: [&(dyn ToSql + Sync); 2] = [&&*self.namespace, &name];
        self.seldom(&self.statements.create, &params).await?;
        Ok(())
    }

    async fn swap(&self, name: &str, change: &Swap) -> Answer<bool> {
        let version = signed(change.version);
        let ttl = micros(change.ttl);
        let token = change.token.map(signed);
        let namespace = &*self.namespace;
        let (readers, owner) = (change.readers.as_str(), &*change.owner);
        let mut params: Vec<&(dyn ToSql + Sync)> = vec![
            &namespace,
            &name,
            &version,
            &readers,
            &owner,
            &change.expires_at,
            &ttl,
            &change.last_run,
        ];
        let (slot, sql) = if token.is_some() {
            params.push(&token);
            (slot::SWAP_COUNTING, &self.statements.swap_counting)
        } else {
            (slot::SWAP, &self.statements.swap)
        };
        let rows = self.often(&self.main, slot, sql, &params).await?;
        Ok(!rows.is_empty())
    }

    async fn announce(&self, notice: &Notice<'_>) -> Answer<Option<Announced>> {
        if self.wakes {
            // Who waits needs the connection that listens; without it there are still the tries.
            let _ = self.side.get().await;
        }
        let lasts = micros(notice.lasts);
        let exclusive = i32::from(notice.mode == Mode::Exclusive);
        let params: [&(dyn ToSql + Sync); 6] = [
            &&*self.namespace,
            &notice.name,
            &notice.owner,
            &notice.since,
            &lasts,
            &exclusive,
        ];
        let rows = self.seldom(&self.statements.announce, &params).await?;
        let Some(row) = rows.first() else {
            return Ok(None);
        };
        let read = || {
            let remaining: i64 = row.try_get(1)?;
            Ok(Announced {
                since: row.try_get(0)?,
                remaining: Duration::from_micros(unsigned(remaining)),
            })
        };
        read().map(Some).or_else(statement)
    }

    async fn retract(&self, name: &str, owner: &str) -> Answer<bool> {
        let params: [&(dyn ToSql + Sync); 3] = [&&*self.namespace, &name, &owner];
        waits(&self.seldom(&self.statements.retract, &params).await?).map(Option::unwrap_or_default)
    }

    async fn renew(&self, renewals: &[Renewal]) -> Answer<Vec<Renewed>> {
        let names: Vec<&str> = renewals.iter().map(|renewal| &*renewal.name).collect();
        let owners: Vec<&str> = renewals.iter().map(|renewal| &*renewal.owner).collect();
        let tokens: Vec<i64> = renewals
            .iter()
            .map(|renewal| signed(renewal.token))
            .collect();
        let ttls: Vec<i64> = renewals.iter().map(|renewal| micros(renewal.ttl)).collect();
        let shared: Vec<bool> = renewals
            .iter()
            .map(|renewal| renewal.mode == Mode::Shared)
            .collect();
        let params: [&(dyn ToSql + Sync); 6] =
            [&&*self.namespace, &names, &owners, &tokens, &ttls, &shared];
        let rows = self
            .often(&self.side, slot::RENEW, &self.statements.renew, &params)
            .await?;
        // What the answer leaves out is lost.
        let mut outcomes = vec![Renewed::Lost; renewals.len()];
        for row in rows {
            let read = || Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?));
            let (number, renewed, standing): (i64, bool, bool) = read().or_else(statement)?;
            let index = usize::try_from(number - 1).unwrap_or(usize::MAX);
            if let Some(outcome) = outcomes.get_mut(index) {
                *outcome = match (renewed, standing) {
                    (true, _) => Renewed::Yes,
                    (false, true) => Renewed::Locked,
                    (false, false) => Renewed::Lost,
                };
            }
        }
        Ok(outcomes)
    }

    async fn release(
        &self,
        name: &str,
        owner: &str,
        token: u64,
        kept_for: Option<Duration>,
    ) -> Answer<Released> {
        let token = signed(token);
        let kept_for = kept_for.map_or(0, micros);
        let params: [&(dyn ToSql + Sync); 5] =
            [&&*self.namespace, &name, &owner, &token, &kept_for];
        let rows = self
            .often(&self.main, slot::RELEASE, &self.statements.release, &params)
            .await?;
        let wanted = waits(&rows)?;
        Ok(Released {
            was_held: wanted.is_some(),
            is_wanted: wanted.unwrap_or_default(),
        })
    }

    async fn wake(&self, name: &str) {
        let payload = payload(&self.table, &self.namespace, name);
        // Who is not woken asks after a while.
        let _ = self.seldom(&self.statements.wake, &[&payload]).await;
    }

    fn wakes(&self) -> bool {
        self.wakes
    }

    async fn pause(&self) {
        self.main.pause().await;
    }

    fn connections(&self) -> usize {
        [&self.main, &self.side]
            .into_iter()
            .filter(|link| link.is_open())
            .count()
    }

    fn close(&self, reason: &str) {
        self.main.close(reason);
        self.side.close(reason);
    }
}

/// The columns that every read of a row begins with.
fn read(row: &PgRow) -> Result<Row, Error> {
    Ok(Row {
        token: unsigned(row.try_get(0)?),
        owner: row.try_get(1)?,
        program: row.try_get(2)?,
        readers: parse(row.try_get(3)?),
        waiters: parse(row.try_get(4)?),
        version: unsigned(row.try_get(5)?),
        expires_at: row.try_get(6)?,
        ttl: row.try_get(7)?,
        now: row.try_get(8)?,
    })
}

fn token(rows: &[PgRow]) -> Answer<Option<u64>> {
    let Some(row) = rows.first() else {
        return Ok(None);
    };
    row.try_get(0)
        .map(|token: i64| Some(unsigned(token)))
        .or_else(statement)
}

/// Whether somebody waits, of those who stand in the row that was changed; `None`: none was.
fn waits(rows: &[PgRow]) -> Answer<Option<bool>> {
    let Some(row) = rows.first() else {
        return Ok(None);
    };
    let read = || Ok(any_waits(row.try_get(0)?, row.try_get(1)?));
    read().map(Some).or_else(statement)
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
