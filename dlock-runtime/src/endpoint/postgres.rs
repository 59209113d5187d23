//! A PostgreSQL server.

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{AsyncMessage, CancelToken, Client, Config, Error, NoTls, Socket};

use crate::error::InitError;
use crate::tls::Settings;
#[cfg(feature = "tls")]
use crate::tls::postgres::Connector;

/// A PostgreSQL server.
#[derive(Clone)]
pub(crate) struct PostgresEndpoint {
    pub(crate) config: Config,
    /// Host and port, or the path of the socket: without user and password.
    pub(crate) address: Arc<str>,
    tls: Settings,
    #[cfg(feature = "tls")]
    connector: Connector,
}

/// What is done with notifications and notices. A notice is heard before the answer to its statement has ended.
pub(crate) type Hear = Arc<dyn Fn(&AsyncMessage) + Send + Sync>;

/// A client, and the connection that must be polled until it ends.
type Opened = (Client, BoxFuture<'static, Result<(), Error>>);

impl PostgresEndpoint {
    pub(crate) fn new(config: Config, address: &str, tls: Settings) -> Self {
        PostgresEndpoint {
            config,
            address: address.into(),
            #[cfg(feature = "tls")]
            connector: Connector::new(tls.clone()),
            tls,
        }
    }

    /// Opens a connection; the second value must be polled until it ends, which is when the connection closes.
    pub(crate) async fn connect(&self) -> Result<Opened, Error> {
        self.connect_hearing(None).await
    }

    /// As [`connect`](Self::connect); notifications and notices are told to `hear`.
    pub(crate) async fn connect_hearing(&self, hear: Option<Hear>) -> Result<Opened, Error> {
        #[cfg(feature = "tls")]
        if self.tls.tries_tls() {
            return self.connect_tls(hear).await;
        }
        open(&self.config, NoTls, hear).await
    }

    /// Asks the server to end the statement that is under way on the token's connection.
    pub(crate) async fn cancel(&self, token: &CancelToken) -> Result<(), Error> {
        #[cfg(feature = "tls")]
        if self.tls.tries_tls() {
            return token.cancel_query(self.connector.clone()).await;
        }
        token.cancel_query(NoTls).await
    }

    /// `prefer` tries without TLS where the handshake fails, or where the server lets this user in without TLS only;
    /// the token of such a connection cancels without TLS too.
    #[cfg(feature = "tls")]
    async fn connect_tls(&self, hear: Option<Hear>) -> Result<Opened, Error> {
        use crate::tls::{Mode, postgres::refuses_tls};
        use tokio_postgres::config::SslMode;

        match open(&self.config, self.connector.clone(), hear.clone()).await {
            Err(error) if self.tls.mode == Mode::Prefer && refuses_tls(&error) => {
                let mut plain = self.config.clone();
                plain.ssl_mode(SslMode::Disable);
                open(&plain, NoTls, hear).await.map_err(|_| error)
            }
            result => result,
        }
    }

    #[cfg(test)]
    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    #[cfg(all(test, feature = "tls"))]
    pub(crate) fn tls(&self) -> &Settings {
        &self.tls
    }

    #[cfg_attr(not(feature = "tls"), expect(clippy::unnecessary_wraps))]
    pub(crate) fn prepare(
        &mut self,
        name: &str,
        connect_timeout: Duration,
    ) -> Result<(), InitError> {
        // The driver's time-out is one of each attempt, ours of all of them: each host gets its share.
        let hosts = u32::try_from(self.config.get_hosts().len()).unwrap_or(u32::MAX);
        self.config
            .application_name(name)
            .connect_timeout(connect_timeout / hosts.max(1));
        #[cfg(feature = "tls")]
        self.connector.prepare()?;
        Ok(())
    }

    /// The kernel closes a socket that it gives up on, and the server then frees the locks, also while this process is
    /// paused and believes in its hold until `limit` has passed.
    pub(crate) fn check(&self, limit: Duration) -> Result<(), InitError> {
        let config = &self.config;
        let least = limit.as_secs();
        if let Some(timeout) = config.get_tcp_user_timeout()
            && !timeout.is_zero()
            && *timeout < limit
        {
            return Err(crate::dsn::bad(format!(
                "tcp_user_timeout={} in the DSN is {timeout:?}, and a shorter one than limit ({least} s) frees locks too \
                 early: write at least {}",
                timeout.as_millis(),
                limit.as_millis()
            )));
        }
        let interval = config
            .get_keepalives_interval()
            .unwrap_or(KEEPALIVE_INTERVAL);
        let count = config.get_keepalives_retries().unwrap_or(KEEPALIVE_COUNT);
        let patience = config.get_keepalives_idle() + interval * count;
        if config.get_keepalives() && patience < limit {
            return Err(crate::dsn::bad(format!(
                "the keepalives of the DSN give up after {} s (keepalives_idle + keepalives_interval * keepalives_count), \
                 and less than limit ({least} s) frees locks too early: make them longer",
                patience.as_secs()
            )));
        }
        Ok(())
    }
}

/// What Linux does where the DSN says nothing.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(75);
const KEEPALIVE_COUNT: u32 = 9;

async fn open<T>(config: &Config, tls: T, hear: Option<Hear>) -> Result<Opened, Error>
where
    T: MakeTlsConnect<Socket>,
    T::Stream: Send + 'static,
{
    let (client, mut connection) = config.connect(tls).await?;
    let Some(hear) = hear else {
        return Ok((client, Box::pin(connection)));
    };
    let hearing = async move {
        while let Some(message) = poll_fn(|context| connection.poll_message(context)).await {
            hear(&message?);
        }
        Ok(())
    };
    Ok((client, Box::pin(hearing)))
}

impl fmt::Debug for PostgresEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Postgres")
            .field("address", &self.address)
            .field("user", &self.config.get_user())
            .field(
                "password",
                &super::masked(self.config.get_password().is_some()),
            )
            .field("database", &self.config.get_dbname())
            .field("tls", &self.tls)
            .finish_non_exhaustive()
    }
}
