//! The `io_uring` instances as they stood in the stall.

use std::collections::BTreeMap;

use maud::{Markup, html};
use stallscope_probes::sample::{RingSource, RingState};
use stallscope_probes::{Reading, ring};

use super::facts::{Episode, Facts};
use super::names;
use super::tables::scrolling;
use super::text::{count, offset, shown, why};
use crate::model::{Model, RingModel};

/// The last good reading of a ring, and the first one since the onset to compare it with.
pub(super) struct Seen<'a> {
    pub ring: &'a RingModel,
    pub state: &'a RingState,
    pub first: &'a RingState,
    pub first_ns: u64,
}

/// The section's body.
pub(super) fn draw(facts: &Facts<'_>) -> Markup {
    let rings = seen(facts);
    if rings.is_empty() {
        return html! { p { (none(facts)) } };
    }
    let moved = if facts.episode().is_some() { "since the onset" } else { "in this run" };
    html! {
        @for ring in rings.values() { (one(facts, ring, moved)) }
    }
}

/// By fd: each ring of which there is a good reading.
pub(super) fn seen<'a>(facts: &Facts<'a>) -> BTreeMap<i32, Seen<'a>> {
    let mut rings: BTreeMap<i32, Seen<'a>> = BTreeMap::new();
    for model in facts.stall_models() {
        for ring in model.all_rings() {
            let Some(state) = ring.state.got() else { continue };
            let entry = rings.entry(ring.fd).or_insert(Seen {
                ring,
                state,
                first: state,
                first_ns: ring.at_ns,
            });
            (entry.ring, entry.state) = (ring, state);
        }
    }
    rings
}

/// Why there is no ring to show.
pub(super) fn none(facts: &Facts<'_>) -> String {
    let rings = |model: &Model| match &model.rings {
        Reading::Got(rings) => rings.iter().find_map(|ring| ring.state.absence().cloned()),
        Reading::Absent(absence) => Some(absence.clone()),
    };
    if facts.stall_models().next().is_none() {
        return String::from("There is no tick to look at.");
    }
    match facts.stall_models().rev().find_map(rings) {
        Some(absence) => {
            format!("The rings were not read ({}): {}", why(absence.why), shown(&absence.detail))
        }
        None => String::from("The process has no io_uring instance."),
    }
}

fn one(facts: &Facts<'_>, seen: &Seen<'_>, moved: &str) -> Markup {
    let Seen { ring, state, first, first_ns } = seen;
    let onset_ns = facts.episode().and_then(Episode::begin_ns);
    let again = ring.at_ns != *first_ns;
    let positions = [
        ("SQ head", "taken by the kernel up to here", state.sq_head, first.sq_head),
        ("SQ tail", "filled by the application up to here", state.sq_tail, first.sq_tail),
        ("CQ head", "reaped by the application up to here", state.cq_head, first.cq_head),
        ("CQ tail", "posted by the kernel up to here", state.cq_tail, first.cq_tail),
    ];
    let table = html! {
        table {
            thead {
                tr {
                    th scope="col" { "Position" }
                    th.num scope="col" { "Value" }
                    th.num scope="col" { "Moved " (moved) }
                    th scope="col" { "Meaning" }
                }
            }
            tbody {
                @for (name, meaning, now, then) in positions {
                    tr {
                        th scope="row" { (name) }
                        td.num { (count(now.into())) }
                        @if again { td.num { (count(now.wrapping_sub(then).into())) } }
                        @else { td.none.num { "one reading only" } }
                        td { (meaning) }
                    }
                }
            }
        }
    };
    html! {
        h3 {
            "Ring fd " (ring.fd)
            span.unit {
                "read at " (facts.clock(ring.at_ns)) " UTC"
                @if onset_ns.is_some() { ", " (offset(ring.at_ns, facts.zero_ns())) }
            }
        }
        (scrolling(&format!("Positions of ring {}", ring.fd), &table))
        (details(facts, ring, state))
    }
}

