//! What the user can set.

mod enabled;
mod fencing;
mod key_table;
mod lease;
mod program;
mod status;

#[cfg(any(feature = "postgres", feature = "mysql", feature = "sqlite"))]
pub(crate) use lease::LeaseSettings;
pub(crate) use lease::{LeaseOptions, TABLE_RULE, TableName};
pub(crate) use status::StatusFile;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use crate::dsn::{self, Options, bad};
use crate::endpoint::Endpoint;
use crate::error::InitError;
use crate::hazard::{Hazard, Hazards};
use crate::observer::Observer;
use crate::queue::HandOver;
use crate::scheme::KeyScheme;
use crate::timeout::Timeout;

/// How dlock reaches its server, and how it behaves.
///
/// Begins with a DSN; each setter replaces what the DSN says. Whether the values fit together is checked when the
/// configuration is used. `Debug` shows no password.
///
/// ```
/// use std::time::Duration;
/// use dlock_runtime::Config;
///
/// let config = Config::from_dsn("memory:")?.timeout(10).namespace("billing");
/// # Ok::<(), dlock_runtime::InitError>(())
/// ```
#[derive(Clone)]
pub struct Config {
    endpoint: Endpoint,
    timeout: Timeout,
    namespace: Option<Arc<str>>,
    connect_timeout: Duration,
    limit: Duration,
    heartbeat: Option<Duration>,
    max_waiters: usize,
    max_held: Option<usize>,
    application_name: Option<Arc<str>>,
    observers: Vec<Arc<dyn Observer>>,
    redact_keys: bool,
    status_file: Option<PathBuf>,
    hand_over: HandOver,
    allowed: Hazards,
    key_scheme: KeyScheme,
    fencing: bool,
    fencing_table: Option<String>,
    key_table: Option<String>,
    lease: LeaseOptions,
    enabled: bool,
}

impl Config {
    /// Reads a DSN: `postgres://`, `postgresql://`, `mysql://`, `mariadb://`, `sqlite:path` with the feature `sqlite`,
    /// or `memory:` for tests.
    ///
    /// Every setter but those of the telemetry and [`enabled`](Config::enabled) has an option of the same name (`?limit=60&timeout=500ms`), beside the usual ones of the database.
    ///
    /// # Errors
    ///
    /// [`InitError::BadConfig`] names the value and what is allowed in its place, and never shows a password.
    pub fn from_dsn(dsn: &str) -> Result<Config, InitError> {
        let (endpoint, options) = dsn::parse(dsn)?;
        let Options {
            timeout,
            namespace,
            connect_timeout,
            limit,
            heartbeat,
            max_waiters,
            max_held,
            application_name,
            hand_over,
            hand_over_time,
            allow,
            key_scheme,
            fencing,
            fencing_table,
            key_table,
            lease,
            status_file,
        } = options;
        Ok(Config {
            endpoint,
            timeout: timeout.unwrap_or_default(),
            namespace: namespace.map(Arc::from),
            connect_timeout: connect_timeout.unwrap_or(CONNECT_TIMEOUT),
            limit: limit.unwrap_or(LIMIT),
            heartbeat,
            max_waiters: max_waiters.unwrap_or(MAX_WAITERS),
            max_held,
            application_name: application_name.map(Arc::from),
            observers: Vec::new(),
            redact_keys: false,
            status_file: status_file.map(PathBuf::from),
            hand_over: HandOver {
                times: hand_over.unwrap_or(HAND_OVER.times),
                time: hand_over_time.unwrap_or(HAND_OVER.time),
            },
            allowed: allow.unwrap_or_default(),
            key_scheme: key_scheme.unwrap_or_default(),
            fencing: fencing.unwrap_or(false),
            fencing_table,
            key_table,
            lease,
            enabled: true,
        })
    }

    /// Reads the DSN from the environment: `DLOCK_DSN`, else `DATABASE_URL`. An empty variable counts as unset.
    ///
    /// `DLOCK_STATUS_FILE` is [`status_file`](Config::status_file), in place of the DSN's. `DLOCK_ENABLED=0` (or `false`) is [`enabled(false)`](Config::enabled); a DSN is not needed then. Both count here alone.
    ///
    /// # Errors
    ///
    /// [`InitError::NoDsn`] where neither is set, else as [`Config::from_dsn`], with the variable's name;
    /// [`InitError::BadConfig`] for another value of `DLOCK_ENABLED` than 0, 1, false and true.
    pub fn from_env() -> Result<Config, InitError> {
        Config::from_lookup(|name| std::env::var_os(name))
    }

