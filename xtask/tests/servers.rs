//! Servers of a test's own, of every kind: they start, break as told, come back, and leave nothing behind.

use std::{
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use xtask::servers::{self, Kind, Server};

/// Asks on a thread of its own; the answer arrives when the server gives one.
fn ask(url: String) -> mpsc::Receiver<anyhow::Result<String>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || sender.send(servers::version(&url)));
    receiver
}

fn break_and_mend(kind: Kind, name: &str) {
    let mut server = Server::start(kind).unwrap();
    for url in [server.url(), server.admin_url(), server.socket_url()] {
        let version = servers::version(&url).unwrap();
        assert!(version.contains(name), "{url} is {version}");
    }

    server.freeze().unwrap();
    let answer = ask(server.url());
    let silence = answer.recv_timeout(Duration::from_millis(500));
    assert_eq!(
        silence.err(),
        Some(mpsc::RecvTimeoutError::Timeout),
        "a frozen server answered"
    );
    server.thaw().unwrap();
    answer.recv().unwrap().unwrap();

    server.kill().unwrap();
    assert!(
        servers::version(&server.url()).is_err(),
        "a killed server answered"
    );
    assert!(server.freeze().is_err());
    server.start_again().unwrap();
    servers::version(&server.url()).unwrap();
    assert!(server.start_again().is_err(), "it runs already");

    let address = server.address();
    server.restart().unwrap();
    assert_eq!(server.address(), address);
    servers::version(&server.socket_url()).unwrap();

    // A frozen server has to go too.
    server.freeze().unwrap();
    let (url, log, socket) = (server.url(), server.log(), server.socket());
    drop(server);
    assert!(servers::version(&url).is_err());
    assert!(
        !log.exists() && !socket.exists(),
        "{} or {} stayed",
        log.display(),
        socket.display()
    );
}

#[test]
fn postgres_breaks_as_told_and_comes_back() {
    break_and_mend(Kind::Postgres, "PostgreSQL");
}

#[test]
fn mariadb_breaks_as_told_and_comes_back() {
    break_and_mend(Kind::MariaDb, "MariaDB");
}

#[test]
fn mysql_breaks_as_told_and_comes_back() {
    break_and_mend(Kind::MySql, "MySQL");
}

#[test]
fn two_servers_of_one_kind_are_two() {
    let servers = [
        Server::start(Kind::MariaDb).unwrap(),
        Server::start(Kind::MariaDb).unwrap(),
    ];
    assert_ne!(servers[0].address(), servers[1].address());
    for server in &servers {
        servers::version(&server.url()).unwrap();
    }
}

/// The other side of the next test: starts a server of each kind, freezes PostgreSQL, and waits to be killed.
#[test]
#[ignore = "runs as the child of another test"]
fn child_that_holds_servers() {
    let servers = Kind::ALL.map(|kind| Server::start(kind).unwrap());
    servers[0].freeze().unwrap();
    for server in &servers {
        println!("server {} {}", server.url(), server.log().display());
    }
    println!("ready");
    thread::sleep(Duration::from_secs(600));
}

#[test]
fn the_servers_of_a_killed_process_end_with_it() {
    use std::io::{BufRead, BufReader};
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--ignored",
            "--exact",
            "--nocapture",
            "child_that_holds_servers",
        ])
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map(Result::unwrap);
    let held: Vec<(String, PathBuf)> = lines
        .take_while(|line| line != "ready")
        .filter_map(|line| {
            let (_, server) = line.split_once("server ")?;
            let (url, log) = server.split_once(' ')?;
            Some((url.to_owned(), PathBuf::from(log)))
        })
        .collect();
    assert_eq!(held.len(), Kind::ALL.len());
    child.kill().unwrap();
    child.wait().unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while held.iter().any(|(_, log)| log.exists()) {
        assert!(Instant::now() < deadline, "a server outlived its process");
        thread::sleep(Duration::from_millis(50));
    }
    for (url, _) in held {
        assert!(servers::version(&url).is_err(), "{url} answers");
    }
}
