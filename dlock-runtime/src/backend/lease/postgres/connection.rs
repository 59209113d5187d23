//! A connection to PostgreSQL for leases, and what its errors mean.

use std::error::Error as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::OnceCell;
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tokio_postgres::error::{Severity, SqlState};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{AsyncMessage, Client, Error, Row, Statement};

use super::schema;
use super::sql::{CHANNEL, Sql};
use crate::backend::lease::bells::Bells;
use crate::backend::lease::link::{Connection, Opener};
use crate::backend::lease::store::{Answer, StoreError};
use crate::backend::session::postgres::backend_key;
use crate::config::TableName;
use crate::endpoint::Hear;
use crate::endpoint::PostgresEndpoint;
use crate::error::{InitError, InitSource};

/// Opens connections; the table is made by the first.
pub(super) struct PostgresOpener {
    pub(super) endpoint: Arc<PostgresEndpoint>,
    pub(super) table: TableName,
    pub(super) namespace: Arc<str>,
    pub(super) connect_timeout: Duration,
    /// How long a statement may wait for a lock of somebody else's.
    pub(super) lock_timeout: Duration,
    /// Whose waits are woken by what this connection hears; `None`: it does not listen.
    pub(super) listens: Option<Bells>,
}

/// One connection. Statements are sent one behind the other without waiting for the answers.
pub(super) struct PostgresConnection {
    pub(super) client: Client,
    task: AbortHandle,
    /// Something stands between us and the server that may give each statement another session.
    pooled: bool,
    pub(super) server: String,
    /// Commits that a standby has not confirmed, although it was to be waited for.
    unconfirmed: Arc<AtomicU64>,
    prepared: [OnceCell<Statement>; PREPARED],
}

/// So many statements may be prepared in a session.
const PREPARED: usize = 6;

impl Opener for PostgresOpener {
    type Connection = PostgresConnection;

    async fn open(&self) -> Result<PostgresConnection, InitError> {
        let limit = self.connect_timeout;
        match timeout(limit, Box::pin(self.connect())).await {
            Ok(connection) => connection,
            Err(_) => Err(InitError::Unreachable {
                endpoint: self.endpoint.address.to_string(),
                reason: format!("no answer within {limit:?}"),
                source: None,
            }),
        }
    }
}

impl PostgresOpener {
    async fn connect(&self) -> Result<PostgresConnection, InitError> {
        let endpoint = &self.endpoint.address;
        let unconfirmed = Arc::default();
        let hear = self.hearing(&unconfirmed);
        let connected = self.endpoint.connect_hearing(Some(hear)).await;
        let (client, connection) = connected.map_err(|error| connecting(endpoint, error))?;
        let task = tokio::spawn(async move {
            let _ = connection.await;
        });
        let mut connection = PostgresConnection {
            client,
            task: task.abort_handle(),
            pooled: true,
            server: String::new(),
            unconfirmed,
            prepared: Default::default(),
        };
        self.set_up(&mut connection).await?;
        Ok(connection)
    }

    /// Notifications name the table's lock; those of other tables and namespaces are none of ours. A notice may say that
    /// a commit did not wait for its standby to the end: then the statement counts as one whose answer was lost.
    fn hearing(&self, unconfirmed: &Arc<AtomicU64>) -> Hear {
        let prefix = payload(&self.table, &self.namespace, "");
        let (bells, unconfirmed) = (self.listens.clone(), unconfirmed.clone());
        Arc::new(move |message| match (message, &bells) {
            (AsyncMessage::Notification(notification), Some(bells)) => {
                if let Some(name) = notification.payload().strip_prefix(&prefix) {
                    bells.ring(name);
                }
            }
            // By the place in the server's code, since the words come in the server's language.
            (AsyncMessage::Notice(notice), _)
                if *notice.code() == SqlState::WARNING
                    && notice.routine() == Some("SyncRepWaitForLSN") =>
            {
                unconfirmed.fetch_add(1, Ordering::AcqRel);
            }
            _ => {}
        })
    }

    async fn set_up(&self, connection: &mut PostgresConnection) -> Result<(), InitError> {
        let endpoint = &self.endpoint.address;
        let client = &connection.client;
        let facts = client
            .query_typed(
                "SELECT pg_backend_pid(), pg_is_in_recovery(), version(), current_setting('server_version')",
                &[],
            )
            .await
            .and_then(|rows| {
                let row = rows.first();
                let read = |row: &Row| {
                    Ok((
                        row.try_get::<_, i32>(0)?,
                        row.try_get::<_, bool>(1)?,
                        row.try_get::<_, String>(2)?,
                        row.try_get::<_, String>(3)?,
                    ))
                };
                row.map(read).transpose()
            })
            .map_err(|error| connecting(endpoint, error))?;
        let Some((pid, standby, words, version)) = facts else {
            return Err(refused(
                endpoint,
                "it does not say what it is",
                "use PostgreSQL",
            ));
        };
        if standby {
            return Err(refused(
                endpoint,
                "it is a standby, which writes nothing",
                "connect to the primary, or add target_session_attrs=read-write to several hosts",
            ));
        }
        let product = words.split(' ').next().unwrap_or("PostgreSQL");
        let number = version.split(' ').next().unwrap_or(&version);
        let server = format!("{product} {number}");
        // CockroachDB and some poolers tell 0: no number at all.
        let told = backend_key::process_id(&client.cancel_token()).filter(|told| *told != 0);
        let pooled = told != Some(pid);
        if !pooled {
            self.set_session(client)
                .await
                .map_err(|error| connecting(endpoint, error))?;
        }
        if self.listens.is_none() {
            schema::ensure(client, &self.table, endpoint).await?;
        }
        connection.pooled = pooled;
        connection.server = server;
        Ok(())
    }

