//! The certificates and keys that TLS needs, read from their files.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::verify::Lenient;
use super::{Mode, Roots, Settings};
use crate::dsn::bad;
use crate::error::InitError;

/// The program's own choice of cryptography, else ring.
pub(super) fn provider() -> Arc<CryptoProvider> {
    CryptoProvider::get_default().map_or_else(|| Arc::new(ring::default_provider()), Arc::clone)
}

/// A configuration that does what the settings ask for.
pub(super) fn client_config(settings: &Settings) -> Result<ClientConfig, InitError> {
    let provider = provider();
    let algorithms = provider.signature_verification_algorithms;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| {
            bad(format!(
                "the program's crypto provider cannot do TLS: {error}"
            ))
        })?;
    let roots = match settings.mode {
        Mode::VerifyChain | Mode::VerifyName => Some(store(&roots(&settings.roots)?)?),
        Mode::Disable | Mode::Prefer | Mode::Encrypt => None,
    };
    let builder = match roots {
        Some(roots) if settings.mode == Mode::VerifyName => builder.with_root_certificates(roots),
        roots => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Lenient::new(roots, algorithms))),
    };
    let mut config = match identity(settings)? {
        None => builder.with_no_client_auth(),
        Some(Pem {
            chain, key, path, ..
        }) => builder.with_client_auth_cert(chain, key).map_err(|error| {
            bad(format!(
                "the client certificate {} and its key cannot be used: {error}",
                path.display()
            ))
        })?,
    };
    config.enable_sni = !settings.without_sni;
    if settings.direct {
        config.alpn_protocols = vec![b"postgresql".to_vec()];
    }
    Ok(config)
}

/// The authorities to trust; at least one.
pub(super) fn roots(from: &Roots) -> Result<Vec<CertificateDer<'static>>, InitError> {
    match from {
        Roots::File(path) => {
            let text = read(path)?;
            let found = certificates(path, &text)?;
            // Tells which file holds a certificate that is well-formed PEM and still none.
            store(&found)
                .map_err(|_| no_certificate(path, "what is in it is not an X.509 certificate"))?;
            Ok(found)
        }
        Roots::System => {
            let mut found = rustls_native_certs::load_native_certs().certs;
            // A system's list may hold relics that are no authorities by today's rules.
            found.retain(|one| RootCertStore::empty().add(one.clone()).is_ok());
            if found.is_empty() {
                return Err(bad(
                    "this system has no list of certificate authorities: name a file with sslrootcert (MySQL: ssl-ca)",
                ));
            }
            Ok(found)
        }
    }
}

/// A client's certificate: parsed, and as it stood in the files.
pub(super) struct Pem {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
    pub(super) chain_text: Vec<u8>,
    pub(super) key_text: Vec<u8>,
    pub(super) path: std::path::PathBuf,
}

/// The client's certificate, where the settings name one.
pub(super) fn identity(settings: &Settings) -> Result<Option<Pem>, InitError> {
    let Some(files) = &settings.identity else {
        return Ok(None);
    };
    let chain_text = read(&files.certificate)?;
    let key_text = read(&files.key)?;
    let key = PrivateKeyDer::from_pem_slice(&key_text).map_err(|error| {
        let problem = describe(&error);
        bad(format!(
            "cannot read a private key from {}: {problem}; write the path of an unencrypted PEM file",
            files.key.display()
        ))
    })?;
    Ok(Some(Pem {
        chain: certificates(&files.certificate, &chain_text)?,
        key,
        chain_text,
        key_text,
        path: files.certificate.clone(),
    }))
}

fn read(path: &Path) -> Result<Vec<u8>, InitError> {
    std::fs::read(path).map_err(|error| {
        bad(format!(
            "cannot read {}, which the DSN names: {error}",
            path.display()
        ))
    })
}

fn certificates(path: &Path, text: &[u8]) -> Result<Vec<CertificateDer<'static>>, InitError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    match found {
        Ok(found) if found.is_empty() => Err(no_certificate(path, "there is none in it")),
        Ok(found) => Ok(found),
        Err(error) => Err(no_certificate(path, &describe(&error))),
    }
}

fn no_certificate(path: &Path, problem: &str) -> InitError {
    bad(format!(
        "cannot read certificates from {}: {problem}; write the path of a PEM file",
        path.display()
    ))
}

/// The kind of problem, without the text of the file: it may be a key.
fn describe(error: &pem::Error) -> String {
    match error {
        pem::Error::NoItemsFound => "there is none in it".to_owned(),
        pem::Error::MissingSectionEnd { .. } => "the file ends within it".to_owned(),
        _ => "it is not well-formed PEM".to_owned(),
    }
}

fn store(roots: &[CertificateDer<'static>]) -> Result<RootCertStore, InitError> {
    let mut store = RootCertStore::empty();
    for root in roots {
        store
            .add(root.clone())
            .map_err(|error| bad(format!("a certificate authority cannot be used: {error}")))?;
    }
    Ok(store)
}
