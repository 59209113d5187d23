//! `mysql_async`, without anything around it.

use anyhow::{Context, Result};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts, OptsBuilder, Params, Statement, Value};

/// Connects by TCP: the driver would turn from loopback to the server's socket, and so around a proxy.
pub(crate) async fn connect(url: &str) -> Result<Conn> {
    let (_, rest) = url.split_once("://").context("no URL of a server")?;
    let options = Opts::from_url(&format!("mysql://{rest}"))?;
    let options = OptsBuilder::from_opts(options).prefer_socket(false);
    Ok(Conn::new(options).await?)
}

/// A connection, with the statements prepared.
pub(crate) struct Raw {
    conn: Conn,
    one: Statement,
    lock: Statement,
    wait: Statement,
    unlock: Statement,
}

impl Raw {
    pub(crate) async fn connect(url: &str) -> Result<Raw> {
        let mut conn = connect(url).await?;
        Ok(Raw {
            one: conn.prep("SELECT 1").await?,
            lock: conn.prep("SELECT GET_LOCK(?, 0)").await?,
            wait: conn.prep("SELECT GET_LOCK(?, 60)").await?,
            unlock: conn.prep("SELECT RELEASE_LOCK(?)").await?,
            conn,
        })
    }

    /// One round trip that does nothing.
    pub(crate) async fn one(&mut self) -> Result<()> {
        let one: Option<i32> = self.conn.exec_first(&self.one, ()).await?;
        anyhow::ensure!(one == Some(1));
        Ok(())
    }

    pub(crate) async fn lock(&mut self, name: &str) -> Result<()> {
        let got: Option<Option<i32>> = self.conn.exec_first(&self.lock, (name,)).await?;
        anyhow::ensure!(got == Some(Some(1)), "{name} is not free");
        Ok(())
    }

    pub(crate) async fn wait(&mut self, name: &str) -> Result<()> {
        let got: Option<Option<i32>> = self.conn.exec_first(&self.wait, (name,)).await?;
        anyhow::ensure!(got == Some(Some(1)), "{name} was not granted");
        Ok(())
    }

    pub(crate) async fn unlock(&mut self, name: &str) -> Result<()> {
        let gave: Option<Option<i32>> = self.conn.exec_first(&self.unlock, (name,)).await?;
        anyhow::ensure!(gave == Some(Some(1)), "{name} was not held");
        Ok(())
    }

    /// One statement that calls `function` for each of the names; all of them must answer 1.
    pub(crate) async fn batch(&mut self, function: Batch, names: &[String]) -> Result<()> {
        let call = match function {
            Batch::Lock => "GET_LOCK(?, 0)",
            Batch::Unlock => "RELEASE_LOCK(?)",
        };
        let sql = format!("SELECT {}", vec![call; names.len()].join(", "));
        // The driver keeps the statements it has prepared.
        let names = names.iter().map(|name| Value::from(name.as_str()));
        let row: Option<mysql_async::Row> = self
            .conn
            .exec_first(sql, Params::Positional(names.collect()))
            .await?;
        let row = row.context("no answer")?;
        anyhow::ensure!((0..row.len()).all(|column| row.get(column) == Some(Some(1))));
        Ok(())
    }
}

/// What a batch does with each name.
#[derive(Clone, Copy)]
pub(crate) enum Batch {
    Lock,
    Unlock,
}
