//! The rules of leases, against real servers, named by `DLOCK_TEST_MARIADB_URL` and `DLOCK_TEST_MYSQL_URL`.

mod locked;

use std::future::Future;

use mysql_async::{Conn, IsolationLevel, Opts, OptsBuilder, Transaction, TxOpts};

use super::*;
use crate::backend::lease::{kept, late, left, shared};
use crate::config::Config;
use crate::endpoint::Endpoint;
use crate::lease::Fence;

const TTL: Duration = Duration::from_secs(30);
const VARIABLES: [&str; 2] = ["DLOCK_TEST_MARIADB_URL", "DLOCK_TEST_MYSQL_URL"];

/// Runs a test on either server.
fn on_both<F: Future<Output = ()>>(test: impl Fn(String) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime for the test");
    for variable in VARIABLES {
        let url = std::env::var(variable)
            .unwrap_or_else(|_| panic!("{variable} must name a server for the tests"));
        runtime.block_on(test(url));
    }
}

fn config(url: &str, options: &str) -> Config {
    let mark = if url.contains('?') { '&' } else { '?' };
    let dsn = format!("{url}{mark}strategy=lease&{options}");
    Config::from_dsn(&dsn).expect("a good DSN")
}

async fn open_table(url: &str, table: Option<&str>, namespace: &str) -> MySqlStore {
    let opened = try_open_table(url, table, namespace).await;
    opened.expect("the test server")
}

async fn try_open_table(
    url: &str,
    table: Option<&str>,
    namespace: &str,
) -> Result<MySqlStore, InitError> {
    let mut config = config(url, &format!("namespace={namespace}"));
    if let Some(table) = table {
        config = config.table(table);
    }
    try_open_with(config).await
}

async fn open_with(config: Config) -> MySqlStore {
    try_open_with(config).await.expect("the test server")
}

async fn try_open_with(config: Config) -> Result<MySqlStore, InitError> {
    let Endpoint::MySql(endpoint) = config.endpoint().expect("a good configuration") else {
        panic!("not MySQL")
    };
    let opened = MySqlStore::open(*endpoint, &config.lease_settings()).await;
    opened.map(|(store, _)| store)
}

/// As on a cluster, whose clocks are several.
async fn open_doubted(url: &str) -> MySqlStore {
    let mut store = open(url).await;
    store.is_galera = true;
    store.statements = Statements::new(
        &crate::config::TableName::default(),
        true,
        store.statements.locked,
    );
    store
}

/// On both servers, with a clock that is one and with clocks that are several.
fn on_both_clocks<F: Future<Output = ()>>(test: impl Fn(String, MySqlStore) -> F) {
    on_both(async |url| {
        test(url.clone(), open(&url).await).await;
        test(url.clone(), open_doubted(&url).await).await;
    });
}

async fn open(url: &str) -> MySqlStore {
    open_table(url, None, &fresh()).await
}

async fn conn(url: &str) -> Conn {
    let (_, rest) = url.split_once("://").expect("a URL");
    let options = Opts::from_url(&format!("mysql://{rest}")).expect("a URL");
    let options = OptsBuilder::from_opts(options).prefer_socket(false);
    Conn::new(options).await.expect("the test server")
}

/// A namespace that no other test uses.
fn fresh() -> String {
    format!("lease_tests_{:016x}", fastrand::u64(..))
}

fn claim<'a>(name: &'a str, owner: &'a str) -> Claim<'a> {
    Claim {
        name,
        owner,
        program: "tests",
        ttl: TTL,
        stale: None,
    }
}

fn renewal(name: &str, owner: &str, token: u64, mode: Mode) -> Renewal {
    Renewal {
        name: name.into(),
        owner: owner.into(),
        token,
        mode,
        ttl: TTL,
    }
}

async fn take(store: &MySqlStore, name: &str, owner: &str) -> Option<u64> {
    store.take(&claim(name, owner)).await.expect("an answer")
}

async fn renew(store: &MySqlStore, renewal: Renewal) -> Renewed {
    store.renew(&[renewal]).await.expect("an answer")[0]
}

#[test]
fn l1_readers_and_a_writer_share_one_row() {
    on_both(async |url| {
        let store = open(&url).await;
        let one = shared::take(&store, &claim("k", "host pid 1#a.1")).await;
        let one = one.expect("an answer").expect("free");
        let before = store.read("k").await.expect("an answer").expect("a row");
        let two = shared::take(&store, &claim("k", "two")).await;
        let two = two.expect("an answer").expect("readers hold together");
        assert!(two > one);
        assert_eq!(take(&store, "k", "writer").await, None);
        // Who read before the other came does not get in.
        let swap = Swap {
            version: before.version,
            token: Some(before.token + 1),
            owner: "late".into(),
            readers: "{}".into(),
            expires_at: before.now,
            ttl: TTL,
            last_run: None,
        };
        assert!(!store.swap("k", &swap).await.expect("an answer"));
        for (owner, token) in [("host pid 1#a.1", one), ("two", two)] {
            let right = renewal("k", owner, token, Mode::Shared);
            assert_eq!(renew(&store, right).await, Renewed::Yes);
            let wrong = renewal("k", owner, token + 7, Mode::Shared);
            assert_eq!(renew(&store, wrong).await, Renewed::Lost);
            let released =
                shared::release_as(&store, "k", owner, token, shared::End::default()).await;
            assert!(released.expect("an answer").was_held);
            let again = renewal("k", owner, token, Mode::Shared);
            assert_eq!(renew(&store, again).await, Renewed::Lost);
        }
        assert!(take(&store, "k", "writer").await > Some(two));
        let reader = shared::take(&store, &claim("k", "late")).await;
        assert_eq!(reader.expect("an answer"), None);
    });
}

