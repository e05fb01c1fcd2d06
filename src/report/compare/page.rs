//! The comparison as one page, in the frame and the style of the report.

use maud::{Markup, html};
use stallscope_probes::Reading;

use super::change::Change;
use super::sides::{Comparison, STALL_ROWS, Side};
use super::{charts, flames, words};
use crate::report::figures::{Phase, Spread};
use crate::report::frame::Frame;
use crate::report::page::hash;
use crate::report::tables::scrolling;
use crate::report::text::{duration_ms, plural, sentence, shown, why};

const STYLE: &str = concat!(include_str!("../style.css"), include_str!("compare.css"));

/// The whole document.
pub(super) fn assemble(comparison: &Comparison<'_>) -> String {
    let flames = flames::draw(comparison);
    let script = flames.script.as_deref().map_or_else(|| String::from("'none'"), hash);
    let policy = format!(
        "default-src 'none'; script-src {script}; style-src {} {}; base-uri 'none'; form-action 'none'",
        hash(STYLE),
        hash(crate::report::flames::STYLE),
    );
    let sections: [(&str, &str, Markup); 6] = [
        ("stalls", "Stalls", stalls(comparison)),
        ("figures", "Figures, medians with quartiles", figures(comparison)),
        ("charts", "Over time", charts::draw(comparison)),
        ("profiles", "Profiles, where the time went", flames.body),
        ("conditions", "Conditions", conditions(comparison)),
        ("method", "How to read this", method(comparison)),
    ];
    Frame {
        tail: html! {},
        title: &format!("{} against {}", comparison.a.label, comparison.b.label),
        policy: &policy,
        style: STYLE,
        kind: "stallscope comparison",
        lead: band(comparison),
        sections: &sections,
        first: "stalls",
        version: env!("CARGO_PKG_VERSION"),
    }
    .document()
}

fn band(comparison: &Comparison<'_>) -> Markup {
    let run = |side: &Side<'_>, class: &str| {
        let target = &side.facts.incident.target;
        html! {
            div {
                dt.who.(class) { (side.label) }
                dd {
                    (shown(&target.comm)) ", pid " (target.pid)
                    small { (side.facts.wall(side.facts.begin_ns)) }
                    small {
                        (duration_ms(side.length_ms())) ", "
                        (plural(side.facts.incident.models.len() as u64, "tick", "ticks"))
                    }
                }
            }
        }
    };
    html! {
        header.band.compare {
            h1 { (comparison.a.label) " against " (comparison.b.label) }
            ul.said { @for said in words::summary(comparison) { li { (said) } } }
            dl.facts { (run(&comparison.a, "who-a")) (run(&comparison.b, "who-b")) }
        }
    }
}

fn heads(comparison: &Comparison<'_>) -> Markup {
    html! {
        th.num.who.who-a scope="col" { (comparison.a.label) }
        th.num.who.who-b scope="col" { (comparison.b.label) }
    }
}

fn stalls(comparison: &Comparison<'_>) -> Markup {
    let (a, b) = (&comparison.a, &comparison.b);
    let table = html! {
        table {
            thead { tr { th scope="col" { "" } (heads(comparison)) } }
            tbody {
                @for (name, read) in STALL_ROWS {
                    tr {
                        th scope="row" { (name) }
                        td.num.word { (read(a)) }
                        td.num.word { (read(b)) }
                    }
                }
            }
        }
    };
    html! {
        (scrolling("Stalls", &table))
        @for side in [a, b] {
            @if let Some(verdict) = side.facts.verdict() {
                p { b { (side.label) ": " } (sentence(&verdict.summary)) }
            }
        }
    }
}

fn figures(comparison: &Comparison<'_>) -> Markup {
    let unread = comparison.unread();
    html! {
        @if comparison.changes.is_empty() { p { "The two runs have no phase in common." } }
        @for phase in Phase::ALL {
            @if comparison.read(phase).next().is_some() {
                h3 { (phase_title(phase)) span.unit { (length(comparison, phase)) } }
                (table(comparison, phase))
            }
        }
        @if !unread.is_empty() {
            h3 { "Not measured in either" }
            ul.plain {
                @for (title, reason) in &unread { li { (title) ": " (sentence(reason)) } }
            }
        }
    }
}

