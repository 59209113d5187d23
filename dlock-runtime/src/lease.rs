//! Leases from the outside: the SQL of their table, and the check of a fencing token in a transaction of one's own.
//!
//! A lease that has expired may belong to somebody else already, and a statement that was sent before may still arrive. Who
//! must rule that out checks the token in the very transaction that writes:
//!
//! ```no_run
//! # #[cfg(feature = "postgres")]
//! # async fn book(client: &mut tokio_postgres::Client) -> Result<(), Box<dyn std::error::Error>> {
//! use dlock_runtime::lease::Fence;
//!
//! let token = dlock_runtime::current().and_then(|lock| lock.token()).ok_or("no token")?;
//! let transaction = client.transaction().await?;
//! if !Fence::default().check_postgres(&transaction, "ledger", token).await? {
//!     return Err("the lock is lost".into());
//! }
//! transaction.execute("UPDATE ledger SET total = total + 1", &[]).await?;
//! transaction.commit().await?;
//! # Ok(())
//! # }
//! ```
//!
//! From the check to the end of the transaction nobody else can take the lock, while its renewals go on.

use crate::config::TableName;
use crate::dsn::bad;
use crate::error::InitError;

/// The table and the namespace in which tokens are checked. They have to be those of the configuration.
///
/// [`Fence::default`] is for leases, [`Fence::session`] for session locks.
#[derive(Clone, Debug)]
pub struct Fence {
    /// Of session locks, whose rows have the names that locks have on the server.
    session: bool,
    table: TableName,
    namespace: String,
}

impl Default for Fence {
    /// The default table of leases, without a namespace.
    fn default() -> Fence {
        Fence {
            session: false,
            table: TableName::default(),
            namespace: String::new(),
        }
    }
}

impl Fence {
    /// For session locks of the native key scheme: the default table of their tokens, without a namespace. On MySQL and
    /// MariaDB a locker that was given no namespace has its database's name for one, as the DSN spells it: name it here.
    #[must_use]
    pub fn session() -> Fence {
        Fence {
            session: true,
            table: TableName::of_fences(),
            namespace: String::new(),
        }
    }

    /// With another table, `name` or `schema.name`.
    ///
    /// # Errors
    ///
    /// [`InitError::BadConfig`] when that is no name.
    pub fn table(mut self, table: &str) -> Result<Fence, InitError> {
        self.table = named(table)?;
        Ok(self)
    }

    /// With a namespace.
    #[must_use]
    pub fn namespace(mut self, namespace: impl Into<String>) -> Fence {
        self.namespace = namespace.into();
        self
    }

    /// The statement for PostgreSQL. It gives one row when the token may write, and none otherwise; without the row, roll
    /// back. Its parameters: of leases namespace and key (`text`) and token (`bigint`); of session locks
    /// [`postgres_name`](Self::postgres_name) (`text`) and token.
    #[cfg(feature = "postgres")]
    pub fn postgres_sql(&self) -> String {
        use crate::backend::lease::postgres::{SCHEMA, sql};
        let table = self.table.clone().or_schema(SCHEMA);
        if self.session {
            return crate::backend::session::postgres::fencing::assert_fence(&table);
        }
        sql::assert_fence(&table)
    }

    /// The name that the row of a session lock has on PostgreSQL.
    #[cfg(feature = "postgres")]
    pub fn postgres_name(&self, key: &str) -> String {
        crate::key::postgres_key(&self.namespace, key).to_string()
    }

