//! One direction of one connection.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use super::{Network, abandon};

/// Which direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// From the client to the server.
    Forth,
    /// From the server to the client.
    Back,
}

/// Forwards one direction until its end or a cut. The sockets are those to the client and to the server.
pub(super) fn pump(
    way: Way,
    (client, server): (TcpStream, TcpStream),
    network: &Arc<Network>,
    [is_cut, is_stranded]: [&Arc<AtomicBool>; 2],
) -> JoinHandle<()> {
    let (network, is_cut) = (Arc::clone(network), Arc::clone(is_cut));
    let is_stranded = Arc::clone(is_stranded);
    let (mut from, mut to) = match way {
        Way::Forth => (client, server),
        Way::Back => (server, client),
    };
    thread::spawn(move || {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let read = match from.read(&mut buffer) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Ok(read) => read,
                Err(_) => 0,
            };
            if !network.pass(way, &is_cut, &is_stranded) {
                return;
            }
            let mut rest = buffer.get(..read).unwrap_or_default();
            if rest.is_empty() {
                // The one side's end is the other side's end.
                let _ = to.shutdown(Shutdown::Write);
                return;
            }
            while !rest.is_empty() {
                let (length, cut) = network.portion(way, rest.len());
                let (piece, behind) = rest.split_at(length);
                if !write_all(&mut to, piece, &is_cut) {
                    let _ = to.shutdown(Shutdown::Write);
                    return;
                }
                if cut {
                    is_cut.store(true, Ordering::SeqCst);
                    abandon([&from, &to]);
                    network.forget(&is_cut);
                    return;
                }
                rest = behind;
            }
        }
    })
}

/// Writes everything, unless the connection is cut or its other side gone.
fn write_all(to: &mut TcpStream, mut piece: &[u8], is_cut: &AtomicBool) -> bool {
    while !piece.is_empty() {
        match to.write(piece) {
            Ok(written) => piece = piece.get(written..).unwrap_or_default(),
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::Interrupted | ErrorKind::WouldBlock | ErrorKind::TimedOut
                ) =>
            {
                if is_cut.load(Ordering::SeqCst) {
                    return false;
                }
            }
            Err(_) => return false,
        }
    }
    true
}
