//! The server under measurement, and what it counts itself.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use mysql_async::prelude::Queryable;
use tokio::sync::Mutex;
use xtask::servers::Kind;

/// A server, and a connection to ask it what it counted.
pub(crate) struct Server {
    pub(crate) kind: Kind,
    url: String,
    counter: Counter,
}

enum Counter {
    /// In a database of its own, so that its statements are not among those it counts.
    Postgres(tokio_postgres::Client),
    MySql(Mutex<mysql_async::Conn>),
}

impl Server {
    pub(crate) async fn reach(kind: Kind) -> Result<Server> {
        let (url, admin) = (kind.url()?, kind.admin_url()?);
        let counter = match kind {
            Kind::Postgres => {
                let mut config: tokio_postgres::Config = admin.parse()?;
                config.dbname("postgres");
                let (client, connection) = config.connect(tokio_postgres::NoTls).await?;
                tokio::spawn(connection);
                client.batch_execute("SET log_statement = 'none'").await?;
                Counter::Postgres(client)
            }
            Kind::MariaDb | Kind::MySql => {
                Counter::MySql(Mutex::new(crate::floor::mysql::connect(&admin).await?))
            }
        };
        Ok(Server { kind, url, counter })
    }

    /// The URL of the application's account.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn name(&self) -> String {
        self.kind.to_string()
    }

    /// How many connections of clients there are, the counting one apart.
    pub(crate) async fn connections(&self) -> Result<u64> {
        match &self.counter {
            Counter::Postgres(client) => {
                let sql = "SELECT count(*) - 1 FROM pg_stat_activity WHERE backend_type = 'client backend'";
                let count: i64 = client.query_one(sql, &[]).await?.try_get(0)?;
                Ok(count.try_into()?)
            }
            Counter::MySql(_) => Ok(self.status("Threads_connected").await?.saturating_sub(1)),
        }
    }

    /// The same, when those that were given up before are gone.
    pub(crate) async fn settled_connections(&self) -> Result<u64> {
        let mut seen = self.connections().await?;
        let mut quiet = 0;
        while quiet < 5 {
            tokio::time::sleep(Duration::from_millis(200)).await;
            let now = self.connections().await?;
            quiet = if now == seen { quiet + 1 } else { 0 };
            seen = now;
        }
        Ok(seen)
    }

    /// Whether statements are counted: PostgreSQL does that by writing each into its log.
    pub(crate) async fn count_statements(&self, count: bool) -> Result<()> {
        if let Counter::Postgres(client) = &self.counter {
            let sql = if count {
                "ALTER SYSTEM SET log_statement = 'all'"
            } else {
                "ALTER SYSTEM RESET log_statement"
            };
            client.batch_execute(sql).await?;
            client.batch_execute("SELECT pg_reload_conf()").await?;
            // The sessions hear of it by a signal.
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        Ok(())
    }

    /// How many statements it has carried out. MySQL and MariaDB count this question too.
    pub(crate) async fn statements(&self) -> Result<u64> {
        match &self.counter {
            Counter::Postgres(client) => {
                // The first line is the number of the server's process, whose errors go to the log.
                let sql = "SELECT split_part(pg_read_file('postmaster.pid'), E'\n', 1)";
                let pid: String = client.query_one(sql, &[]).await?.try_get(0)?;
                let log = std::fs::read(format!("/proc/{pid}/fd/2"))
                    .context("the server's log cannot be read here")?;
                let log = String::from_utf8_lossy(&log);
                let is_statement = |line: &&str| {
                    line.contains("LOG:  execute ") || line.contains("LOG:  statement: ")
                };
                Ok(log.lines().filter(is_statement).count().try_into()?)
            }
            Counter::MySql(_) => self.status("Questions").await,
        }
    }

    /// What a look at the statements adds to them.
    pub(crate) fn looking_adds(&self) -> u64 {
        match self.counter {
            Counter::Postgres(_) => 0,
            Counter::MySql(_) => 1,
        }
    }

    /// The time that the sessions of the application's account have spent on a processor; `None` where the server does
    /// not tell their processes.
    pub(crate) async fn cpu(&self) -> Result<Option<Duration>> {
        let Counter::Postgres(client) = &self.counter else {
            return Ok(None);
        };
        let sql = "SELECT pid FROM pg_stat_activity WHERE usename = $1";
        let mut nanoseconds = 0;
        for row in client.query(sql, &[&xtask::servers::USER]).await? {
            let pid: i32 = row.try_get(0)?;
            nanoseconds += on_processor(Path::new(&format!("/proc/{pid}")))?;
        }
        Ok(Some(Duration::from_nanos(nanoseconds)))
    }

    /// The same, and where sessions are threads, the time of the whole server.
    pub(crate) async fn busy(&self) -> Result<Duration> {
        if let Some(sessions) = self.cpu().await? {
            return Ok(sessions);
        }
        let rows = self.rows("SELECT @@pid_file").await?;
        let file: Option<String> = rows.first().and_then(|row| row.get(0));
        let file = file.context("the server does not tell its pid_file")?;
        let pid = std::fs::read_to_string(file)?;
        let mut nanoseconds = 0;
        for thread in std::fs::read_dir(format!("/proc/{}/task", pid.trim()))? {
            // One that has ended meanwhile did not work much.
            nanoseconds += on_processor(&thread?.path()).unwrap_or(0);
        }
        Ok(Duration::from_nanos(nanoseconds))
    }

    /// How many sessions wait for a lock.
    pub(crate) async fn waiting(&self) -> Result<usize> {
        match &self.counter {
            Counter::Postgres(client) => {
                let sql =
                    "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted";
                let count: i64 = client.query_one(sql, &[]).await?.try_get(0)?;
                Ok(count.try_into()?)
            }
            Counter::MySql(_) => {
                let rows = self.rows("SHOW PROCESSLIST").await?;
                let waits = |row: &&mysql_async::Row| {
                    row.get_opt::<String, _>("State")
                        .is_some_and(|state| state.is_ok_and(|state| state == "User lock"))
                };
                Ok(rows.iter().filter(waits).count())
            }
        }
    }

    /// Ends every session of the application's account, as an administrator does. How many there were.
    pub(crate) async fn kill_all(&self) -> Result<usize> {
        match &self.counter {
            Counter::Postgres(client) => {
                let sql =
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1";
                Ok(client.query(sql, &[&xtask::servers::USER]).await?.len())
            }
            Counter::MySql(connection) => {
                let mut killed = 0;
                for row in self.rows("SHOW PROCESSLIST").await? {
                    let user: String = row.get("User").context("no user in the process list")?;
                    let id: u64 = row.get("Id").context("no id in the process list")?;
                    if user == xtask::servers::USER {
                        let mut connection = connection.lock().await;
                        connection.query_drop(format!("KILL {id}")).await?;
                        killed += 1;
                    }
                }
                Ok(killed)
            }
        }
    }

    async fn rows(&self, sql: &str) -> Result<Vec<mysql_async::Row>> {
        match &self.counter {
            Counter::MySql(connection) => Ok(connection.lock().await.query(sql).await?),
            Counter::Postgres(_) => bail!("{sql} is not a statement of PostgreSQL"),
        }
    }

    async fn status(&self, name: &str) -> Result<u64> {
        let rows = self
            .rows(&format!("SHOW GLOBAL STATUS LIKE '{name}'"))
            .await?;
        let value: Option<String> = rows.first().and_then(|row| row.get(1));
        Ok(value
            .with_context(|| format!("the server does not tell {name}"))?
            .parse()?)
    }
}

/// The nanoseconds that a process's first thread, or a thread, has spent on a processor. `task`: its folder in `/proc`.
fn on_processor(task: &Path) -> Result<u64> {
    let told = std::fs::read_to_string(task.join("schedstat"))?;
    Ok(told.split(' ').next().unwrap_or_default().parse()?)
}