#[test]
fn l2_a_doubted_clock_ends_no_lease_that_was_not_watched() {
    on_both(async |url| {
        let mut store = open(&url).await;
        // As on a node of a cluster.
        store.is_galera = true;
        store.statements = Statements::new(
            &crate::config::TableName::default(),
            true,
            store.statements.locked,
        );
        let token = take(&store, "k", "one").await.expect("free");
        let past =
            "UPDATE dlock_lease SET expires_at = 1 + expires_at - 60 * 1000000 WHERE namespace = ?";
        let mut conn = conn(&url).await;
        let namespace = store.namespace.as_bytes().to_vec();
        conn.exec_drop(past, (namespace,)).await.expect("a row");
        // By this node's clock it is over; another's may have renewed it.
        assert_eq!(take(&store, "k", "two").await, None);
        let seen = store
            .read("k")
            .await
            .expect("an answer")
            .expect("a row")
            .version;
        let steal = |stale| Claim {
            stale,
            ..claim("k", "two")
        };
        assert_eq!(
            store.take(&steal(Some(seen + 1))).await.expect("an answer"),
            None
        );
        let stolen = store.take(&steal(Some(seen))).await.expect("an answer");
        assert_eq!(stolen, Some(token + 1));
        // Released, it is free on every clock.
        assert!(
            store
                .release("k", "two", token + 1, None)
                .await
                .expect("an answer")
                .was_held
        );
        assert_eq!(take(&store, "k", "three").await, Some(token + 2));
    });
}

#[test]
fn l3_a_late_renewal_takes_nothing_again() {
    on_both(async |url| {
        let store = open(&url).await;
        let token = take(&store, "k", "one").await.expect("free");
        // A take of its own that comes late finds it taken too.
        assert_eq!(take(&store, "k", "one").await, None);
        let late = renewal("k", "one", token, Mode::Exclusive);
        assert_eq!(renew(&store, late.clone()).await, Renewed::Yes);
        assert!(
            store
                .release("k", "one", token, None)
                .await
                .expect("an answer")
                .was_held
        );
        assert_eq!(renew(&store, late.clone()).await, Renewed::Lost);
        let next = take(&store, "k", "two").await.expect("released");
        assert_eq!(renew(&store, late).await, Renewed::Lost);
        assert!(
            !store
                .release("k", "one", token, None)
                .await
                .expect("an answer")
                .was_held
        );
        let right = renewal("k", "two", next, Mode::Exclusive);
        assert_eq!(renew(&store, right).await, Renewed::Yes);
    });
}

#[test]
fn l3_a_take_that_comes_late_is_given_back() {
    on_both(async |url| {
        let store = open(&url).await;
        let settings = config(&url, "").lease_settings();
        late::a_take_that_comes_late_is_given_back(store, settings).await;
    });
}

/// The ends of a row and of a reader in it.
async fn ends(store: &MySqlStore, owner: &str) -> (i64, i64) {
    let row = store.read("k").await.expect("an answer").expect("a row");
    (row.expires_at, row.readers[owner].1)
}

#[test]
fn l3_a_renewal_that_comes_late_brings_no_end_nearer() {
    on_both(async |url| {
        let store = open(&url).await;
        let token = shared::take(&store, &claim("k", "one")).await;
        let token = token.expect("an answer").expect("free");
        let before = ends(&store, "one").await;
        let shorter = Renewal {
            ttl: TTL / 10,
            ..renewal("k", "one", token, Mode::Shared)
        };
        assert_eq!(renew(&store, shorter).await, Renewed::Yes);
        assert_eq!(ends(&store, "one").await, before);
        let longer = Renewal {
            ttl: TTL * 10,
            ..renewal("k", "one", token, Mode::Shared)
        };
        assert_eq!(renew(&store, longer).await, Renewed::Yes);
        let after = ends(&store, "one").await;
        assert!(after.0 > before.0 && after.1 > before.1, "{after:?}");
    });
}

#[test]
fn l4_a_released_row_stays_and_its_token_grows() {
    on_both(async |url| {
        let store = open(&url).await;
        for token in 1..=3 {
            assert_eq!(take(&store, "k", "one").await, Some(token));
            assert!(
                store
                    .release("k", "one", token, None)
                    .await
                    .expect("an answer")
                    .was_held
            );
        }
    });
}

