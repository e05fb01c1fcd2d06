//! The plots of the page. Pure. Positions are percent of an `<svg>` without a `viewBox`, so that text
//! and strokes keep their size at any width.

use std::fmt::Write as _;

use maud::{Markup, html};
use stallscope_probes::Reading;

use super::summary::{CPU, FIGURES, LATENCIES, MEMORY, RATE, Row, SATURATION, Summary};
use super::words;
use crate::report::{nice_ceiling, number, percent};

/// Colours there are.
const COLOURS: usize = 6;
/// Rows drawn: more cannot be read, and stand in the table.
const ROWS_MAX: usize = 48;
/// Lines drawn over the rounds.
const LINES_MAX: usize = 12;
/// Height of a bar with its surroundings, px.
const HEIGHT: f64 = 22.0;

/// All of them.
pub(super) fn plots(summary: &Summary) -> Markup {
    let bars: Vec<Markup> =
        [RATE, CPU, SATURATION, MEMORY].into_iter().filter_map(|at| bars(summary, at)).collect();
    let (latencies, drift) = (latencies(summary), drift(summary));
    html! {
        @if bars.is_empty() { p.none { "Nothing was measured that could be drawn." } } @else {
            div.plots {
                @for bars in bars { (bars) }
                @if let Some(latencies) = latencies { (latencies) }
                @if let Some(drift) = drift { (drift) }
            }
        }
    }
}

/// The colour of a row: that of its server.
fn colour(summary: &Summary, row: &Row) -> usize {
    let server = |row: &Row| row.axes.first().map(|(_, name)| name.clone());
    let mut servers = Vec::new();
    for name in summary.rows.iter().map(server) {
        if !servers.contains(&name) {
            servers.push(name);
        }
    }
    servers.iter().position(|name| *name == server(row)).unwrap_or_default() % COLOURS
}

fn rows(summary: &Summary) -> impl Iterator<Item = &Row> {
    summary.rows.iter().take(ROWS_MAX)
}

/// A bar for each row: the median; a line from the least to the greatest.
fn bars(summary: &Summary, at: usize) -> Option<Markup> {
    let figure = &FIGURES[at];
    let greatest = rows(summary).filter_map(|row| row.figures[at].got()).map(|it| it.max);
    let top = nice_ceiling(greatest.reduce(f64::max)?);
    let better = if figure.more_is_better { "more is better" } else { "less is better" };
    Some(html! {
        figure {
            figcaption { (figure.title) " " small { (figure.unit) ", " (better) } }
            @for row in rows(summary) {
                div.bar {
                    span.name { (words::shown(&row.label)) }
                    @match &row.figures[at] {
                        Reading::Got(spread) => {
                            svg width="100%" height=(HEIGHT) role="img" aria-label=(words::spread(figure, &row.figures[at])) {
                                rect.(format!("f{}", colour(summary, row))) x="0" y="4" width=(percent(spread.median / top)) height="14" rx="2" {}
                                line.whisker x1=(percent(spread.min / top)) x2=(percent(spread.max / top)) y1="11" y2="11" {}
                                @for edge in [spread.min, spread.max] {
                                    line.whisker x1=(percent(edge / top)) x2=(percent(edge / top)) y1="7" y2="15" {}
                                }
                            }
                            span.value { (words::value(figure, spread.median)) }
                        }
                        Reading::Absent(absence) => {
                            span.none title=(words::shown(&absence.detail)) { "not measured" }
                            span.value { (words::NO_VALUE) }
                        }
                    }
                }
            }
        }
    })
}

/// Marks of the four percentiles, drawn around 0 0.
const MARKS: [(&str, &str); 4] = [
    ("p50", "M-4.5 0A4.5 4.5 0 1 1 4.5 0A4.5 4.5 0 1 1 -4.5 0Z"),
    ("p90", "M-3.5 -3.5H3.5V3.5H-3.5Z"),
    ("p99", "M0 -5L5 0L0 5L-5 0Z"),
    ("p99.9", "M-1 -6H1V6H-1Z"),
];

/// Powers of ten that hold all latencies, as exponents.
fn decades(summary: &Summary) -> Option<(i32, i32)> {
    let values = || {
        rows(summary)
            .flat_map(|row| LATENCIES.iter().filter_map(|at| row.figures[*at].got()))
            .map(|spread| spread.median)
            .filter(|value| *value > 0.0)
    };
    let least = values().reduce(f64::min)?.log10().floor() as i32;
    let most = values().reduce(f64::max)?.log10().ceil() as i32;
    Some((least, most.max(least + 1)))
}

