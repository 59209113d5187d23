//! PostgreSQL: advisory locks of the session.

pub(crate) mod backend_key;
pub(crate) mod errors;
pub(crate) mod fencing;
pub(crate) mod key_table;
mod list;
pub(crate) mod settings;
mod statements;
mod table;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join_all, try_join3};
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tokio_postgres::types::ToSql;
use tokio_postgres::{CancelToken, Client, Row};

use super::driver::{
    Act, AnotherSession, Answers, ConnectError, Counted, Driver, DriverError, KeyTable, Listed,
    Noted, Offer, Session, SessionSettings, Wait,
};
use super::ending::Ending;
use crate::backend::lease::postgres::SCHEMA;
use crate::capabilities::Reach;
use crate::config::TableName;
use crate::endpoint::PostgresEndpoint;
use crate::error::Holder;
use crate::hazard::Hazard;
use crate::key::{self, Key, Mode, ServerKey};
use crate::scheme::{AdvisoryKey, KeyScheme};
use fencing::Counter;
use settings::Facts;
use statements::{Cached, Statements, params};

/// How many locks one statement tries or gives back at most.
const BATCH: usize = 128;

/// How often a statement is sent again that a stray cancel request has ended before it did its work.
const TRIES: usize = 5;

/// Opens sessions on a PostgreSQL server.
pub(crate) struct PostgresDriver {
    endpoint: Arc<PostgresEndpoint>,
    settings: SessionSettings,
}

impl PostgresDriver {
    pub(crate) fn new(mut endpoint: PostgresEndpoint, settings: SessionSettings) -> Self {
        endpoint
            .config
            .application_name(&*settings.application_name);
        PostgresDriver {
            endpoint: Arc::new(endpoint),
            settings,
        }
    }

    async fn open(&self) -> Result<PostgresSession, ConnectError> {
        let (client, connection) = self.endpoint.connect().await.map_err(errors::connecting)?;
        let ending = Ending::new();
        let task = tokio::spawn({
            let ending = ending.clone();
            async move {
                match connection.await {
                    Ok(()) => ending.end("the connection was closed"),
                    Err(error) => ending.end(&errors::describe(&error)),
                }
            }
        });
        // From here on, dropping this future closes the connection.
        let connection = Connection {
            task: task.abort_handle(),
            ending,
        };
        let facts = settings::apply(&client, &self.settings).await?;
        let cancel = client.cancel_token();
        Ok(PostgresSession {
            told: backend_key::process_id(&cancel),
            cancel,
            client,
            connection,
            endpoint: Arc::clone(&self.endpoint),
            cancel_timeout: self.settings.connect_timeout,
            statements: Statements::default(),
            counter: Counter::new(
                self.settings.fencing_table.clone().or_schema(SCHEMA),
                self.settings.limit / 3,
            ),
            key_table: self.key_table_name(),
            #[cfg(test)]
            held_after_error: std::sync::atomic::AtomicUsize::new(0),
            facts,
        })
    }
}

impl PostgresDriver {
    fn key_table_name(&self) -> Option<TableName> {
        let table = self.settings.key_table.clone();
        table.map(|table| table.or_schema(SCHEMA))
    }
}

impl Driver for PostgresDriver {
    type Session = PostgresSession;

    async fn connect(&self) -> Result<PostgresSession, ConnectError> {
        let limit = self.settings.connect_timeout;
        timeout(limit, self.open()).await.unwrap_or_else(|_| {
            Err(ConnectError::Unreachable {
                reason: format!("{} did not answer within {limit:?}", self.endpoint.address),
                source: None,
            })
        })
    }

    fn server_key(&self, key: &str) -> ServerKey {
        ServerKey::Number(key::postgres_key(&self.settings.namespace, key))
    }

