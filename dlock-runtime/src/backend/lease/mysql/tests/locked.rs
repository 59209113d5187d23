//! Rows that somebody else has locked.

use super::*;

#[test]
fn l5_a_locked_row_holds_up_no_other_renewal() {
    on_both(async |url| {
        let store = open(&url).await;
        let mut renewals = Vec::new();
        for name in ["free", "locked"] {
            let token = take(&store, name, "one").await.expect("free");
            renewals.push(renewal(name, "one", token, Mode::Exclusive));
        }
        let mut conn = conn(&url).await;
        let mut transaction = conn
            .start_transaction(TxOpts::new())
            .await
            .expect("a transaction");
        let lock = "SELECT 1 FROM dlock_lease WHERE namespace = ? AND name = 'locked' FOR UPDATE";
        let namespace = store.namespace.as_bytes().to_vec();
        transaction
            .exec_drop(lock, (namespace,))
            .await
            .expect("a row");
        let renewed = store.renew(&renewals).await.expect("an answer");
        assert_eq!(renewed, [Renewed::Yes, Renewed::Locked]);
        transaction.rollback().await.expect("a rollback");
        let renewed = store.renew(&renewals).await.expect("an answer");
        assert_eq!(renewed, [Renewed::Yes, Renewed::Yes]);
    });
}

/// Locks these rows and no others: with few rows the server reads all of them, and at other levels of isolation keeps what it
/// has read locked.
async fn lock<'c>(conn: &'c mut Conn, namespace: &str, names: &str) -> Transaction<'c> {
    let mut options = TxOpts::new();
    options.with_isolation_level(IsolationLevel::ReadCommitted);
    let begun = conn.start_transaction(options).await;
    let mut transaction = begun.expect("a transaction");
    let lock = format!(
        "SELECT 1 FROM dlock_lease FORCE INDEX (PRIMARY) WHERE namespace = ? AND name IN ({names}) FOR UPDATE"
    );
    let locked = transaction.exec_drop(lock, (namespace.as_bytes(),)).await;
    locked.expect("the rows");
    transaction
}

/// One statement must not wait for one row while the other leases run out: the shortest wait of the server is longer than the
/// shortest lease.
#[test]
fn l5_the_shortest_leases_outlive_a_row_that_stays_locked() {
    use crate::backend::lease::{Leases, bells::Bells};
    use crate::backend::{Backend, Errand, GivenBack, Hold, Taken, Want};
    use crate::key::ServerKey;

    on_both(async |url| {
        let namespace = fresh();
        let config = config(&url, &format!("namespace={namespace}&ttl=1"));
        let settings = config.lease_settings();
        let leases = Leases::new(open_with(config).await, Bells::default(), settings);
        let take = async |name: &str, mode| -> Hold {
            let key = ServerKey::Name(name.to_owned().into());
            let errand = Errand::new(key, Want::plain(mode), None);
            match leases.clone().take(errand).await {
                Taken::Held(hold) => hold,
                _ => panic!("{name} is free"),
            }
        };
        let locked = [
            take("locked", Mode::Exclusive).await,
            take("locked too", Mode::Shared).await,
        ];
        let mut others = Vec::new();
        for number in 0..10 {
            others.push(take(&format!("free {number}"), Mode::Exclusive).await);
        }
        others.push(take("free reader", Mode::Shared).await);
        let mut conn = conn(&url).await;
        // A row of each mode, and one that a fence check keeps from being taken.
        let mut transaction = lock(&mut conn, &namespace, "'locked', 'locked too'").await;
        let fence = Fence::default().namespace(&*namespace);
        let token = others[0].vitality.token().expect("a lease");
        let checked = fence.check_mysql(&mut transaction, "free 0", token).await;
        assert!(checked.expect("an answer"));
        // Who wants it stands in nobody's way either.
        let want = Want::plain(Mode::Exclusive);
        let wanting = Errand::new(ServerKey::Name("locked".into()), want, None);
        let wanting = tokio::spawn(leases.clone().take(wanting));
        // Time has to pass here: several times the life of a lease.
        tokio::time::sleep(Duration::from_secs(4)).await;
        for hold in &others {
            assert!(hold.vitality.stands(), "{:?}", hold.vitality.lost());
        }
        // What could not be renewed is not vouched for.
        assert!(locked.iter().all(|hold| !hold.vitality.stands()));
        wanting.abort();
        for hold in others {
            match hold.grant.give_back() {
                GivenBack::Later(released) => released.await.expect("held to the end"),
                GivenBack::Now(_) => panic!("it goes back to the server"),
            }
        }
        transaction.rollback().await.expect("a rollback");
    });
}

/// A limit of ours that is shorter than the server's would leave the statement waiting there, without a connection.
#[test]
fn whoever_waits_for_a_row_keeps_its_connection_however_short_leases_are() {
    on_both(async |url| {
        let store = open_with(config(&url, &format!("namespace={}&ttl=1", fresh()))).await;
        take(&store, "k", "one").await.expect("free");
        let mut conn = conn(&url).await;
        let transaction = lock(&mut conn, &store.namespace, "'k'").await;
        let notice = Notice {
            name: "k",
            owner: "two",
            mode: Mode::Exclusive,
            since: None,
            lasts: TTL,
        };
        let announced = store.announce(&notice).await;
        assert!(
            matches!(announced, Err(StoreError::Again { .. })),
            "{announced:?}"
        );
        transaction.rollback().await.expect("a rollback");
    });
}