fn latencies(summary: &Summary) -> Option<Markup> {
    let (least, most) = decades(summary)?;
    let span = f64::from(most - least);
    let at = |us: f64| percent((us.max(1e-9).log10() - f64::from(least)) / span);
    let tick = |exponent: i32| number(10_f64.powi(exponent) / 1e3);
    Some(html! {
        figure.wide {
            figcaption { "Latency " small { "ms, logarithmic, medians of the rounds, less is better" } }
            @for row in rows(summary) {
                @let medians: Vec<Option<f64>> = LATENCIES.iter().map(|at| row.figures[*at].got().map(|it| it.median)).collect();
                @let colour = format!("f{}", colour(summary, row));
                div.bar {
                    span.name { (words::shown(&row.label)) }
                    svg width="100%" height=(HEIGHT) role="img" aria-label=(spoken(row)) {
                        @for exponent in least..=most {
                            @let x = percent(f64::from(exponent - least) / span);
                            line.tick x1=(x) x2=(x) y1="0" y2=(HEIGHT) {}
                        }
                        @if let (Some(first), Some(last)) = (medians[0], medians[3]) {
                            line.from-to x1=(at(first)) x2=(at(last)) y1="11" y2="11" {}
                        }
                        @for (median, (_, mark)) in medians.iter().zip(MARKS) {
                            @if let Some(us) = median {
                                svg x=(at(*us)) y="11" overflow="visible" { path.(colour) d=(mark) {} }
                            }
                        }
                    }
                    span.value { (medians[2].map_or_else(|| words::NO_VALUE.to_owned(), |us| number(us / 1e3))) }
                }
            }
            div.bar aria-hidden="true" {
                span {}
                svg width="100%" height="16" {
                    @for exponent in least..=most {
                        @let anchor = if exponent == least { "start" } else if exponent == most { "end" } else { "middle" };
                        text x=(percent(f64::from(exponent - least) / span)) y="12" text-anchor=(anchor) { (tick(exponent)) }
                    }
                }
                span.value { small { "p99" } }
            }
            ul.keys {
                @for (name, mark) in MARKS {
                    li { svg width="12" height="12" aria-hidden="true" { svg x="6" y="6" overflow="visible" { path.shape d=(mark) {} } } (name) }
                }
            }
        }
    })
}

fn spoken(row: &Row) -> String {
    let said = LATENCIES.iter().map(|at| {
        let figure = &FIGURES[*at];
        format!("{} {} ms", figure.title, words::spread(figure, &row.figures[*at]))
    });
    said.collect::<Vec<_>>().join(", ")
}

/// The throughput round by round: what moves all lines alike was the machine.
fn drift(summary: &Summary) -> Option<Markup> {
    let rounds = summary.plan.rounds;
    let drawn: Vec<&Row> =
        summary.rows.iter().filter(|row| row.rounds.len() > 1).take(LINES_MAX).collect();
    let greatest = drawn.iter().flat_map(|row| row.rounds.iter().map(|(_, rate)| *rate));
    let top = nice_ceiling(greatest.reduce(f64::max)?);
    let path = |row: &Row| {
        let mut d = String::new();
        for (round, rate) in &row.rounds {
            let x = f64::from(*round) / f64::from(rounds.saturating_sub(1).max(1)) * 1_000.0;
            let y = 100.0 - (rate / top).clamp(0.0, 1.0) * 100.0;
            d.push_str(if d.is_empty() { "M" } else { "L" });
            // Writing to a String cannot fail.
            let _ = write!(d, "{x:.1} {y:.1}");
        }
        d
    };
    let label = format!("Throughput of {} cells in {rounds} rounds", drawn.len());
    Some(html! {
        figure.wide {
            figcaption { "Round by round " small { "requests/s; what moves all lines alike is the machine" } }
            div.drift {
                svg width="52" height="150" aria-hidden="true" {
                    text x="46" y="11" text-anchor="end" { (number(top)) }
                    text x="46" y="148" text-anchor="end" { "0" }
                }
                svg width="100%" height="150" role="img" aria-label=(label) {
                    @for share in [0.0, 0.5, 1.0] { line.tick x1="0" x2="100%" y1=(percent(share)) y2=(percent(share)) {} }
                    svg viewBox="0 0 1000 100" preserveAspectRatio="none" width="100%" height="100%" {
                        @for (at, row) in drawn.iter().enumerate() { path.line.(format!("s{}", at % COLOURS)) d=(path(row)) {} }
                    }
                }
            }
            ul.keys {
                @for (at, row) in drawn.iter().enumerate() {
                    li { svg width="18" height="8" aria-hidden="true" { path.line.(format!("s{}", at % COLOURS)) d="M0 4H18" {} } (words::shown(&row.label)) }
                }
            }
        }
    })
}
