//! Whether every rule in `docs/rules.md` has its tests.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// The rules of the sessions, of the leases, and of both strategies.
const RULES: [&str; 22] = [
    "S1", "S2", "S3", "S4", "S5", "S6", "S7", "L1", "L2", "L3", "L4", "L5", "L6", "L7", "L8", "B1",
    "B2", "B3", "B4", "B5", "B6", "B7",
];

/// The words in place of tests, for a rule of [`PENDING`].
const NOT_YET: &str = "not built yet";

/// Rules that nothing implements yet. Take one out with its first test.
const PENDING: [&str; 0] = [];

/// The table names a test for each rule, every test that it names exists, and every test with a number is in it.
pub(crate) fn no_rule_is_missing() {
    let page = fs::read_to_string(Path::new(ROOT).join("docs/rules.md")).expect("docs/rules.md");
    let mut tested = BTreeSet::new();
    for folder in ["dlock-runtime/src", "tests"] {
        collect(&Path::new(ROOT).join(folder), &mut tested);
    }
    let mut listed = BTreeSet::new();
    for rule in RULES {
        let row = page
            .lines()
            .find_map(|line| line.strip_prefix(&format!("| {rule} |")));
        let row = row.unwrap_or_else(|| panic!("{rule} has no row"));
        let (_, tests) = row.split_once('|').expect("a column of tests");
        let numbered = format!("{}_", rule.to_lowercase());
        let names: Vec<&str> = tests
            .split('`')
            .filter(|name| name.starts_with(&numbered))
            .collect();
        let is_pending = PENDING.contains(&rule);
        assert_eq!(
            tests.contains(NOT_YET),
            is_pending,
            "{rule}: pending or not"
        );
        assert_eq!(names.is_empty(), is_pending, "{rule}: {names:?}");
        listed.extend(names.into_iter().map(str::to_owned));
    }
    assert_eq!(
        listed, tested,
        "the tests of the page, and those of the sources"
    );
}

/// The names of the functions in a folder that begin with the number of a rule.
fn collect(folder: &Path, names: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).expect("a folder of sources").flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, names);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let source = fs::read_to_string(&path).expect("a source");
            let functions = source.split("fn ").skip(1);
            let name = functions
                .filter_map(|after| after.split_once('('))
                .map(|(name, _)| name);
            names.extend(name.filter(|name| is_numbered(name)).map(str::to_owned));
        }
    }
}

fn is_numbered(name: &str) -> bool {
    let Some((number, _)) = name.split_once('_') else {
        return false;
    };
    RULES.iter().any(|rule| rule.to_lowercase() == number)
}
