//! The rules of leases, on files of SQLite.

use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use rusqlite::Connection;

use super::*;
use crate::backend::lease::row::DOUBTED_NOTICE;
use crate::backend::lease::store::StoreError;
use crate::backend::lease::{Leases, bells::Bells, kept, late, left, shared};
use crate::config::Config;

const TTL: Duration = Duration::from_secs(30);

/// A directory of one test's own.
struct Ground(PathBuf);

impl Ground {
    fn new() -> Ground {
        let path =
            std::env::temp_dir().join(format!("dlock-sqlite-tests-{:016x}", fastrand::u64(..)));
        std::fs::create_dir(&path).expect("a directory for the test");
        Ground(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join("locks.db")
    }

    async fn try_open(&self, options: &str) -> Result<SqliteStore, InitError> {
        try_open(&self.file(), options).await
    }

    async fn open(&self) -> SqliteStore {
        self.try_open("").await.expect("a file")
    }

    /// A connection apart from the store.
    fn sql(&self) -> Connection {
        let connection = Connection::open(self.file()).expect("the file");
        let patience = connection.busy_timeout(Duration::from_secs(20));
        patience.expect("a setting");
        connection
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

async fn try_open(path: &Path, options: &str) -> Result<SqliteStore, InitError> {
    let config = Config::from_dsn(&format!("sqlite:locks.db?{options}")).expect("a good DSN");
    let opened = SqliteStore::open(path, &config.lease_settings()).await;
    opened.map(|(store, _)| store)
}

fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime for the test").block_on(test)
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

async fn take(store: &SqliteStore, name: &str, owner: &str) -> Option<u64> {
    store.take(&claim(name, owner)).await.expect("an answer")
}

async fn renew(store: &SqliteStore, renewal: Renewal) -> Renewed {
    store.renew(&[renewal]).await.expect("an answer")[0]
}

#[test]
fn l1_a_reader_that_read_before_a_writer_came_does_not_get_in() {
    run(async {
        let ground = Ground::new();
        let store = ground.open().await;
        store.create("k").await.expect("a row");
        let row = store.read("k").await.expect("an answer").expect("a row");
        // Between the reader's two steps.
        assert_eq!(take(&store, "k", "writer").await, Some(row.token + 1));
        let swap = Swap {
            version: row.version,
            token: Some(row.token + 1),
            owner: "reader".into(),
            readers: r#"{"reader":[1,9000000000000000,""]}"#.to_owned(),
            expires_at: row.now + micros(TTL),
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
        let ground = Ground::new();
        let (store, elsewhere) = (ground.open().await, ground.open().await);
        let one = shared::take(&store, &claim("k", "one")).await;
        let one = one.expect("an answer").expect("free");
        let two = shared::take(&elsewhere, &claim("k", "two")).await;
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
fn l2_a_clock_that_steps_ends_no_lease_that_was_not_watched() {
    run(async {
        let ground = Ground::new();
        let (store, sql) = (ground.open().await, ground.sql());
        assert_eq!(take(&store, "k", "one").await, Some(1));
        // As if the machine's clock had been set an hour forward.
        let step = |micros: i64| {
            let step = "UPDATE dlock_lease SET expires_at = expires_at - ?1";
            assert_eq!(sql.execute(step, [micros]).expect("a row"), 1);
        };
        step(3600 * 1_000_000);
        assert_eq!(take(&store, "k", "two").await, None);
        let reader = shared::take(&store, &claim("k", "reader")).await;
        assert_eq!(reader.expect("an answer"), None);
        // The holder does not vouch for it either.
        let late = renewal("k", "one", 1, Mode::Exclusive);
        assert_eq!(renew(&store, late).await, Renewed::Lost);
        let row = store.read("k").await.expect("an answer").expect("a row");
        let watched = |stale| Claim {
            stale: Some(stale),
            ..claim("k", "two")
        };
        let other = store.take(&watched(row.version - 1)).await;
        assert_eq!(other.expect("an answer"), None, "it has changed since");
        let taken = store.take(&watched(row.version)).await;
        assert_eq!(taken.expect("an answer"), Some(2));
        // A day is more than a step, unless the clock was not set when the lease was taken.
        step(25 * 3600 * 1_000_000);
        assert_eq!(take(&store, "k", "three").await, Some(3));
        let unset = "UPDATE dlock_lease SET expires_at = 3600000000";
        sql.execute(unset, []).expect("a row");
        assert_eq!(take(&store, "k", "four").await, None);
    });
}

#[test]
fn l3_a_late_renewal_takes_nothing_again() {
    run(async {
        let ground = Ground::new();
        let store = ground.open().await;
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
fn l3_a_renewal_that_comes_late_brings_no_end_nearer() {
    run(async {
        let ground = Ground::new();
        let store = ground.open().await;
        let writer = take(&store, "w", "one").await.expect("free");
        let reader = shared::take(&store, &claim("r", "one")).await;
        let reader = reader.expect("an answer").expect("free");
        let ends = async || {
            let [w, r] = ["w", "r"].map(|name| store.read(name));
            let (w, r) = (w.await.expect("an answer"), r.await.expect("an answer"));
            let (w, r) = (w.expect("a row"), r.expect("a row"));
            [w.expires_at, w.ttl, r.expires_at, r.readers["one"].1]
        };
        let before = ends().await;
        for (ttl, is_longer) in [(TTL / 10, false), (TTL * 10, true)] {
            for (name, token, mode) in [("w", writer, Mode::Exclusive), ("r", reader, Mode::Shared)]
            {
                let renewal = Renewal {
                    ttl,
                    ..renewal(name, "one", token, mode)
                };
                assert_eq!(renew(&store, renewal).await, Renewed::Yes);
            }
            for (after, before) in ends().await.into_iter().zip(before) {
                let expected = if is_longer {
                    after > before
                } else {
                    after == before
                };
                assert!(expected, "{after} after {before}");
            }
        }
    });
}

#[test]
fn l3_a_take_that_comes_late_is_given_back() {
    run(async {
        let ground = Ground::new();
        let store = ground.open().await;
        let config = Config::from_dsn("sqlite:locks.db").expect("a good DSN");
        let settings = config.lease_settings();
        late::a_take_that_comes_late_is_given_back(store, settings).await;
    });
}

#[test]
fn l4_a_released_row_stays_and_its_token_grows() {
    run(async {
        let ground = Ground::new();
        let store = ground.open().await;
        for token in 1..=3 {
            assert_eq!(take(&store, "k", "one").await, Some(token));
            let released = store
                .release("k", "one", token, None)
                .await
                .expect("an answer");
            assert!(released.was_held);
        }
        // Who removes rows raises the floor first.
        let sql = ground.sql();
        sql.execute("UPDATE dlock_lease SET name = ''", [])
            .expect("a floor");
        assert_eq!(take(&store, "k", "one").await, Some(4));
        store.create("another").await.expect("a row");
        let row = store.read("another").await.expect("an answer");
        assert_eq!(row.expect("a row").token, 3);
    });
}

#[test]
fn l6_many_who_make_the_table_at_once_all_find_it() {
    run(async {
        let ground = Ground::new();
        let opening = (0..6).map(|_| ground.try_open(""));
        let stores = futures_util::future::join_all(opening).await;
        let stores: Vec<_> = stores
            .into_iter()
            .collect::<Result<_, _>>()
            .expect("a table");
        assert_eq!(take(&stores[0], "k", "one").await, Some(1));
        assert_eq!(take(&stores[5], "k", "two").await, None);
    });
}

#[test]
fn l7_a_release_says_whether_somebody_waits() {
    run(async {
        let ground = Ground::new();
        let store = ground.open().await;
        let token = take(&store, "k", "one").await.expect("free");
        let notice = Notice {
            name: "k",
            owner: "two",
            mode: Mode::Exclusive,
            since: None,
            lasts: Duration::from_secs(10),
        };
        let announced = store.announce(&notice).await.expect("an answer");
        let announced = announced.expect("it is held");
        assert!(announced.remaining > TTL / 2 && announced.remaining <= TTL);
        let released = store
            .release("k", "one", token, None)
            .await
            .expect("an answer");
        assert!(released.is_wanted);
        let free = store.announce(&notice).await.expect("an answer");
        assert!(free.is_none());
        let token = take(&store, "k", "two").await.expect("free");
        let released = store
            .release("k", "two", token, None)
            .await
            .expect("an answer");
        assert!(!released.is_wanted, "who waited has it");
    });
}

#[test]
fn l7_whoever_waits_says_so_again_while_the_last_announcement_counts() {
    run(async {
        let ground = Ground::new();
        let leases = async |options: &str| {
            let config = format!("sqlite:locks.db?{options}");
            let config = Config::from_dsn(&config).expect("a good DSN");
            Leases::new(
                ground.open().await,
                Bells::default(),
                config.lease_settings(),
            )
        };
        assert_eq!(leases("").await.longest_pause(), ASKS_EVERY);
        let patient = leases("retry=1h").await;
        assert!(3 * patient.longest_pause() <= DOUBTED_NOTICE);
        // Nor do others wait for a turn that nobody takes.
        assert!(patient.turn_of_others() <= Duration::from_secs(5));
    });
}

#[test]
fn l7_who_was_killed_keeps_nobody_waiting() {
    run(async {
        let ground = Ground::new();
        let store = ground.open().await;
        let config = Config::from_dsn("sqlite:locks.db").expect("a good DSN");
        let settings = config.lease_settings();
        left::the_killed_keep_nobody_waiting(store, settings, false).await;
    });
}

#[test]
fn l8_a_file_that_others_write_holds_up_no_other_task() {
    run(async {
        let ground = Ground::new();
        let store = ground.open().await;
        let sql = ground.sql();
        sql.execute_batch("BEGIN IMMEDIATE").expect("the file");
        // On the thread of this runtime the take would wait for an end that can only come after it.
        let claim = claim("k", "one");
        let (taken, ()) = tokio::join!(store.take(&claim), async {
            sql.execute_batch("COMMIT").expect("the file");
        });
        assert_eq!(taken.expect("it waited"), Some(1));
        // And who writes for too long is no loss: it is tried again.
        sql.execute_batch("BEGIN IMMEDIATE").expect("the file");
        let late = renewal("k", "one", 1, Mode::Exclusive);
        let busy = store.renew(std::slice::from_ref(&late)).await;
        assert!(matches!(busy, Err(StoreError::Again { .. })), "{busy:?}");
        sql.execute_batch("COMMIT").expect("the file");
        assert_eq!(renew(&store, late).await, Renewed::Yes);
    });
}

#[test]
fn leases_of_a_replaced_file_are_lost() {
    run(async {
        let ground = Ground::new();
        let store = ground.open().await;
        let token = take(&store, "k", "one").await.expect("free");
        let held = renewal("k", "one", token, Mode::Exclusive);
        assert_eq!(renew(&store, held.clone()).await, Renewed::Yes);
        // A copy, in place of the original: it has the same rows.
        let copy = ground.0.join("copy.db");
        let into = format!("VACUUM INTO '{}'", copy.display());
        ground.sql().execute_batch(&into).expect("a copy");
        for journal in ["locks.db-wal", "locks.db-shm"] {
            let _ = std::fs::remove_file(ground.0.join(journal));
        }
        std::fs::rename(copy, ground.file()).expect("a replacement");
        assert_eq!(renew(&store, held.clone()).await, Renewed::Lost);
        let released = store
            .release("k", "one", token, None)
            .await
            .expect("an answer");
        assert!(!released.was_held);
        // Nobody else takes it as long as the other may vouch for it.
        assert_eq!(take(&store, "k", "two").await, None);
        // Gone altogether: a new file is made.
        for file in ["locks.db", "locks.db-wal", "locks.db-shm"] {
            let _ = std::fs::remove_file(ground.0.join(file));
        }
        assert_eq!(renew(&store, held).await, Renewed::Lost);
        assert_eq!(take(&store, "k", "two").await, Some(1));
        let other = ground.open().await;
        assert_eq!(take(&other, "k", "three").await, None);
    });
}

#[test]
fn what_cannot_keep_locks_is_refused_with_the_remedy() {
    run(async {
        let ground = Ground::new();
        let text = ground.0.join("text");
        std::fs::write(
            &text,
            "no database, whatever SQLite makes of it".repeat(100),
        )
        .expect("a file");
        let nowhere = ground.0.join("missing").join("locks.db");
        for (path, word) in [
            (ground.0.as_path(), "directory"),
            (nowhere.as_path(), "make the directory"),
            (text.as_path(), "another file"),
            (Path::new("/proc/dlock.db"), "write the file"),
        ] {
            let Err(error) = try_open(path, "").await else {
                panic!("{} is accepted", path.display());
            };
            assert!(error.to_string().contains(word), "{error}");
        }
        let other = "CREATE TABLE others (a)";
        ground.sql().execute_batch(other).expect("a table");
        let Err(error) = ground.try_open("table=others").await else {
            panic!("another table is accepted");
        };
        assert!(error.to_string().contains("table=…"), "{error}");
    });
}

#[test]
fn a_closed_store_answers_nobody() {
    run(async {
        let ground = Ground::new();
        let store = ground.open().await;
        store.close("shutdown");
        let refused = store.take(&claim("k", "one")).await;
        let Err(StoreError::Refused { message, .. }) = refused else {
            panic!("{refused:?}");
        };
        assert_eq!(message, "shutdown");
    });
}

#[test]
fn a_table_of_an_older_layout_is_refused_with_the_sql_that_mends_it() {
    run(async {
        let ground = Ground::new();
        drop(ground.open().await);
        let older = "ALTER TABLE dlock_lease DROP COLUMN last_run";
        ground.sql().execute_batch(older).expect("a column");
        let Err(error) = ground.try_open("").await else {
            panic!("it has no column last_run");
        };
        let text = error.to_string();
        let (_, remedy) = text.split_once("ALTER TABLE").expect("the remedy");
        let sql = format!("ALTER TABLE{}", remedy.split('\n').next().unwrap_or(remedy));
        ground.sql().execute_batch(&sql).expect("the remedy works");
        ground.try_open("").await.expect("it is mended");
    });
}

#[test]
fn b7_a_released_row_can_stay_taken_by_nobody() {
    run(async {
        let ground = Ground::new();
        kept::a_released_row_can_stay_taken_by_nobody(&ground.open().await).await;
    });
}

#[test]
fn b7_a_released_reader_can_keep_writers_out() {
    run(async {
        let ground = Ground::new();
        kept::a_released_reader_can_keep_writers_out(&ground.open().await).await;
    });
}
