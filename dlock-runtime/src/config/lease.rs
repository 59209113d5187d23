//! What can be set about leases.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::{Config, within};
use crate::capabilities::Strategy;
use crate::dsn::bad;
use crate::endpoint::Endpoint;
use crate::error::InitError;
use crate::hold::{MAX_TTL, MIN_TTL};
use crate::scheme::KeyScheme;

/// What was set; `None` where nothing was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LeaseOptions {
    pub(crate) strategy: Option<Strategy>,
    pub(crate) ttl: Option<Duration>,
    pub(crate) auto_renew: Option<bool>,
    pub(crate) retry: Option<Duration>,
    pub(crate) table: Option<String>,
    pub(crate) owner: Option<String>,
}

/// What holds for every lease of a locker.
#[derive(Clone, Debug)]
pub(crate) struct LeaseSettings {
    pub(crate) ttl: Duration,
    pub(crate) auto_renew: bool,
    /// The pause between two tries of a waiter, where it was given.
    pub(crate) retry: Option<Duration>,
    pub(crate) table: TableName,
    /// The beginning of every owner: what follows is unique to an acquisition.
    pub(crate) owner: Arc<str>,
    pub(crate) namespace: Arc<str>,
    /// The name of this program, for those whom it keeps waiting.
    pub(crate) program: Arc<str>,
    pub(crate) connect_timeout: Duration,
}

/// The name of the table, perhaps with its schema (on MySQL and MariaDB: its database). Only letters, digits and
/// underscores, so that it can stand in a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TableName {
    pub(crate) schema: Option<String>,
    pub(crate) name: String,
}

const TABLE: &str = "dlock_lease";
const TTL: Duration = Duration::from_secs(30);
const MAX_OWNER_BYTES: usize = 128;

impl Default for TableName {
    fn default() -> TableName {
        TableName {
            schema: None,
            name: TABLE.to_owned(),
        }
    }
}

impl TableName {
    /// Reads `table` or `schema.table`.
    pub(crate) fn parse(text: &str) -> Option<TableName> {
        let (schema, name) = match text.split_once('.') {
            Some((schema, name)) => (Some(schema), name),
            None => (None, text),
        };
        let valid = |part: &str| {
            let begins = |c: char| c.is_ascii_alphabetic() || c == '_';
            let goes_on = |c: char| c.is_ascii_alphanumeric() || c == '_';
            part.starts_with(begins) && part.chars().all(goes_on) && part.len() <= 63
        };
        (valid(name) && schema.is_none_or(valid)).then(|| TableName {
            schema: schema.map(str::to_owned),
            name: name.to_owned(),
        })
    }

    /// The name as a statement has it, in the database's quotes.
    pub(crate) fn quoted(&self, quote: char) -> String {
        match &self.schema {
            Some(schema) => format!("{quote}{schema}{quote}.{quote}{}{quote}", self.name),
            None => format!("{quote}{}{quote}", self.name),
        }
    }

