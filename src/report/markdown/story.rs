//! What happened, what speaks for the verdict and what against, what to do.

use std::fmt::Write as _;

use super::text::{escaped, heading, table_head, table_row};
use crate::diagnose::verdict::Verdict;
use crate::report::facts::Facts;
use crate::report::paragraph::evidence_value;
use crate::report::text::{offset, sentence, shown};
use crate::report::{chain, names, tiers, timeline};
use crate::watch::words;

/// From the chain to the next steps.
pub(super) fn write(out: &mut String, facts: &Facts<'_>) {
    chain_table(out, facts);
    timeline_table(out, facts);
    let Some(verdict) = facts.verdict() else { return };
    evidence(out, facts, verdict);
    if !verdict.ruled_out.is_empty() {
        heading(out, "Ruled out");
    }
    for ruled_out in &verdict.ruled_out {
        let _ = writeln!(
            out,
            "- **{}** (`{}`): {}",
            names::cause(ruled_out.cause),
            ruled_out.cause.id(),
            escaped(&sentence(&ruled_out.because))
        );
    }
    if !verdict.next.is_empty() {
        heading(out, "Next steps");
    }
    for (number, next) in verdict.next.iter().enumerate() {
        let _ = writeln!(out, "{}. {}", number + 1, escaped(&sentence(next)));
    }
}

fn chain_table(out: &mut String, facts: &Facts<'_>) {
    let links = chain::links(facts);
    if !links.is_empty() {
        heading(out, "In order: what led to it, and what came of it");
        table_head(out, &["UTC", "Offset:", "Part", "What"]);
    }
    for link in links {
        table_row(
            out,
            &[
                facts.clock(link.at_ns),
                offset(link.at_ns, facts.zero_ns()),
                words::part(link.part).to_owned(),
                escaped(&sentence(&link.what)),
            ],
        );
    }
    let unknowable = chain::unknowable(facts);
    if !unknowable.is_empty() {
        heading(out, "What can no longer be known");
    }
    for one in unknowable {
        let _ = writeln!(out, "- {}", escaped(&one));
    }
}

fn timeline_table(out: &mut String, facts: &Facts<'_>) {
    heading(out, "What happened when");
    table_head(out, &["UTC", "Offset:", "Event", "What"]);
    for row in timeline::rows(facts) {
        table_row(
            out,
            &[
                facts.clock(row.at_ns),
                offset(row.at_ns, facts.zero_ns()),
                row.kind.label().to_owned(),
                escaped(&row.text),
            ],
        );
    }
}

fn evidence(out: &mut String, facts: &Facts<'_>, verdict: &Verdict) {
    if !verdict.evidence.is_empty() {
        heading(out, "Evidence");
        table_head(out, &["Signal", "Evidence", "Value:", "Unit", "Since"]);
    }
    for evidence in &verdict.evidence {
        let (value, unit) = evidence_value(evidence);
        let since =
            evidence.since_ns.map_or_else(|| String::from("unknown"), |at_ns| facts.clock(at_ns));
        table_row(
            out,
            &[
                escaped(&shown(&evidence.signal)),
                evidence.tier.name().to_owned(),
                escaped(&value),
                escaped(&unit),
                since,
            ],
        );
    }
    if !verdict.rests_on.is_empty() {
        let _ = writeln!(out, "\nRests on: {}.", tiers::rests_on(verdict));
    }
    if !verdict.missing.is_empty() {
        heading(out, "Could not be seen");
    }
    for missing in tiers::missing(verdict) {
        let _ = writeln!(out, "- {}", escaped(&sentence(&missing)));
    }
}