    fn foreign_key(&self, key: &Key, scheme: &KeyScheme) -> Result<ServerKey, &'static str> {
        Ok(match scheme.postgres(key)? {
            AdvisoryKey::Number(number) => ServerKey::Number(number),
            AdvisoryKey::Pair(first, second) => ServerKey::Pair(first, second),
        })
    }

    fn has_shared_mode(&self) -> bool {
        true
    }

    fn reach(&self) -> Reach {
        Reach::Database
    }

    fn endpoint(&self) -> &str {
        &self.endpoint.address
    }

    fn key_table(&self) -> Option<KeyTable> {
        let table = self.key_table_name()?;
        Some(key_table::describe(&table, self.settings.connect_timeout))
    }
}

/// A connection to PostgreSQL. Several operations may be under way at once: the driver sends them one behind the
/// other without waiting for the answers.
pub(crate) struct PostgresSession {
    client: Client,
    connection: Connection,
    cancel: CancelToken,
    endpoint: Arc<PostgresEndpoint>,
    cancel_timeout: Duration,
    statements: Statements,
    counter: Counter,
    key_table: Option<TableName>,
    facts: Facts,
    /// The number of the server's process, as it was told at the start.
    told: Option<i32>,
    /// How many waits have ended with an error and the lock: a test of that race must have met it.
    #[cfg(test)]
    held_after_error: std::sync::atomic::AtomicUsize,
}

/// The task that polls the socket; dropping it closes the socket.
struct Connection {
    task: AbortHandle,
    ending: Ending,
}

impl Connection {
    fn close(&self) {
        self.ending.end("closed by this process");
        self.task.abort();
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.close();
    }
}

