//! TLS to MySQL and MariaDB.
//!
//! The driver knows TLS or no TLS. What is between them is made here:
//!
//! - **`PREFERRED`** tries with TLS. A server that does not offer it, or cannot do the handshake, is tried without. The
//!   first of these is remembered, so that it costs one attempt and not one at each connect.
//! - **`VERIFY_CA`**: the driver looks at the name always. A certificate whose chain is good and whose name is another
//!   than the host's is reported with the names that it is made out to; the second attempt asks for one of those.
//!   A certificate without any subject alternative name cannot pass, as those that MySQL makes for itself.
//!
//! With TLS the connection attributes (`program_name`) do not reach the server: the driver announces them only after its
//! request for TLS, and the server goes by the first announcement.

use std::sync::{Arc, Mutex, PoisonError};

use mysql_async::{ClientIdentity, Conn, DriverError, Error, IoError, Opts, OptsBuilder, SslOpts};
use once_cell::sync::OnceCell;
use rustls::CertificateError;
use rustls::crypto::CryptoProvider;
use rustls_pki_types::ServerName;

use super::verify::tls_error;
use super::{Mode, Settings, material};
use crate::error::InitError;

/// Opens the connections of one endpoint.
#[derive(Clone)]
pub(crate) struct Connector {
    settings: Arc<Settings>,
    /// Filled at the first use, which is at start-up. Kept because the driver parses the files once for each value.
    secured: Arc<OnceCell<Opts>>,
    /// What worked in place of `secured`.
    learned: Arc<Mutex<Option<Opts>>>,
}

impl Connector {
    pub(crate) fn new(settings: Settings) -> Self {
        Connector {
            settings: Arc::new(settings),
            secured: Arc::default(),
            learned: Arc::default(),
        }
    }

    /// Reads the files.
    pub(crate) fn prepare(&self, opts: &Opts) -> Result<(), InitError> {
        if self.settings.tries_tls() {
            self.secured(opts)?;
        }
        Ok(())
    }

    /// Opens a connection with the options of the endpoint, which are always the same.
    pub(crate) async fn connect(&self, opts: &Opts) -> Result<Conn, Error> {
        let secured = self.secured(opts).map_err(|error| {
            let error = std::io::Error::new(std::io::ErrorKind::InvalidInput, error);
            Error::Io(IoError::Io(error))
        })?;
        let learned = self.learned().clone();
        let error = match Conn::new(learned.unwrap_or_else(|| secured.clone())).await {
            Ok(connection) => return Ok(connection),
            Err(error) => error,
        };
        let Some((next, keep)) = self.alternative(opts, secured, &error) else {
            return Err(error);
        };
        let connection = Conn::new(next.clone()).await?;
        if keep {
            *self.learned() = Some(next);
        }
        Ok(connection)
    }

    /// What to try after an error, and whether to begin with it the next time.
    fn alternative(&self, opts: &Opts, secured: &Opts, error: &Error) -> Option<(Opts, bool)> {
        match self.settings.mode {
            Mode::Prefer => match error {
                Error::Driver(DriverError::NoClientSslFlagFromServer) => Some((opts.clone(), true)),
                error => tls_error(error).map(|_| (opts.clone(), false)),
            },
            Mode::VerifyChain => {
                let name = presented_name(error)?;
                let ssl = secured
                    .ssl_opts()?
                    .clone()
                    .with_danger_tls_hostname_override(Some(name));
                Some((with_ssl(secured, ssl), true))
            }
            Mode::Disable | Mode::Encrypt | Mode::VerifyName => None,
        }
    }

    fn secured(&self, opts: &Opts) -> Result<&Opts, InitError> {
        self.secured.get_or_try_init(|| {
            Ok(with_ssl(
                opts,
                ssl_opts(&self.settings, opts.ip_or_hostname())?,
            ))
        })
    }

    fn learned(&self) -> std::sync::MutexGuard<'_, Option<Opts>> {
        // The value is replaced as a whole: a panic elsewhere leaves it good.
        self.learned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn with_ssl(opts: &Opts, ssl: SslOpts) -> Opts {
    OptsBuilder::from_opts(opts.clone()).ssl_opts(ssl).into()
}

fn ssl_opts(settings: &Settings, host: &str) -> Result<SslOpts, InitError> {
    // The driver takes the process's provider, and panics where there are two to choose from.
    if CryptoProvider::get_default().is_none() {
        // Somebody else may have been quicker, and that is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
    // Finds at start-up what the driver would find at the first connect: a key that does not fit, for instance.
    material::client_config(settings)?;

    let mut ssl = SslOpts::default();
    if settings.verifies() {
        let roots = material::roots(&settings.roots)?
            .into_iter()
            .map(|root| root.to_vec().into())
            .collect();
        ssl = ssl.with_root_certs(roots).with_disable_built_in_roots(true);
    } else {
        ssl = ssl.with_danger_accept_invalid_certs(true);
    }
    if settings.mode != Mode::VerifyName && ServerName::try_from(host).is_err() {
        // Nothing is compared with it, and an address is not sent.
        ssl = ssl.with_danger_tls_hostname_override(Some("0.0.0.0"));
    }
    let identity = material::identity(settings)?
        .map(|pem| ClientIdentity::new(pem.chain_text.into(), pem.key_text.into()));
    Ok(ssl.with_client_identity(identity))
}

/// A name that the certificate of the error is made out to. The library looks at the name after it has verified the chain.
fn presented_name(error: &Error) -> Option<String> {
    let rustls::Error::InvalidCertificate(CertificateError::NotValidForNameContext {
        presented,
        ..
    }) = tls_error(error)?
    else {
        return None;
    };
    presented.iter().find_map(|name| usable_name(name))
}

/// Reads `DnsName("…")` and `IpAddress(…)`.
fn usable_name(presented: &str) -> Option<String> {
    let name = if let Some(name) = presented.strip_prefix("DnsName(\"") {
        let name = name.strip_suffix("\")")?;
        name.strip_prefix("*.")
            .map_or_else(|| name.to_owned(), |domain| format!("dlock.{domain}"))
    } else {
        presented
            .strip_prefix("IpAddress(")?
            .strip_suffix(')')?
            .to_owned()
    };
    ServerName::try_from(name.as_str()).is_ok().then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_a_certificate_are_read() {
        for (presented, name) in [
            ("DnsName(\"db.example.com\")", Some("db.example.com")),
            ("DnsName(\"*.example.com\")", Some("dlock.example.com")),
            ("IpAddress(127.0.0.1)", Some("127.0.0.1")),
            ("IpAddress(::1)", Some("::1")),
            ("DnsName(\"a b\")", None),
            ("DirectoryName", None),
        ] {
            assert_eq!(usable_name(presented).as_deref(), name, "{presented}");
        }
    }
}