    fn from_lookup(
        lookup: impl Fn(&str) -> Option<std::ffi::OsString>,
    ) -> Result<Config, InitError> {
        let enabled = enabled::read(&lookup)?;
        let config = match Config::from_variables(&lookup) {
            Err(InitError::NoDsn) if !enabled => Config::from_dsn("memory:"),
            config => config,
        };
        let config = config?.enabled(enabled);
        Ok(match status::read(&lookup) {
            Some(path) => config.status_file(path),
            None => config,
        })
    }

    fn from_variables(
        lookup: impl Fn(&str) -> Option<std::ffi::OsString>,
    ) -> Result<Config, InitError> {
        for name in ["DLOCK_DSN", "DATABASE_URL"] {
            let Some(value) = lookup(name).filter(|value| !value.is_empty()) else {
                continue;
            };
            let Some(dsn) = value.to_str() else {
                return Err(bad(format!("the environment variable {name} is not UTF-8")));
            };
            if dsn.trim().is_empty() {
                continue;
            }
            return Config::from_dsn(dsn).map_err(|error| match error {
                InitError::BadConfig { problem } => {
                    bad(format!("in the environment variable {name}: {problem}"))
                }
                other => other,
            });
        }
        Err(InitError::NoDsn)
    }

    /// How long to wait for a lock where the call does not say. Default: without limit.
    #[must_use]
    pub fn timeout(mut self, timeout: impl Into<Timeout>) -> Config {
        self.timeout = timeout.into();
        self
    }

    /// What keeps the locks of programs apart that share a server. Default: empty on PostgreSQL, whose locks belong to one
    /// database; the name of the DSN's database on MySQL and MariaDB, as the DSN spells it. At most 1024 bytes, no NUL.
    #[must_use]
    pub fn namespace(mut self, namespace: impl Into<String>) -> Config {
        self.namespace = Some(namespace.into().into());
        self
    }

    /// How long opening one connection may take, all hosts of the DSN together. From 10 ms to 1 hour; default 10 s.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Config {
        self.connect_timeout = timeout;
        self
    }

    /// After how long a silence the server ends a session of ours and frees its locks: how long the others wait when the
    /// holder is paused or cut off. Whole seconds from 3 s to 24 h; default 30 s.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Config {
        self.limit = limit;
        self
    }

    /// How often a session that holds locks is confirmed. At least 100 ms and less than half of `limit`; default a sixth
    /// of `limit`, at most 5 s.
    #[must_use]
    pub fn heartbeat(mut self, heartbeat: Duration) -> Config {
        self.heartbeat = Some(heartbeat);
        self
    }

    /// How many connections may wait for locks at a time. From 1 to 1000; default 8.
    #[must_use]
    pub fn max_waiters(mut self, max_waiters: usize) -> Config {
        self.max_waiters = max_waiters;
        self
    }

    /// How many locks this locker may hold at a time; one more is [`Error::TooManyHeld`](crate::Error::TooManyHeld). At
    /// least 1. Default on PostgreSQL: a quarter of the locks that the server's table is made for (`max_locks_per_transaction` ×
    /// (`max_connections` + `max_prepared_transactions`), so 1600 with its defaults): when the table is full, nobody can
    /// connect any more. MySQL and MariaDB have no such table, and no default. Without effect on `memory:`.
    #[must_use]
    pub fn max_held(mut self, max_held: usize) -> Config {
        self.max_held = Some(max_held);
        self
    }

    /// How often in a row, and for how long, a lock that is released may go straight to the next who waits for it in this
    /// process, without the server; then the other processes get their turn. Another process waits at most this long,
    /// one body and one round trip longer. Zero times: always by the server. At most 10 s; default 32 times and 20 ms.
    #[must_use]
    pub fn hand_over(mut self, times: u32, time: Duration) -> Config {
        self.hand_over = HandOver { times, time };
        self
    }

    /// The name under which the server shows the sessions, cut to 63 bytes. Default: program, process id and host.
    #[must_use]
    pub fn application_name(mut self, name: impl Into<String>) -> Config {
        self.application_name = Some(name.into().into());
        self
    }

    /// Tells an observer of every lock that is waited for, taken, given back or lost. May be called several times: each
    /// observer hears everything. See [`observer`](crate::observer) for what one may do. Default: none, at no cost.
    #[must_use]
    pub fn observer(mut self, observer: impl Observer) -> Config {
        self.observers.push(Arc::new(observer));
        self
    }

    /// Whether observers see a short hash in place of each key: `#` and 12 hexadecimal digits, the same for the same
    /// key in every process. Who can guess a key can check the guess. Default: `false`.
    #[must_use]
    pub fn redact_keys(mut self, redact: bool) -> Config {
        self.redact_keys = redact;
        self
    }

    /// Accepts something that is otherwise refused at start-up, because locks are weaker there: see [`Hazard`]. Adds to
    /// what was allowed before, in the DSN too. Default: nothing. Without effect on `memory:`.
    #[must_use]
    pub fn allow(mut self, hazard: Hazard) -> Config {
        self.allowed.insert(hazard);
        self
    }

    /// By which scheme keys become the names of locks on the server, where a lock does not say: another than the native
    /// one shares locks with programs that use another library. Without effect on `memory:`. Locks of two schemes do not
    /// exclude each other. Default: [`KeyScheme::Native`].
    #[must_use]
    pub fn key_scheme(mut self, scheme: KeyScheme) -> Config {
        self.key_scheme = scheme;
        self
    }

    /// Switches dlock off, with `false`: no server is reached, and **no other process is excluded**. Bodies still take
    /// turns among those of the same [`Locker`](crate::Locker). A line on standard error says so, once in each process.
    /// Default: `true`.
    ///
    /// For a developer's machine or a single process. Where one process has switched off what the others rely on, nothing
    /// is locked. There are no fencing tokens, so a resource that checks them refuses.
    #[must_use]
    pub fn enabled(mut self, enabled: bool) -> Config {
        self.enabled = enabled;
        self
    }
}

