//! The sections that are lists and tables: time line, evidence, what was ruled out, what to do.

use maud::{Markup, html};

use super::facts::Facts;
use super::names;
use super::paragraph::evidence_value;
use super::text::{offset, sentence, shown};
use super::timeline;
use crate::diagnose::verdict::Value;

/// A table that scrolls by itself when the page is narrow, also by keyboard.
pub(super) fn scrolling(label: &str, table: &Markup) -> Markup {
    html! {
        div.scroll role="region" aria-label=(label) tabindex="0" { (table) }
    }
}

/// What offsets are relative to.
const fn relative(facts: &Facts<'_>) -> &'static str {
    if facts.episodes.is_empty() { "To begin" } else { "To onset" }
}

/// What happened when.
pub(super) fn timeline(facts: &Facts<'_>) -> Markup {
    let table = html! {
        table.timeline {
            thead {
                tr {
                    th scope="col" { "UTC" }
                    th.num scope="col" { (relative(facts)) }
                    th scope="col" { "Event" }
                    th scope="col" { "What" }
                }
            }
            tbody {
                @for row in timeline::rows(facts) {
                    tr.(format!("k-{}", row.kind.label())) {
                        td.time { time datetime=(facts.wall(row.at_ns)) { (facts.clock(row.at_ns)) } }
                        td.num { (offset(row.at_ns, facts.zero_ns())) }
                        td { span.tag { (row.kind.label()) } }
                        td { (row.text) }
                    }
                }
            }
        }
    };
    html! {
        (scrolling("Time line", &table))
        p.hint {
            "All times are UTC, made from one pair of monotonic and wall time taken when watching "
            "began: a clock that was set during the run does not bend them."
        }
    }
}

/// What speaks for the verdict.
pub(super) fn evidence(facts: &Facts<'_>) -> Markup {
    let Some(verdict) = facts.verdict().filter(|verdict| !verdict.evidence.is_empty()) else {
        return html! { p { "No verdict with evidence was reached in this run." } };
    };
    let table = html! {
        table {
            thead {
                tr {
                    th scope="col" { "Signal" }
                    th scope="col" { "Evidence" }
                    th.num scope="col" { "Value" }
                    th scope="col" { "Unit" }
                    th scope="col" { "Since" }
                    th.num scope="col" { (relative(facts)) }
                }
            }
            tbody {
                @for item in &verdict.evidence {
                    @let (value, unit) = evidence_value(item);
                    tr {
                        th scope="row" { (shown(&item.signal)) }
                        td { (item.tier.name()) }
                        td.num.word[matches!(item.value, Value::Text(_))] { (value) }
                        td { (unit) }
                        @if let Some(since_ns) = item.since_ns {
                            td.time { (facts.clock(since_ns)) }
                            td.num { (offset(since_ns, facts.zero_ns())) }
                        } @else {
                            td.none { "not known" } td {}
                        }
                    }
                }
            }
        }
    };
    scrolling("Evidence", &table)
}

/// What does not fit, and why.
pub(super) fn ruled_out(facts: &Facts<'_>) -> Markup {
    let Some(verdict) = facts.verdict().filter(|verdict| !verdict.ruled_out.is_empty()) else {
        return html! { p { "No other cause was examined and dismissed in this run." } };
    };
    html! {
        dl.pairs {
            @for item in &verdict.ruled_out {
                dt { (names::cause(item.cause)) " " code { (item.cause.id()) } }
                dd { (sentence(&item.because)) }
            }
        }
    }
}

/// What to do.
pub(super) fn next(facts: &Facts<'_>) -> Markup {
    let Some(verdict) = facts.verdict().filter(|verdict| !verdict.next.is_empty()) else {
        return html! { p { "Nothing is asked for." } };
    };
    html! {
        ol.next { @for step in &verdict.next { li { (sentence(step)) } } }
    }
}
