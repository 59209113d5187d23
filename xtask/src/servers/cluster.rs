//! One server of each kind, for one run of the tests.

use std::thread;

use anyhow::{Context, Result, anyhow, bail};

use super::{Kind, Server, ask, kept};

/// The servers of one run: those the environment names, those that `up` left running, and private ones for the rest.
///
/// Dropped, it stops those that it started.
#[derive(Debug)]
pub struct Cluster {
    /// Held for their `Drop`.
    _own: Vec<Server>,
    urls: Vec<(Kind, String, String)>,
}

impl Cluster {
    /// Finds or starts one server of each kind, side by side.
    ///
    /// # Errors
    ///
    /// When one of them cannot be had; the others are stopped again.
    pub fn start() -> Result<Self> {
        kept::sweep()?;
        let mut urls = Vec::new();
        let mut missing = Vec::new();
        for status in kept::status()? {
            match status.url {
                Some(url) => urls.push((status.kind, url.clone(), status.admin_url.unwrap_or(url))),
                None => missing.push(status.kind),
            }
        }
        let own = start_all(&missing, Server::start)?;
        urls.extend(
            own.iter()
                .map(|server| (server.kind(), server.url(), server.admin_url())),
        );
        urls.sort();
        Ok(Self { _own: own, urls })
    }

    /// The version of each kind's server, as the server itself says.
    ///
    /// # Errors
    ///
    /// When a server does not answer, or is of another kind: a URL may name a MariaDB where a MySQL is expected.
    pub fn versions(&self) -> Result<Vec<(Kind, String)>> {
        let ask = |(kind, url, _): &(Kind, String, String)| {
            let version = ask::version(url).with_context(|| format!("{kind} gives no answer"))?;
            if !kind.is_named_by(&version) {
                bail!(
                    "the server that {} names is no {kind} but {version}",
                    kind.url_variable()
                );
            }
            Ok((*kind, version))
        };
        self.urls.iter().map(ask).collect()
    }

    /// The environment variables through which tests learn the URLs.
    pub fn environment(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.urls.iter().flat_map(|(kind, url, admin_url)| {
            [
                (kind.url_variable(), url.as_str()),
                (kind.admin_url_variable(), admin_url.as_str()),
            ]
        })
    }
}

/// Starts several servers side by side; all of them, or none.
pub(crate) fn start_all(kinds: &[Kind], start: fn(Kind) -> Result<Server>) -> Result<Vec<Server>> {
    thread::scope(|scope| {
        let starting: Vec<_> = kinds
            .iter()
            .map(|kind| scope.spawn(move || start(*kind)))
            .collect();
        let outcomes: Vec<Result<Server>> = starting
            .into_iter()
            .map(|start| {
                start
                    .join()
                    .unwrap_or_else(|_| Err(anyhow!("starting a server panicked")))
            })
            .collect();
        outcomes.into_iter().collect()
    })
}