fn details(facts: &Facts<'_>, ring: &RingModel, state: &RingState) -> Markup {
    html! {
        dl.pairs {
            dt { "Read from" }
            dd {
                @match &ring.source {
                    RingSource::Memory { confirmed: true } => { "its memory, as laid out by fdinfo too" }
                    RingSource::Memory { confirmed: false } => {
                        "its memory; fdinfo has not confirmed the layout yet"
                    }
                    RingSource::Fdinfo(absence) => {
                        "fdinfo; its memory could not be read: " span.none { (shown(&absence.detail)) }
                    }
                }
            }
            dt { "Not submitted" }
            dd {
                (count(state.sq_pending().into())) " of " (count(state.sq_entries.into())) " entries"
                @if state.sqpoll == Some(true) { ", the kernel polls this queue itself (SQPOLL)" }
                @match &state.pending {
                    Reading::Got(pending) => {
                        @let groups = grouped_pending(pending, state.sq_pending());
                        @if !groups.is_empty() {
                            ul.chips { @for text in &groups { li { code { (text) } } } }
                        }
                    }
                    Reading::Absent(absence) => { ", " span.none { (shown(&absence.detail)) } }
                }
            }
            dt { "Not reaped" }
            dd {
                (count(state.cq_pending().into())) " of " (count(state.cq_entries.into())) " completions"
                @if state.overflowing {
                    ", and "
                    @match ring.armed.got().map_or(0, |armed| armed.overflow) {
                        0 => { "more" }
                        listed => { (count(listed.into())) " more" }
                    }
                    " in the overflow list"
                }
            }
            // The memory tells both, fdinfo neither.
            @if let (Some(dropped), Some(lost)) = (state.sq_dropped, state.cq_lost)
                && (dropped > 0 || lost > 0)
            {
                dt { "Lost since it was made" }
                dd {
                    (count(dropped.into())) " entries refused as malformed, "
                    (count(lost.into())) " completions lost for want of memory"
                }
            }
            dt { "Failed, not reaped" }
            dd { (errors(&state.failed)) }
            dt { "Failed among the last completions" }
            dd { (errors(&state.recent)) }
            dt { "Armed operations" }
            dd {
                @if let Reading::Got(armed) = &ring.armed {
                    span.unit { "as of " (facts.clock(armed.at_ns)) " UTC: " }
                }
                @match &ring.armed {
                    Reading::Got(armed) if armed.operations.is_empty() => { "none" }
                    Reading::Got(armed) => {
                        ul.chips {
                            @for (opcode, times) in &armed.operations {
                                li { code { (ring::opcode_name(*opcode)) } " × " (count((*times).into())) }
                            }
                        }
                    }
                    Reading::Absent(absence) => { span.none { (shown(&absence.detail)) } }
                }
            }
        }
    }
}

fn errors(errors: &Reading<Vec<(i32, u32)>>) -> Markup {
    html! {
        @match errors {
            Reading::Got(errors) if errors.is_empty() => { "none" }
            Reading::Got(errors) => {
                ul.chips {
                    @for (errno, times) in errors {
                        li { code { (names::errno(*errno)) } " × " (count((*times).into())) }
                    }
                }
            }
            Reading::Absent(absence) => { span.none { (shown(&absence.detail)) } }
        }
    }
}

/// `WRITE on fd 12, 14, 17`, one per operation.
fn grouped_pending(pending: &[(String, i32)], waiting: u32) -> Vec<String> {
    let mut groups: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (opcode, fd) in pending {
        groups.entry(opcode).or_default().push(fd.to_string());
    }
    let mut groups: Vec<String> = groups
        .iter()
        .map(|(opcode, fds)| format!("{} on fd {}", shown(opcode), fds.join(", ")))
        .collect();
    let named = pending.len() as u32;
    if !groups.is_empty() && waiting > named {
        groups.push(format!("{} more", count(u64::from(waiting - named))));
    }
    groups
}
