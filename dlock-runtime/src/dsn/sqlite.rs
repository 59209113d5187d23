//! The DSN of a file of SQLite: `sqlite:path`, `sqlite:///absolute/path`.

use std::path::Path;
use std::sync::Arc;

use super::bad;
use super::options::Options;
use super::query::Query;
use super::split::decode;
use crate::endpoint::Endpoint;
use crate::error::InitError;

const FORM: &str =
    "write sqlite:path or sqlite:///absolute/path ('?' in it as %3F, '#' as %23, '%' as %25)";

/// Reads what stands behind `sqlite:`.
pub(super) fn parse(rest: &str) -> Result<(Endpoint, Options), InitError> {
    if rest.contains('#') {
        return Err(bad(format!("the DSN has a '#': {FORM}")));
    }
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let path = match path.strip_prefix("//") {
        None => path,
        Some(absolute) if absolute.starts_with('/') => absolute,
        Some("") => "",
        Some(_) => {
            return Err(bad(format!(
                "a file of SQLite lies on no host, and two slashes begin one: {FORM}"
            )));
        }
    };
    let path = decode(path, "path")?;
    if path.is_empty() || path.to_ascii_lowercase().starts_with(":memory:") {
        return Err(bad(
            "the DSN names no file of SQLite: write sqlite:path, or memory: for locks of this process alone",
        ));
    }
    if path.ends_with('/') {
        return Err(bad(
            "the path of the DSN is a directory: name a file in it, or write memory: for locks of this process alone",
        ));
    }
    let mut query = Query::parse(query)?;
    let options = Options::of_sqlite(&mut query)?;
    query.finish("sqlite:", &[], &[Options::OF_SQLITE, Options::OF_LEASES])?;
    let path: Arc<Path> = Path::new(&path).into();
    Ok((Endpoint::Sqlite { path }, options))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_relative_or_absolute() {
        for (dsn, path) in [
            ("locks.db", "locks.db"),
            ("./a/locks.db?ttl=10", "./a/locks.db"),
            ("/var/lib/locks.db", "/var/lib/locks.db"),
            ("///var/lib/locks.db", "/var/lib/locks.db"),
            ("a%3Fb", "a?b"),
            ("file:x", "file:x"),
        ] {
            let (endpoint, _) = parse(dsn).expect(dsn);
            let Endpoint::Sqlite { path: found } = endpoint else {
                panic!("{dsn}: {endpoint:?}");
            };
            assert_eq!(found.to_str(), Some(path), "{dsn}");
        }
    }

    #[test]
    fn what_is_no_file_is_refused_with_the_remedy() {
        for (dsn, word) in [
            ("", "memory:"),
            ("//", "memory:"),
            (":memory:", "memory:"),
            ("?ttl=10", "memory:"),
            ("dir/", "memory:"),
            ("//host/path", "sqlite:///"),
            ("a#b", "%23"),
            ("locks.db?mode=ro", "unknown option"),
            ("locks.db?limit=10", "unknown option"),
            ("locks.db?key_scheme=django", "unknown option"),
            ("locks.db?ttl=soon", "ttl"),
        ] {
            let Err(InitError::BadConfig { problem }) = parse(dsn) else {
                panic!("{dsn} is accepted");
            };
            assert!(problem.contains(word), "{dsn}: {problem}");
        }
        let config = crate::Config::from_dsn("sqlite:locks.db?strategy=session").expect("a DSN");
        assert!(config.check().is_err(), "a file has no sessions");
        let config = crate::Config::from_dsn("sqlite:locks.db?strategy=lease").expect("a DSN");
        config.check().expect("it is so anyway");
    }
}
