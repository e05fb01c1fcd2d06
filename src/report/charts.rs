//! Draws the charts as inline SVG on one shared time axis.
//!
//! Only the lines are stretched to the width of the page; text and strokes are not, because each
//! plot is an `<svg>` without a `viewBox` (positions in percent) around one with it.

use maud::{Markup, html};

use super::chart::{self, Axis, HEIGHT, WIDTH};
use super::facts::{Episode, Facts};
use super::series::{Panel, Series, panels};
use super::text::{count, duration_ns, number, offset, plural};

/// Ticks on the time axis.
const TICKS_MAX: u64 = 7;
/// Stalls marked.
const EPISODES_MAX: usize = 20;
/// A limit more than this many times the greatest value is named, not drawn.
const LIMIT_TO_VALUE_MAX: f64 = 4.0;
/// Shortest time without a tick that breaks a line, ns.
const HOLE_NS_MIN: u64 = 1_000_000_000;

struct Marker {
    at_ns: u64,
    class: &'static str,
    label: String,
}

/// The section's body.
pub(super) fn draw(facts: &Facts<'_>) -> Markup {
    if facts.incident.models.is_empty() {
        return html! { p { "There is no tick in this run, so there is nothing to draw." } };
    }
    let interval_ns = facts.incident.environment.interval_ms.saturating_mul(1_000_000);
    let axis = Axis {
        begin_ns: facts.begin_ns,
        end_ns: facts.end_ns,
        hole_ns: interval_ns.saturating_mul(5).max(HOLE_NS_MIN),
    };
    let markers = markers(facts, &axis);
    let bands = bands(facts, &axis);
    let (drawn, silent): (Vec<Panel>, Vec<Panel>) = panels(facts.incident)
        .into_iter()
        .partition(|panel| panel.series.iter().any(|series| series.max_and_last().is_some()));
    html! {
        div.charts {
            (hatch())
            (flags(&axis, &markers))
            @for panel in &drawn { (figure(facts, panel, &axis, &markers, &bands)) }
            (time_axis(facts, &axis))
        }
        @if !silent.is_empty() { (not_drawn(&silent)) }
    }
}

fn not_drawn(silent: &[Panel]) -> Markup {
    html! {
        h3 { "Not drawn" }
        ul.plain {
            @for panel in silent {
                li {
                    b { (panel.title) } ": "
                    @let reasons = panel.absences.sentences();
                    @if reasons.is_empty() { (panel.none) } @else { (reasons.join(" ")) }
                }
            }
        }
    }
}

fn markers(facts: &Facts<'_>, axis: &Axis) -> Vec<Marker> {
    let mut markers = Vec::new();
    for fault in &facts.faults {
        let label = format!("fault {}", fault.fault.id());
        markers.push(Marker { at_ns: fault.begin_ns, class: "m-fault", label });
    }
    for episode in facts.episodes.iter().take(EPISODES_MAX) {
        if let Some(onset_ns) = episode.onset_ns() {
            let label =
                if episode.began_before_watch() { "stalled already" } else { "onset" }.to_owned();
            markers.push(Marker { at_ns: onset_ns, class: "m-onset", label });
        }
        if let Some(detected_ns) = episode.detected_ns() {
            let latency_ns = detected_ns.saturating_sub(episode.begin_ns().unwrap_or(detected_ns));
            let label = format!("detected +{}", duration_ns(latency_ns));
            markers.push(Marker { at_ns: detected_ns, class: "m-detected", label });
        }
        if let Some((at_ns, _)) = episode.recovered {
            markers.push(Marker { at_ns, class: "m-recovered", label: String::from("recovered") });
        }
    }
    markers.retain(|marker| axis.holds(marker.at_ns));
    markers
}

fn bands(facts: &Facts<'_>, axis: &Axis) -> Vec<(f64, f64)> {
    let band = |episode: &Episode<'_>| {
        let end_ns = episode.recovered.map_or(facts.end_ns, |(at_ns, _)| at_ns);
        Some((axis.at(episode.begin_ns()?), axis.at(end_ns)))
    };
    facts.episodes.iter().take(EPISODES_MAX).filter_map(band).collect()
}

/// The pattern behind stretches without a reading; drawn once, used by every plot.
fn hatch() -> Markup {
    html! {
        svg.defs width="0" height="0" aria-hidden="true" {
            defs {
                pattern id="hatch" width="6" height="6" patternUnits="userSpaceOnUse"
                    patternTransform="rotate(45)" {
                    rect.hatch width="2" height="6" {}
                }
            }
        }
    }
}

