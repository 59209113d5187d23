//! One private server.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use super::{
    FakeClock, Kind, USER, ask,
    daemon::{self, Daemon, PATIENCE},
    launch::{self, Site},
    place,
    process::Process,
    record::{Record, clean, halt, kept_name},
    setup::Plan,
    template,
    tls::Tls,
};
use crate::ports;

/// A server of a test's own, which the test may break. Dropped, it is stopped and removed.
///
/// It does not outlive the process that started it, even if that process is killed.
#[derive(Debug)]
pub struct Server {
    kind: Kind,
    plan: Plan,
    site: Site,
    /// The server's directory below `target/servers`.
    home: PathBuf,
    daemon: Option<Daemon>,
    fate: Fate,
    /// What it is started with beside the usual options.
    options: Vec<String>,
}

/// What becomes of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It ends with this value, and at the latest with this process.
    Guarded,
    /// It ends with this value, unless the value is kept.
    Unguarded,
    /// It is left to the user.
    Kept,
}

impl Server {
    /// Starts a server of its own for the caller, and returns when it answers; about a second, the first time longer.
    ///
    /// # Errors
    ///
    /// When there are no programs of this kind to be had, or the server does not start; the end of its log is part of the
    /// message then.
    pub fn start(kind: Kind) -> Result<Self> {
        Self::start_planned(Plan::new(kind)?, "")
    }

    /// Starts a server by a plan. `part` tells it from others of its kind, in names.
    pub(crate) fn start_planned(plan: Plan, part: &str) -> Result<Self> {
        let name = place::extra_name(&format!("{}{part}", plan.kind.id()))?;
        Self::start_in(plan, &name, Fate::Guarded)
    }

    /// Starts a server that can be [kept](Self::keep).
    pub(crate) fn start_to_keep(kind: Kind) -> Result<Self> {
        Self::start_in(Plan::new(kind)?, &kept_name(kind), Fate::Unguarded)
    }

    fn start_in(plan: Plan, name: &str, fate: Fate) -> Result<Self> {
        let kind = plan.kind;
        let home = place::servers()?.join(name);
        place::remove(&home)?;
        fs::create_dir(&home).with_context(|| format!("cannot create {}", home.display()))?;
        let run = place::create_run_directory()?;
        // A server that runs as another user keeps its data where that user gets to.
        let below_target = plan.user.is_none() || place::reachable_by_all(&home);
        let data = if below_target {
            home.join("data")
        } else {
            run.join("data")
        };
        let mut server = Self {
            kind,
            plan,
            site: Site {
                run,
                data,
                port: ports::free()?,
            },
            home,
            daemon: None,
            fate,
            options: Vec::new(),
        };
        server
            .prepare()
            .and_then(|()| server.launch_anywhere())
            .map(|()| server.plan.first_arguments.clear())
            .with_context(|| {
                format!(
                    "cannot start {kind} in {}{}",
                    server.home.display(),
                    server.log_end()
                )
            })?;
        Ok(server)
    }

    /// Which kind it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The URL of the application's account, by TCP.
    pub fn url(&self) -> String {
        self.kind.tcp_url(USER, self.site.port)
    }

    /// The URL of the administrator's account, by TCP.
    pub fn admin_url(&self) -> String {
        self.kind.tcp_url(self.kind.admin(), self.site.port)
    }

    /// The URL of the application's account, by the Unix socket.
    pub fn socket_url(&self) -> String {
        self.kind.socket_url(USER, &self.site.run, self.site.port)
    }

    /// The Unix socket: PostgreSQL's directory, or the file of MariaDB and MySQL.
    pub fn socket(&self) -> PathBuf {
        match self.kind {
            Kind::Postgres => self.site.run.clone(),
            Kind::MariaDb | Kind::MySql => self.site.run.join("s"),
        }
    }

