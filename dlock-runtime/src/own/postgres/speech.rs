//! Statements on the caller's connection: text with numbers in it, one round trip each, nothing prepared that would stay.

use tokio_postgres::{Client, SimpleQueryMessage, Transaction};

use crate::backend::session::driver::DriverError;
use crate::backend::session::postgres::errors;
use crate::backend::session::postgres::settings::IDENTITY;
use crate::error::Holder;
use crate::scheme::AdvisoryKey;

/// Whoever speaks to the server.
#[derive(Clone, Copy)]
pub(super) enum Speech<'s> {
    Client(&'s Client),
    Transaction(&'s Transaction<'s>),
}

impl Speech<'_> {
    /// Runs statements; what the last row of all says.
    pub(super) async fn ask(&self, sql: &str) -> Result<Vec<Option<String>>, DriverError> {
        let answer = match self {
            Speech::Client(client) => client.simple_query(sql).await,
            Speech::Transaction(transaction) => transaction.simple_query(sql).await,
        };
        let messages = answer.map_err(errors::statement)?;
        let rows = messages.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        Ok(rows.last().map_or_else(Vec::new, |row| {
            let columns = 0..row.len();
            columns
                .map(|column| row.get(column).map(str::to_owned))
                .collect()
        }))
    }

    /// Runs a statement that answers yes or no; `None` is NULL.
    pub(super) async fn says(&self, sql: &str) -> Result<Option<bool>, DriverError> {
        let row = self.ask(sql).await?;
        let answer = row.first().and_then(Option::as_deref);
        Ok(answer.map(|answer| answer == "t"))
    }

    /// Which server and database this is.
    pub(super) async fn identity(&self) -> Result<Option<String>, DriverError> {
        let row = self.ask(&format!("SELECT {IDENTITY}")).await?;
        Ok(row.into_iter().next().flatten())
    }

    /// Who holds the lock, as far as the server tells.
    pub(super) async fn holder(&self, key: AdvisoryKey) -> Result<Option<Holder>, DriverError> {
        let row = self
            .ask(&format!(
                "SELECT lock.pid, session.application_name,
                    session.usename || coalesce('@' || host(session.client_addr), '')
                 FROM pg_locks AS lock LEFT JOIN pg_stat_activity AS session ON session.pid = lock.pid
                 WHERE {} AND lock.granted ORDER BY lock.pid LIMIT 1",
                is(key)
            ))
            .await?;
        let [session, program, client] = row.as_slice() else {
            return Ok(None);
        };
        Ok(Some(Holder {
            program: program.clone().filter(|name| !name.is_empty()),
            client: client.clone(),
            session: session.as_deref().and_then(|session| session.parse().ok()),
            ..Holder::default()
        }))
    }
}

/// The arguments of the lock functions.
pub(super) fn arguments(key: AdvisoryKey) -> String {
    match key {
        // A number below zero is an operator and a number, and the least has no positive one.
        AdvisoryKey::Number(number) => format!("'{number}'::int8"),
        AdvisoryKey::Pair(first, second) => format!("'{first}'::int4, '{second}'::int4"),
    }
}

/// The condition on `pg_locks AS lock`.
pub(super) fn is(key: AdvisoryKey) -> String {
    let (class, object, space) = match key {
        AdvisoryKey::Number(number) => {
            let bits = number.cast_unsigned();
            (bits >> 32, bits & 0xffff_ffff, 1)
        }
        AdvisoryKey::Pair(first, second) => {
            let bits = |number: i32| u64::from(number.cast_unsigned());
            (bits(first), bits(second), 2)
        }
    };
    format!(
        "lock.locktype = 'advisory' AND lock.classid = '{class}' AND lock.objid = '{object}' AND lock.objsubid = {space}
         AND lock.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
}
