//! A PostgreSQL and its standby, behind one name.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use xtask::servers::{Kind, Server, rows};

/// A primary, and a standby without which no commit succeeds: what was answered before the primary is killed, the standby has.
pub(super) struct Pair {
    primary: Server,
    /// `None`: it has become the primary.
    standby: Option<Server>,
}

impl Pair {
    pub(super) fn start() -> Result<Pair> {
        let mut pair = Pair {
            primary: Server::start(Kind::Postgres)?,
            standby: None,
        };
        set(&pair.primary, KEEP_LOG)?;
        pair.complete()?;
        Ok(pair)
    }

    pub(super) fn primary(&self) -> &Server {
        &self.primary
    }

    pub(super) fn standby(&self) -> Result<&Server> {
        self.standby.as_ref().context("there is no standby now")
    }

    /// Kills the primary, and lets the standby take its place. Gives the address where it is to be found now.
    pub(super) fn fail_over(&mut self) -> Result<SocketAddr> {
        let standby = self.standby.take().context("there is no standby now")?;
        self.primary.kill()?;
        standby.promote()?;
        self.primary = standby;
        Ok(self.primary.address())
    }

    /// Gives the primary a standby, if it has none, and lets every commit wait for that one.
    pub(super) fn complete(&mut self) -> Result<()> {
        if self.standby.is_some() {
            return Ok(());
        }
        let standby = self.primary.standby()?;
        set(&standby, KEEP_LOG)?;
        set(&self.primary, "synchronous_standby_names = '*'")?;
        self.primary.until(
            "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'",
            "1",
        )?;
        // What was committed before is there when this is.
        rows(
            &self.primary.admin_url(),
            "CREATE TABLE IF NOT EXISTS together (); DROP TABLE together",
        )?;
        self.standby = Some(standby);
        Ok(())
    }
}

/// The next standby begins with the template, and takes everything since then from the log.
const KEEP_LOG: &str = "wal_keep_size = '4GB'";

fn set(server: &Server, setting: &str) -> Result<()> {
    for sql in [
        &format!("ALTER SYSTEM SET {setting}"),
        "SELECT pg_reload_conf()",
    ] {
        rows(&server.admin_url(), sql)?;
    }
    Ok(())
}
