//! Poolers, clusters, standbys, other releases and false clocks: they start, break as told, come back.

use std::{
    process::Command,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use xtask::{
    proxy::Proxy,
    servers::{self, FakeClock, Galera, Kind, PgBouncer, Pooling, Release, Server, Setup, value},
};

/// How far a false clock is ahead in these tests.
const DAY: i64 = 86_400;

#[test]
fn a_pooler_leads_to_its_server_in_both_modes() {
    let server = Server::start(Kind::Postgres).unwrap();
    let own = value(&server.admin_url(), "SELECT pg_postmaster_start_time()").unwrap();
    for pooling in [Pooling::Transaction, Pooling::Session] {
        let mut pooler = PgBouncer::start(&server, pooling).unwrap();
        let ask = |pooler: &PgBouncer| value(&pooler.url(), "SELECT pg_postmaster_start_time()");
        assert_eq!(ask(&pooler).unwrap(), own);
        pooler.freeze().unwrap();
        let url = pooler.url();
        let asking = thread::spawn(move || value(&url, "SELECT 1"));
        thread::sleep(Duration::from_millis(300));
        assert!(!asking.is_finished(), "a frozen pooler answered");
        pooler.thaw().unwrap();
        assert_eq!(asking.join().unwrap().unwrap(), "1");
        pooler.kill().unwrap();
        assert!(ask(&pooler).is_err(), "a killed pooler answered");
        let log = pooler.log();
        drop(pooler);
        assert!(!log.exists());
    }
}

/// What tells the two modes apart: whether a setting of a session is still there for the next client, or for this one.
#[tokio::test]
async fn only_in_session_mode_a_session_belongs_to_its_client() {
    let server = Server::start(Kind::Postgres).unwrap();
    for (pooling, kept) in [(Pooling::Transaction, false), (Pooling::Session, true)] {
        let pooler = PgBouncer::start(&server, pooling).unwrap();
        let mut clients = Vec::new();
        for _ in 0..2 {
            let (client, connection) =
                tokio_postgres::connect(&pooler.url(), tokio_postgres::NoTls)
                    .await
                    .unwrap();
            tokio::spawn(connection);
            clients.push(client);
        }
        let [one, other] = clients.as_slice() else {
            unreachable!("two clients")
        };
        one.batch_execute("SET dlock.probe = 'mine'").await.unwrap();
        // The server's session that `one` has used is now this one's, if it may be.
        other.batch_execute("BEGIN").await.unwrap();
        let told = one
            .simple_query("SELECT current_setting('dlock.probe', true)")
            .await
            .unwrap();
        let told = told.iter().find_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0),
            _ => None,
        });
        assert_eq!(told == Some("mine"), kept, "{pooling:?}");
    }
}

#[test]
fn a_cluster_of_three_replicates_loses_nodes_and_takes_them_back() {
    let mut cluster = Galera::start().unwrap();
    value(&cluster.url(0), "CREATE TABLE t (n INT PRIMARY KEY)").unwrap();
    let insert = |cluster: &Galera, node: usize, n: i32| {
        value(&cluster.url(node), &format!("INSERT INTO t VALUES ({n})"))
    };
    // Not with `wsrep_sync_wait`: on a node that has come back, it may wait in vain until the next write.
    let has = |cluster: &Galera, node: usize, rows: &str, when: &str| {
        cluster.wait_until_synced(node).unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let counted = value(&cluster.url(node), "SELECT count(*) FROM t");
            if counted.as_ref().is_ok_and(|counted| counted == rows) {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "{when} node {node} has {counted:?} rows, not {rows}"
            );
            thread::sleep(Duration::from_millis(20));
        }
    };
    for node in 0..3 {
        insert(&cluster, node, i32::try_from(node).unwrap()).unwrap();
    }
    for node in 0..3 {
        has(&cluster, node, "3", "at first");
    }

    cluster.stop(2).unwrap();
    insert(&cluster, 0, 3).unwrap();
    cluster.start_again(2).unwrap();
    has(&cluster, 2, "4", "after a stop");

    cluster.kill(0).unwrap();
    cluster.wait_for_size(1, 2).unwrap();
    insert(&cluster, 1, 4).unwrap();
    cluster.start_again(0).unwrap();
    has(&cluster, 0, "5", "after a kill, also of the first,");

    cluster.freeze(1).unwrap();
    cluster.wait_for_size(0, 2).unwrap();
    insert(&cluster, 0, 5).unwrap();
    cluster.thaw(1).unwrap();
    cluster.wait_for_size(1, 3).unwrap();
    has(&cluster, 1, "6", "after a freeze");

    cluster.freeze(0).unwrap();
    cluster.freeze(1).unwrap();
    cluster.wait_for_quorum_loss(2).unwrap();
    assert!(insert(&cluster, 2, 6).is_err(), "a minority took a write");
    cluster.thaw(0).unwrap();
    cluster.thaw(1).unwrap();
    for node in 0..3 {
        cluster.wait_for_size(node, 3).unwrap();
    }
    insert(&cluster, 2, 6).unwrap();
    has(&cluster, 0, "7", "after the quorum came back");
}

