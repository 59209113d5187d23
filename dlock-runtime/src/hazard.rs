//! What makes an endpoint unfit for session locks, by name.

use std::fmt;

/// Something about a server that dlock refuses at start-up unless [`Config::allow`](crate::Config::allow) names it.
///
/// Each of them weakens the lock: allow one only where its consequence does not matter. In a DSN they stand in one
/// option, separated by commas: `allow=standby,unproved`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Hazard {
    /// `no-exclusion`: the proof of exclusion failed, as it does behind a transaction pooler (PgBouncer in transaction
    /// mode) and on servers whose lock functions do nothing. Allowed, **nothing is locked** for certain.
    NoExclusion,
    /// `unproved`: the server has no second connection for the proof of exclusion. Allowed, locks are taken without
    /// proof; each later start tries again.
    Unproved,
    /// `standby`: the server is a standby, a replica, or read-only for another reason. Allowed, locks exclude only
    /// those who connect to the same server.
    Standby,
    /// `galera`: the server is a node of a Galera cluster. Allowed, locks exclude only those who connect to the same
    /// node.
    Galera,
    /// `no-idle-limit`: PostgreSQL before version 14 cannot end idle sessions. Allowed, a process that is paused keeps
    /// its locks on the server for as long as it is paused.
    NoIdleLimit,
    /// `no-socket-limit`: the server of PostgreSQL cannot limit how long a connection over TCP stays silent or unacknowledged,
    /// as on systems without `TCP_USER_TIMEOUT`. Allowed, a process whose network is cut keeps its locks until the
    /// server's idle limit, and where there is none until the system of the server gives up the connection, after hours.
    NoSocketLimit,
}

impl Hazard {
    pub(crate) const ALL: [Hazard; 6] = [
        Hazard::NoExclusion,
        Hazard::Unproved,
        Hazard::Standby,
        Hazard::Galera,
        Hazard::NoIdleLimit,
        Hazard::NoSocketLimit,
    ];

    /// The name in a DSN.
    pub fn name(self) -> &'static str {
        match self {
            Hazard::NoExclusion => "no-exclusion",
            Hazard::Unproved => "unproved",
            Hazard::Standby => "standby",
            Hazard::Galera => "galera",
            Hazard::NoIdleLimit => "no-idle-limit",
            Hazard::NoSocketLimit => "no-socket-limit",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Hazard> {
        Hazard::ALL.into_iter().find(|hazard| hazard.name() == name)
    }

    /// What to do about it: first the better way.
    pub(crate) fn remedy(self, better: &str) -> String {
        format!("{better} (allow={self} accepts the hazard)")
    }
}

impl fmt::Display for Hazard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A set of hazards, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hazards(Vec<Hazard>);

impl Hazards {
    pub(crate) fn insert(&mut self, hazard: Hazard) {
        if let Err(at) = self.0.binary_search(&hazard) {
            self.0.insert(at, hazard);
        }
    }

    pub(crate) fn contains(&self, hazard: Hazard) -> bool {
        self.0.contains(&hazard)
    }

    pub(crate) fn to_vec(&self) -> Vec<Hazard> {
        self.0.clone()
    }

    /// Reads names separated by commas.
    pub(crate) fn parse(text: &str) -> Option<Hazards> {
        let mut hazards = Hazards::default();
        for name in text.split(',') {
            hazards.insert(Hazard::named(name)?);
        }
        Some(hazards)
    }
}