/// `12.2 s against 10.0 s`.
fn length(comparison: &Comparison<'_>, phase: Phase) -> String {
    let of = |side: &Side<'_>| duration_ms(side.phases.length_ms(phase));
    format!("{} against {}", of(&comparison.a), of(&comparison.b))
}

pub(super) const fn phase_title(phase: Phase) -> &'static str {
    match phase {
        Phase::Healthy => "Healthy",
        Phase::Stalled => "Stalled",
        Phase::Recovered => "Recovered",
    }
}

fn table(comparison: &Comparison<'_>, phase: Phase) -> Markup {
    let table = html! {
        table.pairing {
            thead {
                tr {
                    th scope="col" { "Figure" }
                    th scope="col" { "Unit" }
                    (heads(comparison))
                    th.num scope="col" { "Ratio" }
                    th scope="col" { "Difference" }
                }
            }
            tbody {
                @for change in comparison.read(phase) {
                    tr.(format!("d-{}", change.difference.id())) {
                        th scope="row" { (change.spec.title) }
                        td { (change.spec.shown_unit()) }
                        (cell(change, &change.a))
                        (cell(change, &change.b))
                        @match &change.ratio {
                            Reading::Got(ratio) => { td.num { "× " (words::factor(*ratio)) } }
                            Reading::Absent(absence) => {
                                td.none.num title=(shown(&absence.detail)) { "–" }
                            }
                        }
                        td { span.tag { (change.difference.words()) } }
                    }
                }
            }
        }
    };
    scrolling(phase_title(phase), &table)
}

fn cell(change: &Change, reading: &Reading<Spread>) -> Markup {
    let shown_value = |value: f64| change.spec.shown(value);
    match reading {
        Reading::Got(spread) => html! {
            td.num {
                (shown_value(spread.median))
                small { (shown_value(spread.p25)) " – " (shown_value(spread.p75)) }
            }
        },
        Reading::Absent(absence) => html! {
            td.none.num title=(shown(&absence.detail)) { (why(absence.why)) }
        },
    }
}

fn conditions(comparison: &Comparison<'_>) -> Markup {
    if comparison.conditions.is_empty() {
        return html! { p { "Both were run and watched under the same conditions, as far as is known." } };
    }
    let table = html! {
        table {
            thead {
                tr { th scope="col" { "What differs" } (heads(comparison)) th scope="col" { "Why it matters" } }
            }
            tbody {
                @for condition in &comparison.conditions {
                    tr.unfair[condition.unfair.is_some()] {
                        th scope="row" { (condition.what) }
                        td.num.word { (condition.a) }
                        td.num.word { (condition.b) }
                        td { (condition.unfair.unwrap_or("it may be what is compared")) }
                    }
                }
            }
        }
    };
    scrolling("Conditions", &table)
}

fn method(comparison: &Comparison<'_>) -> Markup {
    html! {
        p {
            "Healthy time is compared with healthy time, stalls with stalls. Beside each median "
            "stand the quartiles: half of the readings lies between them. A difference is called "
            b { "larger than the spread" } " where these middle halves have no value in common, "
            b { "within the spread" } " where they overlap, and " b { "no difference" }
            " where the medians differ by less than 10 % or by less than is worth a word. The ratio is "
            "that of the medians, " (comparison.b.label) " to " (comparison.a.label) "."
        }
        p {
            "Readings of one run that follow each other are not independent, and one run of each is "
            "no sample of runs: before a decision rests on a difference, run both again. TCP "
            "figures are of the whole network namespace. What was not read is absent, never zero."
        }
    }
}

#[cfg(test)]
mod tests {
    use super::STYLE;

    #[test]
    fn the_style_holds_nothing_that_html_would_end_or_rewrite() {
        assert!(!STYLE.contains("</") && !STYLE.contains('\r') && !STYLE.contains("url("));
        assert!(STYLE.contains(".band.compare") && STYLE.contains(":root"));
    }
}
