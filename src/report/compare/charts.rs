//! The lines of both runs over each other, aligned at their onsets or at their begins.

use maud::{Markup, html};

use super::sides::{Comparison, Side};
use crate::report::chart::{self, Axis, HEIGHT, Point, WIDTH};
use crate::report::charts::{anchor, percent, scale, tick_label};
use crate::report::facts::Episode;
use crate::report::figures::{self, SPECS, Spec};
use crate::report::text::number;

/// Ticks on the time axis.
const TICKS_MAX: u64 = 7;
/// Stalls shaded per run.
const EPISODES_MAX: usize = 20;
/// Shortest time without a tick that breaks a line, ns.
const HOLE_NS_MIN: u64 = 1_000_000_000;
/// What is drawn, where a run has it; the others stand in the table.
const DRAWN: [&str; 12] = [
    "requests_per_s",
    "cpu_us_per_response",
    "cpu_cores",
    "runtime_cpu_cores",
    "accept_queue",
    "waiting_oldest_ms",
    "answer_ms",
    "open_fds",
    "rss_bytes",
    "beat_age_ms",
    "ring_unsubmitted",
    "producer_queue",
];

/// One run on the common axis.
struct Track<'a> {
    side: &'a Side<'a>,
    /// Added to its instants: the common axis begins near 0.
    base_ns: u64,
    zero_ns: u64,
}

impl Track<'_> {
    const fn shifted(&self, at_ns: u64) -> u64 {
        at_ns.saturating_add(self.base_ns).saturating_sub(self.zero_ns)
    }

    fn points(&self, spec: &Spec) -> Vec<Point> {
        let points = figures::points(spec, &self.side.facts.incident.models);
        points.into_iter().map(|(at_ns, value)| (self.shifted(at_ns), value)).collect()
    }

    fn stalls(&self, axis: &Axis) -> Vec<(f64, f64)> {
        let band = |episode: &Episode<'_>| {
            let end_ns = episode.recovered.map_or(self.side.facts.end_ns, |(at_ns, _)| at_ns);
            let at = |ns: u64| axis.at(self.shifted(ns));
            Some((at(episode.begin_ns()?), at(end_ns)))
        };
        self.side.facts.episodes.iter().take(EPISODES_MAX).filter_map(band).collect()
    }
}

/// The section's body.
pub(super) fn draw(comparison: &Comparison<'_>) -> Markup {
    let (zero_a, zero_b) = comparison.zeros();
    let (a, b) = (&comparison.a, &comparison.b);
    let before = |side: &Side<'_>, zero_ns: u64| zero_ns.saturating_sub(side.facts.begin_ns);
    let base_ns = before(a, zero_a).max(before(b, zero_b));
    let tracks = [(a, zero_a), (b, zero_b)].map(|(side, zero_ns)| Track { side, base_ns, zero_ns });
    let of = |track: &Track<'_>| track.side.facts.incident.environment.interval_ms;
    let interval_ms = tracks.iter().map(of).max().unwrap_or_default();
    let axis = Axis {
        begin_ns: 0,
        end_ns: tracks.iter().map(|t| t.shifted(t.side.facts.end_ns)).max().unwrap_or_default(),
        hole_ns: interval_ms.saturating_mul(5_000_000).max(HOLE_NS_MIN),
    };
    let drawn: Vec<Markup> = SPECS
        .iter()
        .filter(|spec| DRAWN.contains(&spec.id))
        .filter_map(|spec| figure(spec, &tracks, &axis))
        .collect();
    let aligned = if comparison.is_aligned_at_onset() { "onset" } else { "begin" };
    html! {
        @if drawn.is_empty() { p { "Neither run has a reading that could be drawn." } } @else {
            p.hint {
                "Aligned at the " (aligned) " of each. Shaded: stalled, the upper half "
                (a.label) ", the lower half " (b.label) "."
            }
            div.charts {
                div.lanes {
                    @for figure in &drawn { (figure) }
                    (time_axis(&axis, base_ns, aligned))
                }
            }
        }
    }
}

