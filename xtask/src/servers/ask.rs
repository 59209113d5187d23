//! Asks a running server what it is, or anything else.

use std::{future::Future, thread, time::Duration};

use anyhow::{Context, Result, anyhow};
use mysql_async::{Value, prelude::Queryable};
use tokio_postgres::SimpleQueryMessage;

/// How long one question may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Asks the server behind `url` for its version, on a fresh connection.
///
/// `url` is a `postgres://`, `postgresql://`, `mysql://` or `mariadb://` URL. Usable inside and outside of an async runtime.
///
/// # Errors
///
/// When the server cannot be reached within 10 seconds or refuses the account.
pub fn version(url: &str) -> Result<String> {
    version_within(url, PATIENCE)
}

pub(crate) fn version_within(url: &str, patience: Duration) -> Result<String> {
    match url.split_once("://") {
        Some(("postgres" | "postgresql", _)) => wait_for(patience, postgres(url)),
        Some(("mysql" | "mariadb", rest)) => wait_for(patience, mysql(format!("mysql://{rest}"))),
        _ => Err(anyhow!(
            "a server's URL must start with postgres://, mysql:// or mariadb://"
        )),
    }
}

/// A row of an answer, as text.
pub type Row = Vec<Option<String>>;

/// Runs one statement on a fresh connection, and returns what the server answers.
///
/// `url` as for [`version`]. Usable inside and outside of an async runtime.
///
/// # Errors
///
/// When the server cannot be reached within 10 seconds, or refuses the account or the statement.
pub fn rows(url: &str, sql: &str) -> Result<Vec<Row>> {
    let answer = match url.split_once("://") {
        Some(("postgres" | "postgresql", _)) => wait_for(PATIENCE, postgres_rows(url, sql)),
        Some(("mysql" | "mariadb", rest)) => {
            wait_for(PATIENCE, mysql_rows(format!("mysql://{rest}"), sql))
        }
        _ => Err(anyhow!(
            "a server's URL must start with postgres://, mysql:// or mariadb://"
        )),
    };
    answer.with_context(|| format!("the statement was: {sql}"))
}

async fn postgres_rows(url: &str, sql: &str) -> Result<Vec<Row>> {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await?;
    let connection = tokio::spawn(connection);
    let messages = client.simple_query(sql).await?;
    drop(client);
    connection.await??;
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => {
            let columns = (0..row.len()).map(|column| row.get(column).map(str::to_owned));
            Some(columns.collect())
        }
        _ => None,
    });
    Ok(rows.collect())
}

async fn mysql_rows(url: String, sql: &str) -> Result<Vec<Row>> {
    let mut connection = mysql_async::Conn::new(mysql_options(&url)?).await?;
    let rows: Vec<mysql_async::Row> = connection.query(sql).await?;
    connection.disconnect().await?;
    let text = |value| match value {
        Value::NULL => None,
        Value::Bytes(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
        other => Some(other.as_sql(true)),
    };
    Ok(rows
        .into_iter()
        .map(|row| row.unwrap().into_iter().map(text).collect())
        .collect())
}

/// The driver would turn from loopback to the server's socket, and so around a proxy.
fn mysql_options(url: &str) -> Result<mysql_async::OptsBuilder> {
    let options = mysql_async::Opts::from_url(url)?;
    Ok(mysql_async::OptsBuilder::from_opts(options).prefer_socket(false))
}

/// Runs one statement on a fresh connection and returns one value as text: the first of the first row on PostgreSQL; on
/// MySQL and MariaDB the last of the last row, or an empty text.
///
/// # Errors
///
/// When the server cannot be reached within 10 seconds, or refuses the statement.
pub fn value(url: &str, sql: &str) -> Result<String> {
    match url.split_once("://") {
        Some(("mysql" | "mariadb", rest)) => {
            wait_for(PATIENCE, mysql_value(format!("mysql://{rest}"), sql))
        }
        _ => wait_for(PATIENCE, postgres_value(url, sql)),
    }
}

async fn postgres(url: &str) -> Result<String> {
    let version = postgres_value(url, "SELECT version()").await?;
    // The rest names the compiler.
    Ok(version.split(" on ").next().unwrap_or(&version).to_owned())
}

/// The first value of the first row, asked without a prepared statement: those meet in the session of a pooler.
async fn postgres_value(url: &str, sql: &str) -> Result<String> {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await?;
    let connection = tokio::spawn(connection);
    let answer = client.simple_query(sql).await?;
    drop(client);
    connection.await??;
    let value = answer.iter().find_map(|message| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => Some(row.get(0).map(str::to_owned)),
        _ => None,
    });
    value.flatten().context("the server returned no value")
}

/// The last column of the last row, which is the value of a `SHOW STATUS`; else an empty text.
async fn mysql_value(url: String, sql: &str) -> Result<String> {
    let options = mysql_async::Opts::from_url(&url)?;
    let options = mysql_async::OptsBuilder::from_opts(options).prefer_socket(false);
    let mut connection = mysql_async::Conn::new(options).await?;
    let mut answers = connection.query_iter(sql).await?;
    let mut rows: Vec<mysql_async::Row> = Vec::new();
    // One set of rows for each statement.
    while !answers.is_empty() {
        rows.extend(answers.collect::<mysql_async::Row>().await?);
    }
    drop(answers);
    connection.disconnect().await?;
    let row = rows.into_iter().next_back();
    let last = row.and_then(|row| row.get_opt::<String, _>(row.len().saturating_sub(1)));
    Ok(last.transpose()?.unwrap_or_default())
}

async fn mysql(url: String) -> Result<String> {
    let mut connection = mysql_async::Conn::new(mysql_options(&url)?).await?;
    let row: Option<(String, String)> = connection
        .query_first("SELECT @@version, @@version_comment")
        .await?;
    connection.disconnect().await?;
    let (version, comment) = row.context("the server returned no version")?;
    let maker = if version.contains("MariaDB") {
        "MariaDB"
    } else {
        "MySQL"
    };
    Ok(format!("{maker} {version} ({comment})"))
}

/// Runs a question on a thread of its own: the caller may be inside a runtime, where another must not start.
fn wait_for<T: Send>(
    patience: Duration,
    question: impl Future<Output = Result<T>> + Send,
) -> Result<T> {
    thread::scope(|scope| {
        let asking = scope.spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(async move {
                tokio::time::timeout(patience, question)
                    .await
                    .map_err(|_| anyhow!("the server gave no answer within {patience:?}"))?
            })
        });
        asking
            .join()
            .map_err(|_| anyhow!("asking the server panicked"))?
    })
}
