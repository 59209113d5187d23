//! One lock that nobody else wants, taken and given back; also over a longer way to the server, where round trips
//! decide.

use std::time::Duration;

use anyhow::{Context, Result};
use xtask::proxy::Proxy;
use xtask::servers::Kind;

use super::Effort;
use crate::contenders;
use crate::counting::statements;
use crate::entry::{Entry, Target};
use crate::rounds::{Contender, interleave};
use crate::server::Server;
use crate::sqlx;

pub(crate) const ROW: &str = "uncontended";
pub(crate) const DELAYED: &str = "delayed";

/// Design: at most this many times two prepared round trips.
const TARGET: Target = Target::RatioAtMost(1.3);

/// The delays each way.
pub(crate) const DELAYS: [Duration; 3] = [
    Duration::from_micros(50),
    Duration::from_micros(200),
    Duration::from_millis(2),
];

pub(crate) async fn run(server: &Server, effort: Effort) -> Result<Vec<Entry>> {
    let mut contenders = all(server.kind, server.url()).await?;
    let outcomes = interleave(&mut contenders, effort.rounds, effort.slice).await?;
    let mut entries = Entry::of_rounds(ROW, &server.name(), outcomes);
    for (entry, contender) in entries.iter_mut().zip(&mut contenders) {
        if entry.who.starts_with("dlock") {
            entry.target = Some(TARGET);
        }
        entry.statements = Some(statements(server, contender).await?);
    }
    Ok(entries)
}

/// Everybody who can do it on this kind of server, the floor first.
async fn all(kind: Kind, url: &str) -> Result<Vec<Contender>> {
    let locker = contenders::locker(url).await?;
    let mut all = vec![
        contenders::two_selects(kind, url).await?,
        contenders::raw_statements(kind, url).await?,
        contenders::dlock_async(&locker),
        contenders::dlock_blocking(&locker),
    ];
    all.extend(sqlx::uncontended(kind, url).await?);
    Ok(all)
}

/// The same through a proxy that delays; and how many round trips one operation makes, from what the longest delay adds
/// to its time, in terms of what it adds to that of the two round trips of the floor.
pub(crate) async fn run_delayed(server: &Server, effort: Effort) -> Result<Vec<Entry>> {
    let target = address(server.url())?;
    let proxy = Proxy::start(target)?;
    let mut contenders = all(server.kind, &proxy.url(server.url())).await?;
    let near = interleave(&mut contenders, effort.rounds(11), effort.slice).await?;
    let mut entries = Vec::new();
    for delay in DELAYS {
        proxy.delay(delay);
        let outcomes = interleave(&mut contenders, effort.rounds(11), effort.slice).await?;
        let added: Vec<f64> = outcomes
            .iter()
            .zip(&near)
            .map(|(far, near)| far.micros.median - near.micros.median)
            .collect();
        let row = format!("{ROW}, {delay:?} each way");
        for (mut entry, added_here) in Entry::of_rounds(&row, &server.name(), outcomes)
            .into_iter()
            .zip(&added)
        {
            if entry.who.starts_with("dlock") {
                entry.target = Some(TARGET);
            }
            if delay >= Duration::from_millis(1) {
                let floor = added.first().copied().unwrap_or(f64::NAN);
                entry.round_trips = Some(2.0 * added_here / floor);
            }
            entries.push(entry);
        }
    }
    Ok(entries)
}

/// Host and port, as they stand in the URL.
pub(crate) fn address(url: &str) -> Result<std::net::SocketAddr> {
    let (_, rest) = url.rsplit_once('@').context("the URL has no account")?;
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let address = rest.get(..end).unwrap_or_default();
    address
        .parse()
        .with_context(|| format!("`{address}` is no address and port for the proxy"))
}
