//! The table that shows the texts of keys.

use super::{Config, TABLE_RULE, TableName};
use crate::dsn::bad;
use crate::endpoint::Endpoint;
use crate::error::InitError;

/// Lists that show keys.
impl Config {
    /// Session locks: a table with the texts of the keys that were taken, `name` or `schema.name` (on MySQL and MariaDB
    /// `database.name`), of letters, digits and `_`. Without a schema it is in `public` on PostgreSQL, and in the DSN's database
    /// elsewhere. Default: none.
    ///
    /// Servers know session locks by a number or a name. With the table, [`Locker::list`](crate::Locker::list) shows the keys of
    /// locks that other programs hold too, if those name the same table. A key is written about a second after the server has
    /// granted its lock, and no lock waits for that. The table is made at the start where it is missing; an account that may not
    /// write it is refused ([`InitError::UnsafeServer`]). Rows stay, and whoever may read the table reads the keys: see
    /// `docs/keys.md`.
    #[must_use]
    pub fn key_table(mut self, name: impl Into<String>) -> Config {
        self.key_table = Some(name.into());
        self
    }

    /// The table of keys, if there is one; the value is checked.
    pub(crate) fn get_key_table(&self) -> Option<TableName> {
        self.key_table.as_deref().and_then(TableName::parse)
    }

    pub(super) fn check_key_table(&self) -> Result<(), InitError> {
        let Some(table) = &self.key_table else {
            return Ok(());
        };
        if self.is_lease() || matches!(self.endpoint, Endpoint::Memory { .. }) {
            return Err(bad(
                "key_table is a setting of session locks: leave it out (leases have the keys in their rows, memory in memory)",
            ));
        }
        if TableName::parse(table).is_none() {
            let table: String = table.chars().take(64).collect();
            return Err(bad(format!(
                "key_table {table:?} is not a name: write {TABLE_RULE}"
            )));
        }
        if self.get_key_table() == Some(self.get_fencing_table()) {
            return Err(bad(format!(
                "key_table {table:?} is the table of fencing tokens: write another name"
            )));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "postgres")]
    #[test]
    fn the_table_of_keys_is_a_name_and_one_of_sessions() {
        let config = |options| Config::from_dsn(&format!("postgres://localhost/app?{options}"));
        let good = config("key_table=app.names").expect("good options");
        good.check().expect("they fit");
        let table = good.get_key_table().expect("a table");
        assert_eq!(table.to_string(), "app.names");
        let plain = config("").expect("a DSN");
        assert_eq!(plain.get_key_table(), None);
        for (options, word) in [
            ("key_table=a%3Bb", "key_table"),
            ("key_table=t&strategy=lease", "session locks"),
            ("key_table=dlock_fence", "fencing tokens"),
            ("key_table=t&fencing_table=t", "fencing tokens"),
        ] {
            let refused = config(options).and_then(|config| config.check());
            let problem = refused.expect_err(options).to_string();
            assert!(problem.contains(word), "{options}: {problem}");
        }
        let refused = plain.key_table("a b").check().expect_err("no name");
        assert!(refused.to_string().contains("\"a b\""), "{refused}");
        let memory = Config::from_dsn("memory:").expect("a DSN");
        let refused = memory.key_table("t").check().expect_err("no table");
        assert!(refused.to_string().contains("session locks"), "{refused}");
    }

    #[cfg(feature = "sqlite")]
    #[test]
    fn a_file_of_sqlite_has_no_such_table() {
        Config::from_dsn("sqlite:a.db?key_table=t").expect_err("no such option");
        let file = Config::from_dsn("sqlite:a.db").expect("a DSN");
        let refused = file.key_table("t").check().expect_err("no table");
        assert!(refused.to_string().contains("session locks"), "{refused}");
    }
}
