//! The results: lines on the standard output, and JSON.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::entry::Entry;

/// One line for the terminal.
pub(crate) fn line(entry: &Entry) -> String {
    let spread = entry.measured;
    let mut line = format!(
        "{:26} {:12} {:34} {:>9} {} ({}–{})",
        entry.row,
        entry.server,
        entry.who,
        figure(spread.median),
        entry.unit,
        figure(spread.low),
        figure(spread.high)
    );
    // Writing to a string does not fail.
    if let Some(ratio) = entry.ratio {
        let _ = write!(
            line,
            "  {} × ({}–{})",
            figure(ratio.median),
            figure(ratio.low),
            figure(ratio.high)
        );
    }
    if let Some(target) = entry.target {
        let _ = write!(line, "  target {target}: {}", verdict(entry));
    }
    if let Some(statements) = entry.statements {
        let _ = write!(line, "  {statements:.2} statements");
    }
    if let Some(round_trips) = entry.round_trips {
        let _ = write!(line, "  {round_trips:.1} round trips");
    }
    if let Some(connections) = entry.connections {
        let _ = write!(line, "  {connections} connections");
    }
    line
}

/// Whether the target is met, in a word.
pub(crate) fn verdict(entry: &Entry) -> &'static str {
    match entry.is_met() {
        Some(true) => "met",
        Some(false) => "missed",
        None => "",
    }
}

/// Three significant digits.
pub(crate) fn figure(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[derive(Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    entry: &'a Entry,
    met: Option<bool>,
}

/// Writes `results.json`.
pub(crate) fn write(folder: &Path, entries: &[Entry]) -> Result<()> {
    fs::create_dir_all(folder)?;
    let lines: Vec<Line<'_>> = entries
        .iter()
        .map(|entry| Line {
            entry,
            met: entry.is_met(),
        })
        .collect();
    let path = folder.join("results.json");
    fs::write(&path, serde_json::to_string_pretty(&lines)?)
        .with_context(|| format!("cannot write {}", path.display()))
}
