//! One direction of one connection.

#[cfg(target_os = "linux")]
use std::num::NonZeroU64;
use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::Instant,
};

use super::{Network, abandon};

/// How many pieces may be on their way in one direction of a connection.
const PIECES: usize = 1024;

/// What was read at once, and when it is to be forwarded. Without bytes it is the end of the connection.
struct Piece {
    due: Instant,
    bytes: Vec<u8>,
}

/// Which direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// From the client to the server.
    Forth,
    /// From the server to the client.
    Back,
}

/// Forwards one direction until its end or a cut: one thread reads, another writes each piece when its time has come, so
/// that a delay holds back every piece but not the next one's reading. The sockets are those to the client and to the
/// server.
pub(super) fn pump(
    way: Way,
    (client, server): (TcpStream, TcpStream),
    network: &Arc<Network>,
    is_cut: &Arc<AtomicBool>,
    is_stranded: &Arc<AtomicBool>,
    asked: &Arc<AtomicUsize>,
) -> std::io::Result<[JoinHandle<()>; 2]> {
    let (mut from, to) = match way {
        Way::Forth => (client, server),
        Way::Back => (server, client),
    };
    let writing = Writing {
        way,
        from: from.try_clone()?,
        to,
        network: Arc::clone(network),
        is_cut: Arc::clone(is_cut),
        is_stranded: Arc::clone(is_stranded),
        asked: Arc::clone(asked),
    };
    // When full, the reader waits, and with it the sender.
    let (sender, receiver) = mpsc::sync_channel::<Piece>(PIECES);
    let reader = thread::spawn({
        let (network, asked) = (Arc::clone(network), Arc::clone(asked));
        move || {
            let mut buffer = vec![0; 64 * 1024];
            loop {
                let read = match from.read(&mut buffer) {
                    Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                    Ok(read) => read,
                    Err(_) => 0,
                };
                if way == Way::Forth && read > 0 {
                    network.count(way, &asked);
                }
                let piece = Piece {
                    due: Instant::now() + network.state().delay,
                    bytes: buffer.get(..read).unwrap_or_default().to_vec(),
                };
                // The other thread ends when the connection is cut or its other side gone.
                if sender.send(piece).is_err() || read == 0 {
                    return;
                }
            }
        }
    });
    let writer = thread::spawn(move || writing.run(receiver));
    Ok([reader, writer])
}

/// The second half of a direction.
struct Writing {
    way: Way,
    from: TcpStream,
    to: TcpStream,
    network: Arc<Network>,
    is_cut: Arc<AtomicBool>,
    is_stranded: Arc<AtomicBool>,
    /// The place of the last question among the [round trips](Network::count).
    asked: Arc<AtomicUsize>,
}

impl Writing {
    fn run(mut self, pieces: mpsc::Receiver<Piece>) {
        // By default the system lets a thread sleep 50 µs longer, which is as long as a whole delay may be. Where
        // it cannot be told, delays are longer.
        #[cfg(target_os = "linux")]
        let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
        for piece in pieces {
            let (is_cut, is_stranded) = (&self.is_cut, &self.is_stranded);
            if !self.network.pass(self.way, piece.due, is_cut, is_stranded) {
                return;
            }
            if self.way == Way::Back && !piece.bytes.is_empty() {
                self.network.count(self.way, &self.asked);
            }
            if piece.bytes.is_empty() || !self.forward(&piece.bytes) {
                // The one side's end is the other side's end.
                let _ = self.to.shutdown(Shutdown::Write);
                return;
            }
        }
    }

    /// Writes what was read at once, or a part of it and a reset.
    fn forward(&mut self, mut rest: &[u8]) -> bool {
        while !rest.is_empty() {
            let (length, cut) = self.network.portion(self.way, rest.len());
            let (piece, behind) = rest.split_at(length);
            if !write_all(&mut self.to, piece, &self.is_cut) {
                return false;
            }
            if cut {
                self.is_cut.store(true, Ordering::SeqCst);
                abandon([&self.from, &self.to]);
                self.network.forget(&self.is_cut);
                // The next piece finds the connection cut.
                return true;
            }
            rest = behind;
        }
        true
    }
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