/// One row per kind of marker, so that neighbouring instants do not write over each other.
fn flags(axis: &Axis, markers: &[Marker]) -> Markup {
    const ROWS: [&str; 4] = ["m-fault", "m-onset", "m-detected", "m-recovered"];
    let rows: Vec<&str> =
        ROWS.into_iter().filter(|row| markers.iter().any(|m| m.class == *row)).collect();
    html! {
        @if !rows.is_empty() {
            div.plot.flags aria-hidden="true" {
                span {}
                svg width="100%" height=(rows.len() * 17) {
                    @for (n, row) in rows.iter().enumerate() {
                        @for marker in markers.iter().filter(|marker| marker.class == *row) {
                            (flag(axis, marker, n * 17))
                        }
                    }
                }
            }
        }
    }
}

fn flag(axis: &Axis, marker: &Marker, top: usize) -> Markup {
    let x = axis.at(marker.at_ns);
    let (anchor, dx) = if x > 0.6 { ("end", "-5") } else { ("start", "5") };
    html! {
        line.(marker.class) x1=(percent(x)) x2=(percent(x)) y1=(top) y2="100%" {}
        text.(marker.class) x=(percent(x)) dx=(dx) y=(top + 12) text-anchor=(anchor) {
            (marker.label)
        }
    }
}

fn figure(
    facts: &Facts<'_>,
    panel: &Panel,
    axis: &Axis,
    markers: &[Marker],
    bands: &[(f64, f64)],
) -> Markup {
    let max = panel
        .series
        .iter()
        .filter_map(Series::max_and_last)
        .map(|(max, _)| max)
        .fold(0.0, f64::max);
    let near = panel.limit.as_ref().filter(|(_, limit)| *limit <= LIMIT_TO_VALUE_MAX * max);
    let top = chart::nice_ceiling(near.map_or(max, |(_, limit)| limit.max(max)));
    html! {
        figure.chart {
            figcaption {
                h3 { (panel.title) span.unit { (panel.unit) } }
                (legend(panel, near.is_some()))
            }
            div.plot {
                (scale(top))
                svg.body role="img" aria-label=(spoken(facts, panel)) width="100%" height="112" {
                    @for (begin, end) in bands {
                        rect.stall x=(percent(*begin)) width=(percent(end - begin)) height="100%" {}
                    }
                    @for (begin, end) in common_gaps(panel, axis) {
                        rect.gap x=(percent(begin)) width=(percent(end - begin)) height="100%"
                            fill="url(#hatch)" {}
                    }
                    @for y in ["6", "56", "106"] { line.grid x1="0" x2="100%" y1=(y) y2=(y) {} }
                    svg y="6" width="100%" height="100" viewBox=(format!("0 0 {WIDTH} {HEIGHT}"))
                        preserveAspectRatio="none" overflow="visible" {
                        @if let Some((_, limit)) = near {
                            @let y = format!("{:.1}", HEIGHT - limit / top * HEIGHT);
                            line.limit x1="0" x2=(WIDTH) y1=(y) y2=(y) {}
                        }
                        @for (n, series) in panel.series.iter().enumerate() {
                            path.line.(format!("s{n}")) d=(chart::path(&series.points, axis, top)) {
                                title { (series.label) }
                            }
                        }
                    }
                    @for marker in markers {
                        @let x = percent(axis.at(marker.at_ns));
                        line.(marker.class) x1=(x) x2=(x) y1="0" y2="100%" {}
                    }
                }
            }
            (notes(panel))
        }
    }
}

/// What stands under a chart: what to look for, and what it lacks.
fn notes(panel: &Panel) -> Markup {
    let absences = panel.absences.sentences();
    html! {
        p.hint { (panel.hint) }
        @if panel.undrawn > 0 {
            p.hint { (plural(panel.undrawn as u64, "lower line is", "lower lines are")) " not drawn." }
        }
        @if !absences.is_empty() { p.hint { "Gaps: " (absences.join(" ")) } }
    }
}

fn legend(panel: &Panel, limit_drawn: bool) -> Markup {
    html! {
        ul.legend {
            @for (n, series) in panel.series.iter().enumerate() {
                li {
                    svg.key width="18" height="10" aria-hidden="true" {
                        line.line.(format!("s{n}")) x1="1" x2="17" y1="5" y2="5" {}
                    }
                    (series.label)
                    @if let Some((max, last)) = series.max_and_last() {
                        span.figures { "max " (number(max)) " · last " (number(last)) }
                    } @else { span.figures { "no reading" } }
                }
            }
            @if let Some((label, limit)) = &panel.limit {
                li {
                    svg.key width="18" height="10" aria-hidden="true" {
                        line.limit x1="1" x2="17" y1="5" y2="5" {}
                    }
                    (label)
                    span.figures { (number(*limit)) @if !limit_drawn { " (above the scale)" } }
                }
            }
        }
    }
}

