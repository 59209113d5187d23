//! A TCP proxy that breaks the network on demand, on any machine and without privileges.
//!
//! Bytes that arrive while the proxy is stalled are kept and forwarded later, as a network does that comes back before
//! TCP gives up; so is the end of a connection.

#[cfg(target_os = "linux")]
use std::num::NonZeroU64;
use std::{
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use rustix::net::sockopt::set_socket_linger;

use crate::ports;

/// How often a blocked write looks whether its connection was cut.
const WRITE_TICK: Duration = Duration::from_millis(20);

/// How many pieces may be on their way in one direction of a connection.
const PIECES: usize = 1024;

/// A proxy on loopback before one server. Dropped, it cuts all connections and is gone.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    target: SocketAddr,
    network: Arc<Network>,
    acceptor: Option<Acceptor>,
}

#[derive(Debug)]
struct Acceptor {
    stopped: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

/// What every connection looks at.
#[derive(Debug, Default)]
struct Network {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    is_stalled: bool,
    delay: Duration,
    links: Vec<Link>,
}

/// What was read at once, and when it is to be forwarded. Without bytes it is the end of the connection.
struct Piece {
    due: Instant,
    bytes: Vec<u8>,
}

/// One connection of a client and its counterpart to the server.
#[derive(Debug)]
struct Link {
    is_cut: Arc<AtomicBool>,
    client: TcpStream,
    server: TcpStream,
    pumps: [[JoinHandle<()>; 2]; 2],
}

impl Proxy {
    /// Starts a proxy on a free port of `127.0.0.1` that forwards to `target`.
    ///
    /// # Errors
    ///
    /// When there is no free port.
    pub fn start(target: SocketAddr) -> Result<Self> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, ports::free()?));
        let mut proxy = Self {
            address,
            target,
            network: Arc::new(Network::default()),
            acceptor: None,
        };
        proxy.accept_again()?;
        Ok(proxy)
    }

    /// Where the proxy listens; it never changes.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// `url` with the proxy's address in place of the server's.
    ///
    /// For URLs whose host and port are written as the target's, like those of [`crate::servers::Server`].
    pub fn url(&self, url: &str) -> String {
        url.replacen(
            &format!("@{}", self.target),
            &format!("@{}", self.address),
            1,
        )
    }

    /// Forwards nothing any more, either way; connections stay open and new ones are accepted, as behind a cut cable.
    pub fn stall(&self) {
        self.network.change(|state| state.is_stalled = true);
    }

    /// Forwards again, beginning with what was held back.
    pub fn resume(&self) {
        self.network.change(|state| state.is_stalled = false);
    }

    /// Holds every piece of data that arrives from now on back for `delay` before it is forwarded, either way; zero ends
    /// that.
    ///
    /// Pieces wait side by side, as on a long line: many that follow each other arrive as close together as they were sent.
    pub fn delay(&self, delay: Duration) {
        self.network.change(|state| state.delay = delay);
    }

    /// Resets all connections (RST), on both sides, and returns when that is done; new ones are accepted.
    pub fn cut(&self) {
        let links = std::mem::take(&mut self.network.state().links);
        for link in &links {
            link.cut();
        }
        // Those that wait for the end of a stall.
        self.network.changed.notify_all();
        for link in links {
            link.wait();
        }
    }

    /// Cuts all connections and accepts no more: who connects is refused.
    pub fn refuse(&mut self) {
        if let Some(acceptor) = self.acceptor.take() {
            acceptor.stopped.store(true, Ordering::SeqCst);
            // Wakes the thread, which waits for a connection. When this fails, it has ended by itself.
            let _ = TcpStream::connect(self.address);
            let _ = acceptor.thread.join();
        }
        self.cut();
    }

    /// Accepts connections again, on the same port.
    ///
    /// # Errors
    ///
    /// When somebody else took the port meanwhile.
    pub fn accept_again(&mut self) -> Result<()> {
        if self.acceptor.is_some() {
            return Ok(());
        }
        let listener = TcpListener::bind(self.address)
            .with_context(|| format!("cannot listen on {}", self.address))?;
        let stopped = Arc::new(AtomicBool::new(false));
        let (target, network) = (self.target, Arc::clone(&self.network));
        let thread = thread::spawn({
            let stopped = Arc::clone(&stopped);
            move || accept(&listener, target, &network, &stopped)
        });
        self.acceptor = Some(Acceptor { stopped, thread });
        Ok(())
    }

    /// Cuts all connections and leads new ones to another server, as a name does after a failover.
    ///
    /// # Errors
    ///
    /// When somebody else took the port meanwhile.
    pub fn lead_to(&mut self, target: SocketAddr) -> Result<()> {
        self.refuse();
        self.target = target;
        self.accept_again()
    }

    /// How many connections are open.
    pub fn connection_count(&self) -> usize {
        self.network
            .state()
            .links
            .iter()
            .filter(|link| !link.has_ended())
            .count()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.refuse();
    }
}