#[test]
fn of_many_leases_only_the_locked_and_the_lost_are_not_renewed() {
    on_both(async |url| {
        let store = open(&url).await;
        let mut renewals = Vec::new();
        for number in 0..37 {
            let name = format!("k{number}");
            let token = take(&store, &name, "one").await.expect("free");
            let token = if number == 20 { token + 1 } else { token };
            renewals.push(renewal(&name, "one", token, Mode::Exclusive));
        }
        let mut conn = conn(&url).await;
        let transaction = lock(&mut conn, &store.namespace, "'k3', 'k30'").await;
        let renewed = store.renew(&renewals).await.expect("an answer");
        for (number, renewed) in renewed.into_iter().enumerate() {
            let expected = match number {
                3 | 30 => Renewed::Locked,
                20 => Renewed::Lost,
                _ => Renewed::Yes,
            };
            assert_eq!(renewed, expected, "k{number}");
        }
        transaction.rollback().await.expect("a rollback");
    });
}

#[test]
fn a_server_that_cannot_do_without_waits_for_locked_rows_and_keeps_the_rest() {
    on_both(async |url| {
        let mut store = open_with(config(&url, &format!("namespace={}&ttl=1", fresh()))).await;
        assert!(store.can_do_without().await.expect("an answer"));
        // As an older server takes it: words that it does not know, or a time that it does not allow.
        let today = store.statements.renew(1);
        let older = today
            .replace("SKIP LOCKED", "SKIP LOOKED")
            .replace("SET STATEMENT", "SET STATEMANT");
        assert!(!store.can_run(&older).await.expect("an answer"));
        for mode in ["", "STRICT_ALL_TABLES"] {
            // It takes another time, or refuses this one.
            let mode = format!("SET SESSION sql_mode = '{mode}'");
            let set = store.change(&store.side, mode, Vec::new()).await;
            set.expect("a setting");
            assert!(!store.can_wait_for(u64::MAX).await.expect("an answer"));
        }
        store.wait_for_rows();

        let mut renewals = Vec::new();
        for name in ["a", "b", "locked", "d"] {
            let token = take(&store, name, "one").await.expect("free");
            assert_eq!(take(&store, name, "two").await, None);
            renewals.push(renewal(name, "one", token, Mode::Exclusive));
        }
        let reader = shared::take(&store, &claim("reader", "one")).await;
        let reader = reader.expect("an answer").expect("free");
        renewals.push(renewal("reader", "one", reader, Mode::Shared));
        let mut conn = conn(&url).await;
        let transaction = lock(&mut conn, &store.namespace, "'locked'").await;
        let renewed = store.renew(&renewals).await.expect("an answer");
        let expected = [
            Renewed::Yes,
            Renewed::Yes,
            Renewed::Locked,
            Renewed::Yes,
            Renewed::Yes,
        ];
        assert_eq!(renewed, expected);
        // Whoever wants it does not lose the connection over the wait.
        assert_eq!(take(&store, "locked", "two").await, None);
        transaction.rollback().await.expect("a rollback");
        let renewed = store.renew(&renewals).await.expect("an answer");
        assert_eq!(renewed, [Renewed::Yes; 5]);
        let lost = renewal("a", "one", 17, Mode::Exclusive);
        assert_eq!(renew(&store, lost).await, Renewed::Lost);
    });
}

/// Two for each statement, one of them on the disk, is what a join costs there.
#[test]
fn takes_and_renewals_need_no_temporary_table_on_mariadb() {
    on_both(async |url| {
        let store = open(&url).await;
        if !url.starts_with("mariadb") {
            return;
        }
        let made = async |line| {
            let sql = "SHOW SESSION STATUS LIKE 'Created\\_tmp\\_%tables'".to_owned();
            let rows = store.rows(line, sql, Vec::new()).await.expect("an answer");
            let count = |row: &MyRow| column::<u64>(row, 1).expect("a number");
            rows.iter().map(count).sum::<u64>()
        };
        // The question makes some itself.
        let before = (made(&store.main).await, made(&store.side).await);
        let asking = (
            made(&store.main).await - before.0,
            made(&store.side).await - before.1,
        );
        let before = (made(&store.main).await, made(&store.side).await);
        let token = take(&store, "k", "one").await.expect("free");
        let reader = shared::take(&store, &claim("reader", "one")).await;
        let reader = reader.expect("an answer").expect("free");
        let renewals = [
            renewal("k", "one", token, Mode::Exclusive),
            renewal("reader", "one", reader, Mode::Shared),
        ];
        let renewed = store.renew(&renewals).await.expect("an answer");
        assert_eq!(renewed, [Renewed::Yes; 2]);
        assert_eq!(made(&store.main).await - before.0, asking.0);
        assert_eq!(made(&store.side).await - before.1, asking.1);
    });
}