const HAND_OVER: HandOver = HandOver {
    times: 32,
    time: Duration::from_millis(20),
};
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const LIMIT: Duration = Duration::from_secs(30);
const HEARTBEAT: Duration = Duration::from_secs(5);
const MAX_WAITERS: usize = 8;

/// What the rest of the crate reads.
impl Config {
    /// The server, with the name and the time-out of its connections and the files of TLS read; the values are checked.
    ///
    /// # Errors
    ///
    /// As [`Config::check`], and [`InitError::BadConfig`] for a certificate that cannot be read.
    pub(crate) fn endpoint(&self) -> Result<Endpoint, InitError> {
        self.check()?;
        let mut endpoint = self.endpoint.clone();
        endpoint.prepare(&self.program_name(), self.connect_timeout)?;
        Ok(endpoint)
    }

    pub(crate) fn get_timeout(&self) -> Timeout {
        self.timeout
    }

    pub(crate) fn get_namespace(&self) -> &str {
        self.namespace
            .as_deref()
            .unwrap_or_else(|| self.endpoint.default_namespace())
    }

    pub(crate) fn get_connect_timeout(&self) -> Duration {
        self.connect_timeout
    }

    pub(crate) fn get_limit(&self) -> Duration {
        self.limit
    }

    pub(crate) fn get_heartbeat(&self) -> Duration {
        self.heartbeat
            .unwrap_or_else(|| HEARTBEAT.min(self.limit / 6))
    }

    /// Each holder of a lease gets a fencing token of its own, which a hand-over would not give.
    pub(crate) fn get_hand_over(&self) -> HandOver {
        if self.is_lease() {
            return HandOver {
                times: 0,
                time: Duration::ZERO,
            };
        }
        self.hand_over
    }

    pub(crate) fn is_enabled(&self) -> bool {
        self.enabled
    }

    pub(crate) fn get_allowed(&self) -> &Hazards {
        &self.allowed
    }

    pub(crate) fn get_key_scheme(&self) -> &KeyScheme {
        &self.key_scheme
    }

    pub(crate) fn get_max_waiters(&self) -> usize {
        self.max_waiters
    }

    pub(crate) fn get_max_held(&self) -> Option<usize> {
        self.max_held
    }

    pub(crate) fn get_observers(&self) -> (&[Arc<dyn Observer>], bool) {
        (&self.observers, self.redact_keys)
    }

    /// The name of this program on the server.
    pub(crate) fn program_name(&self) -> String {
        match &self.application_name {
            Some(name) => program::cut(name).to_owned(),
            None => program::default_name(),
        }
    }

