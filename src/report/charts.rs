//! Draws the lanes as inline SVG on one shared time axis.
//!
//! Only the lines are stretched to the width of the page; text and strokes are not, because each
//! plot is an `<svg>` without a `viewBox` (positions in percent) around one with it. What stands here
//! is whole without a script; `page.js` draws a part of it larger from the data block at the end.

use maud::{Markup, PreEscaped, html};

use super::chart::{self, Axis, COLUMNS, HEIGHT, Point, WIDTH};
use super::detail::{self, Lane};
use super::facts::{Episode, Facts};
use super::marks::Marks;
use super::series::{Panel, Series, panels};
use super::text::{count, number, offset, plural};

/// Ticks on the time axis.
const TICKS_MAX: u64 = 7;
/// A limit more than this many times the greatest value is named, not drawn.
const LIMIT_TO_VALUE_MAX: f64 = 4.0;
/// Shortest time without a tick that breaks a line, ns.
const HOLE_NS_MIN: u64 = 1_000_000_000;

/// A panel with what its drawing and its data have in common.
struct Drawn {
    panel: Panel,
    /// Points per line, with holes marked.
    lines: Vec<Vec<Point>>,
    /// Where no line has a reading, ns.
    gaps: Vec<(u64, u64)>,
    /// Upper edge of the scale.
    top: f64,
    /// The limit, if it is near enough to be drawn.
    limit: Option<f64>,
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
    let marks = Marks::new(facts, axis);
    let (seen, silent): (Vec<Panel>, Vec<Panel>) = panels(facts.incident)
        .into_iter()
        .partition(|panel| panel.series.iter().any(|series| series.max_and_last().is_some()));
    let drawn: Vec<Drawn> = seen.into_iter().map(|panel| prepare(panel, &axis)).collect();
    html! {
        @if !drawn.is_empty() {
            div.charts {
                (hatch())
                (tools(facts))
                div #lanes.lanes role="group" aria-label=(KEYS) {
                    (marks.flags())
                    @for drawn in &drawn { (lane(facts, drawn, &axis, &marks)) }
                    (time_axis(facts, &axis))
                }
                (data(facts, &drawn, &axis))
            }
            (how_to_read(&drawn))
        }
        @if !silent.is_empty() { (not_drawn(&silent)) }
    }
}

const KEYS: &str = "Time line. Arrow keys move it, plus and minus zoom, 0 shows the whole run, o the \
    onset; with Shift the arrow keys move the cursor that reads values.";

fn prepare(panel: Panel, axis: &Axis) -> Drawn {
    let max = panel
        .series
        .iter()
        .filter_map(Series::max_and_last)
        .map(|(max, _)| max)
        .fold(0.0, f64::max);
    let limit = panel.limit.as_ref().map(|(_, limit)| *limit);
    let limit = limit.filter(|limit| *limit <= LIMIT_TO_VALUE_MAX * max);
    let top = chart::nice_ceiling(limit.map_or(max, |limit| limit.max(max)));
    let lines: Vec<Vec<Point>> =
        panel.series.iter().map(|series| chart::with_holes(&series.points, axis)).collect();
    let gaps = common_gaps(&lines);
    Drawn { panel, lines, gaps, top, limit }
}

/// Hidden until the script is there to answer.
fn tools(facts: &Facts<'_>) -> Markup {
    html! {
        div #tools.tools role="toolbar" aria-label="Zoom of the time line" aria-controls="lanes" hidden {
            button type="button" data-do="out" aria-label="Zoom out" title="Zoom out (−)" { "−" }
            button type="button" data-do="in" aria-label="Zoom in" title="Zoom in (+)" { "+" }
            button type="button" data-do="all" title="The whole run (0)" { "Whole run" }
            @if facts.episode().is_some() {
                button type="button" data-do="onset" title="Around the onset (o)" { "Around the onset" }
            }
            span #shown {}
            span #instant {}
        }
        div #said.quiet aria-live="polite" {}
    }
}

