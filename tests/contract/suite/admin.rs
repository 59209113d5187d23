//! The server's own view: who holds what, who waits, asked on a connection that is not dlock's.

use std::sync::Mutex;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use mysql_async::prelude::Queryable;
use mysql_async::{Opts, OptsBuilder, Value};
use tokio_postgres::{NoTls, SimpleQueryMessage};

use crate::place::Family;

/// A row as text.
pub(crate) type Row = Vec<Option<String>>;

/// How long the server may take to answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// A connection of the administrator, opened with the first question and again when it was lost.
pub(crate) struct Admin {
    family: Family,
    asking: Mutex<mpsc::Sender<Question>>,
}

struct Question {
    sql: String,
    reply: mpsc::Sender<Result<Vec<Row>>>,
}

enum Connection {
    Postgres(tokio_postgres::Client),
    MySql(mysql_async::Conn),
}

impl Admin {
    pub(crate) fn new(family: Family, url: String) -> Admin {
        let (asking, questions) = mpsc::channel::<Question>();
        // A thread of its own: the tests ask from inside of runtimes and from outside.
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .expect("a runtime for the administrator");
            let mut connection = None;
            for Question { sql, reply } in questions {
                let answer = runtime.block_on(async {
                    let asked = ask(&mut connection, family, &url, &sql);
                    match tokio::time::timeout(PATIENCE, asked).await {
                        Ok(answer) => answer,
                        Err(_) => Err(anyhow!("no answer within {PATIENCE:?}")),
                    }
                });
                if answer.is_err() {
                    connection = None;
                }
                let _ =
                    reply.send(answer.with_context(|| format!("the administrator asked: {sql}")));
            }
        });
        Admin {
            family,
            asking: Mutex::new(asking),
        }
    }

    /// Runs one statement.
    pub(crate) fn rows(&self, sql: &str) -> Result<Vec<Row>> {
        let (reply, answer) = mpsc::channel();
        let sql = sql.to_owned();
        self.asking
            .lock()
            .expect("the administrator")
            .send(Question { sql, reply })?;
        answer.recv()?
    }

    fn numbers(&self, sql: &str) -> Vec<i64> {
        let rows = self.rows(sql).expect("the server's own view");
        rows.into_iter()
            .filter_map(|row| row.into_iter().next().flatten())
            .map(|text| text.parse().expect("a number"))
            .collect()
    }

    /// The sessions of an account (MySQL and MariaDB) or of an application (PostgreSQL), by number.
    pub(crate) fn sessions(&self, which: &str) -> Vec<i64> {
        match self.family {
            Family::Postgres => {
                self.numbers(&format!("SELECT pid FROM pg_stat_activity WHERE {which}"))
            }
            Family::MySql => self.processes(which, |_| true),
        }
    }

    /// Those of them that wait in the server's queue for a lock.
    pub(crate) fn waiters(&self, which: &str) -> Vec<i64> {
        match self.family {
            Family::Postgres => self.numbers(&format!(
                "SELECT pid FROM pg_locks JOIN pg_stat_activity USING (pid)
                 WHERE locktype = 'advisory' AND NOT granted AND {which}"
            )),
            Family::MySql => self.processes(which, |state| state == "User lock"),
        }
    }

    /// Those that wait for a row. The view of `InnoDB`'s transactions does not change while it is asked often: here the
    /// statement shows, which takes no time otherwise.
    pub(crate) fn writers(&self, which: &str) -> Vec<i64> {
        match self.family {
            Family::Postgres => self.numbers(&format!(
                "SELECT pid FROM pg_locks JOIN pg_stat_activity USING (pid)
                 WHERE locktype IN ('transactionid', 'tuple') AND NOT granted AND {which}"
            )),
            Family::MySql => self.processes(which, |state| state.eq_ignore_ascii_case("update")),
        }
    }

    /// The sessions of an account whose state suits. Not from `information_schema`: MariaDB 10.11 makes a table on disk
    /// for each such question, and has crashed under many of them.
    fn processes(&self, account: &str, suits: impl Fn(&str) -> bool) -> Vec<i64> {
        let rows = self
            .rows("SHOW FULL PROCESSLIST")
            .expect("the server's own view");
        let text =
            |row: &Row, column: usize| row.get(column).cloned().flatten().unwrap_or_default();
        rows.iter()
            .filter(|row| text(row, 1) == account && suits(&text(row, 6)))
            .map(|row| text(row, 0).parse().expect("a number"))
            .collect()
    }

    /// The sessions that hold a lock, by the lock's documented name.
    pub(crate) fn holders(&self, lock: &str) -> Vec<i64> {
        self.numbers(&match self.family {
            Family::Postgres => format!(
                "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1
                 AND (classid::bigint << 32) | objid::bigint = {lock}"
            ),
            Family::MySql => format!("SELECT IS_USED_LOCK('{lock}')"),
        })
    }

    /// The rows of leases in a namespace: key, owner, token, readers, waiters, end, and the present time.
    pub(crate) fn lease_rows(&self, namespace: &str) -> Result<Vec<Row>> {
        self.rows(&match self.family {
            Family::Postgres => format!(
                "SELECT name, owner, token, readers, waiters, (extract(epoch FROM expires_at) * 1000000)::int8,
                    (extract(epoch FROM clock_timestamp()) * 1000000)::int8
                 FROM public.dlock_lease WHERE namespace = '{namespace}'"
            ),
            Family::MySql => format!(
                "SELECT name, owner, token, readers, waiters, expires_at,
                    TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))
                 FROM dlock_lease WHERE namespace = '{namespace}'"
            ),
        })
    }

    /// Takes a lock for the administrator, without waiting.
    pub(crate) fn try_lock(&self, lock: &str) -> bool {
        let rows = self
            .rows(&match self.family {
                Family::Postgres => format!("SELECT pg_try_advisory_lock({lock})::int"),
                Family::MySql => format!("SELECT GET_LOCK('{lock}', 0)"),
            })
            .expect("a try by the administrator");
        rows[0][0].as_deref() == Some("1")
    }

    /// Gives the administrator's lock back.
    pub(crate) fn unlock(&self, lock: &str) {
        self.rows(&match self.family {
            Family::Postgres => format!("SELECT pg_advisory_unlock({lock})"),
            Family::MySql => format!("SELECT RELEASE_LOCK('{lock}')"),
        })
        .expect("a release by the administrator");
    }

    /// Ends a session. One that has ended by itself is no error.
    pub(crate) fn kill(&self, session: i64) {
        let _ = self.rows(&match self.family {
            Family::Postgres => format!("SELECT pg_terminate_backend({session})"),
            Family::MySql => format!("KILL {session}"),
        });
    }
}

