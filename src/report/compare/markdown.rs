//! The comparison as Markdown.

use std::fmt::Write as _;

use stallscope_probes::Reading;

use super::change::Change;
use super::flames::{empty, few, own, scope, title, total};
use super::page::phase_title;
use super::sides::{Comparison, STALL_ROWS};
use super::words;
use crate::report::figures::profiles::Share;
use crate::report::figures::{Phase, Spread};
use crate::report::markdown::measured::points;
use crate::report::markdown::text::{escaped, heading, table_head, table_row};
use crate::report::text::{sentence, shown, why};

/// The whole document.
pub(super) fn assemble(comparison: &Comparison<'_>) -> String {
    let (a, b) = (escaped(&comparison.a.label), escaped(&comparison.b.label));
    let mut out = format!("# {a} against {b}\n\n");
    for said in words::summary(comparison) {
        let _ = writeln!(out, "- {}", escaped(&said));
    }
    stalls(&mut out, comparison);
    for phase in Phase::ALL {
        figures(&mut out, comparison, phase);
    }
    unread(&mut out, comparison);
    profiles(&mut out, comparison);
    conditions(&mut out, comparison);
    heading(&mut out, "How to read this");
    let _ = writeln!(
        out,
        "Median, and in brackets the quartiles; the ratio is {b} to {a}. A difference is larger than \
         the spread where the middle halves of the readings have no value in common. One run of \
         each is no sample of runs: before a decision rests on a difference, run both again. What \
         was not read is absent, never zero."
    );
    out
}

fn heads<'a>(comparison: &Comparison<'_>, before: &[&'a str], after: &[&'a str]) -> Vec<String> {
    let labels = [&comparison.a.label, &comparison.b.label].map(|label| {
        // The colon at the end is that of the column.
        format!("{}:", escaped(label).trim_end_matches(':'))
    });
    let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    [own(before), labels.to_vec(), own(after)].concat()
}

fn head(out: &mut String, names: &[String]) {
    table_head(out, &names.iter().map(String::as_str).collect::<Vec<_>>());
}

fn stalls(out: &mut String, comparison: &Comparison<'_>) {
    heading(out, "Stalls");
    head(out, &heads(comparison, &[""], &[]));
    for (name, read) in STALL_ROWS {
        table_row(out, &[name.to_owned(), read(&comparison.a), read(&comparison.b)]);
    }
    for side in [&comparison.a, &comparison.b] {
        if let Some(verdict) = side.facts.verdict() {
            let (label, summary) = (escaped(&side.label), escaped(&sentence(&verdict.summary)));
            let _ = writeln!(out, "\n**{label}**: {summary}");
        }
    }
}

fn figures(out: &mut String, comparison: &Comparison<'_>, phase: Phase) {
    if comparison.read(phase).next().is_none() {
        return;
    }
    heading(out, &format!("Figures, {}", phase_title(phase).to_lowercase()));
    head(out, &heads(comparison, &["Figure", "Unit"], &["Ratio:", "Difference"]));
    for change in comparison.read(phase) {
        let ratio = match &change.ratio {
            Reading::Got(ratio) => format!("× {}", words::factor(*ratio)),
            Reading::Absent(_) => String::from("–"),
        };
        table_row(
            out,
            &[
                change.spec.title.to_owned(),
                change.spec.shown_unit().to_owned(),
                cell(change, &change.a),
                cell(change, &change.b),
                ratio,
                change.difference.words().to_owned(),
            ],
        );
    }
}

fn cell(change: &Change, reading: &Reading<Spread>) -> String {
    match reading {
        Reading::Got(Spread { p25, median, p75, .. }) => {
            let shown = |value: &f64| change.spec.shown(*value);
            format!("{} ({}–{})", shown(median), shown(p25), shown(p75))
        }
        Reading::Absent(absence) => why(absence.why).to_owned(),
    }
}

fn unread(out: &mut String, comparison: &Comparison<'_>) {
    let unread = comparison.unread();
    if !unread.is_empty() {
        let _ = writeln!(out, "\nNot measured in either:\n");
    }
    for (title, reason) in unread {
        let _ = writeln!(out, "- {title}: {}", escaped(&sentence(&reason)));
    }
}

fn profiles(out: &mut String, comparison: &Comparison<'_>) {
    heading(out, "Profiles");
    let pairs = comparison.profiles();
    if pairs.is_empty() {
        let _ = writeln!(
            out,
            "The two runs have no profile of the same kind, maker and phase in common."
        );
    }
    for pair in &pairs {
        let _ = writeln!(out, "### {}\n\n{}.\n", title(pair), scope(pair));
        if pair.a.folded.samples == 0 || pair.b.folded.samples == 0 {
            let _ = writeln!(out, "{}\n", escaped(&empty(comparison, pair)));
            continue;
        }
        if let Some(few) = few(pair) {
            let _ = writeln!(out, "{few}\n");
        }
        shares(out, comparison, "Self (innermost function)", &own(pair));
        shares(out, comparison, "Total (on the stack)", &total(pair));
    }
}

fn shares(out: &mut String, comparison: &Comparison<'_>, name: &str, rows: &[Share]) {
    let percent = |share: f64| format!("{:.1} %", share * 100.0);
    head(out, &heads(comparison, &[name], &["Change:"]));
    for row in rows {
        table_row(
            out,
            &[
                escaped(&row.function),
                percent(row.before),
                percent(row.after),
                points(row.after - row.before),
            ],
        );
    }
    let _ = writeln!(out);
}

fn conditions(out: &mut String, comparison: &Comparison<'_>) {
    heading(out, "Conditions");
    if comparison.conditions.is_empty() {
        let _ = writeln!(out, "Both were run and watched under the same, as far as is known.");
        return;
    }
    head(out, &heads(comparison, &["What differs"], &["Why it matters"]));
    for condition in &comparison.conditions {
        table_row(
            out,
            &[
                condition.what.to_owned(),
                escaped(&shown(&condition.a)),
                escaped(&shown(&condition.b)),
                condition.unfair.unwrap_or("it may be what is compared").to_owned(),
            ],
        );
    }
}
