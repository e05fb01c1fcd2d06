//! The verdict in plain text: one paragraph for the terminal, chats and tickets.

use std::fmt::Write as _;

use super::chain;
use super::facts::{Facts, Outcome};
use super::text::{duration_ms, duration_ns, number, sentence, shown};
use crate::diagnose::verdict::{Evidence, Value};

/// Evidence named in the paragraph.
const EVIDENCE_MAX: usize = 3;

/// What, since when, why, what to do: one paragraph.
pub(super) fn paragraph(facts: &Facts<'_>) -> String {
    let target = &facts.incident.target;
    let who = format!("{} (pid {})", shown(&target.comm), target.pid);
    let mut text = match facts.outcome {
        Outcome::Healthy => format!(
            "{who} did not stall in {} of watching.",
            duration_ns(facts.end_ns.saturating_sub(facts.begin_ns))
        ),
        Outcome::NoData => format!("Nothing can be said about {who}: it could not be read."),
        Outcome::Stalled | Outcome::Recovered => {
            let named = facts.verdict().map_or_else(
                || String::from("the cause was not named before watching ended"),
                |verdict| format!("{} ({})", verdict.cause.id(), verdict.confidence.id()),
            );
            format!("{who} stalled: {named}.")
        }
    };
    let verdict = facts.verdict();
    if let Some(verdict) = verdict {
        push(&mut text, &sentence(&verdict.summary));
    }
    if let Some(partial) = chain::partial(facts) {
        push(&mut text, &format!("Still works: {partial}"));
    }
    push(&mut text, &since(facts));
    push(&mut text, &chain::in_words(facts).unwrap_or_default());
    let unknowable = chain::unknowable(facts);
    if !unknowable.is_empty() {
        push(&mut text, &format!("No longer to be known: {}", unknowable.join(" ")));
    }
    if let Some(verdict) = verdict {
        let seen: Vec<String> =
            verdict.evidence.iter().take(EVIDENCE_MAX).map(evidence_words).collect();
        if !seen.is_empty() {
            push(&mut text, &format!("Seen: {}.", seen.join("; ")));
        }
        if let Some(next) = verdict.next.first() {
            push(&mut text, &format!("Next: {}", sentence(next)));
        }
    }
    text
}

/// `ring 9 unsubmitted entries: 17`.
fn evidence_words(evidence: &Evidence) -> String {
    let (value, unit) = evidence_value(evidence);
    let unit = if unit.is_empty() { unit } else { format!(" {unit}") };
    format!("{}: {value}{unit}", shown(&evidence.signal))
}

/// Value and unit, printable.
pub(super) fn evidence_value(evidence: &Evidence) -> (String, String) {
    let value = match &evidence.value {
        Value::Number(value) => number(*value),
        Value::Text(text) => shown(text),
    };
    (value, shown(&evidence.unit))
}

/// Since when, noticed after how long, and how it ended: one or two sentences, or none.
pub(super) fn since(facts: &Facts<'_>) -> String {
    let Some(episode) = facts.episode() else { return String::new() };
    let mut text = String::new();
    if let Some(begin_ns) = episode.begin_ns() {
        let wall = facts.wall(begin_ns);
        if episode.began_before_watch() {
            let or_before = if begin_ns < facts.begin_ns { "" } else { " or before" };
            let _ = write!(text, "It had begun before watching did, at{or_before} {wall}");
        } else {
            let _ = write!(text, "It began at {wall}");
            if let Some(detected_ns) = episode.detected_ns() {
                let latency = duration_ns(detected_ns.saturating_sub(begin_ns));
                let _ = write!(text, " and was noticed {latency} later");
            }
        }
    }
    let lasted = facts.stalled_ms().map(duration_ms).unwrap_or_default();
    let end = match facts.recovered_ns() {
        Some(_) => format!("it recovered after {lasted}"),
        None => format!("it still lasted when watching ended, {lasted} in"),
    };
    let _ = if text.is_empty() { write!(text, "{end}.") } else { write!(text, "; {end}.") };
    let others = facts.episodes.len().saturating_sub(1) as u64;
    if others > 0 {
        let _ =
            write!(text, " {} more in this run.", super::text::plural(others, "stall", "stalls"));
    }
    text
}

fn push(text: &mut String, sentence: &str) {
    if !sentence.is_empty() {
        text.push(' ');
        text.push_str(sentence);
    }
}
