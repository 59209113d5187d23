//! One server of each kind, for one run of the tests.

use std::thread;

use anyhow::{Result, anyhow};

use super::{Kind, Server, kept};

/// The servers of one run: those the environment names, those that `up` left running, and private ones for the rest.
///
/// Dropped, it stops those that it started.
#[derive(Debug)]
pub struct Cluster {
    /// Held for their `Drop`.
    own: Vec<Server>,
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
        Ok(Self { own, urls })
    }

    /// The URL of each kind's server: the application's account.
    pub fn urls(&self) -> impl Iterator<Item = (Kind, &str)> {
        self.urls.iter().map(|(kind, url, _)| (*kind, url.as_str()))
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

    /// How many of the servers end with this value.
    pub fn own_count(&self) -> usize {
        self.own.len()
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
