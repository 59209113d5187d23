//! Free ports on loopback.

use std::net::{Ipv4Addr, TcpListener};

use anyhow::{Context, Result};

/// The lowest port that is tried.
const LOWEST: u16 = 10_240;
/// Where Linux starts to give out ports for outgoing connections, unless it says otherwise.
const EPHEMERAL: u16 = 32_768;

/// Finds a port on `127.0.0.1` that nobody listens on.
///
/// The port lies below the range for outgoing connections. A server that is down for a moment could otherwise lose its
/// port to a client's outgoing connection, even to the very client that tries to reach it again.
pub(crate) fn free() -> Result<u16> {
    let end = ephemeral_start();
    for _ in 0..64 {
        let port = fastrand::u16(LOWEST..end);
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    let listener =
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port on 127.0.0.1")?;
    Ok(listener.local_addr()?.port())
}

fn ephemeral_start() -> u16 {
    std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
        .ok()
        .and_then(|range| range.split_whitespace().next()?.parse().ok())
        .filter(|start| *start > LOWEST + 1000)
        .unwrap_or(EPHEMERAL)
}
