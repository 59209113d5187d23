//! The stated `rust-version` is at least that of every dependency.

use std::collections::{HashMap, HashSet};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::command::cargo;

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    workspace_members: Vec<String>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    rust_version: Option<String>,
    /// `None` for a package that goes to any registry, an empty list for one that goes nowhere.
    publish: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<DependencyKind>,
}

#[derive(Deserialize)]
struct DependencyKind {
    kind: Option<String>,
}

/// Fails with the names of the packages that need a newer Rust than we state.
pub(super) fn check() -> Result<()> {
    let told = cargo()
        .args([
            "metadata",
            "--format-version=1",
            "--all-features",
            "--locked",
        ])
        .stderr(std::process::Stdio::inherit())
        .output()
        .context("cannot run `cargo metadata`")?;
    if !told.status.success() {
        bail!("`cargo metadata` failed ({})", told.status);
    }
    check_metadata(&serde_json::from_slice(&told.stdout)?)
}

fn check_metadata(metadata: &Metadata) -> Result<()> {
    let packages: HashMap<&str, &Package> = metadata
        .packages
        .iter()
        .map(|package| (package.id.as_str(), package))
        .collect();
    let nodes: HashMap<&str, &Node> = metadata
        .resolve
        .nodes
        .iter()
        .map(|node| (node.id.as_str(), node))
        .collect();
    let mut offenders = Vec::new();
    for member in &metadata.workspace_members {
        let package = packages
            .get(member.as_str())
            .context("a member has no package")?;
        if package.publish.as_ref().is_some_and(Vec::is_empty) {
            continue;
        }
        let stated = package
            .rust_version
            .as_deref()
            .with_context(|| format!("{} states no rust-version", package.name))?;
        let stated = parse(stated)?;
        for dependency in reachable(member, &nodes) {
            let dependency = packages
                .get(dependency)
                .context("a dependency has no package")?;
            let Some(needed) = &dependency.rust_version else {
                continue;
            };
            if parse(needed)? > stated {
                offenders.push(format!(
                    "{} {} needs Rust {needed}, and {} states less",
                    dependency.name, dependency.version, package.name
                ));
            }
        }
    }
    offenders.sort();
    if !offenders.is_empty() {
        bail!("{}", offenders.join("\n"));
    }
    Ok(())
}

/// The package itself and all that it is built with, tests apart.
fn reachable<'a>(start: &'a str, nodes: &HashMap<&'a str, &'a Node>) -> HashSet<&'a str> {
    let mut seen = HashSet::from([start]);
    let mut open = vec![start];
    while let Some(node) = open.pop().and_then(|id| nodes.get(id)) {
        for dependency in &node.deps {
            let is_built = dependency
                .dep_kinds
                .iter()
                .any(|kind| kind.kind.as_deref() != Some("dev"));
            if is_built && seen.insert(&dependency.pkg) {
                open.push(&dependency.pkg);
            }
        }
    }
    seen
}

/// `1.89` or `1.89.1`, to be compared.
fn parse(version: &str) -> Result<Vec<u32>> {
    version
        .split('.')
        .map(|part| {
            part.parse()
                .with_context(|| format!("`{version}` is no version of Rust"))
        })
        .chain(std::iter::repeat_with(|| Ok(0)))
        .take(3)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(kind: &str, needed: &str) -> Metadata {
        let text = format!(
            r#"{{
            "packages": [
                {{"id": "us", "name": "us", "version": "1.0.0", "rust_version": "1.89", "publish": null}},
                {{"id": "task", "name": "task", "version": "1.0.0", "rust_version": null, "publish": []}},
                {{"id": "it", "name": "it", "version": "2.0.0", "rust_version": "{needed}", "publish": null}}
            ],
            "workspace_members": ["us", "task"],
            "resolve": {{"nodes": [
                {{"id": "us", "deps": [{{"pkg": "it", "dep_kinds": [{{"kind": {kind}}}]}}]}},
                {{"id": "task", "deps": [{{"pkg": "it", "dep_kinds": [{{"kind": null}}]}}]}},
                {{"id": "it", "deps": []}}
            ]}}
        }}"#
        );
        serde_json::from_str(&text).expect("the text is what cargo writes")
    }

    #[test]
    fn a_dependency_that_needs_more_is_named() {
        let error = check_metadata(&metadata("null", "1.90")).expect_err("1.90 is above 1.89");
        assert!(
            error.to_string().contains("it 2.0.0 needs Rust 1.90"),
            "{error}"
        );
        assert!(check_metadata(&metadata("\"build\"", "1.89.1")).is_err());
    }

    #[test]
    fn the_same_version_and_tests_pass() {
        for (kind, needed) in [
            ("null", "1.89"),
            ("null", "1.89.0"),
            ("null", "1.9"),
            ("\"dev\"", "1.95"),
        ] {
            check_metadata(&metadata(kind, needed)).expect("nothing is above 1.89");
        }
    }
}
