//! The rules of leases, against a real server, named by `DLOCK_TEST_POSTGRES_URL`.

use std::future::Future;
use std::time::Duration;

use tokio_postgres::{Client, NoTls};

use super::*;
use crate::backend::lease::row::Reader;
use crate::backend::lease::{kept, late, left, shared};
use crate::config::Config;
use crate::endpoint::Endpoint;
use crate::lease::Fence;

const TTL: Duration = Duration::from_secs(30);

fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime for the test").block_on(test)
}

fn url() -> String {
    std::env::var("DLOCK_TEST_POSTGRES_URL")
        .expect("DLOCK_TEST_POSTGRES_URL must name a PostgreSQL server for the tests")
}

fn config(options: &str) -> Config {
    let mark = if url().contains('?') { '&' } else { '?' };
    let dsn = format!("{}{mark}strategy=lease&{options}", url());
    Config::from_dsn(&dsn).expect("a good DSN")
}

async fn try_open(table: Option<&str>, namespace: &str) -> Result<PostgresStore, InitError> {
    let mut config = config(&format!("namespace={namespace}"));
    if let Some(table) = table {
        config = config.table(table);
    }
    open_with(config).await
}

async fn open_with(config: Config) -> Result<PostgresStore, InitError> {
    let Endpoint::Postgres(endpoint) = config.endpoint().expect("a good configuration") else {
        panic!("not PostgreSQL")
    };
    let (settings, bells) = (config.lease_settings(), Bells::default());
    let opened = PostgresStore::open(*endpoint, &settings, &bells).await;
    opened.map(|(store, _)| store)
}

async fn open(namespace: &str) -> PostgresStore {
    try_open(None, namespace).await.expect("the test server")
}

async fn client() -> Client {
    let (client, connection) = tokio_postgres::connect(&url(), NoTls)
        .await
        .expect("the test server");
    tokio::spawn(connection);
    client
}

