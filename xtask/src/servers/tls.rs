//! Servers with TLS: what they show, and whose certificates they take.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::Path,
};

use anyhow::{Context, Result};

use super::{Kind, place::Unprivileged};

/// What a server with TLS has, as PEM. The tests make the certificates; no key lies in the repository.
#[derive(Clone, Debug)]
pub struct Tls {
    /// The certificate that the server shows, with those between it and its authority.
    pub certificate: String,
    /// The key of that certificate.
    pub key: String,
    /// The authority whose certificates of clients are taken.
    pub clients: String,
    /// Lines of PostgreSQL's `pg_hba.conf` that come before the usual ones; the other servers keep such rules with their
    /// accounts.
    pub rules: String,
}

/// The usual rules: a password, with TLS and without.
const RULES: &str = "local all all scram-sha-256\nhost all all 127.0.0.1/32 scram-sha-256\n";

impl Tls {
    /// Writes the files into `run`, for the user that the server runs as; returns the options that name them.
    pub(crate) fn install(
        &self,
        kind: Kind,
        run: &Path,
        user: Option<Unprivileged>,
    ) -> Result<Vec<String>> {
        let rules = format!("{}\n{RULES}", self.rules);
        let write = |name: &str, text: &str| {
            let path = run.join(name);
            fs::write(&path, text)
                .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o600)))
                .and_then(|()| {
                    user.map_or(Ok(()), |user| chown(&path, Some(user.uid), Some(user.gid)))
                })
                .with_context(|| format!("cannot write {}", path.display()))?;
            Ok::<_, anyhow::Error>(path.display().to_string())
        };
        let certificate = write("server.pem", &self.certificate)?;
        let key = write("server.key", &self.key)?;
        let clients = write("clients.pem", &self.clients)?;
        Ok(match kind {
            Kind::Postgres => [
                "ssl=on".to_owned(),
                format!("ssl_cert_file={certificate}"),
                format!("ssl_key_file={key}"),
                format!("ssl_ca_file={clients}"),
                format!("hba_file={}", write("rules.conf", &rules)?),
            ]
            .into_iter()
            .flat_map(|setting| ["-c".to_owned(), setting])
            .collect(),
            Kind::MariaDb | Kind::MySql => vec![
                format!("--ssl-cert={certificate}"),
                format!("--ssl-key={key}"),
                format!("--ssl-ca={clients}"),
            ],
        })
    }

    /// The options of a server that offers no TLS, also where it would by itself.
    pub(crate) fn without(kind: Kind) -> Vec<String> {
        match kind {
            Kind::Postgres => Vec::new(),
            Kind::MariaDb => vec!["--skip-ssl".to_owned()],
            Kind::MySql => vec!["--tls-version=".to_owned()],
        }
    }
}
