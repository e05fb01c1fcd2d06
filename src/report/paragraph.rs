//! The verdict in plain text: for the terminal, and for chats and tickets in Markdown.

use std::fmt::Write as _;

use super::facts::{Facts, Outcome};
use super::names;
use super::text::{CMDLINE_CHARS_MAX, count, duration_ms, duration_ns, number, sentence, shown};
use super::{active, chain, tiers, timeline, watcher};
use crate::diagnose::verdict::{Evidence, Value, Verdict};
use crate::profile::printable::printable;

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

/// The report as Markdown, without charts.
pub(super) fn markdown(facts: &Facts<'_>) -> String {
    let incident = facts.incident;
    let mut text = String::new();
    let title = facts.verdict().map_or("No verdict", |verdict| names::cause(verdict.cause));
    let _ = writeln!(text, "# {title}\n\n{}\n", escaped(&paragraph(facts)));
    let _ = writeln!(text, "## What happened when\n\n| UTC | Offset | What | |\n|---|--:|---|---|");
    for row in timeline::rows(facts) {
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} |",
            facts.clock(row.at_ns),
            super::text::offset(row.at_ns, facts.zero_ns()),
            row.kind.label(),
            escaped(&row.text)
        );
    }
    if let Some(verdict) = facts.verdict() {
        markdown_chain(&mut text, facts);
        markdown_verdict(&mut text, facts, verdict);
    }
    let environment = &incident.environment;
    let _ = writeln!(
        text,
        "\n## Where\n\n- Process: {} ({})\n- Command: {}\n- Kernel: {}\n- stallscope {}, every {} ms, {} ticks",
        incident.target.pid,
        escaped(&shown(&incident.target.comm)),
        escaped(&printable(&incident.target.cmdline, CMDLINE_CHARS_MAX)),
        escaped(&shown(&environment.kernel)),
        escaped(&shown(&environment.version)),
        environment.interval_ms,
        count(incident.models.len() as u64),
    );
    let _ = writeln!(text, "- Watching cost: {}", escaped(&watcher::words(facts)));
    if let Some(own) = active::sentences(facts) {
        let _ = writeln!(text, "- {}", escaped(&own));
    }
    for limit in environment.limits.iter().chain(&incident.losses) {
        let _ = writeln!(text, "- Not seen: {}", escaped(&sentence(limit)));
    }
    text
}

fn markdown_chain(text: &mut String, facts: &Facts<'_>) {
    let links = chain::links(facts);
    if !links.is_empty() {
        let _ = writeln!(text, "\n## In order\n");
    }
    for (number, link) in links.iter().enumerate() {
        let _ = writeln!(
            text,
            "{}. {} ({}): {}",
            number + 1,
            facts.clock(link.at_ns),
            crate::watch::words::part(link.part),
            escaped(&sentence(&link.what))
        );
    }
    let unknowable = chain::unknowable(facts);
    if !unknowable.is_empty() {
        let _ = writeln!(text, "\n## What can no longer be known\n");
    }
    for one in unknowable {
        let _ = writeln!(text, "- {}", escaped(&one));
    }
}

fn markdown_verdict(text: &mut String, facts: &Facts<'_>, verdict: &Verdict) {
    if !verdict.evidence.is_empty() {
        let _ =
            writeln!(text, "\n## Evidence\n\n| Signal | Value | Unit | Since |\n|---|--:|---|---|");
    }
    for evidence in &verdict.evidence {
        let (value, unit) = evidence_value(evidence);
        let since =
            evidence.since_ns.map_or_else(|| String::from("unknown"), |at_ns| facts.clock(at_ns));
        let signal = escaped(&shown(&evidence.signal));
        let _ = writeln!(text, "| {signal} | {} | {} | {since} |", escaped(&value), escaped(&unit));
    }
    if !verdict.rests_on.is_empty() {
        let _ = writeln!(text, "\nRests on: {}.", tiers::rests_on(verdict));
    }
    if !verdict.missing.is_empty() {
        let _ = writeln!(text, "\n## Could not be seen\n");
    }
    for missing in tiers::missing(verdict) {
        let _ = writeln!(text, "- {}", escaped(&sentence(&missing)));
    }
    if !verdict.ruled_out.is_empty() {
        let _ = writeln!(text, "\n## Ruled out\n");
    }
    for ruled_out in &verdict.ruled_out {
        let _ = writeln!(
            text,
            "- {}: {}",
            ruled_out.cause.id(),
            escaped(&sentence(&ruled_out.because))
        );
    }
    if !verdict.next.is_empty() {
        let _ = writeln!(text, "\n## Next steps\n");
    }
    for (number, next) in verdict.next.iter().enumerate() {
        let _ = writeln!(text, "{}. {}", number + 1, escaped(&sentence(next)));
    }
}

/// Markdown punctuation made literal, so that hostile text can neither link nor break a table.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        if matches!(
            char,
            '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '|' | '#' | '!' | '~' | '&'
        ) {
            escaped.push('\\');
        }
        escaped.push(char);
    }
    // A bare address would become a link in most renderers.
    escaped.replace("://", ":\\//")
}