    /// Checks a token in a transaction of PostgreSQL: of leases whether it is the present holder's, of session locks whether
    /// it is the newest one of the key. From then to the end of the transaction nobody else gets the lock with a token.
    /// Outside a transaction it says nothing about what comes after.
    ///
    /// # Errors
    ///
    /// The driver's; a serialization failure (40001) means that somebody else has taken the lock meanwhile.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the check on its way; the transaction can go on.
    #[cfg(feature = "postgres")]
    pub async fn check_postgres<C: tokio_postgres::GenericClient + Sync>(
        &self,
        transaction: &C,
        key: &str,
        token: u64,
    ) -> Result<bool, tokio_postgres::Error> {
        use tokio_postgres::types::Type;

        let token = i64::try_from(token).unwrap_or(i64::MAX);
        if self.session {
            let name = self.postgres_name(key);
            let sql = self.postgres_sql();
            let params: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 2] =
                [(&name, Type::TEXT), (&token, Type::INT8)];
            let rows = transaction.query_typed(&sql, &params).await?;
            return Ok(!rows.is_empty());
        }
        let params: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 3] = [
            (&self.namespace, Type::TEXT),
            (&key, Type::TEXT),
            (&token, Type::INT8),
        ];
        let rows = transaction
            .query_typed(&self.postgres_sql(), &params)
            .await?;
        Ok(!rows.is_empty())
    }

    /// The statement for MySQL and MariaDB, with the parameters namespace, key and token; of session locks
    /// [`mysql_name`](Self::mysql_name) and token. It gives one row when the token is the newest one of the key, and none
    /// otherwise; without the row, roll back. On a Galera cluster it does not reach the other nodes: there, write the token
    /// beside what the lock protects.
    #[cfg(feature = "mysql")]
    pub fn mysql_sql(&self) -> String {
        if self.session {
            return crate::backend::session::mysql::fencing::assert_fence(&self.table);
        }
        crate::backend::lease::mysql::sql::assert_fence(&self.table)
    }

    /// The name that the row of a session lock has on MySQL and MariaDB.
    #[cfg(feature = "mysql")]
    pub fn mysql_name(&self, key: &str) -> String {
        crate::key::mysql_name(&self.namespace, key)
    }

    /// Checks a token in a transaction of MySQL or MariaDB: whether it is the newest one of the key. From then to the end of
    /// the transaction nobody else gets the lock with a token. Tokens of shared mode are the newest only until the next reader comes.
    ///
    /// # Errors
    ///
    /// The driver's; a deadlock (1213) or a lock wait (1205) means that somebody else takes the lock at this moment.
    ///
    /// # Cancel safety
    ///
    /// As of any statement of the driver: dropping the future half-way costs the connection.
    #[cfg(feature = "mysql")]
    pub async fn check_mysql<Q: mysql_async::prelude::Queryable>(
        &self,
        transaction: &mut Q,
        key: &str,
        token: u64,
    ) -> Result<bool, mysql_async::Error> {
        if self.session {
            let params = (self.mysql_name(key).into_bytes(), token);
            let found: Option<u64> = transaction.exec_first(self.mysql_sql(), params).await?;
            return Ok(found.is_some());
        }
        let params = (self.namespace.as_bytes(), key.as_bytes(), token);
        let found: Option<u64> = transaction.exec_first(self.mysql_sql(), params).await?;
        Ok(found.is_some())
    }
}

/// The SQL that makes the table on PostgreSQL, for programs whose own user may not: `table` is `name` or `schema.name`, by
/// default `public.dlock_lease`. The program then needs `SELECT`, `INSERT` and `UPDATE` on it.
///
/// # Errors
///
/// [`InitError::BadConfig`] when `table` is no name.
#[cfg(feature = "postgres")]
pub fn postgres_schema(table: Option<&str>) -> Result<String, InitError> {
    use crate::backend::lease::postgres::{SCHEMA, sql};
    let table = table.map_or_else(|| Ok(TableName::default()), named)?;
    Ok(sql::create_table(&table.or_schema(SCHEMA)))
}

/// The SQL that makes the table on MySQL and MariaDB, for programs whose own user may not: `table` is `name` or
/// `database.name`, by default `dlock_lease`. The program then needs `SELECT`, `INSERT` and `UPDATE` on it.
///
/// # Errors
///
/// [`InitError::BadConfig`] when `table` is no name.
#[cfg(feature = "mysql")]
pub fn mysql_schema(table: Option<&str>) -> Result<String, InitError> {
    let table = table.map_or_else(|| Ok(TableName::default()), named)?;
    Ok(crate::backend::lease::mysql::sql::create_table(&table))
}

pub(crate) fn named(table: &str) -> Result<TableName, InitError> {
    TableName::parse(table).ok_or_else(|| {
        let table: String = table.chars().take(64).collect();
        bad(format!(
            "table {table:?} is not a name: write {}",
            crate::config::TABLE_RULE
        ))
    })
}
