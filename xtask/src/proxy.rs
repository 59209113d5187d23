//! A TCP proxy that breaks the network on demand, on any machine and without privileges.
//!
//! Bytes that arrive while the proxy is stalled are kept and forwarded later, as a network does that comes back before
//! TCP gives up; so is the end of a connection.

mod pump;

use std::{
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use rustix::net::sockopt::set_socket_linger;

use self::pump::{Way, pump};
use crate::ports;

/// How often a blocked write looks whether its connection was cut.
const WRITE_TICK: Duration = Duration::from_millis(20);

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
    holds_answers: bool,
    delay: Duration,
    /// The longest piece that is forwarded at once; zero: as it comes.
    piece: usize,
    /// After so many more bytes of answers the connection that carries the last of them is reset.
    cut_after: Option<usize>,
    links: Vec<Link>,
    /// How many questions and answers have followed each other, on whatever connections.
    answered: usize,
}

/// One connection of a client and its counterpart to the server.
#[derive(Debug)]
struct Link {
    is_cut: Arc<AtomicBool>,
    is_stranded: Arc<AtomicBool>,
    /// What had been [answered](State::answered) when it was opened.
    opened_after: usize,
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

    /// Holds back what the server answers; what clients send still reaches it.
    pub fn hold_answers(&self) {
        self.network.change(|state| state.holds_answers = true);
    }

    /// Forwards again, beginning with what was held back; a [cut](Self::cut_after) that has not come is called off.
    pub fn resume(&self) {
        self.network.change(|state| {
            state.is_stalled = false;
            state.holds_answers = false;
            state.cut_after = None;
        });
    }

    /// The connections of this moment never forward anything again, nor their end; new ones are not affected. Neither side
    /// is told: each is left with a half-open connection.
    pub fn strand(&self) {
        self.network.change(|state| {
            for link in &state.links {
                link.is_stranded.store(true, Ordering::SeqCst);
            }
        });
    }

    /// Forwards at most `bytes` at once, either way; zero ends that.
    pub fn split(&self, bytes: usize) {
        self.network.change(|state| state.piece = bytes);
    }

    /// Resets a connection in the middle of what the server sends, after so many more bytes of all connections together.
    pub fn cut_after(&self, bytes: usize) {
        self.network.change(|state| state.cut_after = Some(bytes));
    }

    /// The ports from which the open connections reach the server: by these the server names its clients.
    pub fn ports(&self) -> Vec<u16> {
        let state = self.network.state();
        let open = state.links.iter().filter(|link| !link.has_ended());
        open.filter_map(|link| Some(link.server.local_addr().ok()?.port()))
            .collect()
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

    /// How many round trips there were one after the other until now, and before each open connection, the oldest first.
    /// What is asked at once on several connections is one.
    ///
    /// With a [delay](Self::delay): without, one of two questions may be answered before the other is asked.
    pub fn round_trips(&self) -> (usize, Vec<usize>) {
        let state = self.network.state();
        let open = state.links.iter().filter(|link| !link.has_ended());
        (state.answered, open.map(|link| link.opened_after).collect())
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

    /// Something has come from a client, or is about to reach it. What a client asks follows all answers that it has.
    fn count(&self, way: Way, asked: &AtomicUsize) {
        let mut state = self.state();
        match way {
            Way::Forth => asked.store(state.answered + 1, Ordering::SeqCst),
            Way::Back => state.answered = state.answered.max(asked.load(Ordering::SeqCst)),
        }
    }

    /// Lets go of the sockets of a connection that was cut: it is reset when its pumps do too.
    fn forget(&self, is_cut: &Arc<AtomicBool>) {
        let mut state = self.state();
        state
            .links
            .retain(|link| !Arc::ptr_eq(&link.is_cut, is_cut));
    }

    /// How much of what has come may be forwarded at once, and whether the connection is reset behind that.
    fn portion(&self, way: Way, length: usize) -> (usize, bool) {
        let mut state = self.state();
        let piece = match state.piece {
            0 => length,
            piece => piece.min(length),
        };
        match state.cut_after {
            Some(left) if way == Way::Back && left <= piece => {
                state.cut_after = None;
                (left, true)
            }
            Some(left) if way == Way::Back => {
                state.cut_after = Some(left - piece);
                (piece, false)
            }
            _ => (piece, false),
        }
    }

    /// Waits until data that is due then may pass. `false`: the connection was cut meanwhile.
    fn pass(&self, way: Way, due: Instant, is_cut: &AtomicBool, is_stranded: &AtomicBool) -> bool {
        let mut state = self.state();
        let left = due.saturating_duration_since(Instant::now());
        if !left.is_zero() {
            // A cut does not wait for the delay's end.
            let waited = self
                .changed
                .wait_timeout_while(state, left, |_| !is_cut.load(Ordering::SeqCst));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        let is_held = |state: &State| {
            state.is_stalled
                || is_stranded.load(Ordering::SeqCst)
                || way == Way::Back && state.holds_answers
        };
        while is_held(&state) && !is_cut.load(Ordering::SeqCst) {
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
        server: TcpStream,
        network: &Arc<Network>,
        opened_after: usize,
    ) -> std::io::Result<Self> {
        for socket in [&client, &server] {
            socket.set_nodelay(true)?;
            socket.set_write_timeout(Some(WRITE_TICK))?;
        }
        let is_cut = Arc::new(AtomicBool::new(false));
        let is_stranded = Arc::new(AtomicBool::new(false));
        let asked = Arc::new(AtomicUsize::new(0));
        let start = |way| -> std::io::Result<_> {
            let sockets = (client.try_clone()?, server.try_clone()?);
            pump(way, sockets, network, &is_cut, &is_stranded, &asked)
        };
        let [forth, back] = [start(Way::Forth)?, start(Way::Back)?];
        Ok(Self {
            is_cut,
            is_stranded,
            opened_after,
            client,
            server,
            pumps: [forth, back],
        })
    }

    /// Lets both pumps end. The connection is reset when its last socket is dropped.
    fn cut(&self) {
        self.is_cut.store(true, Ordering::SeqCst);
        abandon([&self.client, &self.server]);
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

/// Makes the closing of a connection a reset, and ends its reading.
fn abandon(sockets: [&TcpStream; 2]) {
    for socket in sockets {
        // Without a wait for its end, closing resets. And the end of reading is not told to the other side.
        let _ = set_socket_linger(socket, Some(Duration::ZERO));
        let _ = socket.shutdown(Shutdown::Read);
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
        let Ok(server) = TcpStream::connect(target) else {
            continue;
        };
        // Nothing passes before the link is known to those who may cut it.
        let mut state = network.state();
        let Ok(link) = Link::open(client, server, network, state.answered) else {
            continue;
        };
        state.links.retain(|link| !link.has_ended());
        state.links.push(link);
    }
}
