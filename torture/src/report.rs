//! What a run has shown, for people: a table, a picture, and where the promise was broken.

mod publish;
mod timeline;

use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::Result;

pub use publish::{Summary, publish};

use crate::checker::{Verdict, Violation, seconds};
use crate::clock::{MILLISECOND, Moment, SECOND};
use crate::history::{Event, History, Record};

/// How many violations are shown in full.
const SHOWN: usize = 3;

/// How many lines of the history are shown of one violation.
const LINES: usize = 60;

/// Writes `report.txt`, `figures.json` and `timeline.svg` beside the history, and gives the text.
///
/// # Errors
///
/// When they cannot be written.
pub fn write(directory: &Path, history: &History, verdict: &Verdict) -> Result<String> {
    let text = text(directory, history, verdict);
    fs::write(directory.join("report.txt"), &text)?;
    Summary::of(verdict).leave(directory)?;
    fs::write(directory.join("timeline.svg"), timeline::draw(verdict))?;
    Ok(text)
}

/// The report as text.
fn text(directory: &Path, history: &History, verdict: &Verdict) -> String {
    let mut text = String::new();
    // Writing to a text does not fail.
    let _ = table(&mut text, verdict);
    if verdict.violations.is_empty() {
        let _ = writeln!(text, "\nnothing was broken");
        return text;
    }
    let _ = writeln!(text, "\nBROKEN {} times:", verdict.violations.len());
    for violation in &verdict.violations {
        let _ = writeln!(text, "  {}: {}", violation.property, violation.what);
    }
    for violation in verdict.violations.iter().take(SHOWN) {
        let _ = stretch(&mut text, history, verdict, violation);
    }
    let setting = &verdict.scene.setting;
    let _ = writeln!(text, "\nseed {}; again: {}", setting.seed, setting.command);
    let _ = writeln!(text, "the history: {}", directory.display());
    text
}

fn table(text: &mut String, verdict: &Verdict) -> std::fmt::Result {
    let (figures, setting) = (&verdict.figures, &verdict.scene.setting);
    writeln!(
        text,
        "{}, strategy {}, seed {}: {} s, {} processes",
        setting.server,
        setting.strategy,
        setting.seed,
        figures.lasted / SECOND,
        figures.processes
    )?;
    writeln!(
        text,
        "{} requests: {} holds, {} busy, {} unavailable, {} refused, {} dropped",
        figures.requests,
        figures.holds,
        figures.busy,
        figures.unavailable,
        figures.refused,
        figures.dropped
    )?;
    writeln!(
        text,
        "{} hand-overs inside a process, {} to another",
        figures.local, figures.foreign
    )?;
    writeln!(
        text,
        "{} losses told, {} of them without a fault; {} stated overlaps after the server ended a session, the longest {}",
        figures.lost,
        figures.unprovoked,
        figures.overlaps,
        milliseconds(figures.longest_overlap)
    )?;
    writeln!(
        text,
        "\n{:18} {:>5} {:>6} {:>15} {:>16}",
        "fault", "times", "told", "told within", "taken within"
    )?;
    for (fault, of) in &figures.faults {
        writeln!(
            text,
            "{fault:18} {:>5} {:>6} {:>15} {:>16}",
            of.count,
            of.told,
            if of.told == 0 {
                "-".to_owned()
            } else {
                milliseconds(of.detect)
            },
            milliseconds(of.recover)
        )?;
    }
    Ok(())
}

fn milliseconds(time: Moment) -> String {
    format!("{} ms", time.div_ceil(MILLISECOND))
}

/// The shortest stretch of the history that shows a violation: the records of its requests, and the faults at that time.
fn stretch(
    text: &mut String,
    history: &History,
    verdict: &Verdict,
    violation: &Violation,
) -> std::fmt::Result {
    let scene = &verdict.scene;
    let involved: Vec<_> = violation
        .requests
        .iter()
        .map(|index| (scene.requests[*index].process, scene.requests[*index].op))
        .collect();
    let (mut from, mut to) = violation.stretch;
    for index in &violation.requests {
        from = from.min(scene.requests[*index].asked);
    }
    to += 100 * MILLISECOND;
    let mut lines: Vec<(Moment, String)> = Vec::new();
    for window in &scene.windows {
        if window.began <= to && window.ended + 2 * scene.setting.limit >= from {
            let whom = window
                .target
                .map_or("everybody".to_owned(), |slot| format!("slot {slot}"));
            let fault = window.fault;
            lines.push((window.began, format!("nemesis: {fault} begins for {whom}")));
            lines.push((window.ended, format!("nemesis: {fault} has ended")));
        }
    }
    for (process, records) in &history.workers {
        for record in records {
            if let Some(op) = op_of(record)
                && involved.contains(&(*process, op))
            {
                lines.push((record.at, format!("process {process}: {:?}", record.event)));
            }
        }
    }
    lines.sort();
    writeln!(text, "\n{}: {}", violation.property, violation.what)?;
    let skipped = lines.len().saturating_sub(LINES);
    for (position, (at, line)) in lines.iter().enumerate() {
        if position == LINES / 2 && skipped > 0 {
            writeln!(text, "      … {skipped} lines …")?;
        }
        if position < LINES / 2 || position >= LINES / 2 + skipped {
            writeln!(text, "  {:>14}  {line}", seconds(scene, *at))?;
        }
    }
    Ok(())
}

fn op_of(record: &Record) -> Option<u64> {
    match &record.event {
        Event::Asked { op, .. }
        | Event::Acquired { op, .. }
        | Event::Step { op, .. }
        | Event::Told { op }
        | Event::Releasing { op }
        | Event::Released { op, .. }
        | Event::Failed { op, .. }
        | Event::Dropped { op } => Some(*op),
        _ => None,
    }
}
