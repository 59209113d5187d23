//! The ways in which passwords travel, with TLS and without, right and wrong.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;
use std::time::Duration;

use dlock::InitError;
use xtask::servers::{DATABASE, Kind, Server};

use super::authority::Authority;
use super::{Step, lock_over};
use crate::place::{ENCODED, admin, assert_silent, connect, create_account, dsn, on_every_server};

on_every_server! {
    a_wrong_password_is_refused_with_tls_and_without => wrong_passwords;
}

fn wrong_passwords(server: &mut Server) {
    let ours = Authority::new();
    let kind = server.kind();
    server
        .restart_with_tls(Some(&ours.good_server("")))
        .expect("a server with TLS");
    for step in Step::ALL {
        let options = step.options(kind, &ours.path());
        let good = dsn(
            server,
            "127.0.0.1",
            xtask::servers::USER,
            DATABASE,
            &options,
        );
        for (wrong, shown) in [
            (good.replace(ENCODED, "hunter2"), "hunter2"),
            (good.replace(&format!(":{ENCODED}"), ""), ENCODED),
            (good.replacen(xtask::servers::USER, "nobody", 1), ENCODED),
        ] {
            let Err(error) = connect(&wrong) else {
                panic!("{kind}, {step:?}: let in with {wrong}")
            };
            let message = format!("{error}\n{error:?}");
            assert!(
                matches!(error, InitError::LoginRefused { .. }),
                "{kind}, {step:?}: {message}"
            );
            assert!(!message.contains(shown), "{message}");
        }
        lock_over(server, &good).expect("the right password");
    }
}

/// MySQL's own plugin sends the password under TLS as it is, and without TLS under the server's RSA key; what worked once
/// is remembered by the server and goes another, shorter way.
#[test]
fn caching_sha2_password_works_with_tls_and_without_the_first_time_and_later() {
    let mut server = Server::start(Kind::MySql).expect("a server");
    let ours = Authority::new();
    server
        .restart_with_tls(Some(&ours.good_server("")))
        .expect("a server with TLS");
    create_account(&server, "sha2", "");
    let plugin = admin(&server, "SELECT plugin FROM mysql.user WHERE user = 'sha2'");
    assert_eq!(plugin[0][0].as_deref(), Some("caching_sha2_password"));
    for step in Step::ALL {
        // Forgets who was let in.
        admin(&server, "FLUSH PRIVILEGES");
        let options = step.options(Kind::MySql, &ours.path());
        let good = dsn(&server, "127.0.0.1", "sha2", "", &options);
        for time in ["first", "second"] {
            let has_tls = lock_over(&server, &good)
                .unwrap_or_else(|error| panic!("{step:?}, {time} time: {error}"));
            assert_eq!(has_tls, step != Step::Disable);
        }
    }
    for (condition, number) in [("ACCOUNT LOCK", "3118"), ("PASSWORD EXPIRE", "18")] {
        admin(&server, &format!("ALTER USER sha2 {condition}"));
        let good = dsn(&server, "127.0.0.1", "sha2", "", "");
        let Err(error) = connect(&good) else {
            panic!("let in")
        };
        assert!(
            matches!(error, InitError::LoginRefused { .. }) && error.to_string().contains(number),
            "{error}"
        );
        admin(&server, "ALTER USER sha2 ACCOUNT UNLOCK");
    }
}

/// A greeting of MariaDB, and then the demand for a way to log in that the driver was not built with. Not to know it is an
/// error of this one connection: the thread behind all other locks goes on.
#[test]
fn a_server_that_asks_for_an_unknown_login_ends_nothing_but_the_connection() {
    let server = Server::start(Kind::Postgres).expect("a server");
    let other = connect(&server.url()).expect("a locker on the same thread");
    for plugin in [
        "client_ed25519",
        "parsec",
        "dialog",
        "mysql_clear_password",
        "mysql_old_password",
        "sha256_password",
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        thread::spawn(move || {
            for mut client in listener.incoming().flatten() {
                let _ = client.set_read_timeout(Some(Duration::from_secs(5)));
                let _ = demand(&mut client, plugin);
            }
        });
        let dsn =
            format!("mysql://u:{ENCODED}@127.0.0.1:{port}/?ssl-mode=DISABLED&connect_timeout=5");
        let error = connect(&dsn).map(drop).expect_err("no way in");
        assert_silent(&error);
        println!("{plugin}: {error}");
        assert!(
            matches!(error, InitError::LoginRefused { .. }),
            "{plugin}: {error}"
        );
        assert!(
            !error.to_string().contains("I/O thread"),
            "{plugin}: {error}"
        );
    }
    let guard = other.lock("k").try_acquire_blocking();
    drop(guard.expect("the thread goes on"));
}

fn demand(client: &mut std::net::TcpStream, plugin: &str) -> std::io::Result<()> {
    let mut greeting = b"\x0a5.5.5-10.11.19-MariaDB\0\x01\0\0\0abcdefgh\0".to_vec();
    // PROTOCOL_41, SECURE_CONNECTION, PLUGIN_AUTH.
    greeting.extend_from_slice(&[0xff, 0xf7, 0x2d, 0x02, 0x00, 0x08, 0x00, 21]);
    greeting.extend_from_slice(&[0; 10]);
    greeting.extend_from_slice(b"ijklmnopqrst\0mysql_native_password\0");
    send(client, 0, &greeting)?;
    let mut answer = [0; 4096];
    let _ = client.read(&mut answer)?;
    let mut switch = vec![0xfe];
    switch.extend_from_slice(plugin.as_bytes());
    switch.extend_from_slice(b"\0abcdefghijklmnopqrstuvwxyz012345\0");
    send(client, 2, &switch)?;
    let _ = client.read(&mut answer)?;
    // The salt that `parsec` wants next.
    send(client, 4, &[b"P\x00".as_slice(), &[7; 18]].concat())?;
    let _ = client.read(&mut answer)?;
    Ok(())
}

fn send(client: &mut std::net::TcpStream, number: u8, packet: &[u8]) -> std::io::Result<()> {
    let length = u8::try_from(packet.len()).unwrap_or(u8::MAX);
    client.write_all(&[length, 0, 0, number])?;
    client.write_all(packet)
}