impl Network {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.changed.notify_all();
    }

    /// Waits until data that is due then may pass. `false`: the connection was cut meanwhile.
    fn pass(&self, due: Instant, is_cut: &AtomicBool) -> bool {
        let mut state = self.state();
        let left = due.saturating_duration_since(Instant::now());
        if !left.is_zero() {
            // A cut does not wait for the delay's end.
            let waited = self
                .changed
                .wait_timeout_while(state, left, |_| !is_cut.load(Ordering::SeqCst));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        while state.is_stalled && !is_cut.load(Ordering::SeqCst) {
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        drop(state);
        !is_cut.load(Ordering::SeqCst)
    }
}

impl Link {
    fn open(
        client: TcpStream,
        target: SocketAddr,
        network: &Arc<Network>,
    ) -> std::io::Result<Self> {
        let server = TcpStream::connect(target)?;
        for socket in [&client, &server] {
            socket.set_nodelay(true)?;
            socket.set_write_timeout(Some(WRITE_TICK))?;
        }
        let is_cut = Arc::new(AtomicBool::new(false));
        let forth = pump(client.try_clone()?, server.try_clone()?, network, &is_cut);
        let back = pump(server.try_clone()?, client.try_clone()?, network, &is_cut);
        Ok(Self {
            is_cut,
            client,
            server,
            pumps: [forth, back],
        })
    }

    /// Lets both pumps end. The connection is reset when its last socket is dropped.
    fn cut(&self) {
        self.is_cut.store(true, Ordering::SeqCst);
        for socket in [&self.client, &self.server] {
            // Without a wait for its end, closing resets. And the end of reading is not told to the other side.
            let _ = set_socket_linger(socket, Some(Duration::ZERO));
            let _ = socket.shutdown(Shutdown::Read);
        }
    }

    fn wait(self) {
        for thread in self.pumps.into_iter().flatten() {
            let _ = thread.join();
        }
    }

    fn has_ended(&self) -> bool {
        self.pumps.iter().flatten().all(JoinHandle::is_finished)
    }
}

fn accept(
    listener: &TcpListener,
    target: SocketAddr,
    network: &Arc<Network>,
    stopped: &AtomicBool,
) {
    for client in listener.incoming() {
        if stopped.load(Ordering::SeqCst) {
            return;
        }
        let Ok(client) = client else { continue };
        // A server that cannot be reached shows as a closed connection.
        let Ok(link) = Link::open(client, target, network) else {
            continue;
        };
        let mut state = network.state();
        state.links.retain(|link| !link.has_ended());
        state.links.push(link);
    }
}

/// Forwards one direction until its end or a cut: one thread reads, another writes each piece when its time has come, so
/// that a delay holds back every piece but not the next one's reading.
fn pump(
    mut from: TcpStream,
    mut to: TcpStream,
    network: &Arc<Network>,
    is_cut: &Arc<AtomicBool>,
) -> [JoinHandle<()>; 2] {
    // When full, the reader waits, and with it the sender.
    let (sender, receiver) = mpsc::sync_channel::<Piece>(PIECES);
    let reader = thread::spawn({
        let network = Arc::clone(network);
        move || {
            let mut buffer = vec![0; 64 * 1024];
            loop {
                let read = match from.read(&mut buffer) {
                    Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                    Ok(read) => read,
                    Err(_) => 0,
                };
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
    let writer = thread::spawn({
        let (network, is_cut) = (Arc::clone(network), Arc::clone(is_cut));
        move || {
            // By default the system lets a thread sleep 50 µs longer, which is as long as a whole delay may be. Where
            // it cannot be told, delays are longer.
            #[cfg(target_os = "linux")]
            let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
            for piece in receiver {
                if !network.pass(piece.due, &is_cut) {
                    return;
                }
                if piece.bytes.is_empty() || !write_all(&mut to, &piece.bytes, &is_cut) {
                    // The one side's end is the other side's end.
                    let _ = to.shutdown(Shutdown::Write);
                    return;
                }
            }
        }
    });
    [reader, writer]
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
