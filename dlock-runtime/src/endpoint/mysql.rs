//! A MySQL or MariaDB server.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use mysql_async::{Conn, Error, Opts, OptsBuilder};

use crate::error::InitError;
use crate::tls::Settings;
#[cfg(feature = "tls")]
use crate::tls::mysql::Connector;

/// Where a MySQL server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum MySqlPlace {
    /// The path of a Unix socket.
    Socket(String),
    Tcp {
        host: String,
        port: u16,
    },
}

const NOT_UNDERSTOOD: &str = "the server asks for a way to log in that is not known here, such as MariaDB's ed25519 or parsec: \
    use an account with mysql_native_password or caching_sha2_password";

/// A MySQL or MariaDB server.
#[derive(Clone)]
pub(crate) struct MySqlEndpoint {
    pub(crate) opts: Opts,
    /// Host and port, or the path of the socket: without user and password.
    pub(crate) address: Arc<str>,
    /// The database of the DSN: the default namespace.
    pub(crate) database: Option<Arc<str>>,
    tls: Settings,
    #[cfg(feature = "tls")]
    connector: Connector,
}

impl MySqlEndpoint {
    pub(crate) fn new(opts: OptsBuilder, place: MySqlPlace, tls: Settings) -> Self {
        let is_socket = matches!(place, MySqlPlace::Socket(_));
        let (opts, address) = match place {
            MySqlPlace::Socket(path) => (opts.socket(Some(path.clone())), path),
            MySqlPlace::Tcp { host, port } => {
                let address = if host.contains(':') {
                    format!("[{host}]:{port}")
                } else {
                    format!("{host}:{port}")
                };
                (opts.ip_or_hostname(host).tcp_port(port), address)
            }
        };
        // The driver would announce TLS on a socket and then not begin it.
        let tls = if is_socket {
            Settings {
                mode: crate::tls::Mode::Disable,
                ..tls
            }
        } else {
            tls
        };
        let opts = Opts::from(opts);
        MySqlEndpoint {
            address: address.into(),
            database: opts.db_name().map(Arc::from),
            opts,
            #[cfg(feature = "tls")]
            connector: Connector::new(tls.clone()),
            tls,
        }
    }

    /// Opens a connection.
    ///
    /// The driver panics over a server that asks for a login which it was not built with (MariaDB's `ed25519` and
    /// `parsec`), and a panic would end the thread of every connection.
    pub(crate) async fn connect(&self) -> Result<Conn, Error> {
        let opening = AssertUnwindSafe(self.open()).catch_unwind();
        opening
            .await
            .unwrap_or_else(|_| Err(Error::Other(NOT_UNDERSTOOD.into())))
    }

    async fn open(&self) -> Result<Conn, Error> {
        #[cfg(feature = "tls")]
        if self.tls.tries_tls() {
            return self.connector.connect(&self.opts).await;
        }
        Conn::new(self.opts.clone()).await
    }

    #[cfg(test)]
    pub(crate) fn opts(&self) -> &Opts {
        &self.opts
    }

    #[cfg(all(test, feature = "tls"))]
    pub(crate) fn tls(&self) -> &Settings {
        &self.tls
    }

    #[cfg_attr(not(feature = "tls"), expect(clippy::unnecessary_wraps))]
    pub(super) fn prepare(&mut self, name: &str) -> Result<(), InitError> {
        let named =
            OptsBuilder::from_opts(self.opts.clone()).connect_attribute("program_name", name);
        self.opts = named.into();
        #[cfg(feature = "tls")]
        self.connector.prepare(&self.opts)?;
        Ok(())
    }
}

impl fmt::Debug for MySqlEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MySql")
            .field("address", &self.address)
            .field("user", &self.opts.user())
            .field("password", &super::masked(self.opts.pass().is_some()))
            .field("database", &self.database)
            .field("tls", &self.tls)
            .finish_non_exhaustive()
    }
}
