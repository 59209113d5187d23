//! The servers that stay up between commands: `cargo xtask servers up`, `down`, `status`.

use std::{env, fs};

use anyhow::{Context, Result};

use super::{
    Kind, Server, USER, ask,
    cluster::start_all,
    place,
    process::Process,
    record::{Record, kept_name},
};

/// What is known of the server of one kind.
#[derive(Clone, Debug)]
pub struct Status {
    /// The kind.
    pub kind: Kind,
    /// The URL of the application's account; `None` when there is no server.
    pub url: Option<String>,
    /// The URL of the administrator's account, where known.
    pub admin_url: Option<String>,
    /// The URL of the application's account by the Unix socket, where known.
    pub socket_url: Option<String>,
    /// Where the server comes from and lies, in words.
    pub origin: String,
}

impl Status {
    /// Asks the server for its version.
    ///
    /// # Errors
    ///
    /// When there is no server, or it does not answer.
    pub fn version(&self) -> Result<String> {
        ask::version(
            self.url
                .as_deref()
                .with_context(|| format!("{} is not up", self.kind))?,
        )
    }
}

/// Starts a server of each kind that is neither named by the environment nor up already.
///
/// # Errors
///
/// When one of them cannot be started; those that this call started are stopped again.
pub fn up() -> Result<Vec<Status>> {
    sweep()?;
    let _lock = place::lock(&place::servers()?.join("up.lock"))?;
    let mut records = records()?;
    for stale in records.extract_if(.., |record| !record.is_alive()) {
        stale.remove()?;
    }
    let missing: Vec<Kind> = Kind::ALL
        .into_iter()
        .filter(|kind| kind.external_url().is_none())
        .filter(|kind| records.iter().all(|record| record.kind != *kind))
        .collect();
    for server in start_all(&missing, Server::start_to_keep)? {
        server.keep();
    }
    status()
}

/// Stops the servers that [`up`] started, and removes their data. How many it stopped.
///
/// # Errors
///
/// When one of them does not end, or cannot be removed.
pub fn down() -> Result<usize> {
    sweep()?;
    let _lock = place::lock(&place::servers()?.join("up.lock"))?;
    let records = records()?;
    let alive = records.iter().filter(|record| record.is_alive()).count();
    for record in &records {
        record.remove()?;
    }
    Ok(alive)
}

/// What there is of each kind: a server the environment names, one that [`up`] started, or none.
///
/// # Errors
///
/// When the directory of the servers cannot be created.
pub fn status() -> Result<Vec<Status>> {
    let mut records = records()?;
    records.retain(Record::is_alive);
    Ok(describe(&records))
}

/// Removes servers of runs that were killed, and whose watchdogs were killed with them.
pub(crate) fn sweep() -> Result<()> {
    let servers = place::servers()?;
    let entries =
        fs::read_dir(&servers).with_context(|| format!("cannot read {}", servers.display()))?;
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(owner) = owner(&name) else { continue };
        if owner.is_alive() {
            continue;
        }
        // Without a record it was never started.
        match Record::read(&entry.path()) {
            Some(record) => record.remove()?,
            None => place::remove(&entry.path())?,
        }
    }
    Ok(())
}

/// The process that owns the directory of an extra server, by the directory's name.
fn owner(name: &str) -> Option<Process> {
    let mut parts = name.strip_prefix("extra-")?.split('-');
    Some(Process {
        pid: parts.next()?.parse().ok()?,
        started: parts.next()?.parse().ok()?,
    })
}

fn describe(records: &[Record]) -> Vec<Status> {
    Kind::ALL
        .into_iter()
        .map(|kind| describe_one(kind, records))
        .collect()
}

fn describe_one(kind: Kind, records: &[Record]) -> Status {
    if let Some(url) = kind.external_url() {
        return Status {
            kind,
            url: Some(url),
            admin_url: env::var(kind.admin_url_variable())
                .ok()
                .filter(|url| !url.is_empty()),
            socket_url: None,
            origin: format!("named by {}", kind.url_variable()),
        };
    }
    match records.iter().find(|record| record.kind == kind) {
        None => Status {
            kind,
            url: None,
            admin_url: None,
            socket_url: None,
            origin: "not up".to_owned(),
        },
        Some(record) => {
            let port = record.site.port;
            Status {
                kind,
                url: Some(kind.tcp_url(USER, port)),
                admin_url: Some(kind.tcp_url(kind.admin(), port)),
                socket_url: Some(kind.socket_url(USER, &record.site.run, port)),
                origin: format!("port {port}, data in {}", record.site.data.display()),
            }
        }
    }
}

/// The records of the servers that `up` started, dead ones included.
fn records() -> Result<Vec<Record>> {
    let servers = place::servers()?;
    Ok(Kind::ALL
        .into_iter()
        .filter_map(|kind| Record::read(&servers.join(kept_name(kind))))
        .collect())
}
