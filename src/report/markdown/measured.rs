//! Figures per phase, and profiles as tables.

use std::fmt::Write as _;

use stallscope_probes::Reading;

use super::text::{escaped, heading, table_head, table_row};
use crate::profile::stacks::Kind;
use crate::report::facts::Facts;
use crate::report::figures::profiles::{self, Group, Share};
use crate::report::figures::{self, Figure, Phase, Phases, Spread};
use crate::report::text::{count, duration_ns, plural, sentence};

/// Functions listed per table.
const FUNCTIONS_MAX: usize = 12;
/// Notes listed per profile.
const NOTES_MAX: usize = 8;

/// Medians with quartiles, per phase.
pub(super) fn figures(out: &mut String, facts: &Facts<'_>) {
    let phases = Phases::of(facts);
    let present: Vec<Phase> = Phase::ALL
        .into_iter()
        .filter(|phase| facts.incident.models.iter().any(|m| phases.at(m.at_ns) == *phase))
        .collect();
    if present.is_empty() {
        return;
    }
    heading(out, "Figures");
    let (read, unread): (Vec<Figure>, Vec<Figure>) =
        figures::of_run(&facts.incident.models, &phases)
            .into_iter()
            .partition(|figure| present.iter().any(|phase| figure.of(*phase).got().is_some()));
    let mut names = vec!["Figure", "Unit"];
    names.extend(present.iter().map(|phase| column(*phase)));
    table_head(out, &names);
    for figure in &read {
        let mut cells = vec![figure.spec.title.to_owned(), figure.spec.shown_unit().to_owned()];
        cells.extend(present.iter().map(|phase| cell(figure, *phase)));
        table_row(out, &cells);
    }
    let _ = writeln!(
        out,
        "\nMedian, and in brackets the quartiles. TCP figures are of the whole network namespace."
    );
    if !unread.is_empty() {
        let _ = writeln!(out, "\nNot measured:\n");
    }
    for figure in &unread {
        if let Some(reason) = present.iter().find_map(|phase| figure.of(*phase).absence()) {
            let _ =
                writeln!(out, "- {}: {}", figure.spec.title, escaped(&sentence(&reason.detail)));
        }
    }
}

const fn column(phase: Phase) -> &'static str {
    match phase {
        Phase::Healthy => "Healthy:",
        Phase::Stalled => "Stalled:",
        Phase::Recovered => "Recovered:",
    }
}

fn cell(figure: &Figure, phase: Phase) -> String {
    match figure.of(phase) {
        Reading::Got(spread) => spread_words(figure, spread),
        Reading::Absent(absence) => crate::report::text::why(absence.why).to_owned(),
    }
}

/// `9,400 (9,120–9,700)`.
fn spread_words(figure: &Figure, spread: &Spread) -> String {
    let Spread { p25, median, p75, .. } = *spread;
    let shown = |value: f64| figure.spec.shown(value);
    format!("{} ({}–{})", shown(median), shown(p25), shown(p75))
}

/// The functions with most, per kind and maker: healthy beside stalled.
pub(super) fn profiles(out: &mut String, facts: &Facts<'_>) {
    heading(out, "Profiles");
    let groups = profiles::groups(facts);
    if groups.is_empty() {
        let _ = writeln!(out, "There is no profile in this run.");
    }
    for pair in groups.chunk_by(|a, b| (a.kind, a.maker) == (b.kind, b.maker)) {
        let of = |phase: Phase| pair.iter().find(|group| group.phase == phase);
        let Some(first) = pair.first() else { continue };
        if !out.ends_with("\n\n") {
            let _ = writeln!(out);
        }
        let _ = writeln!(out, "### {}\n", first.title());
        for group in pair {
            let _ = writeln!(out, "- {}: {}", capital(group.phase), scope(group));
        }
        for note in first.notes.iter().take(NOTES_MAX) {
            let _ = writeln!(out, "- Note: {}", escaped(note));
        }
        let stalled = of(Phase::Stalled);
        if first.kind == Kind::Cpu && stalled.is_some_and(|group| group.folded.samples == 0) {
            let _ = writeln!(
                out,
                "\nNo CPU was burnt in the stall by any thread: every one was asleep, blocked or \
                 stopped. This is a finding, not a fault of the profile."
            );
        }
        both_tables(out, of(Phase::Healthy), stalled);
    }
}

const fn capital(phase: Phase) -> &'static str {
    match phase {
        Phase::Healthy => "Healthy",
        Phase::Stalled => "Stalled",
        Phase::Recovered => "Recovered",
    }
}

/// `4.00 s in 2 windows, 312 samples at 99 Hz`.
fn scope(group: &Group) -> String {
    let rate = group.hz.map_or_else(String::new, |hz| format!(" at {hz} Hz"));
    format!(
        "{} in {}, {} {}{rate}.",
        duration_ns(group.covered_ns),
        plural(group.windows, "window", "windows"),
        count(group.folded.samples),
        group.kind.unit(),
    )
}

type Counts = Vec<(String, u64)>;

fn both_tables(out: &mut String, healthy: Option<&Group>, stalled: Option<&Group>) {
    let own: fn(&Group) -> Counts = |group| group.folded.by_leaf();
    let total: fn(&Group) -> Counts = |group| profiles::totals(&group.folded);
    for (title, read) in [("Self (innermost function)", own), ("Total (on the stack)", total)] {
        let samples = |group: Option<&Group>| group.map_or(0, |group| group.folded.samples);
        let counts = |group: Option<&Group>| group.map(read).unwrap_or_default();
        let both = (samples(healthy), samples(stalled));
        if both == (0, 0) {
            return;
        }
        let rows = profiles::shares(&counts(healthy), &counts(stalled), both, FUNCTIONS_MAX);
        shares(out, title, &rows, both);
    }
}

fn shares(out: &mut String, title: &str, rows: &[Share], samples: (u64, u64)) {
    let _ = writeln!(out);
    let percent = |share: f64| format!("{:.1} %", share * 100.0);
    match samples {
        (0, _) => table_head(out, &[title, "Stalled:"]),
        (_, 0) => table_head(out, &[title, "Healthy:"]),
        _ => table_head(out, &[title, "Healthy:", "Stalled:", "Change:"]),
    }
    for row in rows {
        let mut cells = vec![escaped(&row.function)];
        if samples.0 > 0 {
            cells.push(percent(row.before));
        }
        if samples.1 > 0 {
            cells.push(percent(row.after));
        }
        if samples.0 > 0 && samples.1 > 0 {
            cells.push(points(row.after - row.before));
        }
        table_row(out, &cells);
    }
}

/// `+12.3 points`.
pub(in crate::report) fn points(change: f64) -> String {
    let sign = if change < 0.0 { '−' } else { '+' };
    format!("{sign}{:.1} points", change.abs() * 100.0)
}
