//! The figures of runs as tables for `docs/torture.md`: nobody types them.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::checker::{Figures, Verdict};
use crate::clock::{MILLISECOND, Moment, SECOND};
use crate::fault::Fault;
use crate::history::Setting;

/// The file in the directory of a run.
const FILE: &str = "figures.json";

/// What stands before the tables, and behind them.
const MARKERS: [&str; 2] = ["<!-- figures -->", "<!-- end of figures -->"];

/// What a run has shown, in figures.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Summary {
    /// How it was set.
    pub setting: Setting,
    /// What was measured.
    pub figures: Figures,
    /// How often the promise was broken.
    pub broken: usize,
}

impl Summary {
    /// Of a run.
    pub(super) fn of(verdict: &Verdict) -> Summary {
        Summary {
            setting: verdict.scene.setting.clone(),
            figures: verdict.figures.clone(),
            broken: verdict.violations.len(),
        }
    }

    /// Leaves it in the directory of the run.
    pub(super) fn leave(&self, directory: &Path) -> Result<()> {
        fs::write(directory.join(FILE), serde_json::to_vec_pretty(self)?)?;
        Ok(())
    }

    /// Reads what a run has left in its directory.
    ///
    /// # Errors
    ///
    /// When there is nothing, or something else.
    pub fn read(directory: &Path) -> Result<Summary> {
        let path = directory.join(FILE);
        let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("no figures: {}", path.display()))
    }
}

/// Writes the figures of the runs in these directories into a page, in place of those that stand there.
///
/// # Errors
///
/// When a run has left no figures, or the promise was broken in it, or the page has no place for them.
pub fn publish(page: &Path, directories: &[PathBuf]) -> Result<()> {
    let mut runs = Vec::new();
    for directory in directories {
        let run = Summary::read(directory)?;
        if run.broken > 0 {
            bail!("the promise was broken in {}", directory.display());
        }
        runs.push(run);
    }
    if runs.is_empty() {
        bail!("name the directories of the runs, such as target/torture/postgres-session-1");
    }
    let text = fs::read_to_string(page)?;
    fs::write(page, insert(&text, &tables(&runs))?)?;
    Ok(())
}

/// The page with these tables between its markers.
fn insert(page: &str, tables: &str) -> Result<String> {
    let [begin, end] = MARKERS;
    let parts = page.split_once(begin).and_then(|(before, rest)| {
        let (_, behind) = rest.split_once(end)?;
        Some((before, behind))
    });
    let (before, behind) = parts.with_context(|| format!("the page has no {begin} … {end}"))?;
    Ok(format!("{before}{begin}\n{tables}{end}{behind}"))
}

fn tables(runs: &[Summary]) -> String {
    let mut text = String::new();
    for (strategy, title) in [("session", "Sessions"), ("lease", "Leases")] {
        let of_it = runs.iter().filter(|run| run.setting.strategy == strategy);
        let of_it: Vec<_> = of_it.collect();
        if !of_it.is_empty() {
            // Writing to a text does not fail.
            let _ = table(&mut text, title, &of_it);
        }
    }
    text
}