    /// Where it listens; the same after each restart.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.site.port).into()
    }

    /// The file with the server's messages.
    pub fn log(&self) -> PathBuf {
        self.home.join("server.log")
    }

    /// Stops the server in good order and starts it again, on the same data and port.
    ///
    /// # Errors
    ///
    /// When it does not stop or start within a minute.
    pub fn restart(&mut self) -> Result<()> {
        self.stop()?;
        self.start_again()
    }

    /// Starts the server again, with this TLS; `None`: with none at all, not even what it would make for itself.
    ///
    /// # Errors
    ///
    /// When it does not stop or start within a minute.
    pub fn restart_with_tls(&mut self, tls: Option<&Tls>) -> Result<()> {
        self.stop()?;
        self.options = match tls {
            Some(tls) => tls.install(self.kind, &self.site.run, self.plan.user)?,
            None => Tls::without(self.kind),
        };
        self.start_again()
    }

    /// Starts the server again, with these options of its program beside the usual ones.
    ///
    /// # Errors
    ///
    /// When it does not stop or start within a minute.
    pub fn restart_with(&mut self, options: &[&str]) -> Result<()> {
        self.stop()?;
        self.options = options.iter().map(|&option| option.to_owned()).collect();
        self.start_again()
    }

    /// Stops the server in good order; its clients are cut off.
    ///
    /// # Errors
    ///
    /// When it does not stop within a minute.
    pub fn stop(&mut self) -> Result<()> {
        let signal = match self.kind {
            // "Fast": without waiting for the clients to leave.
            Kind::Postgres => Signal::INT,
            Kind::MariaDb | Kind::MySql => Signal::TERM,
        };
        self.end(|process| {
            process.thaw();
            process.signal(signal);
            Ok(())
        })
    }

    /// Kills (SIGKILL) the server, every process of it.
    ///
    /// # Errors
    ///
    /// When a process is still there after 10 seconds.
    pub fn kill(&mut self) -> Result<()> {
        self.end(Process::kill_tree)
    }

    /// Starts a server that was stopped or killed, on the same data and port.
    ///
    /// # Errors
    ///
    /// When it runs already, or does not answer within a minute.
    pub fn start_again(&mut self) -> Result<()> {
        if self.daemon.is_some() {
            bail!("{} runs already", self.kind);
        }
        // MySQL's note of the process that owned the socket.
        for leftover in ["s", "s.lock", "pid"] {
            let _ = fs::remove_file(self.site.run.join(leftover));
        }
        self.launch()
            .with_context(|| format!("cannot start {} again{}", self.kind, self.log_end()))
    }

    /// Stops (SIGSTOP) every process of the server: its connections stay open, and nothing answers.
    ///
    /// # Errors
    ///
    /// When the server does not run.
    pub fn freeze(&self) -> Result<()> {
        self.process()?.freeze();
        Ok(())
    }

    /// Lets a frozen server go on.
    ///
    /// # Errors
    ///
    /// When the server does not run.
    pub fn thaw(&self) -> Result<()> {
        self.process()?.thaw();
        Ok(())
    }

    /// Sets the false clock of a server that was started with one, and returns when it shows, to open sessions too.
    ///
    /// # Errors
    ///
    /// When the server was not started with [`Setup::clock`](super::Setup::clock).
    pub fn set_clock(&self, seconds_ahead: i64) -> Result<()> {
        if self.plan.clock.is_none() {
            bail!("this {} shows the machine's own clock", self.kind);
        }
        FakeClock::change(&self.site.run, seconds_ahead)
    }

    pub(crate) fn data(&self) -> &Path {
        &self.site.data
    }

    pub(crate) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Leaves the server to the user: it outlives this value and this process.
    pub(crate) fn keep(mut self) {
        self.fate = Fate::Kept;
    }

    fn process(&self) -> Result<Process> {
        let daemon = self.daemon.as_ref();
        daemon
            .map(Daemon::process)
            .with_context(|| format!("{} does not run", self.kind))
    }

    /// Copies the programs, if need be, and the data.
    fn prepare(&mut self) -> Result<()> {
        self.write_record(None)?;
        let (run, home) = (self.site.run.clone(), self.home.clone());
        let user = self.plan.user;
        self.plan.programs = self.plan.programs.clone().reachable(user, &run)?;
        if let Some(user) = user {
            for directory in [&run, &home] {
                std::os::unix::fs::chown(directory, Some(user.uid), Some(user.gid))?;
            }
        }
        match &self.plan.seed {
            Some(seed) => place::copy(seed, &self.site.data)?,
            None => template::copy_to(&self.site.data, self.kind, &self.plan.programs, &run, user)?,
        }
        for (name, text) in &self.plan.files {
            let path = self.site.data.join(name);
            fs::write(&path, text)?;
            if let Some(user) = user {
                std::os::unix::fs::chown(&path, Some(user.uid), Some(user.gid))?;
            }
        }
        Ok(())
    }

    /// Starts the server on the chosen port, or on others when somebody took it meanwhile.
    fn launch_anywhere(&mut self) -> Result<()> {
        let mut attempts = 1;
        loop {
            match self.launch() {
                Err(_) if attempts < 4 && self.log_end().contains("in use") => {
                    attempts += 1;
                    self.site.port = ports::free()?;
                }
                outcome => return outcome,
            }
        }
    }

    fn launch(&mut self) -> Result<()> {
        let plan = &self.plan;
        let mut command = launch::start(self.kind, &plan.programs, &self.site, plan.user);
        command
            .args(&plan.arguments)
            .args(&plan.first_arguments)
            .args(&self.options)
            .envs(plan.environment.iter().map(|(name, value)| (name, value)));
        if let Some(clock) = &plan.clock {
            clock.show_by_file(&mut command, &self.site.run)?;
        }
        let guarded = (self.fate == Fate::Guarded)
            .then_some((self.kind, [self.site.run.as_path(), self.home.as_path()]));
        let mut daemon = Daemon::spawn(command, &self.log(), guarded)?;
        let outcome = self
            .write_record(Some(daemon.process()))
            .and_then(|()| self.wait_until_ready(&mut daemon));
        self.daemon = Some(daemon);
        if outcome.is_err() {
            self.halt()?;
        }
        outcome
    }

    /// Notes what another process needs to remove the server, whatever becomes of this one.
    fn write_record(&self, process: Option<Process>) -> Result<()> {
        let record = Record {
            kind: self.kind,
            process,
            site: self.site.clone(),
            home: self.home.clone(),
        };
        record.write()
    }

    fn wait_until_ready(&self, daemon: &mut Daemon) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let url = self.url();
        loop {
            if let Some(status) = daemon.ended()? {
                bail!("the server ended ({status})");
            }
            let answer = ask::version_within(&url, Duration::from_secs(5));
            match answer {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() > deadline => {
                    return Err(error.context(format!("no answer within {PATIENCE:?}")));
                }
                Err(_) => thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// Ends the server in the given way and waits for it.
    fn end(&mut self, way: impl FnOnce(Process) -> Result<()>) -> Result<()> {
        self.process()?;
        if let Some(daemon) = &mut self.daemon {
            daemon.end(way)?;
        }
        self.daemon = None;
        Ok(())
    }

    /// Ends the server at once, in the way that leaves least behind.
    fn halt(&mut self) -> Result<()> {
        if self.daemon.is_none() {
            return Ok(());
        }
        let kind = self.kind;
        self.end(|process| halt(kind, process))
    }

    /// The end of the server's log, to go into an error message.
    fn log_end(&self) -> String {
        daemon::log_end(&self.log())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.fate == Fate::Kept {
            return;
        }
        if let Err(error) = self.halt().and_then(|()| clean(&self.site, &self.home)) {
            eprintln!("{} was not removed: {error:#}", self.kind);
        }
    }
}
