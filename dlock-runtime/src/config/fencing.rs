//! What can be set about fencing tokens.

use super::{Config, TABLE_RULE, TableName};
use crate::dsn::bad;
use crate::endpoint::Endpoint;
use crate::error::InitError;

const TABLE: &str = "dlock_fence";

/// Fencing tokens.
impl Config {
    /// Whether locks that do not say come with a [fencing token](crate::Guard::fencing_token). Exclusive ones: a shared session
    /// lock has none. Default: `false`. Leases have a token anyway.
    ///
    /// A session lock with a token has a connection of its own, and costs a round trip more; its token is counted in a table
    /// of the database, which is made with the first such lock (`docs/fencing.md`).
    #[must_use]
    pub fn fencing(mut self, on: bool) -> Config {
        self.fencing = on;
        self
    }

    /// Session locks: the table of the counters behind fencing tokens, `name` or `schema.name` (on MySQL and MariaDB
    /// `database.name`), of letters, digits and `_`. Default: `public.dlock_fence` on PostgreSQL, `dlock_fence` in the DSN's
    /// database elsewhere. Programs that share locks with tokens use the same one.
    #[must_use]
    pub fn fencing_table(mut self, name: impl Into<String>) -> Config {
        self.fencing_table = Some(name.into());
        self
    }

    pub(crate) fn is_fencing(&self) -> bool {
        self.fencing
    }

    /// The table of counters; the value is checked.
    pub(crate) fn get_fencing_table(&self) -> TableName {
        let table = self.fencing_table.as_deref().and_then(TableName::parse);
        table.unwrap_or_else(TableName::of_fences)
    }

    pub(super) fn check_fencing(&self) -> Result<(), InitError> {
        let Some(table) = &self.fencing_table else {
            return Ok(());
        };
        if self.is_lease() || matches!(self.endpoint, Endpoint::Memory { .. }) {
            return Err(bad(
                "fencing_table is a setting of session locks: leave it out (leases count tokens in the table of leases, \
                 memory in memory)",
            ));
        }
        if TableName::parse(table).is_none() {
            let table: String = table.chars().take(64).collect();
            return Err(bad(format!(
                "fencing_table {table:?} is not a name: write {TABLE_RULE}"
            )));
        }
        Ok(())
    }
}

impl TableName {
    /// The default table of counters.
    pub(crate) fn of_fences() -> TableName {
        TableName {
            schema: None,
            name: TABLE.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "postgres")]
    #[test]
    fn the_table_of_counters_is_a_name_and_one_of_sessions() {
        let config = |options| Config::from_dsn(&format!("postgres://localhost/app?{options}"));
        let good = config("fencing=true&fencing_table=app.tokens").expect("good options");
        good.check().expect("they fit");
        assert!(good.is_fencing());
        assert_eq!(good.get_fencing_table().to_string(), "app.tokens");
        let plain = config("").expect("a DSN");
        assert!(!plain.is_fencing());
        assert_eq!(plain.get_fencing_table().to_string(), "dlock_fence");
        for (options, word) in [
            ("fencing=perhaps", "fencing"),
            ("fencing_table=a%3Bb", "fencing_table"),
            ("fencing_table=t&strategy=lease", "session locks"),
        ] {
            let refused = config(options).and_then(|config| config.check());
            let problem = refused.expect_err(options).to_string();
            assert!(problem.contains(word), "{options}: {problem}");
        }
        let refused = plain.fencing_table("a b").check().expect_err("no name");
        assert!(refused.to_string().contains("\"a b\""), "{refused}");
        config("strategy=lease&fencing=true")
            .expect("a DSN")
            .check()
            .expect("leases have tokens");
        let memory = Config::from_dsn("memory:?fencing=true").expect("a DSN");
        memory.check().expect("memory has tokens");
    }
}