/// Labels of the vertical scale.
pub(super) fn scale(top: f64) -> Markup {
    html! {
        svg.scale width="100%" height="112" aria-hidden="true" {
            @for (value, y) in [(top, 10), (top / 2.0, 60), (0.0, 110)] {
                text x="100%" dx="-6" y=(y) text-anchor="end" { (number(value)) }
            }
        }
    }
}

/// Gaps that all lines have in common; a gap of one line shows as a break of that line.
fn common_gaps(panel: &Panel, axis: &Axis) -> Vec<(f64, f64)> {
    let mut gaps = panel.series.iter().map(|series| chart::gaps(&series.points, axis));
    let first = gaps.next().unwrap_or_default();
    gaps.fold(first, |common, other| {
        let overlap = |a: &(f64, f64), b: &(f64, f64)| (a.0.max(b.0), a.1.min(b.1));
        common
            .iter()
            .flat_map(|a| other.iter().map(move |b| overlap(a, b)))
            .filter(|(begin, end)| end > begin)
            .collect()
    })
}

/// What a screen reader says instead of the drawing.
fn spoken(facts: &Facts<'_>, panel: &Panel) -> String {
    let at = |series: &Series, at_ns: u64| {
        series.points.iter().rev().find(|point| point.0 <= at_ns).and_then(|point| point.1)
    };
    let lines: Vec<String> = panel
        .series
        .iter()
        .filter_map(|series| {
            let (max, last) = series.max_and_last()?;
            let onset = facts
                .episode()
                .and_then(Episode::begin_ns)
                .and_then(|onset_ns| at(series, onset_ns))
                .map(|value| format!("{} at the onset, ", number(value)))
                .unwrap_or_default();
            let label = &series.label;
            Some(format!("{label}: {onset}at most {}, {} at the end", number(max), number(last)))
        })
        .collect();
    format!("Chart. {}, {}. {}.", panel.title, panel.unit, lines.join("; "))
}

fn time_axis(facts: &Facts<'_>, axis: &Axis) -> Markup {
    let ticks = axis.ticks(facts.zero_ns(), TICKS_MAX);
    let zero = if facts.episode().is_some() { "onset" } else { "begin" };
    html! {
        div.plot.time {
            span {}
            svg width="100%" height="34" role="img"
                aria-label=(format!("Time axis from {} to {} UTC", facts.clock(axis.begin_ns),
                    facts.clock(axis.end_ns))) {
                @for (x, tick) in &ticks {
                    line.grid x1=(percent(*x)) x2=(percent(*x)) y1="0" y2="4" {}
                    text x=(percent(*x)) y="15" text-anchor=(anchor(*x)) { (tick_label(*tick, zero)) }
                }
                text.wall x="0" y="31" { (facts.clock(axis.begin_ns)) }
                text.wall x="100%" y="31" text-anchor="end" {
                    (facts.clock(axis.end_ns)) " UTC"
                }
            }
        }
    }
}

pub(super) fn anchor(x: f64) -> &'static str {
    if x < 0.04 {
        "start"
    } else if x > 0.96 {
        "end"
    } else {
        "middle"
    }
}

/// `onset`, `+2 s`, `−500 ms`, `+5 min`.
pub(super) fn tick_label(offset_ns: i128, zero: &str) -> String {
    if offset_ns == 0 {
        return zero.to_owned();
    }
    let ns = offset_ns.unsigned_abs() as u64;
    let sign = if offset_ns < 0 { '−' } else { '+' };
    let (size, unit) = match ns {
        _ if ns.is_multiple_of(3_600_000_000_000) => (ns / 3_600_000_000_000, "h"),
        _ if ns.is_multiple_of(60_000_000_000) => (ns / 60_000_000_000, "min"),
        _ if ns.is_multiple_of(1_000_000_000) => (ns / 1_000_000_000, "s"),
        _ if ns.is_multiple_of(1_000_000) => (ns / 1_000_000, "ms"),
        _ => return offset(ns, 0),
    };
    format!("{sign}{} {unit}", count(size))
}

pub(super) fn percent(position: f64) -> String {
    format!("{:.3}%", position.clamp(0.0, 1.0) * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_named_in_their_own_unit() {
        let cases = [
            (0, "onset"),
            (2_000_000_000, "+2 s"),
            (-500_000_000, "−500 ms"),
            (300_000_000_000, "+5 min"),
            (-7_200_000_000_000, "−2 h"),
        ];
        for (ns, label) in cases {
            assert_eq!(tick_label(ns, "onset"), label);
        }
    }
}
