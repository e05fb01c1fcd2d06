//! Where and how it was measured, what that cost, and what could not be seen.

use std::fmt::Write as _;

use stallscope_probes::Reading;

use super::text::{escaped, heading, table_head, table_row};
use crate::model::tiers::TierStatus;
use crate::profile::printable::printable;
use crate::report::absences::of_run;
use crate::report::facts::Facts;
use crate::report::method::ticks_words;
use crate::report::text::{CMDLINE_CHARS_MAX, count, sentence, shown};
use crate::report::{active, tiers, watcher};

/// Losses listed.
const LOSSES_MAX: usize = 100;

/// Both sections.
pub(super) fn write(out: &mut String, facts: &Facts<'_>) {
    environment(out, facts);
    heading(out, "How this was measured, and what it could not see");
    let _ = writeln!(
        out,
        "Read from outside the process, without stopping, signalling or tracing it; profiles and the \
         heartbeat page may be its own. What came and went between two ticks was not seen. A value \
         that could not be read is absent, never zero.\n"
    );
    let _ = writeln!(out, "- {}", escaped(&ticks_words(facts)));
    let _ = writeln!(out, "- Watching cost: {}.", escaped(&watcher::words(facts)));
    if let Some(own) = active::sentences(facts) {
        let _ = writeln!(out, "- {}", escaped(&own));
    }
    lost(out, facts);
    tier_table(out, facts);
    absences(out, facts);
}

fn environment(out: &mut String, facts: &Facts<'_>) {
    let (target, environment) = (&facts.incident.target, &facts.incident.environment);
    heading(out, "Where");
    let exe = target.exe.as_ref().map(|exe| exe.to_string_lossy().into_owned());
    let limit = |limit: Option<u64>| limit.map_or_else(|| String::from("none"), count);
    let fd_limits = match &environment.fd_limits {
        Reading::Got(fds) => format!("soft {}, hard {}", limit(fds.soft), limit(fds.hard)),
        Reading::Absent(absence) => format!("unknown: {}", shown(&absence.detail)),
    };
    let items = [
        ("Process", format!("{} ({})", target.pid, shown(&target.comm))),
        ("Command", printable(&target.cmdline, CMDLINE_CHARS_MAX)),
        ("Executable", exe.map_or_else(|| String::from("could not be read"), |exe| shown(&exe))),
        ("fd limits", fd_limits),
        ("Kernel", shown(&environment.kernel)),
        ("CPUs", environment.cpus.to_string()),
        (
            "stallscope",
            format!(
                "{}, every {} ms, {} ticks",
                shown(&environment.version),
                environment.interval_ms,
                count(facts.incident.models.len() as u64)
            ),
        ),
    ];
    for (name, text) in items {
        let _ = writeln!(out, "- {name}: {}", escaped(&text));
    }
    if target.foreign_netns {
        let _ = writeln!(out, "- Network: another network namespace than the watcher’s");
    }
}

fn lost(out: &mut String, facts: &Facts<'_>) {
    for limit in &facts.incident.environment.limits {
        let _ = writeln!(out, "- Not permitted or not there: {}", escaped(&sentence(limit)));
    }
    let losses = &facts.incident.losses;
    for loss in losses.iter().take(LOSSES_MAX) {
        let _ = writeln!(out, "- Lost or damaged: {}", escaped(&sentence(loss)));
    }
    if losses.len() > LOSSES_MAX {
        let _ = writeln!(out, "- Lost or damaged: {} more.", losses.len() - LOSSES_MAX);
    }
}

fn tier_table(out: &mut String, facts: &Facts<'_>) {
    let Some(model) = tiers::at_verdict(facts) else { return };
    let _ = writeln!(out);
    table_head(out, &["Evidence", "Verdict", "Read", "What would permit it"]);
    for tier in model.tiers.iter() {
        let rests = facts.verdict().is_some_and(|verdict| verdict.rests_on.contains(&tier.tier));
        let (read, permit) = match &tier.status {
            TierStatus::Active => (String::from("yes"), String::new()),
            TierStatus::Absent { why, permit, .. } => {
                (format!("no: {}", sentence(why)), sentence(permit))
            }
            TierStatus::Failed { why } => (format!("failed: {}", sentence(why)), String::new()),
        };
        let rests = if rests { "rests on it" } else { "" };
        table_row(
            out,
            &[tier.tier.name().to_owned(), rests.to_owned(), escaped(&read), escaped(&permit)],
        );
    }
}

fn absences(out: &mut String, facts: &Facts<'_>) {
    let absences = of_run(&facts.incident.models);
    if absences.rows().next().is_none() {
        return;
    }
    let _ = writeln!(out, "\nReadings that were absent:\n");
    table_head(out, &["What", "Why", "Times:", "First reason given"]);
    for row in absences.rows() {
        table_row(
            out,
            &[row.what.to_owned(), row.why.to_owned(), count(row.times), escaped(&row.detail)],
        );
    }
}