/// A namespace that no other test uses.
fn fresh() -> String {
    format!("lease-tests-{:016x}", fastrand::u64(..))
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

async fn take(store: &PostgresStore, name: &str, owner: &str) -> Option<u64> {
    store.take(&claim(name, owner)).await.expect("an answer")
}

async fn renew(store: &PostgresStore, renewal: Renewal) -> Renewed {
    store.renew(&[renewal]).await.expect("an answer")[0]
}

#[test]
fn l1_a_reader_that_read_before_a_writer_came_does_not_get_in() {
    run(async {
        let store = open(&fresh()).await;
        store.create("k").await.expect("a row");
        let row = store.read("k").await.expect("an answer").expect("a row");
        // Between the reader's two statements.
        assert_eq!(take(&store, "k", "writer").await, Some(row.token + 1));
        let mut readers = row.readers(false);
        let ends = row.now + micros(TTL);
        readers.insert("reader".into(), Reader(row.token + 1, ends, String::new()));
        let swap = Swap {
            version: row.version,
            token: Some(row.token + 1),
            owner: "reader".into(),
            readers: crate::backend::lease::row::to_json(&readers),
            expires_at: ends,
            ttl: TTL,
            last_run: None,
        };
        assert!(!store.swap("k", &swap).await.expect("an answer"));
        let row = store.read("k").await.expect("an answer").expect("a row");
        assert!(row.owner == "writer" && row.readers.is_empty(), "{row:?}");
    });
}

#[test]
fn l1_readers_and_a_writer_share_one_row() {
    run(async {
        let store = open(&fresh()).await;
        let one = shared::take(&store, &claim("k", "one")).await;
        let one = one.expect("an answer").expect("free");
        let two = shared::take(&store, &claim("k", "two")).await;
        let two = two.expect("an answer").expect("readers hold together");
        assert!(two > one);
        assert_eq!(take(&store, "k", "writer").await, None);
        for (owner, token) in [("one", one), ("two", two)] {
            let renewal = renewal("k", owner, token, Mode::Shared);
            assert_eq!(renew(&store, renewal).await, Renewed::Yes);
        }
        let foreign = renewal("k", "one", two, Mode::Shared);
        assert_eq!(renew(&store, foreign).await, Renewed::Lost);
        for (owner, token) in [("one", one), ("two", two)] {
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
fn l2_the_databases_clock_ends_a_lease() {
    run(async {
        let (store, client) = (open(&fresh()).await, client().await);
        let short = Claim {
            ttl: Duration::from_secs(5),
            ..claim("k", "one")
        };
        assert_eq!(store.take(&short).await.expect("an answer"), Some(1));
        assert_eq!(take(&store, "k", "two").await, None);
        // As if the database's clock had moved on; this process's has not.
        let moved = "UPDATE public.dlock_lease SET expires_at = expires_at - interval '5 seconds' WHERE namespace = $1";
        client
            .execute(moved, &[&&*store.namespace])
            .await
            .expect("a row");
        assert_eq!(
            renew(&store, renewal("k", "one", 1, Mode::Exclusive)).await,
            Renewed::Lost
        );
        assert_eq!(take(&store, "k", "two").await, Some(2));
    });
}

#[test]
fn l3_a_late_renewal_takes_nothing_again() {
    run(async {
        let store = open(&fresh()).await;
        let token = take(&store, "k", "one").await.expect("free");
        // A take of its own that comes late finds it taken too.
        assert_eq!(take(&store, "k", "one").await, None);
        let late = renewal("k", "one", token, Mode::Exclusive);
        assert_eq!(renew(&store, late.clone()).await, Renewed::Yes);
        let released = store
            .release("k", "one", token, None)
            .await
            .expect("an answer");
        assert!(released.was_held && !released.is_wanted);
        assert_eq!(renew(&store, late.clone()).await, Renewed::Lost);
        let next = take(&store, "k", "two").await.expect("released");
        assert_eq!(renew(&store, late).await, Renewed::Lost);
        // Nor does the same owner with another token, or the reverse.
        for (owner, token) in [("two", token), ("one", next)] {
            let wrong = renewal("k", owner, token, Mode::Exclusive);
            assert_eq!(renew(&store, wrong).await, Renewed::Lost);
            let released = store
                .release("k", owner, token, None)
                .await
                .expect("an answer");
            assert!(!released.was_held);
        }
        let right = renewal("k", "two", next, Mode::Exclusive);
        assert_eq!(renew(&store, right).await, Renewed::Yes);
    });
}

#[test]
fn l3_a_take_that_comes_late_is_given_back() {
    run(async {
        let store = open(&fresh()).await;
        let settings = config("").lease_settings();
        late::a_take_that_comes_late_is_given_back(store, settings).await;
    });
}

#[test]
fn a_server_that_is_gone_is_found_out_soon_however_long_leases_last() {
    run(async {
        let store = open_with(config("ttl=24h")).await.expect("the server");
        let most = Duration::from_secs(10);
        assert!(store.answers_within <= most, "{:?}", store.answers_within);
        for link in [&store.main, &store.side] {
            let connection = link.get().await.expect("a connection");
            let shown = connection.client.query_one("SHOW lock_timeout", &[]).await;
            let shown: String = shown.expect("a setting").get(0);
            assert_eq!(shown, "7500ms");
        }
    });
}

#[test]
fn l4_a_released_row_stays_and_its_token_grows() {
    run(async {
        let (namespace, client) = (fresh(), client().await);
        let store = open(&namespace).await;
        for token in 1..=3 {
            assert_eq!(take(&store, "k", "one").await, Some(token));
            let released = store
                .release("k", "one", token, None)
                .await
                .expect("an answer");
            assert!(released.was_held);
        }
        // Who removes rows raises the floor first.
        let floor = "INSERT INTO public.dlock_lease (namespace, name, token, owner, program, expires_at, ttl)
                     SELECT namespace, '', max(token), '', '', to_timestamp(0), 0
                     FROM public.dlock_lease WHERE namespace = $1 GROUP BY namespace";
        client.execute(floor, &[&namespace]).await.expect("a floor");
        let purge = "DELETE FROM public.dlock_lease WHERE namespace = $1 AND name <> ''";
        assert_eq!(
            client.execute(purge, &[&namespace]).await.expect("a row"),
            1
        );
        assert_eq!(take(&store, "k", "one").await, Some(4));
        store.create("another").await.expect("a row");
        let row = store.read("another").await.expect("an answer");
        assert_eq!(row.expect("a row").token, 3);
    });
}

#[test]
fn l5_a_fence_check_keeps_takes_off_and_no_renewal() {
    run(async {
        let (namespace, mut client) = (fresh(), client().await);
        let store = open(&namespace).await;
        let fence = Fence::default().namespace(&*namespace);
        let token = take(&store, "k", "one").await.expect("free");
        let transaction = client.transaction().await.expect("a transaction");
        for (key, token, holds) in [("k", token, true), ("k", token + 1, false), ("x", 1, false)] {
            let checked = fence.check_postgres(&transaction, key, token).await;
            assert_eq!(checked.expect("an answer"), holds, "{key} {token}");
        }
        // A thousand leases go together, the checked one among them.
        let mut renewals = vec![renewal("k", "one", token, Mode::Exclusive)];
        for number in 1..1000 {
            let name = format!("k{number}");
            let token = take(&store, &name, "one").await.expect("free");
            renewals.push(renewal(&name, "one", token, Mode::Exclusive));
        }
        let renewed = store.renew(&renewals).await.expect("an answer");
        assert!(renewed.iter().all(|renewed| *renewed == Renewed::Yes));
        // The release is not held up either; only who comes next is.
        let released = store
            .release("k", "one", token, None)
            .await
            .expect("an answer");
        assert!(released.was_held);
        assert_eq!(take(&store, "k", "two").await, None);
        transaction.commit().await.expect("a commit");
        assert_eq!(take(&store, "k", "two").await, Some(token + 1));
        assert!(
            !fence
                .check_postgres(&client, "k", token)
                .await
                .expect("an answer")
        );
        assert!(
            fence
                .check_postgres(&client, "k", token + 1)
                .await
                .expect("an answer")
        );
    });
}

#[test]
fn l5_a_locked_row_holds_up_no_other_renewal() {
    run(async {
        let (namespace, mut client) = (fresh(), client().await);
        let store = open(&namespace).await;
        let mut renewals = Vec::new();
        for name in ["free", "locked"] {
            let token = take(&store, name, "one").await.expect("free");
            renewals.push(renewal(name, "one", token, Mode::Exclusive));
        }
        let transaction = client.transaction().await.expect("a transaction");
        let lock =
            "SELECT FROM public.dlock_lease WHERE namespace = $1 AND name = 'locked' FOR UPDATE";
        transaction
            .execute(lock, &[&namespace])
            .await
            .expect("a row");
        let renewed = store.renew(&renewals).await.expect("an answer");
        assert_eq!(renewed, [Renewed::Yes, Renewed::Locked]);
        drop(transaction);
        // The rollback is on its way, before whatever follows on that connection.
        client.execute("SELECT", &[]).await.expect("an answer");
        let renewed = store.renew(&renewals).await.expect("an answer");
        assert_eq!(renewed, [Renewed::Yes, Renewed::Yes]);
    });
}

#[test]
fn l6_many_who_make_the_table_at_once_all_find_it() {
    run(async {
        let table = format!("public.l6_{:016x}", fastrand::u64(..));
        let opening = (0..6).map(|_| try_open(Some(&table), "n"));
        let stores = futures_util::future::join_all(opening).await;
        let stores: Vec<_> = stores
            .into_iter()
            .collect::<Result<_, _>>()
            .expect("a table");
        assert_eq!(take(&stores[0], "k", "one").await, Some(1));
        assert_eq!(take(&stores[5], "k", "two").await, None);
        drop(stores);
        let drop = format!("DROP TABLE {table}");
        client()
            .await
            .batch_execute(&drop)
            .await
            .expect("the table");
    });
}

#[test]
fn l6_the_table_has_a_schema() {
    run(async {
        let client = client().await;
        let (schema, table) = (
            format!("s{:016x}", fastrand::u64(..)),
            fresh().replace('-', "_"),
        );
        client
            .batch_execute(&format!("CREATE SCHEMA {schema}"))
            .await
            .expect("a schema");
        let elsewhere = format!("{schema}.{table}");
        let one = try_open(Some(&elsewhere), "n").await.expect("a table");
        // Without a schema it is that of `public`, whatever the user's search path says.
        let two = try_open(Some(&table), "n").await.expect("a table");
        assert_eq!(take(&one, "k", "one").await, Some(1));
        assert_eq!(take(&two, "k", "two").await, Some(1));
        let drop = format!("DROP SCHEMA {schema} CASCADE; DROP TABLE public.{table}");
        client.batch_execute(&drop).await.expect("both tables");
    });
}

#[test]
fn l7_a_release_says_whether_somebody_waits() {
    run(async {
        let store = open(&fresh()).await;
        let token = take(&store, "k", "one").await.expect("free");
        let notice = Notice {
            name: "k",
            owner: "two",
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
        let token = take(&store, "k", "two").await.expect("free");
        let released = store
            .release("k", "two", token, None)
            .await
            .expect("an answer");
        assert!(!released.is_wanted, "who waited has it");
    });
}

/// Nothing of it is ours: whoever waits or checks leaves it alone.
#[test]
fn what_others_wrote_into_the_row_stops_nobody() {
    run(async {
        let namespace = fresh();
        let (store, client) = (open(&namespace).await, client().await);
        let reader = shared::take(&store, &claim("k", "reader")).await;
        let reader = reader.expect("an answer").expect("free");
        let foreign = r#"{"text": "x", "words": ["a", "b", 1], "number": 3, "null": null, "empty": {},
            "huge": [1, 99999999999999999999, 1, ""], "flag": [1, true, 1], "longer": [1, 9000000000000000, 1, "", ""]}"#;
        let write = format!(
            "UPDATE dlock_lease SET readers = readers || '{foreign}', waiters = waiters || '{foreign}' \
             WHERE namespace = '{namespace}'"
        );
        client.batch_execute(&write).await.expect("a row");
        let fence = Fence::default().namespace(&*namespace);
        for (token, holds) in [(reader, true), (reader + 1, false)] {
            let checked = fence.check_postgres(&client, "k", token).await;
            assert_eq!(checked.expect("an answer"), holds);
        }
        let renewal = renewal("k", "reader", reader, Mode::Shared);
        assert_eq!(renew(&store, renewal).await, Renewed::Yes);
        let notice = Notice {
            name: "k",
            owner: "writer",
            mode: Mode::Exclusive,
            since: None,
            lasts: Duration::from_secs(20),
        };
        let announced = store.announce(&notice).await.expect("an answer");
        assert!(announced.is_some(), "it is held");
        let row = store.read("k").await.expect("an answer").expect("a row");
        assert!(row.waiters.keys().eq(["writer"]), "{row:?}");
        assert!(row.readers.keys().eq(["reader"]), "{row:?}");
        let end = shared::End::default();
        let released = shared::release_as(&store, "k", "reader", reader, end).await;
        let released = released.expect("an answer");
        assert!(released.was_held && released.is_wanted, "{released:?}");
        assert!(take(&store, "k", "writer").await > Some(reader));
    });
}

#[test]
fn l7_who_was_killed_keeps_nobody_waiting() {
    run(async {
        let store = open(&fresh()).await;
        let settings = config("").lease_settings();
        left::the_killed_keep_nobody_waiting(store, settings, false).await;
    });
}

#[test]
fn a_table_of_an_older_layout_is_refused_with_the_sql_that_mends_it() {
    run(async {
        let table = format!("old_{:016x}", fastrand::u64(..));
        drop(try_open(Some(&table), "").await.expect("the test server"));
        let client = client().await;
        let older = format!("ALTER TABLE {table} DROP COLUMN last_run");
        client.batch_execute(&older).await.expect("a column");
        let Err(error) = try_open(Some(&table), "").await else {
            panic!("it has no column last_run");
        };
        let text = error.to_string();
        let (_, remedy) = text.split_once("ALTER TABLE").expect("the remedy");
        let sql = format!("ALTER TABLE{}", remedy.split('\n').next().unwrap_or(remedy));
        client.batch_execute(&sql).await.expect("the remedy works");
        try_open(Some(&table), "").await.expect("it is mended");
        client
            .batch_execute(&format!("DROP TABLE {table}"))
            .await
            .expect("the table");
    });
}

#[test]
fn b7_a_released_row_can_stay_taken_by_nobody() {
    run(async {
        let namespace = fresh();
        let store = open(&namespace).await;
        let token = kept::a_released_row_can_stay_taken_by_nobody(&store).await;
        let fence = Fence::default().namespace(&*namespace);
        let checked = fence.check_postgres(&client().await, "k", token).await;
        assert!(!checked.expect("an answer"), "its holder has gone");
    });
}

#[test]
fn b7_a_released_reader_can_keep_writers_out() {
    run(async { kept::a_released_reader_can_keep_writers_out(&open(&fresh()).await).await });
}
