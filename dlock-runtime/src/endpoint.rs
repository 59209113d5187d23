//! Where the server is and how it is spoken to: what a DSN becomes.

use std::sync::Arc;

/// A server, or the memory of this process.
#[derive(Clone)]
pub(crate) enum Endpoint {
    #[cfg(feature = "postgres")]
    Postgres(Box<PostgresEndpoint>),
    #[cfg(feature = "mysql")]
    MySql(Box<MySqlEndpoint>),
    /// `memory:` (private to the locker) or `memory:name` (shared by the lockers of this process that name it).
    Memory { name: Option<Arc<str>> },
}

/// A PostgreSQL server.
#[cfg(feature = "postgres")]
#[derive(Clone)]
pub(crate) struct PostgresEndpoint {
    pub(crate) config: tokio_postgres::Config,
    /// Host and port, or the path of the socket: without user and password.
    pub(crate) address: Arc<str>,
}

#[cfg(feature = "postgres")]
impl PostgresEndpoint {
    /// Opens a connection; the second value must be polled until it ends, which is when the connection closes.
    pub(crate) async fn connect(
        &self,
    ) -> Result<
        (
            tokio_postgres::Client,
            futures_util::future::BoxFuture<'static, Result<(), tokio_postgres::Error>>,
        ),
        tokio_postgres::Error,
    > {
        let (client, connection) = self.config.connect(tokio_postgres::NoTls).await?;
        Ok((client, Box::pin(connection)))
    }

    /// Asks the server to end the statement that is under way on the token's connection.
    pub(crate) async fn cancel(
        &self,
        token: &tokio_postgres::CancelToken,
    ) -> Result<(), tokio_postgres::Error> {
        token.cancel_query(tokio_postgres::NoTls).await
    }
}

/// A MySQL or MariaDB server.
#[cfg(feature = "mysql")]
#[derive(Clone)]
pub(crate) struct MySqlEndpoint {
    pub(crate) opts: mysql_async::Opts,
    /// Host and port, or the path of the socket: without user and password.
    pub(crate) address: Arc<str>,
    /// The database of the DSN: the default namespace.
    pub(crate) database: Option<Arc<str>>,
}

#[cfg(feature = "mysql")]
impl MySqlEndpoint {
    /// Opens a connection.
    pub(crate) async fn connect(&self) -> Result<mysql_async::Conn, mysql_async::Error> {
        mysql_async::Conn::new(self.opts.clone()).await
    }
}
