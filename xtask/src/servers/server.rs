//! One private server.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use super::{
    Kind, USER, ask,
    launch::{self, Site},
    place::{self, Unprivileged},
    process::Process,
    programs::Programs,
    record::{Record, clean, halt, kept_name},
    template,
    tls::Tls,
    watchdog::Watchdog,
};
use crate::ports;

/// How long a server may take to start or to stop, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server of a test's own, which the test may break. Dropped, it is stopped and removed.
///
/// It does not outlive the process that started it, even if that process is killed.
#[derive(Debug)]
pub struct Server {
    kind: Kind,
    programs: Programs,
    user: Option<Unprivileged>,
    site: Site,
    /// The server's directory below `target/servers`.
    home: PathBuf,
    child: Option<Running>,
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

#[derive(Debug)]
struct Running {
    child: Child,
    process: Process,
    watchdog: Option<Watchdog>,
}

impl Server {
    /// Starts a server of its own for the caller, and returns when it answers; about a second, the first time longer.
    ///
    /// # Errors
    ///
    /// When there are no programs of this kind to be had, or the server does not start; the end of its log is part of the
    /// message then.
    pub fn start(kind: Kind) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let own = Process::own()?;
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("extra-{}-{}-{count}-{}", own.pid, own.started, kind.id());
        Self::start_in(kind, &name, Fate::Guarded)
    }

    /// Starts a server that can be [kept](Self::keep).
    pub(crate) fn start_to_keep(kind: Kind) -> Result<Self> {
        Self::start_in(kind, &kept_name(kind), Fate::Unguarded)
    }

    fn start_in(kind: Kind, name: &str, fate: Fate) -> Result<Self> {
        let user = if kind == Kind::Postgres {
            Unprivileged::needed()?
        } else {
            None
        };
        let programs = Programs::find(kind)?;
        let home = place::servers()?.join(name);
        place::remove(&home)?;
        fs::create_dir(&home).with_context(|| format!("cannot create {}", home.display()))?;
        let run = place::create_run_directory()?;
        // A server that runs as another user keeps its data where that user gets to.
        let below_target = user.is_none() || place::reachable_by_all(&home);
        let data = if below_target {
            home.join("data")
        } else {
            run.join("data")
        };
        let mut server = Self {
            kind,
            programs,
            user,
            site: Site {
                run,
                data,
                port: ports::free()?,
            },
            home,
            child: None,
            fate,
            options: Vec::new(),
        };
        server
            .prepare()
            .and_then(|()| server.launch_anywhere())
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
            Some(tls) => tls.install(self.kind, &self.site.run, self.user)?,
            None => Tls::without(self.kind),
        };
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
        if self.child.is_some() {
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

    /// Leaves the server to the user: it outlives this value and this process.
    pub(crate) fn keep(mut self) {
        self.fate = Fate::Kept;
    }

    fn process(&self) -> Result<Process> {
        let running = self.child.as_ref();
        running
            .map(|running| running.process)
            .with_context(|| format!("{} does not run", self.kind))
    }

    /// Copies the programs, if need be, and the data.
    fn prepare(&mut self) -> Result<()> {
        self.write_record(None)?;
        let (run, home) = (self.site.run.clone(), self.home.clone());
        self.programs = self.programs.clone().reachable(self.user, &run)?;
        if let Some(user) = self.user {
            for directory in [&run, &home] {
                std::os::unix::fs::chown(directory, Some(user.uid), Some(user.gid))?;
            }
        }
        template::copy_to(&self.site.data, self.kind, &self.programs, &run, self.user)
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
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log())?;
        let mut command: Command = launch::start(self.kind, &self.programs, &self.site, self.user);
        let mut child = command
            .args(&self.options)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Out of reach of the terminal's Ctrl-C.
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot run {}", command.get_program().to_string_lossy()))?;
        let process = match Process::of(child.id()) {
            Ok(process) => process,
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(error);
            }
        };
        let watchdog = (self.fate == Fate::Guarded)
            .then(|| Watchdog::start(self.kind, process, [&self.site.run, &self.home]))
            .transpose();
        let mut running = Running {
            child,
            process,
            watchdog: None,
        };
        let outcome = watchdog.and_then(|watchdog| {
            running.watchdog = watchdog;
            self.write_record(Some(process))?;
            self.wait_until_ready(&mut running.child)
        });
        self.child = Some(running);
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

    fn wait_until_ready(&self, child: &mut Child) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let url = self.url();
        loop {
            if let Some(status) = child.try_wait()? {
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
        let process = self.process()?;
        if let Some(running) = &mut self.child {
            way(process)?;
            process.wait_for_end(PATIENCE)?;
            running.child.wait()?;
        }
        self.child = None;
        Ok(())
    }

    /// Ends the server at once, in the way that leaves least behind.
    fn halt(&mut self) -> Result<()> {
        if self.child.is_none() {
            return Ok(());
        }
        let kind = self.kind;
        self.end(|process| halt(kind, process))
    }

    /// The end of the server's log, to go into an error message.
    fn log_end(&self) -> String {
        let log = fs::read(self.log()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        let end = lines.len().saturating_sub(15);
        lines
            .get(end..)
            .unwrap_or_default()
            .iter()
            .fold(String::new(), |text, line| text + "\n  " + line)
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
