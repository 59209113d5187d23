//! Every line of `docs/coming-from.md` names a test that exists.

use std::fs;
use std::path::Path;

/// All sources below a folder, as one text.
fn sources(folder: &Path, text: &mut String) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
            sources(&path, text);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&fs::read_to_string(&path).expect("a source"));
        }
    }
}

#[test]
fn every_line_names_a_test_that_exists() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(repository.join("docs/coming-from.md")).expect("the page");
    let mut tests = String::new();
    for folder in ["tests", "dlock-runtime/src"] {
        sources(&repository.join(folder), &mut tests);
    }
    let rows = page
        .lines()
        .filter(|line| line.starts_with("| ") && !line.contains("backed by"));
    let mut named = 0;
    for row in rows {
        let backed = row
            .trim_end_matches(" |")
            .rsplit(" | ")
            .next()
            .expect("a last column");
        assert!(
            backed.contains('`') || backed.starts_with('('),
            "no test: {row}"
        );
        for name in backed.split('`').skip(1).step_by(2) {
            let name = name.rsplit("::").next().expect("a name");
            assert!(
                tests.contains(&format!("fn {name}(")),
                "there is no test {name}: {row}"
            );
            named += 1;
        }
    }
    assert!(named > 50, "only {named} tests are named");
}
