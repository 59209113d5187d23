//! How do I test code that takes locks, without a server?
//!
//! ```sh
//! cargo test --example testing
//! ```
//!
//! The memory backend keeps the locks in the process, and a scope puts a locker in place of the global one, so that
//! tests run side by side.

/// What is to be tested: it uses the process's locker, and knows nothing of tests.
#[dlock::db_locked(key = "import/{file}", timeout = 0, on_busy = skip)]
async fn import(file: &str) -> Result<Option<usize>, dlock::Error> {
    Ok(Some(file.len()))
}

/// With `DATABASE_URL=memory:`, or a real server.
#[tokio::main]
async fn main() -> anyhow::Result<()> {
    dlock::init_with(dlock::Config::from_env()?)?;
    println!("{:?}", import("orders.csv").await?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use dlock::{Config, Locker};

    use super::import;

    async fn memory() -> Locker {
        let config = Config::from_dsn("memory:").expect("a DSN");
        Locker::connect(config)
            .await
            .expect("memory needs no server")
    }

    #[tokio::test]
    async fn a_file_is_imported() {
        let locker = memory().await;
        let imported = locker.scope(import("orders.csv")).await;
        assert_eq!(imported.expect("the lock is free"), Some(10));
    }

    #[tokio::test]
    async fn a_file_that_somebody_else_imports_is_skipped() {
        let locker = memory().await;
        let other = locker.lock("import/orders.csv").acquire().await;
        let imported = locker.scope(import("orders.csv")).await;
        assert_eq!(imported.expect("no error"), None);
        drop(other);
    }
}
