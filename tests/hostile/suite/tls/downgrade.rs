//! Somebody between who says that the server has no TLS.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;

use xtask::servers::{Kind, Server};

use super::authority::Authority;
use super::modes::no_tls;
use super::{Step, app, assert_refused, lock_over};
use crate::place::on_every_server;

on_every_server! {
    a_server_that_is_said_to_have_no_tls_is_refused_where_tls_is_demanded => downgrade;
}

fn downgrade(server: &mut Server) {
    let ours = Authority::new();
    let kind = server.kind();
    server
        .restart_with_tls(Some(&ours.good_server("")))
        .expect("a server with TLS");
    let liar = liar(kind, server.address());
    for step in Step::ALL {
        let case = format!("{kind}, stripped, {step:?}");
        let options = step.options(kind, &ours.path());
        // The same DSN is good without somebody between.
        let direct = app(server, "127.0.0.1", &options);
        assert_eq!(
            lock_over(server, &direct).expect(&case),
            step != Step::Disable
        );
        let through = direct.replace(&server.address().to_string(), &liar.to_string());
        let outcome = lock_over(server, &through);
        if matches!(step, Step::Disable | Step::Prefer) {
            assert!(
                !outcome.unwrap_or_else(|error| panic!("{case}: {error}")),
                "{case}"
            );
        } else {
            assert_refused(outcome, no_tls(kind), &case);
        }
    }
}

/// Starts the one between, for as long as the process lives.
fn liar(kind: Kind, target: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            thread::spawn(move || {
                let server = TcpStream::connect(target).ok()?;
                match kind {
                    Kind::Postgres => deny_request(client, server),
                    Kind::MariaDb | Kind::MySql => strip_flag(client, server),
                }
                .ok()
            });
        }
    });
    address
}

/// Answers the request for TLS with `N`, as a server without TLS does, and forwards what comes then.
fn deny_request(mut client: TcpStream, mut server: TcpStream) -> std::io::Result<()> {
    const REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
    let mut first = [0; 8];
    client.read_exact(&mut first)?;
    if first == REQUEST {
        client.write_all(b"N")?;
    } else {
        server.write_all(&first)?;
    }
    forward(client, server)
}

/// Takes `CLIENT_SSL` out of what the server's greeting says that it can do.
fn strip_flag(mut client: TcpStream, mut server: TcpStream) -> std::io::Result<()> {
    let mut head = [0; 4];
    server.read_exact(&mut head)?;
    let [a, b, c, _] = head;
    let mut greeting = vec![0; usize::from(a) | usize::from(b) << 8 | usize::from(c) << 16];
    server.read_exact(&mut greeting)?;
    // The protocol's number, the version up to a NUL, the session's number, 8 bytes and a NUL, the flags' lower half.
    let version = greeting
        .iter()
        .skip(1)
        .position(|byte| *byte == 0)
        .unwrap_or_default();
    if let Some(flags) = greeting.get_mut(version + 2 + 4 + 9 + 1) {
        *flags &= !0x08;
    }
    client.write_all(&head)?;
    client.write_all(&greeting)?;
    forward(client, server)
}

fn forward(client: TcpStream, server: TcpStream) -> std::io::Result<()> {
    let (mut from_client, mut to_server) = (client.try_clone()?, server.try_clone()?);
    let forth = thread::spawn(move || {
        let _ = std::io::copy(&mut from_client, &mut to_server);
        to_server.shutdown(Shutdown::Write)
    });
    let (mut from_server, mut to_client) = (server, client);
    std::io::copy(&mut from_server, &mut to_client)?;
    let _ = to_client.shutdown(Shutdown::Write);
    let _ = forth.join();
    Ok(())
}
