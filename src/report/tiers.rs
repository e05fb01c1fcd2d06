//! The kinds of evidence: which the verdict rests on, which there were, why not the others.

use maud::{Markup, html};

use super::facts::Facts;
use super::tables::scrolling;
use super::text::{sentence, shown};
use crate::diagnose::verdict::Verdict;
use crate::model::Model;
use crate::model::tiers::{Tier, TierStatus};

/// The table of tiers, as they stood when the verdict was reached; without a verdict, at the end.
pub(super) fn draw(facts: &Facts<'_>) -> Markup {
    let Some(model) = at_verdict(facts) else {
        return html! { p { "No tick was taken, so nothing was seen." } };
    };
    let verdict = facts.verdict();
    let table = html! {
        table {
            thead {
                tr {
                    th scope="col" { "Evidence" }
                    th scope="col" { "Tells" }
                    th scope="col" { "Verdict" }
                    th scope="col" { "Read" }
                    th scope="col" { "What would permit it" }
                }
            }
            tbody {
                @for tier in model.tiers.iter() {
                    tr {
                        th scope="row" { (tier.tier.name()) }
                        td { (tier.tier.meaning()) }
                        @if rests(verdict, tier.tier) { td { "rests on it" } } @else { td {} }
                        (status(&tier.status))
                    }
                }
            }
        }
    };
    let when = if verdict.is_some() { "when the verdict was reached" } else { "at the end" };
    html! {
        p { "As it stood " (when) ", at " (facts.clock(model.at_ns)) " UTC." }
        (scrolling("Kinds of evidence", &table))
    }
}

/// The last tick until the verdict was reached; without a verdict, the last of all.
pub(super) fn at_verdict<'a>(facts: &Facts<'a>) -> Option<&'a Model> {
    let models = &facts.incident.models;
    let until_ns = facts.verdict().map_or(u64::MAX, |verdict| verdict.detected_ns);
    let after = models.partition_point(|model| model.at_ns <= until_ns);
    models.get(after.saturating_sub(1)).map(AsRef::as_ref)
}

fn rests(verdict: Option<&Verdict>, tier: Tier) -> bool {
    verdict.is_some_and(|verdict| verdict.rests_on.contains(&tier))
}

fn status(status: &TierStatus) -> Markup {
    html! {
        @match status {
            TierStatus::Active => { td { "yes" } td {} }
            TierStatus::Absent { why, permit, .. } => {
                td.none { "no: " (sentence(why)) } td { (sentence(permit)) }
            }
            TierStatus::Failed { why } => { td.none { "failed: " (sentence(why)) } td {} }
        }
    }
}

/// `rests on thread states, ring memory`; empty without evidence.
pub(super) fn rests_on(verdict: &Verdict) -> String {
    let names: Vec<&str> = verdict.rests_on.iter().map(|tier| tier.name()).collect();
    names.join(", ")
}

/// `fd census: permission denied`, one per kind of evidence that could not be had.
pub(super) fn missing(verdict: &Verdict) -> Vec<String> {
    let missing = verdict.missing.iter();
    missing.map(|one| format!("{}: {}", one.tier.name(), shown(&one.why))).collect()
}