#[test]
fn l5_a_fence_check_keeps_takes_off_and_no_renewal() {
    on_both_clocks(async |url, store| {
        let mut conn = conn(&url).await;
        let fence = Fence::default().namespace(&*store.namespace);
        let token = take(&store, "k", "one").await.expect("free");
        let other = take(&store, "other", "one").await.expect("free");
        let mut transaction = conn
            .start_transaction(TxOpts::new())
            .await
            .expect("a transaction");
        for (token, holds) in [(token, true), (token + 1, false)] {
            let checked = fence.check_mysql(&mut transaction, "k", token).await;
            assert_eq!(checked.expect("an answer"), holds, "{token}");
        }
        let renewals = [
            renewal("k", "one", token, Mode::Exclusive),
            renewal("other", "one", other, Mode::Exclusive),
        ];
        let renewed = store.renew(&renewals).await.expect("an answer");
        assert_eq!(renewed, [Renewed::Yes, Renewed::Yes]);
        assert!(
            store
                .release("k", "one", token, None)
                .await
                .expect("an answer")
                .was_held
        );
        assert_eq!(take(&store, "k", "two").await, None);
        transaction.commit().await.expect("a commit");
        assert_eq!(take(&store, "k", "two").await, Some(token + 1));
        let checked = fence.check_mysql(&mut conn, "k", token).await;
        assert!(!checked.expect("an answer"));
    });
}

#[test]
fn a_server_that_is_gone_is_found_out_soon_however_long_leases_last() {
    on_both(async |url| {
        let store = open_with(config(&url, "ttl=24h")).await;
        for line in [&store.main, &store.side] {
            let most = Duration::from_secs(10);
            assert!(line.answers_within <= most, "{:?}", line.answers_within);
        }
    });
}

#[test]
fn l6_many_who_make_the_table_at_once_all_find_it() {
    on_both(async |url| {
        let table = format!("l6_{:016x}", fastrand::u64(..));
        let opening = (0..4).map(|_| open_table(&url, Some(&table), "n"));
        let stores = futures_util::future::join_all(opening).await;
        assert_eq!(take(&stores[0], "k", "one").await, Some(1));
        assert_eq!(take(&stores[3], "k", "two").await, None);
        let drop = format!("DROP TABLE {table}");
        conn(&url).await.query_drop(drop).await.expect("the table");
    });
}

#[test]
fn l7_a_release_says_whether_somebody_waits() {
    on_both(async |url| {
        let store = open(&url).await;
        let token = take(&store, "k", "one").await.expect("free");
        let notice = Notice {
            name: "k",
            owner: "two words",
            mode: Mode::Exclusive,
            since: None,
            lasts: Duration::from_secs(20),
        };
        let announced = store.announce(&notice).await.expect("an answer");
        let announced = announced.expect("it is held");
        assert!(announced.remaining > TTL / 2 && announced.remaining <= TTL);
        let again = Notice {
            since: Some(announced.since),
            ..notice
        };
        let again = store.announce(&again).await.expect("an answer");
        assert_eq!(again.map(|again| again.since), Some(announced.since));
        let released = store
            .release("k", "one", token, None)
            .await
            .expect("an answer");
        assert!(released.is_wanted);
        assert!(
            store.announce(&notice).await.expect("an answer").is_none(),
            "free"
        );
        let token = take(&store, "k", "two words").await.expect("free");
        let released = store
            .release("k", "two words", token, None)
            .await
            .expect("an answer");
        assert!(!released.is_wanted, "who waited has it");
    });
}

#[test]
fn l7_who_was_killed_keeps_nobody_waiting() {
    on_both_clocks(async |url, store| {
        let settings = config(&url, "").lease_settings();
        left::the_killed_keep_nobody_waiting(store, settings, true).await;
    });
}

#[test]
fn a_table_of_an_older_layout_is_refused_with_the_sql_that_mends_it() {
    on_both(async |url| {
        let table = format!("old_{:016x}", fastrand::u64(..));
        drop(
            try_open_table(&url, Some(&table), "")
                .await
                .expect("the test server"),
        );
        let mut conn = conn(&url).await;
        let older = format!("ALTER TABLE {table} DROP COLUMN last_run");
        conn.query_drop(older).await.expect("a column");
        let Err(error) = try_open_table(&url, Some(&table), "").await else {
            panic!("it has no column last_run");
        };
        let text = error.to_string();
        let (_, remedy) = text.split_once("ALTER TABLE").expect("the remedy");
        let sql = format!("ALTER TABLE{}", remedy.split('\n').next().unwrap_or(remedy));
        conn.query_drop(sql).await.expect("the remedy works");
        try_open_table(&url, Some(&table), "")
            .await
            .expect("it is mended");
        conn.query_drop(format!("DROP TABLE {table}"))
            .await
            .expect("the table");
    });
}

#[test]
fn b7_a_released_row_can_stay_taken_by_nobody() {
    on_both_clocks(async |_, store| {
        kept::a_released_row_can_stay_taken_by_nobody(&store).await;
    });
}

#[test]
fn b7_a_released_reader_can_keep_writers_out() {
    on_both_clocks(async |_, store| kept::a_released_reader_can_keep_writers_out(&store).await);
}
