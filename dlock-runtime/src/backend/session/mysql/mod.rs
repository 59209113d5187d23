//! MySQL and MariaDB: named locks. They share a syntax and little else.

mod batch;
pub(crate) mod errors;
pub(crate) mod fencing;
mod holder;
pub(crate) mod key_table;
mod list;
pub(crate) mod names;
pub(crate) mod settings;
mod slot;
mod table;
#[cfg(test)]
mod tests;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::{FutureExt, TryFutureExt};
use mysql_async::prelude::{FromValue, Queryable};
use mysql_async::{OptsBuilder, Params, Row};
use tokio::time::timeout;

use super::driver::{
    Act, AnotherSession, Answers, ConnectError, Counted, Driver, DriverError, KeyTable, Listed,
    Noted, Offer, Session, SessionSettings, Wait,
};
use crate::capabilities::Reach;
use crate::config::TableName;
use crate::endpoint::MySqlEndpoint;
use crate::error::Holder;
use crate::hazard::Hazard;
use crate::key::{self, Key, Mode, ServerKey};
use crate::scheme::KeyScheme;
use fencing::Counter;
use settings::{Facts, Flavor};
use slot::Slot;

/// How many locks one statement tries or gives back at most.
const BATCH: usize = 32;

/// How often a statement is sent again that a stray KILL QUERY has ended before it did its work.
const TRIES: usize = 5;

const TRY_LOCK: &str = "SELECT GET_LOCK(?, 0)";
const UNLOCK: &str = "SELECT RELEASE_LOCK(?)";
/// The first before the second, since one depends on the other.
const OFFER: &str = "SELECT IF(RELEASE_LOCK(?) = 1, GET_LOCK(?, 0), -1)";

/// The longest wait that both servers count correctly: MariaDB answers at once to numbers that are too large.
const LONGEST_WAIT: Duration = Duration::from_secs(31_536_000);

/// Opens sessions on a MySQL or MariaDB server.
pub(crate) struct MySqlDriver {
    endpoint: MySqlEndpoint,
    settings: SessionSettings,
    /// Which of the two servers the first connection has reached: they compare names differently.
    flavor: OnceLock<Flavor>,
}

impl MySqlDriver {
    pub(crate) fn new(mut endpoint: MySqlEndpoint, settings: SessionSettings) -> Self {
        endpoint.opts = OptsBuilder::from_opts(endpoint.opts)
            .connect_attribute("program_name", &*settings.application_name)
            .connect_attribute("_pid", std::process::id().to_string())
            // Otherwise the driver may leave the address that it was given for the path that the server names,
            // where in a container another server can listen.
            .prefer_socket(false)
            // Known beforehand, these two save the driver a round trip.
            .max_allowed_packet(Some(1 << 22))
            .wait_timeout(usize::try_from(settings.limit.as_secs()).ok())
            .into();
        MySqlDriver {
            endpoint,
            settings,
            flavor: OnceLock::new(),
        }
    }

    async fn open(&self) -> Result<MySqlSession, ConnectError> {
        let mut conn = self.endpoint.connect().await.map_err(errors::connecting)?;
        let facts = settings::apply(&mut conn, &self.settings).await?;
        if *self.flavor.get_or_init(|| facts.flavor) != facts.flavor {
            return Err(ConnectError::Unsafe {
                reason: format!(
                    "{} answers where the other of MySQL and MariaDB did, which compares the names of locks differently",
                    facts.server
                ),
                remedy: "start the program anew".to_owned(),
            });
        }
        Ok(MySqlSession {
            slot: Slot::new(conn),
            counter: Counter::new(self.settings.fencing_table.clone(), self.settings.limit / 3),
            key_table: self.settings.key_table.clone(),
            facts,
        })
    }
}

impl Driver for MySqlDriver {
    type Session = MySqlSession;

    async fn connect(&self) -> Result<MySqlSession, ConnectError> {
        let limit = self.settings.connect_timeout;
        timeout(limit, self.open()).await.unwrap_or_else(|_| {
            Err(ConnectError::Unreachable {
                reason: format!("{} did not answer within {limit:?}", self.endpoint.address),
                source: None,
            })
        })
    }

    fn server_key(&self, key: &str) -> ServerKey {
        ServerKey::Name(key::mysql_name(&self.settings.namespace, key).into())
    }