    /// What holds for a session of our own. Behind a pooler the next statement may have another one.
    async fn set_session(&self, client: &Client) -> Result<(), Error> {
        let milliseconds = self.lock_timeout.as_millis().max(1);
        // A take that a crash of the server could undo would be given out twice.
        client
            .batch_execute(&format!(
                "SELECT set_config('lock_timeout', '{milliseconds}', false), \
                     set_config('statement_timeout', '0', false), \
                     set_config('client_min_messages', 'warning', false), \
                     set_config('default_transaction_isolation', 'read committed', false), \
                     set_config('synchronous_commit', CASE current_setting('synchronous_commit') \
                         WHEN 'off' THEN 'on' ELSE current_setting('synchronous_commit') END, false)"
            ))
            .await?;
        if let Some(bells) = &self.listens {
            client.batch_execute(&format!("LISTEN {CHANNEL}")).await?;
            // What was said between two connections is unknown.
            bells.ring_all();
        }
        Ok(())
    }
}

impl PostgresConnection {
    pub(super) fn is_pooled(&self) -> bool {
        self.pooled
    }

    /// How many commits on this connection were not confirmed by the standby that they were to wait for.
    pub(super) fn unconfirmed(&self) -> u64 {
        self.unconfirmed.load(Ordering::Acquire)
    }

    /// Sends a statement that is used often: prepared once in a session of our own, and nameless behind a pooler. `slot`: the
    /// place of the prepared statement.
    pub(super) async fn often(
        &self,
        slot: usize,
        sql: &Sql,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, Error> {
        match self.prepared.get(slot) {
            Some(prepared) if !self.pooled => {
                let statement = prepared
                    .get_or_try_init(|| self.client.prepare_typed(&sql.text, sql.types))
                    .await?;
                self.client.query(statement, params).await
            }
            _ => self.seldom(sql, params).await,
        }
    }

    /// Sends a statement without a name, in one round trip.
    pub(super) async fn seldom(
        &self,
        sql: &Sql,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, Error> {
        let typed: Vec<(&(dyn ToSql + Sync), Type)> = params
            .iter()
            .copied()
            .zip(sql.types.iter().cloned())
            .collect();
        self.client.query_typed(&sql.text, &typed).await
    }
}

impl Connection for PostgresConnection {
    fn is_closed(&self) -> bool {
        self.client.is_closed() || self.task.is_finished()
    }

    fn close(&self) {
        self.task.abort();
    }
}

impl Drop for PostgresConnection {
    fn drop(&mut self) {
        self.close();
    }
}

/// What a notification says.
pub(super) fn payload(table: &TableName, namespace: &str, name: &str) -> String {
    format!("{table}\u{1f}{namespace}\u{1f}{name}")
}

/// The error in words. PostgreSQL's messages and the driver's carry no password.
pub(super) fn describe(error: &Error) -> String {
    if let Some(error) = error.as_db_error() {
        return format!("{} ({})", error.message(), error.code().code());
    }
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// Why a statement brought no answer.
pub(super) fn statement<T>(error: Error) -> Answer<T> {
    let reason = describe(&error);
    let Some(refusal) = error.as_db_error() else {
        return Err(StoreError::Gone {
            reason,
            source: Some(Arc::new(error)),
        });
    };
    let code = refusal.code().clone();
    let fatal = matches!(
        refusal.parsed_severity(),
        Some(Severity::Fatal | Severity::Panic)
    );
    let undone = [
        SqlState::T_R_SERIALIZATION_FAILURE,
        SqlState::T_R_DEADLOCK_DETECTED,
        SqlState::LOCK_NOT_AVAILABLE,
        SqlState::QUERY_CANCELED,
        SqlState::UNIQUE_VIOLATION,
    ];
    // A prepared statement that is not there: the session is not the one that we set up.
    let foreign = [
        SqlState::INVALID_SQL_STATEMENT_NAME,
        SqlState::DUPLICATE_PSTATEMENT,
    ];
    if fatal || code.code().starts_with("08") || foreign.contains(&code) {
        return Err(StoreError::Gone {
            reason,
            source: Some(Arc::new(error)),
        });
    }
    if undone.contains(&code) {
        return Err(StoreError::Again { reason });
    }
    Err(StoreError::Refused {
        code: code.code().to_owned(),
        message: refusal.message().to_owned(),
        source: Some(Arc::new(error)),
    })
}

/// Why a connection could not be opened or set up.
pub(super) fn connecting(endpoint: &str, error: Error) -> InitError {
    let reason = describe(&error);
    let code = error
        .as_db_error()
        .map_or_else(String::new, |error| error.code().code().to_owned());
    let misconfigured =
        ["invalid configuration", "authentication error"].contains(&&*error.to_string());
    let source = Some(InitSource(Arc::new(error)));
    let endpoint = endpoint.to_owned();
    let is_login = matches!(
        &*code,
        "3D000" | "42501" | "08P01" | "22023" | "42704" | "53300" | "53400"
    );
    if is_login || misconfigured || code.starts_with("28") {
        InitError::LoginRefused {
            endpoint,
            reason,
            source,
        }
    } else {
        InitError::Unreachable {
            endpoint,
            reason,
            source,
        }
    }
}

pub(super) fn refused(endpoint: &str, reason: &str, remedy: &str) -> InitError {
    InitError::UnsafeServer {
        endpoint: endpoint.to_owned(),
        reason: reason.to_owned(),
        remedy: remedy.to_owned(),
    }
}