#[test]
fn other_releases_are_what_they_say() {
    for (release, name) in [
        (Release::Postgres13, "PostgreSQL 13."),
        (Release::Postgres14, "PostgreSQL 14."),
        (Release::Postgres18, "PostgreSQL 18."),
    ] {
        let server = Setup::new(Kind::Postgres).release(release).start().unwrap();
        let version = servers::version(&server.url()).unwrap();
        assert!(version.starts_with(name), "{version}");
    }
    let other = Setup::new(Kind::MySql).release(Release::Postgres14).start();
    assert!(other.is_err());
}

#[test]
fn a_standby_follows_and_is_promoted_behind_the_same_name() {
    let mut primary = Server::start(Kind::Postgres).unwrap();
    let standby = primary.standby().unwrap();
    let mut name = Proxy::start(primary.address()).unwrap();
    let url = name.url(&primary.url());
    let created = "CREATE TABLE t (n int); INSERT INTO t VALUES (7); SELECT n FROM t";
    assert_eq!(value(&url, created).unwrap(), "7");
    standby_has(&standby);
    name.lead_to(standby.address()).unwrap();
    assert_eq!(value(&url, "SELECT pg_is_in_recovery()").unwrap(), "t");
    assert!(
        value(&url, "INSERT INTO t VALUES (8)").is_err(),
        "read-only"
    );
    primary.kill().unwrap();
    standby.promote().unwrap();
    assert_eq!(value(&url, "SELECT pg_is_in_recovery()").unwrap(), "f");
    assert_eq!(
        value(&url, "INSERT INTO t VALUES (8) RETURNING n").unwrap(),
        "8"
    );
}

fn standby_has(standby: &Server) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while value(&standby.url(), "SELECT n FROM t").ok().as_deref() != Some("7") {
        assert!(Instant::now() < deadline, "nothing arrives");
        thread::sleep(Duration::from_millis(20));
    }
}

/// The seconds since 1970, as the statement tells.
fn asked(url: &str, sql: &str) -> i64 {
    value(url, sql).unwrap().parse().unwrap()
}

fn here() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(now.as_secs()).unwrap()
}

#[test]
fn a_server_shows_the_clock_it_is_told() {
    for (kind, sql) in [
        (
            Kind::Postgres,
            "SELECT floor(extract(epoch FROM clock_timestamp()))::bigint",
        ),
        (Kind::MariaDb, "SELECT UNIX_TIMESTAMP(SYSDATE())"),
    ] {
        let mut server = Setup::new(kind).clock(DAY).start().unwrap();
        let ahead = |server: &Server| asked(&server.url(), sql) - here();
        assert!(
            (ahead(&server) - DAY).abs() < 60,
            "{kind}: {}",
            ahead(&server)
        );
        server.set_clock(-DAY).unwrap();
        assert!(
            (ahead(&server) + DAY).abs() < 60,
            "{kind}: {}",
            ahead(&server)
        );
        server.restart().unwrap();
        assert!(
            (ahead(&server) + DAY).abs() < 60,
            "{kind}: {}",
            ahead(&server)
        );
    }
    assert!(Setup::new(Kind::MySql).clock(DAY).start().is_err());
    assert!(Server::start(Kind::Postgres).unwrap().set_clock(1).is_err());
}

#[test]
fn a_program_shows_the_clock_it_is_told() {
    let mut date = Command::new("date");
    date.arg("+%s");
    FakeClock::ahead(-DAY).unwrap().show_to(&mut date);
    let told = String::from_utf8(date.output().unwrap().stdout).unwrap();
    let told: i64 = told.trim().parse().unwrap();
    assert!((told + DAY - here()).abs() < 60, "{told}");
}