    fn foreign_key(&self, key: &Key, scheme: &KeyScheme) -> Result<ServerKey, &'static str> {
        // The locker exists since the first connection was opened.
        let flavor = self.flavor.get().ok_or("the server is not known yet")?;
        names::lock(&scheme.mysql(key)?, *flavor)
    }

    fn has_shared_mode(&self) -> bool {
        false
    }

    fn reach(&self) -> Reach {
        Reach::Server
    }

    fn endpoint(&self) -> &str {
        &self.endpoint.address
    }

    fn key_table(&self) -> Option<KeyTable> {
        let table = self.settings.key_table.as_ref()?;
        Some(key_table::describe(table, self.settings.connect_timeout))
    }
}

/// A connection to MySQL or MariaDB. It carries one statement at a time; the others wait for their turn.
pub(crate) struct MySqlSession {
    slot: Slot,
    counter: Counter,
    key_table: Option<TableName>,
    facts: Facts,
}

impl MySqlSession {
    /// Sends one prepared statement and reads its one row.
    async fn row(
        &self,
        sql: Arc<str>,
        params: impl Into<Params>,
    ) -> Result<Option<Row>, DriverError> {
        let params = params.into();
        self.slot
            .run(move |conn| conn.exec_first(sql, params))
            .await
    }

    /// Sends a statement that answers with one value. `None`: NULL, or no row.
    async fn value<T: FromValue>(
        &self,
        sql: impl Into<Arc<str>>,
        params: impl Into<Params>,
    ) -> Result<Option<T>, DriverError> {
        match self.row(sql.into(), params).await? {
            Some(row) => column(&row, 0),
            None => Ok(None),
        }
    }

    async fn one(&self, act: Act, key: &ServerKey, mode: Mode) -> Result<bool, DriverError> {
        match act {
            Act::Try => self.try_lock(key, mode).await,
            Act::Release => self.unlock(key, mode).await,
        }
    }

    /// A lock of a batch that is in doubt after an error, or after NULL for a try.
    async fn again(&self, act: Act, key: &ServerKey, mode: Mode) -> Result<bool, DriverError> {
        match (act, self.holds(name(key, mode)?).await?) {
            (Act::Try, true) | (Act::Release, false) => Ok(true),
            (Act::Try, false) | (Act::Release, true) => self.one(act, key, mode).await,
        }
    }

    /// Whether this session holds the lock: the only proof after an error or NULL.
    async fn holds(&self, name: &str) -> Result<bool, DriverError> {
        let mut tries = 1;
        loop {
            let sql = "SELECT IS_USED_LOCK(?) = CONNECTION_ID()";
            match self.value::<i64>(sql, (name,)).await {
                // A late KILL QUERY hits whatever runs next, and that is this question.
                Err(error) if errors::is_interruption(&error) && tries < TRIES => tries += 1,
                answer => return Ok(answer? == Some(1)),
            }
        }
    }
}

impl Session for MySqlSession {
    const AT_ONCE: usize = 1;

    /// A power of two: each size is a prepared statement of its own.
    fn batch(gathered: usize) -> usize {
        1 << gathered.clamp(1, BATCH).ilog2()
    }