fn table(text: &mut String, title: &str, runs: &[&Summary]) -> std::fmt::Result {
    let mut row = |name: &str, cell: &dyn Fn(&Summary) -> String| {
        let cells: Vec<_> = runs.iter().map(|run| cell(run)).collect();
        writeln!(text, "| {name} | {} |", cells.join(" | "))
    };
    row(title, &|run| short(&run.setting.server))?;
    row("---", &|_| "---".to_owned())?;
    row("seed; minutes", &|run| {
        let minutes = (run.figures.lasted + 30 * SECOND) / (60 * SECOND);
        format!("{}; {minutes}", run.setting.seed)
    })?;
    row("requests, holds", &|run| {
        let figures = &run.figures;
        format!("{}, {}", figures.requests, figures.holds)
    })?;
    row("hand-overs: in the process, to another", &|run| {
        format!("{}, {}", run.figures.local, run.figures.foreign)
    })?;
    row("faults", &|run| {
        let faults = run.figures.faults.values();
        faults.map(|of| of.count).sum::<usize>().to_string()
    })?;
    row("holders told of a loss; without a fault", &|run| {
        format!("{}; {}", run.figures.lost, run.figures.unprovoked)
    })?;
    if runs.iter().any(|run| run.figures.overlaps > 0) {
        row("stated overlaps, the longest", &|run| {
            let longest = milliseconds(run.figures.longest_overlap);
            format!("{}, {longest} ms", run.figures.overlaps)
        })?;
    }
    for fault in Fault::ALL {
        let has = |run: &&&Summary| run.figures.faults.contains_key(&fault);
        if runs.iter().any(|run| has(&run)) {
            row(&format!("`{fault}`"), &|run| {
                let Some(of) = run.figures.faults.get(&fault) else {
                    return String::new();
                };
                let told = match of.told {
                    0 => "–".to_owned(),
                    _ => milliseconds(of.detect).to_string(),
                };
                format!("{}: {told}, {}", of.count, milliseconds(of.recover))
            })?;
        }
    }
    writeln!(text)
}

fn milliseconds(time: Moment) -> Moment {
    time.div_ceil(MILLISECOND)
}

/// A server's name without what its packager adds to it.
fn short(server: &str) -> String {
    let mut name = server.to_owned();
    if let (Some(from), Some(to)) = (name.find(" ("), name.find(')')) {
        name.replace_range(from..=to, "");
    }
    // `10.11.19-MariaDB-0+deb12u1` is 10.11.19.
    let words = name.split(' ').map(|word| match word.split_once('-') {
        Some((number, _)) if number.starts_with(|first: char| first.is_ascii_digit()) => number,
        _ => word,
    });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::OfFault;

    fn run(server: &str, strategy: &str) -> Summary {
        let figures = Figures {
            lasted: 900 * SECOND,
            holds: 7,
            faults: [(
                Fault::Kill,
                OfFault {
                    count: 3,
                    recover: 1500 * MILLISECOND,
                    ..OfFault::default()
                },
            )]
            .into(),
            ..Figures::default()
        };
        Summary {
            setting: Setting {
                server: server.to_owned(),
                strategy: strategy.to_owned(),
                seed: 5,
                keys: 4,
                limit: 3 * SECOND,
                heartbeat: SECOND / 2,
                connect: 2 * SECOND,
                command: String::new(),
            },
            figures,
            broken: 0,
        }
    }

    #[test]
    fn figures_come_back_as_they_were_left() {
        let left = run("a server", "lease");
        let text = serde_json::to_vec(&left).expect("plain data");
        let read: Summary = serde_json::from_slice(&text).expect("its own text");
        assert_eq!(format!("{read:?}"), format!("{left:?}"));
    }

    #[test]
    fn tables_stand_between_the_markers_in_place_of_the_old_ones() {
        let runs = [
            run(
                "PostgreSQL 15.18 (Debian 15.18-0+deb12u1) with it",
                "session",
            ),
            run(
                "MariaDB 10.11.19-MariaDB-0+deb12u1 (Debian 12) as a cluster",
                "lease",
            ),
        ];
        let page = "before\n<!-- figures -->\nformer\n<!-- end of figures -->\nbehind\n";
        let new = insert(page, &tables(&runs)).expect("a page with markers");
        assert!(!new.contains("former"), "{new}");
        assert!(
            new.starts_with("before\n<!-- figures -->\n| Sessions | PostgreSQL 15.18 with it |\n")
        );
        assert!(
            new.contains("| Leases | MariaDB 10.11.19 as a cluster |"),
            "{new}"
        );
        assert!(new.contains("| seed; minutes | 5; 15 |"), "{new}");
        assert!(new.contains("| `kill` | 3: –, 1500 |"), "{new}");
        assert!(new.ends_with("<!-- end of figures -->\nbehind\n"), "{new}");
        // And again: nothing grows.
        assert_eq!(insert(&new, &tables(&runs)).expect("the same page"), new);
        assert!(insert("no markers", "").is_err());
    }
}
