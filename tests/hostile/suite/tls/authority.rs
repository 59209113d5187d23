//! A private authority, and what it issues.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd,
};
use xtask::servers::Tls;

/// An authority whose certificate lies in a file, and nowhere else.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: PathBuf,
}

/// A certificate and its key, as PEM.
pub(crate) struct Issued {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// How long a certificate is good.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Term {
    Good,
    Expired,
}

impl Authority {
    pub(crate) fn new() -> Authority {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder =
            std::env::temp_dir().join(format!("dlock-authority-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a directory");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(
            DnType::CommonName,
            format!("authority {number} of the tests"),
        );
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("an authority");
        let authority = Authority { issuer, folder };
        authority.file("ca.pem", &authority.issuer.pem());
        authority
    }

    /// The path of its certificate.
    pub(crate) fn path(&self) -> String {
        self.folder.join("ca.pem").display().to_string()
    }

    /// Writes a file that is gone with the authority; its path.
    pub(crate) fn file(&self, name: &str, text: &str) -> String {
        let path = self.folder.join(name);
        std::fs::write(&path, text).expect("a file");
        path.display().to_string()
    }

    /// Issues a certificate for a subject under the given names.
    pub(crate) fn issue(&self, subject: &str, names: &[&str], term: Term) -> Issued {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).expect("names");
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, subject);
        if term == Term::Expired {
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(2021, 1, 1);
        }
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Issued {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        }
    }

    /// What a server shows that has this certificate and takes clients of this authority.
    pub(crate) fn server(&self, shown: Issued, rules: &str) -> Tls {
        Tls {
            certificate: shown.certificate,
            key: shown.key,
            clients: self.issuer.pem(),
            rules: rules.to_owned(),
        }
    }

    /// What the server of the tests shows when all is well.
    pub(crate) fn good_server(&self, rules: &str) -> Tls {
        self.server(
            self.issue("db", &["localhost", "127.0.0.1"], Term::Good),
            rules,
        )
    }

    /// The options of a DSN for a client with this certificate.
    pub(crate) fn client(&self, kind: xtask::servers::Kind, name: &str, issued: &Issued) -> String {
        let certificate = self.file(&format!("{name}.pem"), &issued.certificate);
        let key = self.file(&format!("{name}.key"), &issued.key);
        match kind {
            xtask::servers::Kind::Postgres => format!("sslcert={certificate}&sslkey={key}"),
            _ => format!("ssl-cert={certificate}&ssl-key={key}"),
        }
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