async fn ask(
    connection: &mut Option<Connection>,
    family: Family,
    url: &str,
    sql: &str,
) -> Result<Vec<Row>> {
    if connection.is_some() {
        // It may have died with a server that runs again.
        if let Ok(rows) = ask_once(connection, sql).await {
            return Ok(rows);
        }
    }
    *connection = Some(connect(family, url).await?);
    ask_once(connection, sql).await
}

async fn ask_once(connection: &mut Option<Connection>, sql: &str) -> Result<Vec<Row>> {
    match connection.as_mut().context("connected just now")? {
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
            Ok(rows.collect())
        }
        Connection::MySql(connection) => {
            let rows: Vec<mysql_async::Row> = connection.query(sql).await?;
            Ok(rows
                .into_iter()
                .map(|row| row.unwrap().into_iter().map(text).collect())
                .collect())
        }
    }
}

async fn connect(family: Family, url: &str) -> Result<Connection> {
    match family {
        Family::Postgres => {
            let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
            tokio::spawn(connection);
            Ok(Connection::Postgres(client))
        }
        Family::MySql => {
            let (_, rest) = url.split_once("://").context("a URL")?;
            let options = Opts::from_url(&format!("mysql://{rest}"))?;
            let options = OptsBuilder::from_opts(options).prefer_socket(false);
            Ok(Connection::MySql(mysql_async::Conn::new(options).await?))
        }
    }
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
