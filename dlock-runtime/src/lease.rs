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
#[derive(Clone, Debug)]
pub struct Fence {
    table: TableName,
    namespace: String,
}

impl Default for Fence {
    /// The default table, without a namespace.
    fn default() -> Fence {
        Fence {
            table: TableName::default(),
            namespace: String::new(),
        }
    }
}

impl Fence {
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

    /// The statement for PostgreSQL, with the parameters namespace and key (`text`) and token (`bigint`). It gives one row
    /// when the token is the present holder's, and none otherwise; without the row, roll back.
    #[cfg(feature = "postgres")]
    pub fn postgres_sql(&self) -> String {
        use crate::backend::lease::postgres::{SCHEMA, sql};
        sql::assert_fence(&self.table.clone().or_schema(SCHEMA))
    }

    /// Checks a token in a transaction of PostgreSQL: whether it is the present holder's. From then to the end of the
    /// transaction nobody else can take the lock. Outside a transaction it says nothing about what comes after.
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

    /// The statement for MySQL and MariaDB, with the parameters namespace, key and token. It gives one row when the token is
    /// the newest one of the key, and none otherwise; without the row, roll back. On a Galera cluster it does not reach the
    /// other nodes: there, write the token beside what the lock protects.
    #[cfg(feature = "mysql")]
    pub fn mysql_sql(&self) -> String {
        crate::backend::lease::mysql::sql::assert_fence(&self.table)
    }

    /// Checks a token in a transaction of MySQL or MariaDB: whether it is the newest one of the key. From then to the end of
    /// the transaction nobody else can take the lock. Tokens of shared mode are the newest only until the next reader comes.
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

fn named(table: &str) -> Result<TableName, InitError> {
    TableName::parse(table).ok_or_else(|| {
        let table: String = table.chars().take(64).collect();
        bad(format!(
            "table {table:?} is not a name: write {}",
            crate::config::TABLE_RULE
        ))
    })
}