    /// With a schema where none was given.
    pub(crate) fn or_schema(mut self, schema: &str) -> TableName {
        self.schema.get_or_insert_with(|| schema.to_owned());
        self
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.schema {
            Some(schema) => write!(f, "{schema}.{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// The rules of [`TableName::parse`], for messages.
pub(crate) const TABLE_RULE: &str = "name or schema.name, each of letters, digits and '_', not beginning with a digit, at most 63 characters";

/// Leases.
impl Config {
    /// How locks are kept: [`Strategy::Session`], the default on PostgreSQL, MySQL and MariaDB and impossible on SQLite, or [`Strategy::Lease`], rows
    /// of a table, for clusters, transaction poolers, and whoever wants a fencing token or a ttl.
    #[must_use]
    pub fn strategy(mut self, strategy: Strategy) -> Config {
        self.lease.strategy = Some(strategy);
        self
    }

    /// Leases: how long one lasts that is not renewed, and so how long the others wait when its holder dies. From 1 s to
    /// 24 h; default 30 s. Each third of it, all leases of a process are renewed.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Config {
        self.lease.ttl = Some(ttl);
        self
    }

    /// Leases: whether held ones are renewed. Without it a lock is lost when its `ttl` has passed since it was taken, or
    /// since [`Guard::renew`](crate::Guard::renew). Default: `true`.
    #[must_use]
    pub fn auto_renew(mut self, renew: bool) -> Config {
        self.lease.auto_renew = Some(renew);
        self
    }

    /// Leases: the longest pause between two tries of one that waits; a part of it is drawn anew each time. From 1 ms to
    /// 1 h. Default: 1 s on PostgreSQL, whose releases wake those who wait, 50 ms on SQLite, and 200 ms elsewhere and behind
    /// a pooler, where waits begin with shorter pauses. On SQLite and Galera, whose clocks are doubted, an announcement of
    /// one that waits counts for 15 s at most, and no pause is longer than 5 s.
    #[must_use]
    pub fn retry(mut self, pause: Duration) -> Config {
        self.lease.retry = Some(pause);
        self
    }

    /// Leases: the table, `name` or `schema.name`, of letters, digits and `_`. It is created when it does not exist. Default:
    /// `public.dlock_lease` on PostgreSQL, `dlock_lease` elsewhere. Programs with different tables do not exclude each other.
    #[must_use]
    pub fn table(mut self, name: impl Into<String>) -> Config {
        self.lease.table = Some(name.into());
        self
    }

    /// Leases: who the table says holds them; each acquisition adds a number of its own. At most 128 bytes without quotes,
    /// backslashes and control characters, not beginning with `#`. Default: host, process id, and a random part.
    #[must_use]
    pub fn owner(mut self, owner: impl Into<String>) -> Config {
        self.lease.owner = Some(owner.into());
        self
    }

    /// Whether locks are leases.
    pub(crate) fn is_lease(&self) -> bool {
        match &self.endpoint {
            Endpoint::Memory { .. } => false,
            #[cfg(feature = "sqlite")]
            Endpoint::Sqlite { .. } => true,
            #[cfg(any(feature = "postgres", feature = "mysql"))]
            _ => self.lease.strategy == Some(Strategy::Lease),
        }
    }

    /// What the backend needs to know; the values are checked.
    pub(crate) fn lease_settings(&self) -> LeaseSettings {
        let table = self.lease.table.as_deref().and_then(TableName::parse);
        LeaseSettings {
            ttl: self.lease.ttl.unwrap_or(TTL),
            auto_renew: self.lease.auto_renew.unwrap_or(true),
            retry: self.lease.retry,
            table: table.unwrap_or_default(),
            owner: match &self.lease.owner {
                Some(owner) => owner.as_str().into(),
                None => super::program::default_owner().into(),
            },
            // The table is a database's own: without a name, programs that share it meet.
            namespace: self.namespace.clone().unwrap_or_else(|| Arc::from("")),
            program: self.program_name().into(),
            connect_timeout: self.connect_timeout,
        }
    }

    /// Refuses pairs that contradict each other, and values that cannot work.
    pub(super) fn check_lease(&self) -> Result<(), InitError> {
        let LeaseOptions {
            strategy,
            ttl,
            auto_renew: _,
            retry,
            table,
            owner,
        } = &self.lease;
        let kept = match &self.endpoint {
            Endpoint::Memory { .. } => Strategy::Memory,
            #[cfg(feature = "sqlite")]
            Endpoint::Sqlite { .. } => Strategy::Lease,
            #[cfg(any(feature = "postgres", feature = "mysql"))]
            _ if self.is_lease() => Strategy::Lease,
            #[cfg(any(feature = "postgres", feature = "mysql"))]
            _ => Strategy::Session,
        };
        if kept == Strategy::Lease && !matches!(self.key_scheme, KeyScheme::Native) {
            return Err(bad(format!(
                "key_scheme {} does not go with leases, which no other library shares: leave it out, or use strategy=session",
                self.key_scheme
            )));
        }
        if strategy.is_some_and(|strategy| strategy != kept) {
            let has = match kept {
                Strategy::Memory => "memory: keeps its locks in this process",
                Strategy::Lease => "its locks are leases",
                Strategy::Session => "a server keeps locks in sessions or as leases",
            };
            return Err(bad(format!(
                "the strategy does not fit the DSN: {has}; leave the strategy out, or write another DSN"
            )));
        }
        if kept != Strategy::Lease {
            let unused = LeaseOptions {
                strategy: *strategy,
                ..LeaseOptions::default()
            };
            if self.lease != unused {
                return Err(bad(
                    "ttl, auto_renew, retry, table and owner are settings of leases: add strategy=lease, or leave them out",
                ));
            }
            return Ok(());
        }
        within("ttl", ttl.unwrap_or(TTL), MIN_TTL, MAX_TTL)?;
        if let Some(retry) = retry {
            let hour = Duration::from_secs(3600);
            within("retry", *retry, Duration::from_millis(1), hour)?;
        }
        if let Some(table) = table
            && TableName::parse(table).is_none()
        {
            let table: String = table.chars().take(64).collect();
            return Err(bad(format!(
                "table {table:?} is not a name: write {TABLE_RULE}"
            )));
        }
        if let Some(owner) = owner
            && !is_owner(owner)
        {
            return Err(bad(
                "the owner is empty, longer than 128 bytes, begins with '#', or has a quote, a backslash or a control character: \
                 write a shorter or plainer one",
            ));
        }
        Ok(())
    }
}

fn is_owner(text: &str) -> bool {
    let plain = |c: char| !c.is_control() && !matches!(c, '"' | '\'' | '\\');
    // What begins with '#' is not the owner of anybody who holds the lock.
    !text.is_empty()
        && text.len() <= MAX_OWNER_BYTES
        && !text.starts_with('#')
        && text.chars().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_tables_can_stand_in_a_statement() {
        let parse = |text| TableName::parse(text).map(|table| table.quoted('"'));
        assert_eq!(parse("locks").as_deref(), Some(r#""locks""#));
        assert_eq!(parse("App.Locks_2").as_deref(), Some(r#""App"."Locks_2""#));
        let long = "t".repeat(64);
        for text in [
            "", ".", "a.", ".a", "a.b.c", "1a", "a b", "a\"", "a;", "é", "a-b", "`a`", &long,
        ] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn owners_can_stand_in_a_path_of_json() {
        assert!(is_owner("web-1 pid 7") && is_owner("é"));
        for text in ["", "a\"b", "a\\b", "a\nb", "it's", "#a", &"x".repeat(129)] {
            assert!(!is_owner(text), "{text:?}");
        }
    }

    #[test]
    fn settings_of_leases_are_refused_without_leases() {
        let config = Config::from_dsn("memory:").expect("a DSN");
        assert!(config.clone().ttl(TTL).check().is_err());
        assert!(config.clone().strategy(Strategy::Lease).check().is_err());
        config
            .strategy(Strategy::Memory)
            .check()
            .expect("it is so anyway");
    }

    #[cfg(feature = "postgres")]
    #[test]
    fn leases_have_no_foreign_key_scheme() {
        let dsn = "postgres://localhost/app?strategy=lease&key_scheme=sqlx";
        let config = Config::from_dsn(dsn).expect("each is good by itself");
        let problem = config.check().expect_err("not together").to_string();
        assert!(problem.contains("key_scheme sqlx"), "{problem}");
        let native = Config::from_dsn("postgres://localhost/app?strategy=lease&key_scheme=native");
        native.expect("a DSN").check().expect("the same as none");
    }

    #[cfg(feature = "postgres")]
    #[test]
    fn the_defaults_of_leases_are_as_documented() {
        let config = Config::from_dsn("postgres://localhost/app?strategy=lease").expect("a DSN");
        config.check().expect("the defaults fit");
        let settings = config.lease_settings();
        assert_eq!(settings.ttl, Duration::from_secs(30));
        assert!(settings.auto_renew && settings.retry.is_none());
        assert_eq!(settings.table.to_string(), "dlock_lease");
        assert_eq!(&*settings.namespace, "");
        assert!(is_owner(&settings.owner), "{:?}", settings.owner);
        for (dsn, word) in [
            ("strategy=lease&ttl=0.5", "ttl"),
            ("strategy=lease&ttl=25h", "ttl"),
            ("strategy=lease&retry=0", "retry"),
            ("strategy=lease&table=a%3Bb", "table"),
            ("strategy=lease&owner=%22", "owner"),
            ("ttl=10", "strategy=lease"),
            ("strategy=session&table=t", "strategy=lease"),
        ] {
            let refused = Config::from_dsn(&format!("postgres://localhost/app?{dsn}"))
                .and_then(|config| config.check());
            let Err(InitError::BadConfig { problem }) = refused else {
                panic!("{dsn}: {refused:?}");
            };
            assert!(problem.contains(word), "{dsn}: {problem}");
        }
        for dsn in ["limit=10", "heartbeat=1", "max_waiters=3", "hand_over=1"] {
            let dsn = format!("postgres://localhost/app?strategy=lease&{dsn}");
            assert!(Config::from_dsn(&dsn).is_err(), "{dsn}");
        }
    }
}
