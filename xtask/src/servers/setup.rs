//! A server that is not the ordinary one of its kind.

use std::{ffi::OsString, path::PathBuf};

use anyhow::{Result, bail};

use super::{
    Kind, Server,
    clock::FakeClock,
    place::Unprivileged,
    programs::Programs,
    releases::{self, Release},
};

/// How a server of a test's own differs from [`Server::start`]'s.
///
/// ```no_run
/// # use xtask::servers::{Kind, Release, Setup};
/// let server = Setup::new(Kind::Postgres).release(Release::Postgres18).clock(3600).start()?;
/// # anyhow::Ok(())
/// ```
#[derive(Clone, Debug)]
pub struct Setup {
    kind: Kind,
    release: Option<Release>,
    clock: Option<i64>,
    settings: Vec<String>,
}

impl Setup {
    /// The ordinary server of that kind.
    pub fn new(kind: Kind) -> Self {
        Self {
            kind,
            release: None,
            clock: None,
            settings: Vec::new(),
        }
    }

    /// Another release than the machine's or its packages'. It is downloaded once.
    #[must_use]
    pub fn release(mut self, release: Release) -> Self {
        self.release = Some(release);
        self
    }

    /// The server's clock shows so many seconds more (or less) than the machine's; [`Server::set_clock`] changes it.
    /// PostgreSQL and MariaDB only.
    #[must_use]
    pub fn clock(mut self, seconds_ahead: i64) -> Self {
        self.clock = Some(seconds_ahead);
        self
    }

    /// A setting of the server, `name=value`.
    #[must_use]
    pub fn setting(mut self, setting: &str) -> Self {
        self.settings.push(setting.to_owned());
        self
    }

    /// Starts the server, which ends with the value and at the latest with this process.
    ///
    /// # Errors
    ///
    /// As [`Server::start`], and when the release or the false clock cannot be had.
    pub fn start(self) -> Result<Server> {
        let mut plan = Plan::new(self.kind)?;
        if let Some(release) = self.release {
            if self.kind != Kind::Postgres {
                bail!("{release} is no release of {}", self.kind);
            }
            plan.programs = releases::programs(release)?;
        }
        for setting in self.settings {
            plan.arguments.push(match self.kind {
                Kind::Postgres => format!("-c{setting}").into(),
                Kind::MariaDb | Kind::MySql => format!("--{setting}").into(),
            });
        }
        if self.clock.is_some() && self.kind == Kind::MySql {
            bail!("{} takes a minute to start below a false clock", self.kind);
        }
        plan.clock = self.clock.map(FakeClock::ahead).transpose()?;
        Server::start_planned(plan, "")
    }
}

/// What it takes to start a server.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) kind: Kind,
    pub(crate) programs: Programs,
    pub(crate) user: Option<Unprivileged>,
    /// The data to start from; else the template of the kind.
    pub(crate) seed: Option<PathBuf>,
    /// Files that are put into the data directory.
    pub(crate) files: Vec<(&'static str, String)>,
    /// Options of every start.
    pub(crate) arguments: Vec<OsString>,
    /// Options of the first start only.
    pub(crate) first_arguments: Vec<OsString>,
    pub(crate) environment: Vec<(OsString, OsString)>,
    pub(crate) clock: Option<FakeClock>,
}

impl Plan {
    pub(crate) fn new(kind: Kind) -> Result<Self> {
        let user = if kind == Kind::Postgres {
            Unprivileged::needed()?
        } else {
            None
        };
        Ok(Self::with_programs(kind, Programs::find(kind)?, user))
    }

    pub(crate) fn with_programs(
        kind: Kind,
        programs: Programs,
        user: Option<Unprivileged>,
    ) -> Self {
        Self {
            kind,
            programs,
            user,
            seed: None,
            files: Vec::new(),
            arguments: Vec::new(),
            first_arguments: Vec::new(),
            environment: Vec::new(),
            clock: None,
        }
    }
}
