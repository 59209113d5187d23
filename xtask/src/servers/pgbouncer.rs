//! PgBouncer before a PostgreSQL.

use std::{
    env, fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use super::{
    DATABASE, Kind, PASSWORD, Server, USER, ask,
    daemon::{self, Daemon, PATIENCE},
    launch::{self, Site},
    packages::{Bundle, unpacked},
    place::{self, Unprivileged},
    process::Process,
    programs::command_in,
    record::{Record, clean},
};
use crate::ports;

/// When PgBouncer gives a server's session to another client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// After each transaction.
    Transaction,
    /// When the client has gone.
    Session,
}

/// A PgBouncer of a test's own. Dropped, it is stopped and removed.
#[derive(Debug)]
pub struct PgBouncer {
    site: Site,
    home: PathBuf,
    daemon: Option<Daemon>,
}

impl PgBouncer {
    /// Starts a PgBouncer before the server, and returns when a client reaches the server through it.
    ///
    /// # Errors
    ///
    /// When there is no PgBouncer to be had, or it does not start; the end of its log is part of the message then.
    pub fn start(server: &Server, pooling: Pooling) -> Result<Self> {
        if server.kind() != Kind::Postgres {
            bail!("PgBouncer speaks to PostgreSQL, not to {}", server.kind());
        }
        let user = Unprivileged::needed()?;
        let home = place::servers()?.join(place::extra_name("pgbouncer")?);
        fs::create_dir(&home).with_context(|| format!("cannot create {}", home.display()))?;
        let run = place::create_run_directory()?;
        let mut pooler = Self {
            site: Site {
                data: run.join("pgbouncer.ini"),
                run,
                port: ports::free()?,
            },
            home,
            daemon: None,
        };
        pooler
            .launch(server.address(), pooling, user)
            .with_context(|| format!("cannot start PgBouncer{}", daemon::log_end(&pooler.log())))?;
        Ok(pooler)
    }

    /// The URL of the application's account, through the pooler.
    pub fn url(&self) -> String {
        Kind::Postgres.tcp_url(USER, self.site.port)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.site.port).into()
    }

    /// The file with its messages.
    pub fn log(&self) -> PathBuf {
        self.home.join("server.log")
    }

    /// Stops (SIGSTOP) it: its connections stay open, and nothing passes.
    ///
    /// # Errors
    ///
    /// When it does not run.
    pub fn freeze(&self) -> Result<()> {
        self.process()?.freeze();
        Ok(())
    }

    /// Lets a frozen one go on.
    ///
    /// # Errors
    ///
    /// When it does not run.
    pub fn thaw(&self) -> Result<()> {
        self.process()?.thaw();
        Ok(())
    }

    /// Kills (SIGKILL) it.
    ///
    /// # Errors
    ///
    /// When it does not run, or is still there after 10 seconds.
    pub fn kill(&mut self) -> Result<()> {
        let daemon = self.daemon.as_mut().context("PgBouncer does not run")?;
        daemon.end(Process::kill_tree)?;
        self.daemon = None;
        Ok(())
    }

    fn process(&self) -> Result<Process> {
        let daemon = self.daemon.as_ref().context("PgBouncer does not run")?;
        Ok(daemon.process())
    }

    fn launch(
        &mut self,
        server: SocketAddr,
        pooling: Pooling,
        user: Option<Unprivileged>,
    ) -> Result<()> {
        let run = self.site.run.clone();
        let accounts = run.join("accounts");
        // The text itself: PgBouncer needs it for its own way to the server.
        fs::write(&accounts, format!("\"{USER}\" \"{PASSWORD}\"\n"))?;
        fs::write(&self.site.data, self.settings(server, pooling, &accounts))?;
        let mut command = command(user, &run)?;
        command.arg(&self.site.data);
        place::give(&run, user)?;
        launch::as_user(&mut command, user, &run);
        // It is stopped as a PostgreSQL is, and has no memory that it shares.
        let guarded = (Kind::Postgres, [run.as_path(), self.home.as_path()]);
        let daemon = Daemon::spawn(command, &self.log(), Some(guarded))?;
        let record = Record {
            kind: Kind::Postgres,
            process: Some(daemon.process()),
            site: self.site.clone(),
            home: self.home.clone(),
        };
        self.daemon = Some(daemon);
        record.write()?;
        self.wait_until_ready()
    }

    fn settings(&self, server: SocketAddr, pooling: Pooling, accounts: &Path) -> String {
        format!(
            "[databases]\n\
             {DATABASE} = host={} port={}\n\
             [pgbouncer]\n\
             listen_addr = 127.0.0.1\n\
             listen_port = {}\n\
             unix_socket_dir =\n\
             auth_type = scram-sha-256\n\
             auth_file = {}\n\
             pool_mode = {}\n\
             max_client_conn = 200\n\
             default_pool_size = 50\n",
            server.ip(),
            server.port(),
            self.site.port,
            accounts.display(),
            match pooling {
                Pooling::Transaction => "transaction",
                Pooling::Session => "session",
            },
        )
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let url = self.url();
        let daemon = self.daemon.as_mut().context("PgBouncer does not run")?;
        loop {
            if let Some(status) = daemon.ended()? {
                bail!("it ended ({status})");
            }
            match ask::version_within(&url, Duration::from_secs(5)) {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() > deadline => return Err(error),
                Err(_) => thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    fn halt(&mut self) -> Result<()> {
        match &mut self.daemon {
            None => Ok(()),
            Some(daemon) => daemon.end(|process| {
                process.thaw();
                process.signal(Signal::QUIT);
                process
                    .wait_for_end(Duration::from_secs(10))
                    .or_else(|_| process.kill_tree())
            }),
        }
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        if let Err(error) = self.halt().and_then(|()| clean(&self.site, &self.home)) {
            eprintln!("PgBouncer was not removed: {error:#}");
        }
    }
}

/// A command that runs the program, installed or unpacked, as that user.
fn command(user: Option<Unprivileged>, run: &Path) -> Result<Command> {
    let mut directories: Vec<PathBuf> =
        env::split_paths(&env::var_os("PATH").unwrap_or_default()).collect();
    directories.push("/usr/sbin".into());
    let installed = directories
        .into_iter()
        .map(|directory| directory.join("pgbouncer"))
        .find(|program| program.is_file());
    if let Some(program) = installed {
        return Ok(Command::new(program));
    }
    let tree = unpacked(Bundle::PgBouncer, |tree| {
        let told = command_in(tree, &tree.join(PROGRAM))
            .arg("--version")
            .output()
            .context("there is no PgBouncer")?;
        if !told.status.success() {
            bail!("PgBouncer does not run ({})", told.status);
        }
        Ok(tree.to_owned())
    })?;
    let tree = match user {
        Some(_) => place::reachable_copy(&tree, run)?,
        None => tree,
    };
    Ok(command_in(&tree, &tree.join(PROGRAM)))
}

/// Where the package has the program.
const PROGRAM: &str = "usr/sbin/pgbouncer";
