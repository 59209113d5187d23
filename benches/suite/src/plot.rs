//! The plot: each ratio as a bar with its quartiles, on a logarithmic scale, and the floor as a line.

use std::fmt::Write;

use crate::entry::Entry;
use crate::table::figure;

/// Pixels.
const LINE: f64 = 18.0;
const LABELS: f64 = 420.0;
const WIDTH: f64 = 900.0;

/// The ratios at both ends of the scale.
const ENDS: (f64, f64) = (0.01, 100.0);

pub(crate) fn draw(entries: &[Entry]) -> String {
    let lines: Vec<&Entry> = entries
        .iter()
        .filter(|entry| entry.ratio.is_some())
        .collect();
    #[allow(clippy::cast_precision_loss, reason = "a few hundred")]
    let height = (lines.len() + 3) as f64 * LINE;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" \
         font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    for (power, color) in [
        (0.01, "#ccc"),
        (0.1, "#ccc"),
        (1.0, "black"),
        (10.0, "#ccc"),
        (100.0, "#ccc"),
    ] {
        let x = place(power);
        // Writing to a string does not fail.
        let _ = writeln!(
            svg,
            "<line x1=\"{x:.1}\" y1=\"{LINE}\" x2=\"{x:.1}\" y2=\"{height}\" stroke=\"{color}\"/>\
             <text x=\"{x:.1}\" y=\"12\" text-anchor=\"middle\">{power} ×</text>"
        );
    }
    let mut y = LINE;
    for entry in lines {
        let Some(ratio) = entry.ratio else { continue };
        y += LINE;
        let label = format!("{} · {} · {}", entry.row, entry.server, entry.who);
        let color = match entry.is_met() {
            Some(true) => "#2a7d2a",
            Some(false) => "#c0392b",
            None => "#7f8c9b",
        };
        let (one, value) = (place(1.0), place(ratio.median));
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{y:.1}\" text-anchor=\"end\">{}</text>\
             <rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"9\" fill=\"{color}\"/>\
             <line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"black\"/>\
             <text x=\"{:.1}\" y=\"{y:.1}\">{}</text>",
            LABELS - 8.0,
            escaped(&label),
            one.min(value),
            y - 9.0,
            (value - one).abs().max(1.0),
            place(ratio.low),
            y - 4.5,
            place(ratio.high),
            y - 4.5,
            place(ratio.high).max(one) + 6.0,
            figure(ratio.median),
        );
    }
    svg + "</svg>\n"
}

/// Where a ratio lies, from the left.
fn place(ratio: f64) -> f64 {
    let (low, high) = (ENDS.0.log10(), ENDS.1.log10());
    let share = (ratio.clamp(ENDS.0, ENDS.1).log10() - low) / (high - low);
    LABELS + share * (WIDTH - LABELS - 60.0)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