impl PostgresSession {
    /// Sends one statement and reads its one row.
    async fn row(
        &self,
        cached: &Cached,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Row, DriverError> {
        let result = async {
            let statement = cached.get(&self.client).await?;
            self.client.query_one(statement, params).await
        };
        result.await.map_err(|error| self.explain(error))
    }

    /// A closed connection is reported with the reason that the socket's task has seen.
    fn explain(&self, error: tokio_postgres::Error) -> DriverError {
        match (error.is_closed(), self.connection.ending.reason()) {
            (true, Some(reason)) => DriverError::Gone {
                reason: reason.to_string(),
                source: Some(Arc::new(error)),
            },
            _ => errors::statement(error),
        }
    }

    /// Sends a statement that answers yes or no.
    async fn ask(
        &self,
        cached: &Cached,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<bool, DriverError> {
        let row = self.row(cached, params).await?;
        row.try_get(0).map_err(|error| self.explain(error))
    }

    async fn one(&self, act: Act, key: &ServerKey, mode: Mode) -> Result<bool, DriverError> {
        match act {
            Act::Try => self.try_lock(key, mode).await,
            Act::Release => self.unlock(key, mode).await,
        }
    }

    /// The answers of a batch, in the order of its numbers.
    async fn rows(&self, cached: &Cached, numbers: &[i64]) -> Result<Vec<bool>, DriverError> {
        let result = async {
            let statement = cached.get(&self.client).await?;
            let rows = self.client.query(statement, &[&numbers]).await?;
            rows.iter()
                .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
                .collect::<Result<Vec<(i64, bool)>, tokio_postgres::Error>>()
        };
        let rows = result.await.map_err(|error| self.explain(error))?;
        let mut rows = rows.into_iter();
        // They come in order; anything else is no answer to this question.
        let answers: Vec<bool> = numbers
            .iter()
            .map_while(|number| rows.next().filter(|(key, _)| key == number))
            .map(|(_, answer)| answer)
            .collect();
        if answers.len() == numbers.len() && rows.next().is_none() {
            return Ok(answers);
        }
        Err(DriverError::Gone {
            reason: "unexpected answer of the server: other locks than were asked for".to_owned(),
            source: None,
        })
    }

    /// Whether this session holds the lock: the only proof after an error.
    async fn holds(&self, key: &AdvisoryKey, mode: Mode) -> Result<bool, DriverError> {
        let held_mode = match mode {
            Mode::Exclusive => "ExclusiveLock",
            Mode::Shared => "ShareLock",
        };
        let mut tries = 1;
        loop {
            let statement = &self.statements.of(key).holds;
            match self.ask(statement, &params(key, &[&held_mode])).await {
                // A late cancel request hits whatever runs next, and that is this question.
                Err(error) if errors::is_interruption(&error) && tries < TRIES => tries += 1,
                answer => return answer,
            }
        }
    }
}

impl Session for PostgresSession {
    /// Sent one behind the other without waiting for the answers. Some, so that a try does not wait for the answer to
    /// another on a slow network; not many, since each costs the server as much as a whole batch.
    const AT_ONCE: usize = 4;

    fn batch(gathered: usize) -> usize {
        gathered.min(BATCH)
    }

    async fn prepare(&self) -> Result<(), DriverError> {
        let statements = self.statements.of_numbers();
        // Sent one behind the other, answered together.
        let prepared = try_join3(
            statements.try_lock.get(&self.client),
            statements.unlock.get(&self.client),
            self.statements.check.get(&self.client),
        );
        prepared
            .await
            .map(|_| ())
            .map_err(|error| self.explain(error))
    }

    async fn try_lock(&self, key: &ServerKey, mode: Mode) -> Result<bool, DriverError> {
        let key = &advisory_key(key)?;
        let statements = self.statements.of(key);
        let statement = match mode {
            Mode::Exclusive => &statements.try_lock,
            Mode::Shared => &statements.try_lock_shared,
        };
        let mut tries = 1;
        loop {
            match self.ask(statement, &params(key, &[])).await {
                Err(error) if errors::proves_nothing(&error) => {
                    if self.holds(key, mode).await? {
                        return Ok(true);
                    }
                    if tries == TRIES {
                        return Err(error);
                    }
                    tries += 1;
                }
                answer => return answer,
            }
        }
    }

    async fn wait_lock(
        &self,
        key: &ServerKey,
        mode: Mode,
        at_most: Duration,
    ) -> Result<Wait, DriverError> {
        let key = &advisory_key(key)?;
        let statements = self.statements.of(key);
        let statement = match mode {
            Mode::Exclusive => &statements.lock,
            Mode::Shared => &statements.lock_shared,
        };
        let milliseconds = lock_timeout(at_most).to_string();
        match self.row(statement, &params(key, &[&milliseconds])).await {
            Ok(_) => Ok(Wait::Granted),
            #[cfg(dlock_sabotage)]
            Err(error)
                if errors::is_time_out(&error) && crate::sabotage::is_on("believed-time-out") =>
            {
                Ok(Wait::TimedOut)
            }
            Err(error) if errors::proves_nothing(&error) => {
                if self.holds(key, mode).await? {
                    #[cfg(test)]
                    self.held_after_error
                        .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    Ok(Wait::Granted)
                } else if errors::is_time_out(&error) {
                    Ok(Wait::TimedOut)
                } else if errors::is_interruption(&error) {
                    Ok(Wait::Interrupted)
                } else {
                    Err(error)
                }
            }
            Err(error) => Err(error),
        }
    }

    /// The driver returns when the request has left, and PostgreSQL carries it out a moment later, in a process of
    /// its own: nothing on this session's connection says when. Only a wait that ends as interrupted has used the
    /// request up. After any other end it may still hit the next statement: such a session must be closed.
    async fn interrupt(&self, _helper: &Self) -> Result<(), DriverError> {
        match timeout(self.cancel_timeout, self.endpoint.cancel(&self.cancel)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(DriverError::Gone {
                reason: format!(
                    "the wait could not be cancelled: {}",
                    errors::describe(&error)
                ),
                source: Some(Arc::new(error)),
            }),
            Err(_) => Err(DriverError::Gone {
                reason: "the wait could not be cancelled: the server did not answer".to_owned(),
                source: None,
            }),
        }
    }

    async fn count(&self, key: &ServerKey) -> Result<Counted, DriverError> {
        self.counter.count(&self.client, &key.to_text()).await
    }

    async fn unlock(&self, key: &ServerKey, mode: Mode) -> Result<bool, DriverError> {
        let key = &advisory_key(key)?;
        let statements = self.statements.of(key);
        let statement = match mode {
            Mode::Exclusive => &statements.unlock,
            Mode::Shared => &statements.unlock_shared,
        };
        let mut tries = 1;
        loop {
            match self.ask(statement, &params(key, &[])).await {
                Err(error) if errors::is_interruption(&error) => {
                    // Unlocking is not undone by the error: what is not held any more was given back by us.
                    if !self.holds(key, mode).await? {
                        return Ok(true);
                    }
                    if tries == TRIES {
                        return Err(error);
                    }
                    tries += 1;
                }
                answer => return answer,
            }
        }
    }

    async fn offer(&self, key: &ServerKey, mode: Mode) -> Result<Offer, DriverError> {
        let key = &advisory_key(key)?;
        let statements = self.statements.of(key);
        let statement = match mode {
            Mode::Exclusive => &statements.offer,
            Mode::Shared => &statements.offer_shared,
        };
        let mut tries = 1;
        loop {
            let answer = match self.row(statement, &params(key, &[])).await {
                Ok(row) => row.try_get(0).map_err(|error| self.explain(error)),
                Err(error) => Err(error),
            };
            match answer {
                Ok(Some(true)) => return Ok(Offer::Kept),
                Ok(Some(false)) => return Ok(Offer::Given),
                Ok(None) => return Ok(Offer::NotHeld),
                Err(error @ DriverError::Gone { .. }) => return Err(error),
                // Unlocking is not undone by an error, be it the try's: what is not held any more was given back.
                Err(_) if !self.holds(key, mode).await? => return Ok(Offer::Given),
                Err(error) if !errors::is_interruption(&error) || tries == TRIES => {
                    return Err(error);
                }
                Err(_) => tries += 1,
            }
        }
    }

    async fn all(&self, act: Act, keys: &[ServerKey], mode: Mode) -> Result<Answers, DriverError> {
        if let [key] = keys {
            return Ok(vec![self.one(act, key, mode).await]);
        }
        let number = |key: &ServerKey| match key {
            ServerKey::Number(number) => Some(*number),
            _ => None,
        };
        let Some(numbers) = keys.iter().map(number).collect::<Option<Vec<i64>>>() else {
            // Pairs, which are other libraries': one statement each, sent one behind the other.
            return Ok(join_all(keys.iter().map(|key| self.one(act, key, mode))).await);
        };
        let statements = self.statements.of_numbers();
        let statement = match (act, mode) {
            (Act::Try, Mode::Exclusive) => &statements.try_all,
            (Act::Try, Mode::Shared) => &statements.try_all_shared,
            (Act::Release, Mode::Exclusive) => &statements.unlock_all,
            (Act::Release, Mode::Shared) => &statements.unlock_all_shared,
        };
        match self.rows(statement, &numbers).await {
            Ok(answers) => Ok(answers.into_iter().map(Ok).collect()),
            Err(error @ DriverError::Gone { .. }) => Err(error),
            // Any of them may be done and the others not.
            Err(DriverError::Refused { .. }) => {
                let mut answers = Vec::with_capacity(keys.len());
                for (key, number) in keys.iter().zip(numbers) {
                    let held = self.holds(&AdvisoryKey::Number(number), mode).await?;
                    let answer = match (act, held) {
                        (Act::Try, true) | (Act::Release, false) => Ok(true),
                        (Act::Try, false) | (Act::Release, true) => self.one(act, key, mode).await,
                    };
                    answers.push(answer);
                }
                Ok(answers)
            }
        }
    }

    async fn admits_reader(&self, key: &ServerKey) -> Result<bool, DriverError> {
        let key = &advisory_key(key)?;
        let statement = &self.statements.of(key).admits_reader;
        self.ask(statement, &params(key, &[])).await
    }

    async fn check(&self) -> Result<(), DriverError> {
        let (class, object) = self.facts.sentinel;
        let row = self.row(&self.statements.check, &[&class, &object]).await?;
        let seen: Result<(i32, bool, i64, bool), tokio_postgres::Error> = (|| {
            Ok((
                row.try_get(0)?,
                row.try_get(1)?,
                row.try_get(2)?,
                row.try_get(3)?,
            ))
        })();
        let (pid, standby, started, sentinel) = seen.map_err(|error| self.explain(error))?;
        let lost = if started != self.facts.started {
            "another server answers, or the server was restarted".to_owned()
        } else if pid != self.facts.pid {
            format!(
                "server process {pid} answers in place of {}",
                self.facts.pid
            )
        } else if standby && !self.facts.hazards.contains(&Hazard::Standby) {
            "the server has become a standby".to_owned()
        } else if !sentinel {
            "the session was reset: all its locks are released".to_owned()
        } else {
            return Ok(());
        };
        Err(DriverError::Gone {
            reason: lost,
            source: Some(AnotherSession::source(None)),
        })
    }

    fn id(&self) -> i64 {
        self.facts.pid.into()
    }

    async fn holder(&self, key: &ServerKey, own: &[i64]) -> Result<Option<Holder>, DriverError> {
        let key = &advisory_key(key)?;
        let found = async {
            let statement = self.statements.of(key).holder.get(&self.client).await?;
            let params = params(key, &[&own]);
            let Some(row) = self.client.query_opt(statement, &params).await? else {
                return Ok(None);
            };
            // The locks of a prepared transaction belong to no session.
            let session = row.try_get::<_, Option<i32>>(0)?.map(i64::from);
            let program: Option<String> = row.try_get(1)?;
            let connected: Option<i64> = row.try_get(3)?;
            let waiting: i64 = row.try_get(4)?;
            Ok(Some(Holder {
                program: program.filter(|name| !name.is_empty()),
                client: row.try_get(2)?,
                session,
                this_process: session.is_some_and(|session| own.contains(&session)),
                lost: false,
                held_for: None,
                connected_for: connected
                    .and_then(|microseconds| u64::try_from(microseconds).ok())
                    .map(Duration::from_micros),
                waiting: u64::try_from(waiting).ok(),
                kept_for: None,
            }))
        };
        found.await.map_err(|error| self.explain(error))
    }

    async fn list(&self, only: Option<&ServerKey>, own: &[i64]) -> Result<Listed, DriverError> {
        list::read(self, only, own).await
    }

    async fn kill(&self, session: i64, key: &ServerKey) -> Result<bool, DriverError> {
        list::kill(self, session, key).await
    }

    async fn note_keys(&self, keys: &[Noted]) -> Result<bool, DriverError> {
        let Some(table) = &self.key_table else {
            return Ok(true);
        };
        self.counter.unsettle();
        key_table::note(&self.client, table, keys).await
    }

    async fn noted_keys(&self, names: &[Arc<str>]) -> Result<Vec<Noted>, DriverError> {
        let Some(table) = &self.key_table else {
            return Ok(Vec::new());
        };
        self.counter.unsettle();
        key_table::noted(&self.client, table, names).await
    }

    async fn closed(&self) -> Arc<str> {
        self.connection.ending.ended().await
    }

    fn close(&self) {
        self.connection.close();
    }

    fn capacity(&self) -> Option<usize> {
        Some(self.facts.capacity)
    }

    fn server(&self) -> &str {
        &self.facts.server
    }

    fn identity(&self) -> &str {
        &self.facts.identity
    }

    fn behind_pooler(&self) -> Option<bool> {
        // CockroachDB and some poolers tell 0: no number at all.
        let told = self.told.filter(|told| *told != 0)?;
        Some(told != self.facts.pid)
    }

    fn hazards(&self) -> &[Hazard] {
        &self.facts.hazards
    }
}

fn advisory_key(key: &ServerKey) -> Result<AdvisoryKey, DriverError> {
    match key {
        ServerKey::Number(number) => Ok(AdvisoryKey::Number(*number)),
        ServerKey::Pair(first, second) => Ok(AdvisoryKey::Pair(*first, *second)),
        other => Err(DriverError::Refused {
            code: "42804".to_owned(),
            message: format!("advisory locks have numbers, and {other:?} is none"),
            source: None,
        }),
    }
}

/// In milliseconds, rounded up; never 0, which would mean without limit.
fn lock_timeout(at_most: Duration) -> i32 {
    let milliseconds = at_most.as_nanos().div_ceil(1_000_000);
    i32::try_from(milliseconds).unwrap_or(i32::MAX).max(1)
}
