//! Real handshakes in memory: the client's configuration as the settings make it, against a server that shows this or that
//! certificate.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConnection, RootCertStore, ServerConfig, ServerConnection};
use rustls_pki_types::{PrivateKeyDer, ServerName};

use super::verify::tls_error;
use super::*;

/// A directory that goes away with the test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("dlock-tls-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a directory");
        Folder(path)
    }

    fn file(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).expect("a file");
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority")
}

struct Issued {
    certificate: rcgen::Certificate,
    key: KeyPair,
}

fn issue(authority: &Authority, names: &[&str]) -> Issued {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(names).expect("names");
    let certificate = params.signed_by(&key, authority).expect("a certificate");
    Issued { certificate, key }
}

fn server(shown: &Issued, clients: Option<&Authority>) -> Arc<ServerConfig> {
    let builder = ServerConfig::builder_with_provider(material::provider())
        .with_safe_default_protocol_versions()
        .expect("versions");
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            roots.add(authority.der().clone()).expect("a root");
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), material::provider());
            builder.with_client_cert_verifier(verifier.build().expect("a verifier"))
        }
    };
    let key = PrivateKeyDer::try_from(shown.key.serialize_der()).expect("a key");
    let chain = vec![shown.certificate.der().clone()];
    Arc::new(builder.with_single_cert(chain, key).expect("a server"))
}

/// Shakes hands with a host called `db`.
fn handshake(settings: &Settings, server: Arc<ServerConfig>) -> Result<(), rustls::Error> {
    let config = material::client_config(settings).expect("a configuration");
    let mut client = ClientConnection::new(
        Arc::new(config),
        ServerName::try_from("db").expect("a name"),
    )?;
    let mut server = ServerConnection::new(server)?;
    for _ in 0..10 {
        carry(|to| client.write_tls(to), |from| server.read_tls(from));
        server.process_new_packets()?;
        carry(|to| server.write_tls(to), |from| client.read_tls(from));
        client.process_new_packets()?;
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    Ok(())
}

fn carry(
    mut write: impl FnMut(&mut Vec<u8>) -> io::Result<usize>,
    mut read: impl FnMut(&mut &[u8]) -> io::Result<usize>,
) {
    let mut bytes = Vec::new();
    while write(&mut bytes).expect("memory") > 0 {}
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        read(&mut rest).expect("memory");
    }
}

#[test]
fn each_mode_verifies_what_it_says() {
    let folder = Folder::new();
    let (ours, theirs) = (authority(), authority());
    let roots = Roots::File(folder.file("ca.pem", ours.pem()));
    let right = issue(&ours, &["db"]);
    let renamed = issue(&ours, &["elsewhere"]);
    let nameless = issue(&ours, &[]);
    let foreign = issue(&theirs, &["db"]);
    for (mode, passes) in [
        (Mode::Prefer, [true, true, true, true]),
        (Mode::Encrypt, [true, true, true, true]),
        (Mode::VerifyChain, [true, true, true, false]),
        (Mode::VerifyName, [true, false, false, false]),
    ] {
        for (shown, passes) in [&right, &renamed, &nameless, &foreign]
            .into_iter()
            .zip(passes)
        {
            let settings = Settings {
                mode,
                roots: roots.clone(),
                ..Settings::default()
            };
            let result = handshake(&settings, server(shown, None));
            assert_eq!(result.is_ok(), passes, "{mode:?}: {result:?}");
        }
    }
}

#[test]
fn a_server_that_has_not_the_key_of_its_certificate_is_refused_in_every_mode() {
    let ours = authority();
    let mut shown = issue(&ours, &["db"]);
    shown.key = KeyPair::generate().expect("another key");
    let settings = Settings {
        mode: Mode::Encrypt,
        ..Settings::default()
    };
    // rustls compares the two itself where it can; this resolver does not.
    let key = PrivateKeyDer::try_from(shown.key.serialize_der()).expect("a key");
    let signing = material::provider()
        .key_provider
        .load_private_key(key)
        .expect("a key");
    let certified = rustls::sign::CertifiedKey::new(vec![shown.certificate.der().clone()], signing);
    let config = ServerConfig::builder_with_provider(material::provider())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(certified)));
    handshake(&settings, Arc::new(config)).expect_err("the signature is of another key");
}

