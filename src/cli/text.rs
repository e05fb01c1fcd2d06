//! A verdict as text for a terminal.

use std::fmt::Write;

use stallscope_probes::Reading;
use stallscope_probes::sample::ActiveRaw;

use crate::diagnose::verdict::Verdict;
use crate::tui::probe_words;
use crate::tui::text::clean;
use crate::watch::event::{Anchor, Target};
use crate::watch::words;

/// The verdict in full, and what the active probe met with, if there is one. Everything that may
/// stem from the observed process is made harmless.
pub fn verdict(
    target: &Target,
    verdict: &Verdict,
    probe: Option<&Reading<ActiveRaw>>,
    anchor: Anchor,
) -> String {
    let mut out = String::new();
    // Writing to a String does not fail.
    let _ = render(&mut out, target, verdict, anchor);
    let _ = match probe {
        Some(Reading::Got(raw)) => writeln!(out, "\nActive probe\n  - {}", probe_words(raw, None)),
        Some(Reading::Absent(absence)) => {
            writeln!(out, "\nActive probe\n  - absent: {}", clean(&absence.detail))
        }
        None => Ok(()),
    };
    out
}

fn render(
    out: &mut String,
    target: &Target,
    verdict: &Verdict,
    anchor: Anchor,
) -> std::fmt::Result {
    let comm = clean(&target.comm);
    writeln!(
        out,
        "{} ({}) - process {} ({comm})",
        verdict.cause.id(),
        verdict.confidence.id(),
        target.pid
    )?;
    writeln!(out, "  {}", clean(&verdict.summary))?;
    if let Some(onset_ns) = verdict.onset_ns {
        let already = if verdict.before_watch { "it was so at the first look, " } else { "" };
        writeln!(out, "  {already}since {} (UTC)", anchor.rfc3339(onset_ns))?;
    }
    if let Some(chain) = words::chain(verdict, anchor) {
        writeln!(out, "  {}", clean(&chain))?;
    }
    let unknowable = words::unknowable(verdict, anchor);
    if !unknowable.is_empty() {
        writeln!(out, "\nWhat can no longer be known")?;
    }
    for sentence in unknowable {
        writeln!(out, "  - {}", clean(sentence))?;
    }
    if !verdict.evidence.is_empty() {
        writeln!(out, "\nEvidence")?;
    }
    for one in &verdict.evidence {
        let since = one.since_ns.map(|ns| format!(", since {}", anchor.clock_time(ns)));
        let value = clean(&one.value.to_string());
        let unit = if one.unit.is_empty() { String::new() } else { format!(" {}", one.unit) };
        writeln!(out, "  - {}: {value}{unit}{}", clean(&one.signal), since.unwrap_or_default())?;
    }
    if !verdict.ruled_out.is_empty() {
        writeln!(out, "\nRuled out")?;
    }
    for one in &verdict.ruled_out {
        writeln!(out, "  - {}: {}", one.cause.id(), clean(&one.because))?;
    }
    if !verdict.next.is_empty() {
        writeln!(out, "\nWhat to do")?;
    }
    for step in &verdict.next {
        writeln!(out, "  - {step}")?;
    }
    Ok(())
}
