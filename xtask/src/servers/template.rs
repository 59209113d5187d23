//! Initialised data directories, one per kind and version, of which every server gets a copy.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use super::{
    Kind, launch,
    place::{self, Unprivileged},
    programs::Programs,
};

/// Raised with every change of what a template holds.
const REVISION: u32 = 2;

/// Puts a fresh copy of the template at `data`; makes the template first where there is none.
///
/// `run` is a private directory that `user` owns.
pub(crate) fn copy_to(
    data: &Path,
    kind: Kind,
    programs: &Programs,
    run: &Path,
    user: Option<Unprivileged>,
) -> Result<()> {
    let template = self::place(kind.id(), programs, user)?;
    let templates = template.parent().unwrap_or(&template);
    let _lock = place::lock(&templates.join(format!("{}.lock", kind.id())))?;
    if !template.exists() {
        let fresh = run.join("template");
        launch::initialise(kind, programs, run, &fresh, user)
            .with_context(|| format!("cannot initialise a data directory of {kind}"))?;
        let new = templates.join(format!("{}.new", kind.id()));
        place::remove(&new)?;
        place::copy(&fresh, &new)?;
        place::remove(&fresh)?;
        fs::rename(&new, &template)?;
    }
    place::copy(&template, data)
}

/// Where the template of these programs lies, for data that belong to `user`.
pub(crate) fn place(id: &str, programs: &Programs, user: Option<Unprivileged>) -> Result<PathBuf> {
    let owner = user.map_or_else(|| "own".to_owned(), |user| user.uid.to_string());
    Ok(place::servers()?.join("templates").join(format!(
        "{id}-{}-{owner}-{REVISION}",
        version_number(programs.version())
    )))
}

/// The first word with a digit in what a server program says about itself, fit for a file name.
fn version_number(told: &str) -> String {
    let word = told
        .split_whitespace()
        .find(|word| word.starts_with(|c: char| c.is_ascii_digit()));
    word.unwrap_or("unknown")
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '.' {
                c
            } else {
                '-'
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::version_number;

    #[test]
    fn the_version_of_every_kind_is_found() {
        let cases = [
            (
                "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)",
                "15.18",
            ),
            (
                "mariadbd  Ver 10.11.19-MariaDB-0+deb12u1 for debian-linux-gnu",
                "10.11.19-MariaDB-0-deb12u1",
            ),
            (
                "/usr/sbin/mysqld  Ver 9.7.4-2 for Linux on x86_64",
                "9.7.4-2",
            ),
            ("", "unknown"),
        ];
        for (told, version) in cases {
            assert_eq!(version_number(told), version);
        }
    }
}