#[test]
fn the_client_shows_its_certificate() {
    let folder = Folder::new();
    let ours = authority();
    let client = issue(&ours, &["app"]);
    let identity = Identity {
        certificate: folder.file("client.pem", client.certificate.pem()),
        key: folder.file("client.key", client.key.serialize_pem()),
    };
    let shown = issue(&ours, &["db"]);
    let settings = Settings {
        identity: Some(identity),
        ..Settings::default()
    };
    handshake(&settings, server(&shown, Some(&ours))).expect("the server knows the client");
    handshake(&Settings::default(), server(&shown, Some(&ours))).expect_err("no certificate");
}

#[test]
fn a_file_that_cannot_be_used_is_named_at_start_up() {
    let folder = Folder::new();
    let ours = authority();
    let client = issue(&ours, &["app"]);
    let certificate = folder.file("client.pem", client.certificate.pem());
    let key = folder.file("client.key", client.key.serialize_pem());
    let other_key = folder.file(
        "other.key",
        KeyPair::generate().expect("a key").serialize_pem(),
    );
    let cut = client
        .key
        .serialize_pem()
        .lines()
        .take(2)
        .collect::<Vec<_>>()
        .join("\n");
    let bad_certificate = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";

    let roots = |path: PathBuf| Settings {
        mode: Mode::VerifyName,
        roots: Roots::File(path),
        ..Settings::default()
    };
    let identity = |certificate: &PathBuf, key: PathBuf| Settings {
        identity: Some(Identity {
            certificate: certificate.clone(),
            key,
        }),
        ..Settings::default()
    };
    for (settings, named) in [
        (roots(folder.0.join("absent.pem")), "absent.pem"),
        (roots(folder.0.clone()), "dlock-tls"),
        (roots(folder.file("empty.pem", "")), "empty.pem"),
        (roots(folder.file("text.pem", "hello")), "text.pem"),
        (roots(folder.file("bad.pem", bad_certificate)), "bad.pem"),
        (roots(key.clone()), "client.key"),
        (
            identity(&certificate, folder.0.join("absent.key")),
            "absent.key",
        ),
        (
            identity(&certificate, folder.file("cut.key", &cut)),
            "cut.key",
        ),
        (identity(&certificate, certificate.clone()), "client.pem"),
        (identity(&certificate, other_key), "client.pem"),
        (identity(&key, key.clone()), "client.key"),
    ] {
        let message = material::client_config(&settings)
            .expect_err(named)
            .to_string();
        assert!(message.contains(named), "{message} lacks {named}");
        for line in client
            .key
            .serialize_pem()
            .lines()
            .filter(|line| !line.starts_with('-'))
        {
            assert!(!message.contains(line), "{message} shows the key");
        }
    }
}

#[cfg(feature = "mysql")]
#[test]
fn the_drivers_options_are_checked_at_start_up_too() {
    let settings = Settings {
        mode: Mode::VerifyName,
        roots: Roots::File("/nowhere/ca.pem".into()),
        ..Settings::default()
    };
    let connector = mysql::Connector::new(settings);
    let error = connector
        .prepare(&mysql_async::Opts::default())
        .expect_err("no such file");
    assert!(error.to_string().contains("/nowhere/ca.pem"), "{error}");
}

#[test]
fn the_error_of_tls_is_found_behind_those_of_the_layers_above() {
    let tls = rustls::Error::DecryptError;
    let inner = io::Error::new(io::ErrorKind::InvalidData, tls.clone());
    let outer = io::Error::other(inner);
    assert_eq!(tls_error(&outer), Some(&tls));
    assert_eq!(tls_error(&io::Error::other("no TLS here")), None);
}
