//! What a DSN asks of TLS, and the connectors that do it.
//!
//! Both databases have five steps, in their own words:
//!
//! | PostgreSQL `sslmode` | MySQL `ssl-mode` | |
//! |---|---|---|
//! | `disable` | `DISABLED` | no TLS |
//! | `prefer` (default) | `PREFERRED` (default) | TLS where the server offers it, nothing is verified; else without |
//! | `require` | `REQUIRED` | TLS, nothing is verified |
//! | `verify-ca` | `VERIFY_CA` | TLS, the certificate comes from a trusted authority |
//! | `verify-full` | `VERIFY_IDENTITY` | … and is made out to the host of the DSN |
//!
//! As in libpq, `require` with `sslrootcert` verifies like `verify-ca`, and `sslrootcert=system` means `verify-full`; as in
//! MySQL's client, `ssl-ca` without `ssl-mode` means `VERIFY_CA`. The authorities are those of the named file, else the
//! system's. The files are PEM and are read once, at start-up; the process has to be started again to see new ones.
//!
//! The host of a certificate is looked for in its subject alternative names only, as RFC 6125 wants it; a certificate
//! authority's own certificate is not accepted as a server's.
//!
//! Without the feature `tls`, a DSN that asks for more than `prefer` is refused, and `prefer` is without TLS.

#[cfg(feature = "tls")]
mod material;
#[cfg(all(feature = "tls", feature = "mysql"))]
pub(crate) mod mysql;
#[cfg(all(feature = "tls", feature = "postgres"))]
pub(crate) mod postgres;
#[cfg(feature = "tls")]
mod verify;

use std::path::PathBuf;

/// Whether a connection has TLS, and what of the server's certificate is verified.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Without TLS.
    Disable,
    /// With TLS where the server offers it.
    #[default]
    Prefer,
    /// With TLS, against eavesdroppers only.
    Encrypt,
    /// With TLS, from a server that a trusted authority vouches for.
    VerifyChain,
    /// With TLS, from the server of that name.
    VerifyName,
}

/// Whom to trust.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Roots {
    /// The authorities of the operating system.
    #[default]
    System,
    /// Those of a file.
    File(PathBuf),
}

/// The client's own certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

/// What a DSN asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) mode: Mode,
    pub(crate) roots: Roots,
    pub(crate) identity: Option<Identity>,
    /// The handshake comes first, without PostgreSQL's own negotiation.
    pub(crate) direct: bool,
    /// The host's name is not sent in the clear.
    pub(crate) without_sni: bool,
}

impl Settings {
    /// Whether the DSN says more than the default does.
    pub(crate) fn needs_tls(&self) -> bool {
        !matches!(self.mode, Mode::Disable | Mode::Prefer)
            || self.identity.is_some()
            || self.direct
            || self.without_sni
    }

    /// Whether TLS is tried at all.
    pub(crate) fn tries_tls(&self) -> bool {
        self.mode != Mode::Disable
    }

    /// Whether the server's certificate is verified.
    #[cfg(all(feature = "tls", feature = "mysql"))]
    pub(crate) fn verifies(&self) -> bool {
        matches!(self.mode, Mode::VerifyChain | Mode::VerifyName)
    }
}

/// Adds to the reason of a failed connection what can be done about it, where TLS is what failed. `offers_none`: the
/// server has no TLS, or somebody between says so.
#[cfg(any(feature = "postgres", feature = "mysql"))]
pub(crate) fn advise(
    reason: String,
    error: &(dyn std::error::Error + 'static),
    offers_none: bool,
) -> String {
    if offers_none {
        return format!("{reason}; switch TLS on at the server");
    }
    #[cfg(feature = "tls")]
    if let Some(advice) = verify::advice(error) {
        return format!("{reason}; {advice}");
    }
    #[cfg(not(feature = "tls"))]
    let _ = error;
    reason
}

#[cfg(all(test, feature = "tls"))]
mod tests;
