//! The administrator's own way to the server.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use mysql_async::prelude::Queryable;
use mysql_async::{Opts, OptsBuilder, Value};
use tokio::runtime::Runtime;
use tokio_postgres::{NoTls, SimpleQueryMessage};
use xtask::servers::Kind;

use super::site::ACCOUNT;

/// How long the server may take to answer.
const PATIENCE: Duration = Duration::from_secs(20);

type Row = Vec<Option<String>>;

/// Asks a server, by a new connection each time: the nemesis breaks the old ones.
pub(super) struct Admin {
    kind: Kind,
    url: String,
    runtime: Runtime,
}

/// A connection that stays.
pub(super) enum Connection {
    Postgres(tokio_postgres::Client),
    MySql(mysql_async::Conn),
}

impl Admin {
    pub(super) fn new(kind: Kind, url: String) -> Result<Admin> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        Ok(Admin { kind, url, runtime })
    }

    /// Asks the server behind this URL from now on.
    pub(super) fn goes_to(&mut self, url: String) {
        self.url = url;
    }

    pub(super) fn ask(&mut self, sql: &str) -> Result<Vec<Row>> {
        let mut connection = self.connect()?;
        let rows = self.ask_on(&mut connection, sql);
        self.close(connection);
        rows
    }

    pub(super) fn connect(&mut self) -> Result<Connection> {
        let (kind, url) = (self.kind, self.url.clone());
        let connecting = async move {
            if kind == Kind::Postgres {
                let (client, connection) = tokio_postgres::connect(&url, NoTls).await?;
                tokio::spawn(connection);
                return anyhow::Ok(Connection::Postgres(client));
            }
            let (_, rest) = url.split_once("://").context("a URL")?;
            let options = Opts::from_url(&format!("mysql://{rest}"))?;
            let options = OptsBuilder::from_opts(options).prefer_socket(false);
            Ok(Connection::MySql(mysql_async::Conn::new(options).await?))
        };
        self.within(connecting)
            .context("the administrator connects")
    }

    pub(super) fn ask_on(&mut self, connection: &mut Connection, sql: &str) -> Result<Vec<Row>> {
        let asked = async {
            match connection {
                Connection::Postgres(client) => {
                    let messages = client.simple_query(sql).await?;
                    let rows = messages.iter().filter_map(|message| match message {
                        SimpleQueryMessage::Row(row) => Some(
                            (0..row.len())
                                .map(|column| row.get(column).map(str::to_owned))
                                .collect(),
                        ),
                        _ => None,
                    });
                    anyhow::Ok(rows.collect())
                }
                Connection::MySql(connection) => {
                    let rows: Vec<mysql_async::Row> = connection.query(sql).await?;
                    let row = |row: mysql_async::Row| row.unwrap().into_iter().map(text).collect();
                    Ok(rows.into_iter().map(row).collect())
                }
            }
        };
        self.within(asked)
            .with_context(|| format!("the administrator asked: {sql}"))
    }

    pub(super) fn close(&mut self, connection: Connection) {
        let closing = async {
            if let Connection::MySql(connection) = connection {
                connection.disconnect().await?;
            }
            anyhow::Ok(())
        };
        // What could not be said goodbye to is gone as well.
        let _ = self.within(closing);
    }

    fn within<T>(&self, asked: impl Future<Output = Result<T>>) -> Result<T> {
        self.runtime.block_on(async {
            match tokio::time::timeout(PATIENCE, asked).await {
                Ok(answer) => answer,
                Err(_) => bail!("no answer within {PATIENCE:?}"),
            }
        })
    }

    /// Ends the session of the client with this port.
    pub(super) fn end_session(&mut self, port: u16) -> Result<()> {
        if self.kind == Kind::Postgres {
            self.ask(&format!(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE client_port = {port}"
            ))?;
            return Ok(());
        }
        let rows = self.ask("SHOW FULL PROCESSLIST")?;
        let suffix = format!(":{port}");
        for row in rows {
            if let [Some(id), _, Some(host), ..] = row.as_slice()
                && host.ends_with(&suffix)
            {
                // It may have ended by itself.
                let _ = self.ask(&format!("KILL {id}"));
            }
        }
        Ok(())
    }

    /// Lets no more connections in, until they are [let in](Self::let_connections_in) again. The connection that can say so
    /// has to be there already.
    pub(super) fn refuse_connections(&mut self) -> Result<Connection> {
        let mut connection = self.connect()?;
        let refuse = match self.kind {
            Kind::Postgres => format!("ALTER ROLE {ACCOUNT} CONNECTION LIMIT 0"),
            _ => "SET GLOBAL max_connections = 10".to_owned(),
        };
        self.ask_on(&mut connection, &refuse)?;
        Ok(connection)
    }

    /// Lets connections in again.
    pub(super) fn let_connections_in(&mut self, mut connection: Connection) -> Result<()> {
        let accept = match self.kind {
            Kind::Postgres => format!("ALTER ROLE {ACCOUNT} CONNECTION LIMIT -1"),
            _ => "SET GLOBAL max_connections = 200".to_owned(),
        };
        self.ask_on(&mut connection, &accept)?;
        self.close(connection);
        Ok(())
    }

    /// Takes what is left of PostgreSQL's lock table, for as long as the connection lives.
    pub(super) fn fill_lock_table(&mut self) -> Result<Connection> {
        let mut connection = self.connect()?;
        let all = "SELECT count(pg_advisory_lock(77, n)) FROM generate_series(1, 1000000) AS n";
        match self.ask_on(&mut connection, all) {
            Ok(_) => bail!("the lock table has room for a million locks"),
            // What was taken before the error stays.
            Err(_) => Ok(connection),
        }
    }

    /// What the server has of the workers' locks, where it can tell: granted, and waited for.
    pub(super) fn locks(&mut self) -> Result<Vec<(String, usize)>> {
        if self.kind != Kind::Postgres {
            return Ok(Vec::new());
        }
        let rows = self.ask(
            "SELECT count(*) FILTER (WHERE granted), count(*) FILTER (WHERE NOT granted)
             FROM pg_locks WHERE locktype = 'advisory'",
        )?;
        let counts = rows.first().context("a row of counts")?;
        let names = ["advisory locks", "waiters"];
        let counted =
            |(name, text): (&str, &Option<String>)| Ok((name.to_owned(), count(text.as_ref())?));
        names.into_iter().zip(counts).map(counted).collect()
    }

    /// How many keys have a holder in the table of leases.
    pub(super) fn held(&mut self) -> Result<usize> {
        let rows = self.ask(HELD)?;
        count(rows.first().and_then(|row| row.first()?.as_ref()))
    }

    /// How many sessions the server has of the workers.
    pub(super) fn sessions(&mut self) -> Result<usize> {
        let (sql, column) = if self.kind == Kind::Postgres {
            ("SELECT usename FROM pg_stat_activity", 0)
        } else {
            ("SHOW FULL PROCESSLIST", 1)
        };
        let rows = self.ask(sql)?;
        let ours = rows.iter().filter(|row| {
            let user = row.get(column).and_then(Option::as_deref);
            user == Some(ACCOUNT)
        });
        Ok(ours.count())
    }
}

/// Counts the leases that somebody holds, or has left without a release.
pub(super) const HELD: &str =
    "SELECT count(*) FROM dlock_lease WHERE owner <> '' OR readers <> '{}'";

fn count(text: Option<&String>) -> Result<usize> {
    Ok(text.context("a count")?.parse()?)
}

fn text(value: Value) -> Option<String> {
    match value {
        Value::NULL => None,
        Value::Bytes(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
        Value::Int(number) => Some(number.to_string()),
        Value::UInt(number) => Some(number.to_string()),
        other => Some(other.as_sql(true)),
    }
}
