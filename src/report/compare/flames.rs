//! Differential flamegraphs, and the same in figures.

use maud::{Markup, html};

use super::page::phase_title;
use super::sides::{Comparison, Pair};
use crate::profile::flame::{self, Drawn, Flame, SVG_BYTES_MAX};
use crate::profile::stacks::Kind;
use crate::report::figures::profiles::{self, Group, Share};
use crate::report::flame_doc::{self, Look, script};
use crate::report::flames;
use crate::report::markdown::measured::points;
use crate::report::text::{count, duration_ns, sentence};

/// Flamegraphs drawn.
const FLAMES_MAX: usize = 6;
/// Functions listed per table.
pub(super) const FUNCTIONS_MAX: usize = 12;

/// The section's markup, and the script it needs, if any.
pub(super) struct Section {
    pub body: Markup,
    pub script: Option<String>,
}

/// One per kind, maker and phase that both runs have.
pub(super) fn draw(comparison: &Comparison<'_>) -> Section {
    let pairs = comparison.profiles();
    if pairs.is_empty() {
        let body = html! {
            p { "The two runs have no profile of the same kind, maker and phase in common." }
        };
        return Section { body, script: None };
    }
    let mut found = None;
    let parts: Vec<Markup> = pairs
        .iter()
        .take(FLAMES_MAX)
        .map(|pair| {
            let (part, script) = part(comparison, pair);
            found = script.or(found.take());
            part
        })
        .collect();
    let body = html! {
        p.hint {
            "Width is the share in " (comparison.b.label) ". Colour is by what a function burnt "
            "itself, as the innermost: red, a larger share than in " (comparison.a.label)
            "; blue, a smaller one. What " (comparison.b.label)
            " lacks altogether has no width: the tables name it."
        }
        @for part in &parts { (part) }
        @if pairs.len() > FLAMES_MAX {
            p.hint { (pairs.len() - FLAMES_MAX) " more are not drawn." }
        }
    };
    Section { body, script: found }
}

/// `CPU time, by the process itself, healthy`.
pub(super) fn title(pair: &Pair<'_>) -> String {
    format!("{}, {}", pair.a.title(), phase_title(pair.a.phase).to_lowercase())
}

fn part(comparison: &Comparison<'_>, pair: &Pair<'_>) -> (Markup, Option<String>) {
    let title = title(pair);
    let (before, after) = (&pair.a.folded, &pair.b.folded);
    let drawn = flame::draw_difference(before, after, pair.a.kind, SVG_BYTES_MAX);
    let (drawing, script) = match drawn {
        Ok(Drawn::Flame(flame)) => (frame(&title, &flame), Some(script(&flame))),
        Ok(Drawn::Empty) => (html! { p.finding { (empty(comparison, pair)) } }, None),
        Err(error) => (html! { p { (sentence(&error.to_string())) } }, None),
    };
    let part = html! {
        h3 { (title) span.unit { (scope(pair)) } }
        (drawing)
        @if before.samples > 0 && after.samples > 0 {
            @if let Some(few) = few(pair) { p.hint { (few) } }
            div.columns {
                (shares(comparison, "Innermost function", &own(pair)))
                (shares(comparison, "On the stack", &total(pair)))
            }
        }
    };
    (part, script)
}

/// `312 samples in 10.0 s against 290 in 9.80 s`.
pub(super) fn scope(pair: &Pair<'_>) -> String {
    let of = |group: &Group, unit: &str| {
        format!("{}{unit} in {}", count(group.folded.samples), duration_ns(group.covered_ns))
    };
    let unit = format!(" {}", pair.a.kind.unit());
    format!("{} against {}", of(pair.a, &unit), of(pair.b, ""))
}

/// Said where shares are no more than a hint.
pub(super) fn few(pair: &Pair<'_>) -> Option<&'static str> {
    (pair.a.kind == Kind::Cpu).then(|| flames::few(&pair.a.folded, &pair.b.folded)).flatten()
}

/// Which side burnt nothing: a finding, not a fault of the profile.
pub(super) fn empty(comparison: &Comparison<'_>, pair: &Pair<'_>) -> String {
    let none = match (pair.a.folded.samples, pair.b.folded.samples) {
        (0, 0) => {
            return String::from("Neither has a sample in it: no thread of either was caught.");
        }
        (0, _) => &comparison.a.label,
        _ => &comparison.b.label,
    };
    format!(
        "{none} has no sample in it: none of its threads was caught. There is no share to compare."
    )
}

fn frame(title: &str, flame: &Flame) -> Markup {
    let label = format!("Differential flamegraph: {title}");
    flame_doc::frame(&label, flame, Look::Difference)
}

/// By innermost function.
pub(super) fn own(pair: &Pair<'_>) -> Vec<Share> {
    let (a, b) = (&pair.a.folded, &pair.b.folded);
    profiles::shares(&a.by_leaf(), &b.by_leaf(), (a.samples, b.samples), FUNCTIONS_MAX)
}

/// By function on the stack.
pub(super) fn total(pair: &Pair<'_>) -> Vec<Share> {
    let (a, b) = (&pair.a.folded, &pair.b.folded);
    let totals = (profiles::totals(a), profiles::totals(b));
    profiles::shares(&totals.0, &totals.1, (a.samples, b.samples), FUNCTIONS_MAX)
}

fn shares(comparison: &Comparison<'_>, caption: &str, rows: &[Share]) -> Markup {
    let percent = |share: f64| format!("{:.1} %", share * 100.0);
    html! {
        table.shares {
            caption { (caption) }
            thead {
                tr {
                    th scope="col" { "Function" }
                    th.num scope="col" { (comparison.a.label) }
                    th.num scope="col" { (comparison.b.label) }
                    th.num scope="col" { "Change" }
                }
            }
            tbody {
                @for row in rows {
                    tr {
                        th scope="row" { (row.function) }
                        td.num { (percent(row.before)) }
                        td.num { (percent(row.after)) }
                        td.num { (points(row.after - row.before)) }
                    }
                }
            }
        }
    }
}