fn data(facts: &Facts<'_>, drawn: &[Drawn], axis: &Axis) -> Markup {
    let lanes: Vec<Lane<'_>> = drawn
        .iter()
        .map(|drawn| Lane {
            lines: drawn.lines.iter().map(Vec::as_slice).collect(),
            gaps: &drawn.gaps,
            top: drawn.top,
        })
        .collect();
    let json = detail::json(facts, axis, &lanes);
    html! { script #lanes-data type="application/json" { (PreEscaped(json)) } }
}

/// What to look for in each lane, and what it lacks.
fn how_to_read(drawn: &[Drawn]) -> Markup {
    html! {
        details.read {
            summary { "What each lane shows, and why it has gaps" }
            dl.pairs {
                @for Drawn { panel, .. } in drawn {
                    dt { (panel.title) }
                    dd {
                        (panel.hint) " "
                        @if panel.undrawn > 0 {
                            " " (plural(panel.undrawn as u64, "lower line is", "lower lines are"))
                            " not drawn."
                        }
                        @let absences = panel.absences.sentences();
                        @if !absences.is_empty() { span.lack { "Gaps: " (absences.join(" ")) } }
                    }
                }
            }
        }
    }
}

fn not_drawn(silent: &[Panel]) -> Markup {
    html! {
        details.read {
            summary { (plural(silent.len() as u64, "lane is", "lanes are")) " not drawn: there was no reading" }
            dl.pairs {
                @for panel in silent {
                    dt { (panel.title) }
                    dd {
                        @let reasons = panel.absences.sentences();
                        @if reasons.is_empty() { (panel.none) } @else { (reasons.join(" ")) }
                    }
                }
            }
        }
    }
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

fn lane(facts: &Facts<'_>, drawn: &Drawn, axis: &Axis, marks: &Marks) -> Markup {
    let Drawn { panel, lines, gaps, top, limit } = drawn;
    html! {
        figure.lane {
            figcaption.side {
                h3 { (panel.title) " " span.unit { (panel.unit) } }
                (legend(panel, limit.is_some()))
            }
            (scale(*top))
            svg.plot role="img" aria-label=(spoken(facts, panel)) width="100%" height="76" {
                (marks.stalls())
                g.gaps {
                    @for (begin_ns, end_ns) in gaps {
                        @let (begin, end) = (axis.at(*begin_ns), axis.at(*end_ns));
                        @if end - begin >= 1.0 / COLUMNS as f64 {
                            rect.gap x=(percent(begin)) width=(percent(end - begin)) height="100%"
                                fill="url(#hatch)" {}
                        }
                    }
                }
                @for y in ["6", "38", "70"] { line.grid x1="0" x2="100%" y1=(y) y2=(y) {} }
                svg.body y="6" width="100%" height="64" viewBox=(format!("0 0 {WIDTH} {HEIGHT}"))
                    preserveAspectRatio="none" overflow="visible" {
                    @if let Some(limit) = limit {
                        @let y = format!("{:.1}", HEIGHT - limit / top * HEIGHT);
                        line.limit x1="0" x2=(WIDTH) y1=(y) y2=(y) {}
                    }
                    @for (n, points) in lines.iter().enumerate() {
                        path.line.(format!("s{n}")) d=(chart::path(points, axis, *top)) {}
                    }
                }
                (marks.lines())
            }
        }
    }
}

fn legend(panel: &Panel, limit_drawn: bool) -> Markup {
    html! {
        ul.legend {
            @for (n, series) in panel.series.iter().enumerate() {
                li {
                    svg.key width="14" height="10" aria-hidden="true" {
                        line.line.(format!("s{n}")) x1="1" x2="13" y1="5" y2="5" {}
                    }
                    span.name title=(series.label) { (series.label) } " "
                    @if let Some((max, last)) = series.max_and_last() {
                        span.figures title=(format!("max {} · last {}", number(max), number(last))) {
                            "max " (number(max))
                        }
                    } @else { span.figures { "no reading" } }
                }
            }
            @if let Some((label, limit)) = &panel.limit {
                li {
                    svg.key width="14" height="10" aria-hidden="true" {
                        line.limit x1="1" x2="13" y1="5" y2="5" {}
                    }
                    @let label = if limit_drawn { label.clone() } else { format!("{label}, above the scale") };
                    span.name title=(label) { (label) } " "
                    span.bound { (number(*limit)) }
                }
            }
        }
    }
}

/// Labels of the vertical scale.
pub(super) fn scale(top: f64) -> Markup {
    html! {
        svg.scale width="100%" height="76" aria-hidden="true" {
            @for (value, y) in [(top, 10), (top / 2.0, 42), (0.0, 74)] {
                @if value.fract() == 0.0 || top < 1.0 {
                    text x="100%" dx="-6" y=(y) text-anchor="end" { (number(value)) }
                }
            }
        }
    }
}

/// Gaps that all lines have in common; a gap of one line shows as a break of that line.
fn common_gaps(lines: &[Vec<Point>]) -> Vec<(u64, u64)> {
    let mut gaps = lines.iter().map(|line| chart::gaps(line));
    let first = gaps.next().unwrap_or_default();
    gaps.fold(first, |common, other| overlaps(&common, &other))
}

/// What two sorted lists of stretches have in common.
fn overlaps(a: &[(u64, u64)], b: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let (mut a, mut b) = (a.iter().peekable(), b.iter().peekable());
    let mut common = Vec::new();
    while let (Some(one), Some(other)) = (a.peek(), b.peek()) {
        let (begin, end) = (one.0.max(other.0), one.1.min(other.1));
        if begin < end {
            common.push((begin, end));
        }
        if one.1 <= other.1 {
            a.next()
        } else {
            b.next()
        };
    }
    common
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
        div #axis.lane.time {
            span.side.where aria-hidden="true" { span.all { span #where {} } }
            span {}
            svg.plot width="100%" height="34" role="img"
                aria-label=(format!("Time axis from {} to {} UTC", facts.clock(axis.begin_ns),
                    facts.clock(axis.end_ns))) {
                g #ticks {
                    @for (x, tick) in &ticks {
                        line.grid x1=(percent(*x)) x2=(percent(*x)) y1="0" y2="4" {}
                        text x=(percent(*x)) y="15" text-anchor=(anchor(*x)) { (tick_label(*tick, zero)) }
                    }
                }
                text #wall-from.wall x="0" y="31" { (facts.clock(axis.begin_ns)) }
                text #wall-to.wall x="100%" y="31" text-anchor="end" {
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

/// A position, 0 to 1, as SVG wants it.
pub(crate) fn percent(position: f64) -> String {
    format!("{:.3}%", position.clamp(0.0, 1.0) * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlaps_are_what_both_have() {
        let common = overlaps(&[(0, 10), (20, 30)], &[(5, 22), (25, 26), (28, 40)]);
        assert_eq!(common, [(5, 10), (20, 22), (25, 26), (28, 30)]);
        assert_eq!(overlaps(&[(0, 5)], &[(5, 9)]), []);
    }

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
