//! Writes the results into the docs: the table between two marks of the page, and the plot beside it.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::entry::Entry;
use crate::table::{figure, verdict};
use crate::{plot, spread::Spread};

const BEGIN: &str = "<!-- begin of the results -->";
const END: &str = "<!-- end of the results -->";

pub(crate) fn write(docs: &Path, entries: &[Entry], versions: &[String]) -> Result<()> {
    let path = docs.join("benchmarks.md");
    let page = fs::read_to_string(&path)
        .with_context(|| format!("cannot read {}, which has the words", path.display()))?;
    let (head, rest) = page.split_once(BEGIN).context("the page has no begin")?;
    let (_, tail) = rest.split_once(END).context("the page has no end")?;
    let table = table(entries, versions);
    fs::write(&path, format!("{head}{BEGIN}\n\n{table}\n{END}{tail}"))?;
    fs::write(docs.join("benchmarks.svg"), plot::draw(entries))?;
    Ok(())
}

fn table(entries: &[Entry], versions: &[String]) -> String {
    let mut text = format!("Measured on {}.\n", versions.join(", "));
    let mut row = "";
    // Writing to a string does not fail.
    for entry in entries {
        if entry.row != row {
            row = &entry.row;
            let _ = write!(
                text,
                "\n### {row}\n\n| server | who | measured | quartiles | ratio | quartiles | target | | statements | round trips |\n\
                 |---|---|---|---|---|---|---|---|---|---|\n"
            );
        }
        let (ratio, ratio_spread) = entry.ratio.map_or_else(Default::default, |ratio| {
            (format!("{} ×", figure(ratio.median)), quartiles(ratio))
        });
        let target = entry.target.map_or_else(String::new, |t| t.to_string());
        let count = |number: Option<f64>| number.map_or_else(String::new, |n| format!("{n:.1}"));
        let _ = writeln!(
            text,
            "| {} | {} | {} {} | {} | {ratio} | {ratio_spread} | {target} | {} | {} | {} |",
            entry.server,
            entry.who,
            figure(entry.measured.median),
            entry.unit,
            quartiles(entry.measured),
            verdict(entry),
            count(entry.statements),
            count(entry.round_trips),
        );
    }
    text
}

fn quartiles(spread: Spread) -> String {
    if spread.rounds < 2 {
        return String::new();
    }
    format!("{}–{}", figure(spread.low), figure(spread.high))
}