/// One figure of both; `None` when neither has a reading.
fn figure(spec: &Spec, tracks: &[Track<'_>; 2], axis: &Axis) -> Option<Markup> {
    let lines = tracks.each_ref().map(|track| track.points(spec));
    let greatest = |points: &Vec<Point>| points.iter().filter_map(|p| p.1).reduce(f64::max);
    let max = lines.iter().filter_map(greatest).reduce(f64::max)?;
    // The scale says what the table says, in round numbers: bytes as MiB.
    let shown_unit = if spec.unit == "bytes" { f64::from(1 << 20) } else { 1.0 };
    let shown_top = chart::nice_ceiling(max / shown_unit);
    let top = shown_top * shown_unit;
    let stalls = [("stall-a", "0", &tracks[0]), ("stall-b", "50%", &tracks[1])];
    Some(html! {
        figure.lane {
            figcaption.side {
                h3 { (spec.title) " " span.unit { (spec.shown_unit()) } }
                (legend(spec, tracks, &lines))
            }
            (scale(shown_top))
            svg.plot role="img" aria-label=(spoken(spec, tracks, &lines)) width="100%" height="76" {
                @for (class, y, track) in stalls {
                    @for (begin, end) in track.stalls(axis) {
                        rect.(class) x=(percent(begin)) y=(y) width=(percent(end - begin)) height="50%" {}
                    }
                }
                @for y in ["6", "38", "70"] { line.grid x1="0" x2="100%" y1=(y) y2=(y) {} }
                svg.body y="6" width="100%" height="64" viewBox=(format!("0 0 {WIDTH} {HEIGHT}"))
                    preserveAspectRatio="none" overflow="visible" {
                    @for (n, points) in lines.iter().enumerate() {
                        path.line.(format!("s{n}")) d=(chart::path(points, axis, top)) {
                            title { (tracks[n].side.label) }
                        }
                    }
                }
            }
        }
    })
}

fn legend(spec: &Spec, tracks: &[Track<'_>; 2], lines: &[Vec<Point>; 2]) -> Markup {
    html! {
        ul.legend {
            @for (n, (track, points)) in tracks.iter().zip(lines).enumerate() {
                li {
                    svg.key width="14" height="10" aria-hidden="true" {
                        line.line.(format!("s{n}")) x1="1" x2="13" y1="5" y2="5" {}
                    }
                    span.name title=(track.side.label) { (track.side.label) } " "
                    span.figures { (range(spec, points)) }
                }
            }
        }
    }
}

/// `0.12 to 9,400`, `no reading`.
fn range(spec: &Spec, points: &[Point]) -> String {
    let values = || points.iter().filter_map(|point| point.1);
    match (values().reduce(f64::min), values().reduce(f64::max)) {
        (Some(least), Some(most)) => format!("{} to {}", spec.shown(least), spec.shown(most)),
        _ => String::from("no reading"),
    }
}

/// What a screen reader says instead of the drawing.
fn spoken(spec: &Spec, tracks: &[Track<'_>; 2], lines: &[Vec<Point>; 2]) -> String {
    let said: Vec<String> = tracks
        .iter()
        .zip(lines)
        .map(|(track, points)| format!("{}: {}", track.side.label, range(spec, points)))
        .collect();
    format!("Chart. {}, {}. {}.", spec.title, spec.shown_unit(), said.join("; "))
}

fn time_axis(axis: &Axis, zero_ns: u64, zero: &str) -> Markup {
    let seconds = number(axis.end_ns as f64 / 1e9);
    html! {
        div.lane.time {
            div.side {}
            span {}
            svg.plot width="100%" height="20" role="img"
                aria-label=(format!("Time axis of {seconds} s, relative to the {zero} of each run")) {
                @for (x, tick) in &axis.ticks(zero_ns, TICKS_MAX) {
                    line.grid x1=(percent(*x)) x2=(percent(*x)) y1="0" y2="4" {}
                    text x=(percent(*x)) y="15" text-anchor=(anchor(*x)) { (tick_label(*tick, zero)) }
                }
            }
        }
    }
}
