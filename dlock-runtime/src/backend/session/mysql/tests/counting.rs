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

/// A table that no other test uses.
fn fresh_table() -> String {
    format!("fence_{:016x}", fastrand::u64(..))
}

fn driver_with(server: Server, table: &str, limit: Duration) -> MySqlDriver {
    let settings = SessionSettings {
        limit,
        fencing_table: crate::config::TableName::parse(table).expect("a name"),
        ..settings()
    };
    MySqlDriver::new(server.endpoint(), settings)
}

async fn run_sql(session: &MySqlSession, sql: &str) {
    let text = sql.to_owned();
    let done = session.slot.run(move |conn| conn.query_drop(text)).await;
    done.expect(sql);
}

#[test]
fn b3_many_who_count_first_make_one_table() {
    on_both(|server| async move {
        let table = fresh_table();
        let driver = driver_with(server, &table, LIMIT);
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
        run_sql(&sessions[0], &format!("DROP TABLE {table}")).await;
    });
}

#[test]
fn b3_a_checked_token_keeps_the_next_one_off_until_the_transaction_ends() {
    on_both(|server| async move {
        let (table, limit) = (fresh_table(), Duration::from_secs(3));
        let driver = driver_with(server, &table, limit);
        let session = driver.connect().await.expect("a session");
        let key = driver.server_key("checked");
        let fence = Fence::session().namespace("driver tests");
        let fence = fence.table(&table).expect("a name");
        assert_eq!(token(session.count(&key).await), 1);
        let newest = token(session.count(&key).await);
        let endpoint = server.endpoint();
        let mut user = endpoint.connect().await.expect("a connection");
        user.query_drop("BEGIN").await.expect("a transaction");
        let old = fence.check_mysql(&mut user, "checked", newest - 1).await;
        assert!(!old.expect("a check"), "an older one");
        let new = fence.check_mysql(&mut user, "checked", newest).await;
        assert!(new.expect("a check"));
        // It gives up by itself, without having counted.
        let kept = session.count(&key).await;
        let Ok(Counted::Kept { reason }) = kept else {
            panic!("kept off, not: {kept:?}");
        };
        assert!(reason.contains("1205"), "{reason}");
        let waiting = session.count(&key);
        let commit = async {
            tokio::task::yield_now().await;
            user.query_drop("COMMIT").await.expect("its end");
        };
        let (counted, ()) = futures_util::future::join(waiting, commit).await;
        assert_eq!(token(counted), newest + 1);
        let old = fence.check_mysql(&mut user, "checked", newest).await;
        assert!(!old.expect("a check"));
        run_sql(&session, &format!("DROP TABLE {table}")).await;
        user.disconnect().await.expect("its end");
    });
}

#[test]
fn b3_another_table_of_the_name_is_refused_with_the_remedy() {
    on_both(|server| async move {
        let table = fresh_table();
        let driver = driver_with(server, &table, LIMIT);
        let session = driver.connect().await.expect("a session");
        run_sql(&session, &format!("CREATE TABLE {table} (name INT)")).await;
        let Err(DriverError::Refused { code, message, .. }) = session.count(&fresh_key()).await
        else {
            panic!("it has no tokens");
        };
        assert_eq!(code, "1054");
        assert!(message.contains("fencing_table"), "{message}");
        run_sql(&session, &format!("DROP TABLE {table}")).await;
    });
}
