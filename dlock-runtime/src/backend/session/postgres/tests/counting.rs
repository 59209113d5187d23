//! Fencing tokens.

use super::*;
use crate::backend::session::driver::Counted;
use crate::fencing::Fence;

fn token(counted: Result<Counted, DriverError>) -> u64 {
    match counted {
        Ok(Counted::Token(token)) => token,
        other => panic!("not counted: {other:?}"),
    }
}

fn driver_with(table: &str, limit: Duration) -> PostgresDriver {
    let settings = SessionSettings {
        limit,
        fencing_table: crate::config::TableName::parse(table).expect("a name"),
        ..settings()
    };
    PostgresDriver::new(endpoint(), settings)
}

/// A table that no other test uses.
fn fresh_table() -> String {
    format!("public.fence_{:016x}", fastrand::u64(..))
}

async fn run_sql(session: &PostgresSession, sql: &str) {
    session.client.batch_execute(sql).await.expect(sql);
}

#[test]
fn b3_many_who_count_first_make_one_table() {
    run(async {
        let table = fresh_table();
        let driver = driver_with(&table, LIMIT);
        let mut sessions = Vec::new();
        for _ in 0..8 {
            sessions.push(driver.connect().await.expect("a session"));
        }
        let keys: Vec<ServerKey> = sessions.iter().map(|_| fresh_key()).collect();
        let counts = sessions
            .iter()
            .zip(&keys)
            .map(|(session, key)| session.count(key));
        for counted in futures_util::future::join_all(counts).await {
            assert_eq!(token(counted), 1);
        }
        assert_eq!(token(sessions[0].count(&keys[1]).await), 2);
        let sync = text(&sessions[0], "SHOW synchronous_commit").await;
        assert_ne!(sync, "off");
        run_sql(&sessions[0], &format!("DROP TABLE {table}")).await;
    });
}

#[test]
fn b3_a_checked_token_keeps_the_next_one_off_until_the_transaction_ends() {
    run(async {
        let (table, limit) = (fresh_table(), Duration::from_secs(3));
        let driver = driver_with(&table, limit);
        let session = driver.connect().await.expect("a session");
        let user = super::session().await;
        let key = driver.server_key("checked");
        let fence = Fence::session().namespace("driver tests");
        let fence = fence.table(&table).expect("a name");
        assert_eq!(token(session.count(&key).await), 1);
        let newest = token(session.count(&key).await);
        run_sql(&user, "BEGIN").await;
        let check = |token| fence.check_postgres(&user.client, "checked", token);
        assert!(!check(newest - 1).await.expect("a check"), "an older one");
        assert!(check(newest).await.expect("a check"));
        // It gives up by itself, without having counted.
        let kept = session.count(&key).await;
        let Ok(Counted::Kept { reason }) = kept else {
            panic!("kept off, not: {kept:?}");
        };
        assert!(reason.contains("55P03"), "{reason}");
        let waiting = session.count(&key);
        let commit = async {
            tokio::task::yield_now().await;
            run_sql(&user, "COMMIT").await;
        };
        let (counted, ()) = futures_util::future::join(waiting, commit).await;
        assert_eq!(token(counted), newest + 1);
        assert!(!check(newest).await.expect("a check"));
        run_sql(&user, &format!("DROP TABLE {table}")).await;
    });
}

#[test]
fn b3_another_table_of_the_name_is_refused_with_the_remedy() {
    run(async {
        let table = fresh_table();
        let session = driver_with(&table, LIMIT).connect().await.expect("one");
        run_sql(&session, &format!("CREATE TABLE {table} (name text)")).await;
        let Err(DriverError::Refused { code, message, .. }) = session.count(&fresh_key()).await
        else {
            panic!("it has no tokens");
        };
        assert_eq!(code, "42703");
        assert!(message.contains("fencing_table"), "{message}");
        run_sql(&session, &format!("DROP TABLE {table}")).await;
    });
}
