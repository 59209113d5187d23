//! The timeline of a run as a picture: a lane for each key, a colour for each slot, a band for each fault.

use std::collections::HashSet;
use std::fmt::Write;

use crate::checker::{Scene, Verdict, seconds};
use crate::clock::{Moment, SECOND};
use crate::history::Mode;

const WIDTH: f64 = 1800.0;
const LEFT: f64 = 70.0;
const TOP: f64 = 70.0;
const LANE: f64 = 44.0;

/// The colours of the slots.
const COLOURS: [&str; 6] = [
    "#4269d0", "#efb118", "#3ca951", "#a463f2", "#97bbf5", "#9c6b4e",
];

/// Draws it, as SVG.
pub(super) fn draw(verdict: &Verdict) -> String {
    let mut svg = String::new();
    // Writing to a text does not fail.
    let _ = write_all(&mut svg, verdict);
    svg
}

fn write_all(svg: &mut String, verdict: &Verdict) -> std::fmt::Result {
    let scene = &verdict.scene;
    let height = TOP + LANE * f64::from(scene.setting.keys) + 40.0;
    let width = WIDTH + LEFT + 20.0;
    writeln!(
        svg,
        r#"<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" font-size="10">"#
    )?;
    writeln!(
        svg,
        r#"<rect width="{width}" height="{height}" fill="white"/>"#
    )?;
    writeln!(
        svg,
        r#"<text x="{LEFT}" y="14" font-size="12">{}, strategy {}, seed {}: holds by process, faults as bands</text>"#,
        scene.setting.server, scene.setting.strategy, scene.setting.seed
    )?;
    faults(svg, scene, height)?;
    for key in 0..scene.setting.keys {
        lane(svg, scene, key)?;
    }
    for violation in &verdict.violations {
        let x = x(scene, violation.stretch.0);
        writeln!(
            svg,
            r#"<line x1="{x:.1}" x2="{x:.1}" y1="{}" y2="{}" stroke="red" stroke-width="2"><title>{}</title></line>"#,
            TOP - 8.0,
            height - 36.0,
            escaped(&violation.what)
        )?;
    }
    axis(svg, scene, height)?;
    writeln!(svg, "</svg>")
}

fn faults(svg: &mut String, scene: &Scene, height: f64) -> std::fmt::Result {
    for (position, window) in scene.windows.iter().enumerate() {
        let (from, to) = (x(scene, window.began), x(scene, window.ended));
        let width = (to - from).max(1.0);
        let row = 28.0 + 10.0 * f64::from(u8::try_from(position % 4).unwrap_or(0));
        writeln!(
            svg,
            r##"<rect x="{from:.1}" y="{TOP}" width="{width:.1}" height="{:.1}" fill="#ff725c" opacity="0.18"/>"##,
            height - TOP - 36.0
        )?;
        let whom = window
            .target
            .map_or(String::new(), |slot| format!(" → {slot}"));
        writeln!(
            svg,
            r#"<text x="{from:.1}" y="{row}" font-size="8">{}{whom}</text>"#,
            window.fault
        )?;
    }
    Ok(())
}

fn lane(svg: &mut String, scene: &Scene, key: u16) -> std::fmt::Result {
    let top = TOP + LANE * f64::from(key);
    writeln!(svg, r#"<text x="8" y="{}">key {key}</text>"#, top + 20.0)?;
    // In a long run many holds fall into one column; one of each process is enough there.
    let mut drawn = HashSet::new();
    for request in &scene.requests {
        let Some((from, to)) = request.hold().filter(|_| request.keys.contains(&key)) else {
            continue;
        };
        let (from, to) = (x(scene, from), x(scene, to));
        let narrow = to - from < 0.5;
        #[expect(clippy::cast_possible_truncation, reason = "a column of the picture")]
        let column = (from * 2.0) as i64;
        if narrow && !drawn.insert((column, request.process.slot)) {
            continue;
        }
        let colour = COLOURS[request.process.slot % COLOURS.len()];
        let (offset, thick) = match request.mode {
            Mode::Exclusive => (4.0, 24.0),
            Mode::Shared => (30.0, 8.0),
        };
        writeln!(
            svg,
            r#"<rect x="{from:.1}" y="{:.1}" width="{:.1}" height="{thick}" fill="{colour}"/>"#,
            top + offset,
            (to - from).max(0.4)
        )?;
        if let Some(told) = request.told.or(request.denied) {
            let x = x(scene, told);
            writeln!(
                svg,
                r#"<circle cx="{x:.1}" cy="{:.1}" r="2" fill="black"/>"#,
                top + 16.0
            )?;
        }
    }
    Ok(())
}

fn axis(svg: &mut String, scene: &Scene, height: f64) -> std::fmt::Result {
    let lasts = scene.end.saturating_sub(scene.start()) / SECOND;
    let step = (lasts / 20).max(1);
    for second in (0..=lasts).step_by(usize::try_from(step).unwrap_or(1)) {
        let at = scene.start() + second * SECOND;
        let text = seconds(scene, at);
        let text = text.split('.').next().unwrap_or_default();
        writeln!(
            svg,
            r#"<text x="{:.1}" y="{}">{text} s</text>"#,
            x(scene, at),
            height - 20.0
        )?;
    }
    writeln!(
        svg,
        r#"<text x="{LEFT}" y="{}" font-size="8">tall: exclusive; low: shared; dot: the holder was told of a loss; red: the promise was broken</text>"#,
        height - 6.0
    )
}

#[expect(clippy::cast_precision_loss, reason = "a place in the picture")]
fn x(scene: &Scene, at: Moment) -> f64 {
    let lasts = scene.end.saturating_sub(scene.start()).max(1) as f64;
    LEFT + WIDTH * at.saturating_sub(scene.start()) as f64 / lasts
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
