//! The proxy breaks the network as it says, seen through plain sockets.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use xtask::proxy::Proxy;

/// A server that sends back what it gets.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || {
                let mut reader = stream.try_clone().unwrap();
                let _ = std::io::copy(&mut reader, &mut stream);
            });
        }
    });
    address
}

fn connect(proxy: &Proxy) -> TcpStream {
    let stream = TcpStream::connect(proxy.addr()).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    stream
}

fn round_trip(stream: &mut TcpStream, text: &[u8]) {
    stream.write_all(text).unwrap();
    let mut back = vec![0; text.len()];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(back, text);
}

#[test]
fn data_pass_both_ways() {
    let proxy = Proxy::start(echo()).unwrap();
    let mut stream = connect(&proxy);
    round_trip(&mut stream, b"hello");
    round_trip(&mut stream, &vec![7; 50_000]);
    assert_eq!(proxy.connection_count(), 1);
}

#[test]
fn a_stalled_proxy_holds_back_and_a_resumed_one_delivers() {
    let proxy = Proxy::start(echo()).unwrap();
    let mut stream = connect(&proxy);
    round_trip(&mut stream, b"before");
    proxy.stall();
    stream.write_all(b"held").unwrap();
    stream
        .set_read_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    let mut back = [0; 4];
    let error = stream.read(&mut back).unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        "{error}"
    );
    // Also for who connects meanwhile.
    let mut late = connect(&proxy);
    late.write_all(b"late").unwrap();
    proxy.resume();
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    stream.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"held");
    late.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"late");
}

#[test]
fn a_cut_resets_stalled_connections_too_and_new_ones_pass() {
    let proxy = Proxy::start(echo()).unwrap();
    let mut stream = connect(&proxy);
    round_trip(&mut stream, b"before");
    proxy.stall();
    stream.write_all(b"lost").unwrap();
    proxy.cut();
    let error = stream.read(&mut [0; 4]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    proxy.resume();
    round_trip(&mut connect(&proxy), b"after");
}

#[test]
fn a_cut_ends_a_blocked_write() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = Proxy::start(listener.local_addr().unwrap()).unwrap();
    let mut stream = connect(&proxy);
    let _never_read = listener.accept().unwrap();
    stream
        .set_write_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    while stream.write(&[0; 4096]).is_ok() {}
    proxy.cut();
    assert_eq!(proxy.connection_count(), 0);
}

#[test]
fn who_connects_is_refused_until_the_proxy_accepts_again_on_the_same_port() {
    let mut proxy = Proxy::start(echo()).unwrap();
    let address = proxy.addr();
    let mut stream = connect(&proxy);
    round_trip(&mut stream, b"before");
    proxy.refuse();
    assert_eq!(
        stream.read(&mut [0; 1]).unwrap_err().kind(),
        ErrorKind::ConnectionReset
    );
    let error = TcpStream::connect(address).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    proxy.accept_again().unwrap();
    assert_eq!(proxy.addr(), address);
    round_trip(&mut connect(&proxy), b"after");
}

#[test]
fn a_delay_holds_each_direction_back() {
    let proxy = Proxy::start(echo()).unwrap();
    let mut stream = connect(&proxy);
    proxy.delay(Duration::from_millis(100));
    let start = Instant::now();
    round_trip(&mut stream, b"slow");
    assert!(
        start.elapsed() >= Duration::from_millis(200),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn pieces_are_delayed_side_by_side() {
    const PIECES: usize = 20;
    let proxy = Proxy::start(echo()).unwrap();
    let mut stream = connect(&proxy);
    let delay = Duration::from_millis(500);
    proxy.delay(delay);
    let start = Instant::now();
    // As much as the proxy reads at once.
    let piece = vec![7; 64 * 1024];
    let writer = thread::spawn({
        let mut stream = stream.try_clone().unwrap();
        move || (0..PIECES).for_each(|_| stream.write_all(&piece).unwrap())
    });
    let mut back = vec![0; PIECES * 64 * 1024];
    stream.read_exact(&mut back).unwrap();
    writer.join().unwrap();
    // One after the other they would take longer in one direction alone.
    let one_by_one = delay * u32::try_from(PIECES).unwrap();
    assert!(start.elapsed() < one_by_one, "{:?}", start.elapsed());
}

#[test]
fn the_end_of_one_side_is_the_end_of_the_other() {
    let proxy = Proxy::start(echo()).unwrap();
    let mut stream = connect(&proxy);
    round_trip(&mut stream, b"bye");
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0);
}

#[test]
fn a_url_leads_through_the_proxy() {
    let target = echo();
    let proxy = Proxy::start(target).unwrap();
    let url = proxy.url(&format!("mysql://u:p%2Fw@{target}/db"));
    assert_eq!(url, format!("mysql://u:p%2Fw@{}/db", proxy.addr()));
}

#[test]
fn held_answers_arrive_later_and_requests_at_once() {
    let proxy = Proxy::start(echo()).unwrap();
    let mut stream = connect(&proxy);
    round_trip(&mut stream, b"before");
    proxy.hold_answers();
    stream.write_all(b"held").unwrap();
    stream
        .set_read_timeout(Some(Duration::from_millis(100)))
        .unwrap();
    let mut answer = [0; 4];
    assert!(stream.read(&mut answer).is_err());
    proxy.resume();
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"held");
}

#[test]
fn a_stranded_connection_is_silent_and_a_new_one_is_not() {
    let proxy = Proxy::start(echo()).unwrap();
    let mut stranded = connect(&proxy);
    round_trip(&mut stranded, b"before");
    proxy.strand();
    stranded.write_all(b"lost").unwrap();
    round_trip(&mut connect(&proxy), b"new");
    stranded
        .set_read_timeout(Some(Duration::from_millis(100)))
        .unwrap();
    let error = stranded.read(&mut [0; 4]).unwrap_err();
    assert!(matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::TimedOut
    ));
}

#[test]
fn a_split_stream_is_whole_in_the_end() {
    let proxy = Proxy::start(echo()).unwrap();
    proxy.split(3);
    let text: Vec<u8> = (0..=255).collect();
    round_trip(&mut connect(&proxy), &text);
}

#[test]
fn an_answer_is_cut_in_its_middle() {
    let proxy = Proxy::start(echo()).unwrap();
    let mut stream = connect(&proxy);
    round_trip(&mut stream, b"whole");
    assert_eq!(proxy.ports().len(), 1);
    proxy.cut_after(3);
    stream.write_all(b"answer").unwrap();
    let mut answer = Vec::new();
    let mut piece = [0; 8];
    let error = loop {
        match stream.read(&mut piece) {
            Ok(read) => {
                assert!(read > 0, "an end in good order");
                answer.extend_from_slice(&piece[..read]);
            }
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_eq!(answer, b"ans");
    round_trip(&mut connect(&proxy), b"new");
}