    /// Refuses values that cannot work, or would weaken a lock.
    ///
    /// # Errors
    ///
    /// [`InitError::BadConfig`] names the value, the rule and what to write.
    pub(crate) fn check(&self) -> Result<(), InitError> {
        let (limit, heartbeat) = (self.limit, self.get_heartbeat());
        if limit.subsec_nanos() != 0 {
            // MySQL's `wait_timeout` is in whole seconds: another limit here than on the server would be a lie.
            return Err(bad(format!(
                "limit {limit:?} is not in whole seconds: write 30 or 30s, for instance"
            )));
        }
        within(
            "limit",
            limit,
            Duration::from_secs(3),
            Duration::from_secs(24 * 3600),
        )?;
        within(
            "connect_timeout",
            self.connect_timeout,
            Duration::from_millis(10),
            Duration::from_secs(3600),
        )?;
        within(
            "hand_over_time",
            self.hand_over.time,
            Duration::ZERO,
            Duration::from_secs(10),
        )?;
        if heartbeat < Duration::from_millis(100) || heartbeat >= limit / 2 {
            return Err(bad(format!(
                "heartbeat {heartbeat:?} does not fit limit {limit:?}: write at least 100ms and less than half of the limit"
            )));
        }
        if !(1..=1000).contains(&self.max_waiters) {
            return Err(bad(format!(
                "max_waiters {} is out of range: write 1 to 1000",
                self.max_waiters
            )));
        }
        self.check_key_scheme()?;
        if self.max_held == Some(0) {
            return Err(bad("max_held 0 is out of range: write 1 or more"));
        }
        let namespace = self.get_namespace();
        if namespace.len() > 1024 || namespace.contains('\0') {
            return Err(bad(
                "the namespace is longer than 1024 bytes or has a NUL character: shorten it",
            ));
        }
        if let Some(name) = &self.application_name
            && (name.is_empty() || name.contains('\0'))
        {
            return Err(bad(
                "the application_name is empty or has a NUL character: write a name, or leave it out",
            ));
        }
        self.check_fencing()?;
        self.check_key_table()?;
        self.check_lease()?;
        if self.is_lease() {
            // A socket that is given up frees no lease.
            return Ok(());
        }
        self.endpoint.check(limit)
    }
}

impl Config {
    /// Refuses a scheme that has no names for this server, and a namespace that would have no effect.
    fn check_key_scheme(&self) -> Result<(), InitError> {
        if matches!(self.endpoint, Endpoint::Memory { .. }) {
            return Ok(());
        }
        let scheme = &self.key_scheme;
        let without: Option<&str> = match &self.endpoint {
            #[cfg(feature = "postgres")]
            Endpoint::Postgres(_) => scheme.without_postgres(),
            #[cfg(feature = "mysql")]
            Endpoint::MySql(_) => scheme.without_mysql(),
            #[cfg(feature = "sqlite")]
            Endpoint::Sqlite { .. } => (!scheme.is_native()).then_some(
                "no other library keeps its locks in a file of SQLite this way: leave it out",
            ),
            Endpoint::Memory { .. } => None,
        };
        if let Some(rule) = without {
            return Err(bad(format!("key_scheme {scheme}: {rule}")));
        }
        match &self.namespace {
            Some(namespace) if !scheme.is_native() => Err(bad(format!(
                "namespace {namespace:?} has no effect with key_scheme {scheme}, whose names are those of another library: \
                 remove one of them"
            ))),
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("endpoint", &self.endpoint)
            .field("timeout", &self.timeout)
            .field("namespace", &self.namespace)
            .field("connect_timeout", &self.connect_timeout)
            .field("limit", &self.limit)
            .field("heartbeat", &self.heartbeat)
            .field("max_waiters", &self.max_waiters)
            .field("max_held", &self.max_held)
            .field("application_name", &self.application_name)
            .field("hand_over", &self.hand_over)
            .field("key_scheme", &self.key_scheme)
            .field("fencing", &self.fencing)
            .field("fencing_table", &self.fencing_table)
            .field("key_table", &self.key_table)
            .field("lease", &self.lease)
            .field("status_file", &self.status_file)
            .field("enabled", &self.enabled)
            .finish_non_exhaustive()
    }
}

fn within(name: &str, value: Duration, least: Duration, most: Duration) -> Result<(), InitError> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(bad(format!(
        "{name} {value:?} is out of range: write {least:?} to {most:?}"
    )))
}

impl FromStr for Config {
    type Err = InitError;

    fn from_str(dsn: &str) -> Result<Config, InitError> {
        Config::from_dsn(dsn)
    }
}

impl TryFrom<&str> for Config {
    type Error = InitError;

    fn try_from(dsn: &str) -> Result<Config, InitError> {
        Config::from_dsn(dsn)
    }
}

#[cfg(test)]
mod tests;
