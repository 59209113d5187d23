//! tokio-postgres, without anything around it.

use std::sync::Arc;

use anyhow::Result;
use tokio_postgres::{Client, NoTls, Statement};

/// A connection, with the statements prepared.
pub(crate) struct Raw {
    client: Client,
    one: Statement,
    lock: Statement,
    wait: Statement,
    unlock: Statement,
}

impl Raw {
    pub(crate) async fn connect(url: &str) -> Result<Arc<Raw>> {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
        tokio::spawn(connection);
        Ok(Arc::new(Raw {
            one: client.prepare("SELECT 1").await?,
            lock: client.prepare("SELECT pg_try_advisory_lock($1)").await?,
            wait: client.prepare("SELECT pg_advisory_lock($1)").await?,
            unlock: client.prepare("SELECT pg_advisory_unlock($1)").await?,
            client,
        }))
    }

    /// One round trip that does nothing.
    pub(crate) async fn one(&self) -> Result<()> {
        let one: i32 = self.client.query_one(&self.one, &[]).await?.try_get(0)?;
        anyhow::ensure!(one == 1);
        Ok(())
    }

    pub(crate) async fn lock(&self, key: i64) -> Result<()> {
        anyhow::ensure!(self.ask(&self.lock, key).await?, "{key} is not free");
        Ok(())
    }

    pub(crate) async fn wait(&self, key: i64) -> Result<()> {
        self.client.query_one(&self.wait, &[&key]).await?;
        Ok(())
    }

    pub(crate) async fn unlock(&self, key: i64) -> Result<()> {
        anyhow::ensure!(self.ask(&self.unlock, key).await?, "{key} was not held");
        Ok(())
    }

    async fn ask(&self, statement: &Statement, key: i64) -> Result<bool> {
        Ok(self
            .client
            .query_one(statement, &[&key])
            .await?
            .try_get(0)?)
    }
}