    async fn prepare(&self) -> Result<(), DriverError> {
        // The driver keeps prepared statements by their text, and finds them again when they are run.
        let prepare = |sql: &'static str| {
            self.slot
                .run(move |conn| conn.prep(sql).map_ok(|_| ()).boxed())
        };
        prepare(TRY_LOCK).await?;
        prepare(UNLOCK).await
    }

    async fn try_lock(&self, key: &ServerKey, mode: Mode) -> Result<bool, DriverError> {
        let name = name(key, mode)?;
        let mut tries = 1;
        loop {
            let answer = self.value::<i64>(TRY_LOCK, (name,)).await;
            let error = match answer {
                Ok(Some(answer)) => return Ok(answer == 1),
                Ok(None) => errors::null("GET_LOCK"),
                Err(error @ DriverError::Gone { .. }) => return Err(error),
                Err(error) => error,
            };
            if self.holds(name).await? {
                return Ok(true);
            }
            if !errors::proves_nothing(&error) || tries == TRIES {
                return Err(error);
            }
            tries += 1;
        }
    }

    async fn wait_lock(
        &self,
        key: &ServerKey,
        mode: Mode,
        at_most: Duration,
    ) -> Result<Wait, DriverError> {
        let name = name(key, mode)?;
        let at_most = at_most.min(LONGEST_WAIT);
        // MySQL rounds fractions to the nearest second, down as well as up. MariaDB takes them as they are; the
        // division is exact there, where a bound number would have to be a float or a text.
        let (sql, number) = match self.facts.flavor {
            Flavor::MySql => (
                "SELECT GET_LOCK(?, ?)",
                at_most.as_nanos().div_ceil(1_000_000_000),
            ),
            Flavor::MariaDb => (
                "SELECT GET_LOCK(?, ? / 1000)",
                at_most.as_nanos().div_ceil(1_000_000),
            ),
        };
        let number = u64::try_from(number).unwrap_or(u64::MAX);
        let error = match self.value::<i64>(sql, (name, number)).await {
            Ok(Some(1)) => return Ok(Wait::Granted),
            Ok(Some(_)) => return Ok(Wait::TimedOut),
            Ok(None) => errors::null("GET_LOCK"),
            Err(error @ DriverError::Gone { .. }) => return Err(error),
            Err(error) => error,
        };
        if self.holds(name).await? {
            Ok(Wait::Granted)
        } else if errors::is_time_out(&error) {
            Ok(Wait::TimedOut)
        } else if errors::is_interruption(&error) {
            Ok(Wait::Interrupted)
        } else {
            Err(error)
        }
    }

    /// Acknowledged means that the server has marked the session: the wait ends a moment later. If the wait ends
    /// otherwise than interrupted, the mark may still hit the next statement: such a session must be closed.
    async fn interrupt(&self, helper: &Self) -> Result<(), DriverError> {
        if helper.facts.identity != self.facts.identity {
            // The same number belongs to a stranger there.
            return Err(DriverError::Gone {
                reason:
                    "the wait could not be ended: the name of the server leads to several servers"
                        .to_owned(),
                source: None,
            });
        }
        let kill = format!("KILL QUERY {}", self.facts.id);
        helper.slot.run(move |conn| conn.query_drop(kill)).await
    }

    async fn count(&self, key: &ServerKey) -> Result<Counted, DriverError> {
        self.counter.count(&self.slot, &key.to_text()).await
    }

    async fn unlock(&self, key: &ServerKey, mode: Mode) -> Result<bool, DriverError> {
        let name = name(key, mode)?;
        let mut tries = 1;
        loop {
            match self.value::<i64>(UNLOCK, (name,)).await {
                Err(error) if errors::is_interruption(&error) => {
                    // Releasing is not undone by the error: what is not held any more was given back by us.
                    if !self.holds(name).await? {
                        return Ok(true);
                    }
                    if tries == TRIES {
                        return Err(error);
                    }
                    tries += 1;
                }
                answer => return Ok(answer? == Some(1)),
            }
        }
    }

    async fn offer(&self, key: &ServerKey, mode: Mode) -> Result<Offer, DriverError> {
        let name = name(key, mode)?;
        let mut tries = 1;
        loop {
            let error = match self.value::<i64>(OFFER, (name, name)).await {
                Ok(Some(1)) => return Ok(Offer::Kept),
                Ok(Some(0)) => return Ok(Offer::Given),
                Ok(Some(_)) => return Ok(Offer::NotHeld),
                Ok(None) => errors::null("GET_LOCK"),
                Err(error @ DriverError::Gone { .. }) => return Err(error),
                Err(error) => error,
            };
            // Releasing is not undone by an error, be it the try's: what is not held any more was given back.
            if !self.holds(name).await? {
                return Ok(Offer::Given);
            }
            if !errors::proves_nothing(&error) || tries == TRIES {
                return Err(error);
            }
            tries += 1;
        }
    }

    async fn all(&self, act: Act, keys: &[ServerKey], mode: Mode) -> Result<Answers, DriverError> {
        if let [key] = keys {
            return Ok(vec![self.one(act, key, mode).await]);
        }
        let names = keys
            .iter()
            .map(|key| name(key, mode))
            .collect::<Result<Vec<&str>, _>>()?;
        let row = match self.row(batch::statement(act, names.len()), names).await {
            Ok(Some(row)) => Some(row),
            Ok(None) => return Err(errors::unexpected("no row for a batch")),
            Err(error @ DriverError::Gone { .. }) => return Err(error),
            // Any of them may be done and the others not.
            Err(DriverError::Refused { .. }) => None,
        };
        let mut answers = Vec::with_capacity(keys.len());
        for (index, key) in keys.iter().enumerate() {
            let seen = match &row {
                Some(row) => Some(column::<i64>(row, index)?),
                None => None,
            };
            answers.push(match (seen, act) {
                (Some(Some(seen)), _) => Ok(seen == 1),
                // The word for a lock that nobody holds.
                (Some(None), Act::Release) => Ok(false),
                // MariaDB's word for an interruption.
                (Some(None), Act::Try) | (None, _) => self.again(act, key, mode).await,
            });
        }
        Ok(answers)
    }

    async fn admits_reader(&self, _: &ServerKey) -> Result<bool, DriverError> {
        Ok(false)
    }

    async fn check(&self) -> Result<(), DriverError> {
        let facts = &self.facts;
        let row = self
            .row(Arc::clone(&facts.check), (&*facts.sentinel,))
            .await?;
        let row = row.ok_or_else(|| errors::unexpected("no row for a heartbeat"))?;
        let id: Option<u64> = column(&row, 0)?;
        let identity: Option<String> = column(&row, 1)?;
        let role: Option<String> = column(&row, 2)?;
        let keeper: Option<u64> = column(&row, 3)?;
        let lost = if identity.as_deref() != Some(&*facts.identity) {
            "another server answers".to_owned()
        } else if id != Some(facts.id) {
            format!(
                "session {} answers in place of {}",
                id.unwrap_or_default(),
                facts.id
            )
        } else if role.as_deref() != Some(&*facts.role) {
            "the server has become read-only".to_owned()
        } else if keeper != Some(facts.id) {
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
        i64::try_from(self.facts.id).unwrap_or(i64::MAX)
    }

    async fn holder(&self, key: &ServerKey, own: &[i64]) -> Result<Option<Holder>, DriverError> {
        holder::of(self, name(key, Mode::Exclusive)?, own).await
    }

    async fn list(&self, only: Option<&ServerKey>, own: &[i64]) -> Result<Listed, DriverError> {
        list::read(self, only, own).await
    }

    /// `KILL` is no part of a query: a session that gives the lock back between the two statements is ended all the same.
    async fn kill(&self, session: i64, key: &ServerKey) -> Result<bool, DriverError> {
        let name: Arc<str> = name(key, Mode::Exclusive)?.into();
        let ended = self.slot.run(move |conn| {
            async move {
                let holder: Option<Option<i64>> =
                    conn.exec_first("SELECT IS_USED_LOCK(?)", (&*name,)).await?;
                if holder.flatten() != Some(session) {
                    return Ok(false);
                }
                conn.query_drop(format!("KILL {session}")).await?;
                Ok(true)
            }
            .boxed()
        });
        match ended.await {
            Err(error) if errors::is_unknown_session(&error) => Ok(false),
            answer => answer,
        }
    }

    async fn note_keys(&self, keys: &[Noted]) -> Result<bool, DriverError> {
        let Some(table) = &self.key_table else {
            return Ok(true);
        };
        self.counter.unsettle();
        key_table::note(&self.slot, table, keys).await
    }

    async fn noted_keys(&self, names: &[Arc<str>]) -> Result<Vec<Noted>, DriverError> {
        let Some(table) = &self.key_table else {
            return Ok(Vec::new());
        };
        self.counter.unsettle();
        key_table::noted(&self.slot, table, names).await
    }

    async fn closed(&self) -> Arc<str> {
        self.slot.ended().await
    }

    fn close(&self) {
        self.slot.close();
    }

    fn capacity(&self) -> Option<usize> {
        None
    }

    fn server(&self) -> &str {
        &self.facts.server
    }

    fn identity(&self) -> &str {
        &self.facts.identity
    }

    fn behind_pooler(&self) -> Option<bool> {
        // The handshake has room for the lower half of the number only.
        Some(u64::from(self.facts.told) != self.facts.id & u64::from(u32::MAX))
    }

    fn hazards(&self) -> &[Hazard] {
        &self.facts.hazards
    }
}

fn name(key: &ServerKey, mode: Mode) -> Result<&str, DriverError> {
    let message = match (key, mode) {
        (ServerKey::Name(name), Mode::Exclusive) => return Ok(name),
        (_, Mode::Shared) => "named locks have no shared mode on MySQL and MariaDB".to_owned(),
        (other, _) => format!("named locks have names, and {other:?} is none"),
    };
    // 1235: this version of the server does not support it.
    Err(DriverError::Refused {
        code: "1235".to_owned(),
        message,
        source: None,
    })
}

/// A column of the row, `None` for NULL.
fn column<T: FromValue>(row: &Row, index: usize) -> Result<Option<T>, DriverError> {
    match row.get_opt::<Option<T>, usize>(index) {
        Some(Ok(value)) => Ok(value),
        Some(Err(_)) => Err(errors::unexpected("a value of another type")),
        None => Err(errors::unexpected("a row that is too short")),
    }
}
