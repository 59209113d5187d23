//! A streaming standby of a PostgreSQL, and its promotion.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use super::{Kind, PASSWORD, Server, ask, daemon::PATIENCE, setup::Plan};

impl Server {
    /// Starts a standby of this PostgreSQL, of the same release, and returns when it streams what is written.
    ///
    /// For a server that was just started: the standby begins with the same template, and takes the rest from the log.
    ///
    /// # Errors
    ///
    /// When this is no PostgreSQL, or the standby does not start.
    pub fn standby(&self) -> Result<Server> {
        if self.kind() != Kind::Postgres {
            bail!("only PostgreSQL has standbys here");
        }
        let plan = self.plan();
        let address = self.address();
        let standby = Plan {
            files: vec![
                ("standby.signal", String::new()),
                (
                    "postgresql.auto.conf",
                    format!(
                        "primary_conninfo = 'host={} port={} user={} password={PASSWORD}'\n\
                         wal_retrieve_retry_interval = '100ms'\n",
                        address.ip(),
                        address.port(),
                        self.kind().admin(),
                    ),
                ),
            ],
            ..Plan::with_programs(self.kind(), plan.programs.clone(), plan.user)
        };
        let standby = Server::start_planned(standby, "-standby")?;
        // On the way it streams each of the timelines that earlier promotions have left, and waits after each.
        let written = ask::value(&self.admin_url(), "SELECT pg_current_wal_lsn()")?;
        self.until(
            &format!(
                "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming' AND flush_lsn >= '{written}'"
            ),
            "1",
        )?;
        Ok(standby)
    }

    /// Makes a standby a primary of its own, and returns when it takes writes. Its sessions stay.
    ///
    /// # Errors
    ///
    /// When it is no standby.
    pub fn promote(&self) -> Result<()> {
        ask::value(&self.admin_url(), "SELECT pg_promote(false)")?;
        self.until("SELECT pg_is_in_recovery()", "f")
    }

    /// Waits until the server answers a question of the administrator so.
    ///
    /// # Errors
    ///
    /// When that takes more than a minute.
    pub fn until(&self, sql: &str, expected: &str) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let told = ask::value(&self.admin_url(), sql);
            match &told {
                Ok(told) if told == expected => return Ok(()),
                _ if Instant::now() > deadline => {
                    bail!("`{sql}` is {told:?} and not {expected:?} after {PATIENCE:?}")
                }
                _ => thread::sleep(Duration::from_millis(20)),
            }
        }
    }
}
