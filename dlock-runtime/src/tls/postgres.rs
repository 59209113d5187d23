//! TLS to PostgreSQL.

use std::error::Error as StdError;
use std::sync::Arc;

use once_cell::sync::OnceCell;
use rustls_pki_types::ServerName;
use tokio_postgres::error::SqlState;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{Error, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::verify::tls_error;
use super::{Mode, Settings, material};
use crate::error::InitError;

/// Makes the TLS sessions of one endpoint.
#[derive(Clone)]
pub(crate) struct Connector {
    settings: Arc<Settings>,
    /// Filled at the first use, which is at start-up.
    inner: Arc<OnceCell<MakeRustlsConnect>>,
}

impl Connector {
    pub(crate) fn new(settings: Settings) -> Self {
        Connector {
            settings: Arc::new(settings),
            inner: Arc::default(),
        }
    }

    /// Reads the files.
    pub(crate) fn prepare(&self) -> Result<(), InitError> {
        if self.settings.tries_tls() {
            self.inner()?;
        }
        Ok(())
    }

    fn inner(&self) -> Result<&MakeRustlsConnect, InitError> {
        self.inner
            .get_or_try_init(|| material::client_config(&self.settings).map(MakeRustlsConnect::new))
    }
}

impl MakeTlsConnect<Socket> for Connector {
    type Stream = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream;
    type TlsConnect = <MakeRustlsConnect as MakeTlsConnect<Socket>>::TlsConnect;
    type Error = Box<dyn StdError + Send + Sync>;

    fn make_tls_connect(&mut self, host: &str) -> Result<Self::TlsConnect, Self::Error> {
        // A connector is asked for before it is known whether TLS begins: for a socket, which has no host, as well. An
        // address stands in for what is not the name of a host, unless the name counts: an address is not sent.
        let host = match ServerName::try_from(host) {
            Err(_) if self.settings.mode != Mode::VerifyName => "0.0.0.0",
            _ => host,
        };
        let mut inner = self.inner()?.clone();
        Ok(MakeTlsConnect::<Socket>::make_tls_connect(
            &mut inner, host,
        )?)
    }
}

/// Whether the error says that this server and this client cannot meet over TLS: the handshake failed, or the server's
/// rules (`hostnossl`) keep the user out.
pub(crate) fn refuses_tls(error: &Error) -> bool {
    tls_error(error).is_some()
        || error.code() == Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION)
}
