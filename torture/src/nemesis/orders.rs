//! What is to be done: where, how, for how long, and what is broken.

use std::path::PathBuf;
use std::time::Duration;

use xtask::servers::Kind;

use crate::clock::SECOND;
use crate::fault::Fault;
use crate::history::Setting;

/// Where the locks are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// On a server of the run's own.
    Server(Kind),
    /// On a `PostgreSQL` with a standby, without which no commit succeeds, and which takes its place when it is killed.
    Failover,
    /// On a Galera cluster of three nodes. The workers are spread over them.
    Galera,
    /// In a file of `SQLite`.
    Sqlite,
}

/// How the locks are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// By sessions of the server.
    Session,
    /// As rows of a table.
    Lease,
}

/// What is to be done.
#[derive(Clone, Debug)]
pub struct Orders {
    /// Where.
    pub place: Place,
    /// How.
    pub strategy: Strategy,
    /// For how long.
    pub lasts: Duration,
    /// By how many processes at a time.
    pub processes: usize,
    /// What is broken, of what [exists](Self::has) there.
    pub faults: Vec<Fault>,
    /// Every choice comes from this.
    pub seed: u64,
    /// Where the history goes. What lies there is removed.
    pub directory: PathBuf,
    /// More options of the DSN, `name=value&name=value`.
    pub options: String,
    /// Repeats the run.
    pub command: String,
}

/// How long the server keeps the locks of who has fallen silent, in seconds: the shortest there is.
pub(super) const LIMIT: u64 = 3;
const HEARTBEAT: Duration = Duration::from_millis(500);
const CONNECT: u64 = 2;
pub(super) const KEYS: u16 = 4;

impl Place {
    /// All of them.
    pub const ALL: [Place; 6] = [
        Place::Server(Kind::Postgres),
        Place::Server(Kind::MariaDb),
        Place::Server(Kind::MySql),
        Place::Failover,
        Place::Galera,
        Place::Sqlite,
    ];

    /// By the name on the command line.
    pub fn named(name: &str) -> Option<Place> {
        Place::ALL.into_iter().find(|place| place.name() == name)
    }

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Place::Server(Kind::Postgres) => "postgres",
            Place::Server(Kind::MariaDb) => "mariadb",
            Place::Server(Kind::MySql) => "mysql",
            Place::Failover => "failover",
            Place::Galera => "galera",
            Place::Sqlite => "sqlite",
        }
    }

    /// Whether sessions can keep locks there.
    pub fn has_sessions(self) -> bool {
        matches!(self, Place::Server(_) | Place::Failover)
    }

    /// What the server speaks; `None`: there is no server.
    pub(super) fn kind(self) -> Option<Kind> {
        match self {
            Place::Server(kind) => Some(kind),
            Place::Failover => Some(Kind::Postgres),
            Place::Galera => Some(Kind::MariaDb),
            Place::Sqlite => None,
        }
    }
}

impl Strategy {
    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Strategy::Session => "session",
            Strategy::Lease => "lease",
        }
    }
}

impl Orders {
    /// Whether this fault exists there, for locks that are kept so.
    pub fn has(&self, fault: Fault) -> bool {
        let is_lease = self.strategy == Strategy::Lease;
        match fault {
            Fault::Kill | Fault::ShortPause | Fault::LongPause => true,
            // No session's lock depends on a wall clock.
            Fault::ClockJump => is_lease,
            Fault::EndSession
            | Fault::Reset
            | Fault::ShortStall
            | Fault::LongStall
            | Fault::HalfOpen
            | Fault::LateThenSilent
            | Fault::LateThenPaused
            | Fault::Delay
            | Fault::Split
            | Fault::CutAnswer => self.place != Place::Sqlite,
            Fault::Restart
            | Fault::Crash
            | Fault::ShortFreeze
            | Fault::LongFreeze
            | Fault::NoConnections => matches!(self.place, Place::Server(_)),
            // Named locks need no table of a fixed size.
            Fault::TableFull => self.place == Place::Server(Kind::Postgres),
            Fault::ShortWrite | Fault::LongWrite => self.place == Place::Sqlite,
            Fault::Failover => self.place == Place::Failover,
            // A session's lock is no commit.
            Fault::FrozenStandby => self.place == Place::Failover && is_lease,
            Fault::FrozenNode | Fault::KilledNode | Fault::QuorumLoss => {
                self.place == Place::Galera
            }
        }
    }

    pub(super) fn setting(&self, server: String) -> Setting {
        Setting {
            server,
            strategy: self.strategy.name().to_owned(),
            seed: self.seed,
            keys: KEYS,
            limit: LIMIT * SECOND,
            heartbeat: u64::try_from(HEARTBEAT.as_nanos()).unwrap_or(SECOND),
            connect: CONNECT * SECOND,
            command: self.command.clone(),
        }
    }

    /// The options of every worker's DSN.
    pub(super) fn dsn_options(&self) -> String {
        let mut options = match self.strategy {
            Strategy::Session => {
                let heartbeat = HEARTBEAT.as_millis();
                format!("limit={LIMIT}&heartbeat={heartbeat}ms&connect_timeout={CONNECT}")
            }
            Strategy::Lease => {
                format!("strategy=lease&ttl={LIMIT}&connect_timeout={CONNECT}")
            }
        };
        if !self.options.is_empty() {
            options = format!("{options}&{}", self.options);
        }
        options
    }

    /// Whether readers can hold together.
    pub(super) fn has_shared_mode(&self) -> bool {
        self.strategy == Strategy::Lease || self.place.kind() == Some(Kind::Postgres)
    }
}
