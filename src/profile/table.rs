//! A profile in figures, for a terminal and as JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::folded::Folded;
use super::printable::printable;
use super::stacks::{Kind, Profile};

/// Rows of each list.
const ROWS_MAX: usize = 15;
/// Characters shown of a name.
const NAME_CHARS_MAX: usize = 96;
/// Notes shown.
const NOTES_MAX: usize = 20;

/// What a kind of profile shows.
pub const fn title(kind: Kind) -> &'static str {
    match kind {
        Kind::Cpu => "time on a CPU",
        Kind::OffCpu => "time spent waiting",
        Kind::Wall => "time of all threads",
    }
}

/// `10.0 s, 1 203 samples at 99 Hz`.
pub fn scope(profile: &Profile) -> String {
    let length_s = profile.length_ns() as f64 / 1e9;
    let samples = profile.samples.len();
    match profile.kind {
        Kind::Cpu => {
            let cpu_s: f64 =
                profile.samples.iter().map(|sample| sample.weight_ns as f64 / 1e9).sum();
            format!(
                "{length_s:.1} s, {samples} samples at {} Hz: {:.0} % of one CPU",
                profile.hz,
                cpu_s / length_s.max(1e-9) * 100.0
            )
        }
        Kind::OffCpu => format!("{length_s:.1} s, {samples} waits"),
        Kind::Wall => format!("{length_s:.1} s, {samples} samples and waits"),
    }
}

/// The profile as a table. `seen` is the view of it; `files` were written; `cost` is a sentence.
pub fn table(profile: &Profile, seen: &Folded, files: &[String], cost: &str) -> String {
    let mut text = String::new();
    // Writing to a String does not fail.
    let _ = writeln!(text, "{}: {}", title(profile.kind), scope(profile));
    if seen.samples == 0 {
        let _ = writeln!(text, "\n{}", nothing(profile.kind));
    } else {
        let _ = rows(&mut text, "by thread", &seen.by_thread(), seen.samples, profile.kind);
        let _ = rows(&mut text, "innermost function", &seen.by_leaf(), seen.samples, profile.kind);
    }
    let _ = writeln!(text);
    for file in files {
        let _ = writeln!(text, "written: {}", printable(file, NAME_CHARS_MAX * 4));
    }
    for note in profile.notes.iter().take(NOTES_MAX).map(String::as_str).chain([cost]) {
        let _ = writeln!(text, "note: {}", printable(note, NAME_CHARS_MAX * 4));
    }
    text
}

fn nothing(kind: Kind) -> &'static str {
    match kind {
        Kind::Cpu => {
            "No thread was on a CPU: all of them slept. `--mode wall` shows where, `stallscope stacks` as well."
        }
        Kind::OffCpu => "No thread waited: all of them ran, all the time.",
        Kind::Wall => "Nothing was caught.",
    }
}

fn rows(
    text: &mut String,
    caption: &str,
    rows: &[(String, u64)],
    total: u64,
    kind: Kind,
) -> std::fmt::Result {
    writeln!(text, "\n{caption}")?;
    for (name, count) in rows.iter().take(ROWS_MAX) {
        let share = *count as f64 / total.max(1) as f64 * 100.0;
        writeln!(
            text,
            "{share:6.1} %  {:>10}  {}",
            amount(*count, kind),
            printable(name, NAME_CHARS_MAX)
        )?;
    }
    if rows.len() > ROWS_MAX {
        writeln!(text, "          … and {} more", rows.len() - ROWS_MAX)?;
    }
    Ok(())
}

/// A count with its unit.
pub fn amount(count: u64, kind: Kind) -> String {
    match kind {
        Kind::Cpu => count.to_string(),
        Kind::OffCpu | Kind::Wall if count >= 1_000_000 => format!("{:.2} s", count as f64 / 1e6),
        Kind::OffCpu | Kind::Wall if count >= 1_000 => format!("{:.1} ms", count as f64 / 1e3),
        Kind::OffCpu | Kind::Wall => format!("{count} us"),
    }
}

/// The same as data.
pub fn json(profile: &Profile, seen: &Folded) -> Value {
    let list = |rows: Vec<(String, u64)>| -> Vec<Value> {
        let rows = rows.into_iter().take(ROWS_MAX);
        rows.map(|(name, count)| json!({ "name": name, "count": count })).collect()
    };
    json!({
        "kind": profile.kind,
        "unit": super::svg::unit(profile.kind).replace('µ', "u"),
        "seconds": profile.length_ns() as f64 / 1e9,
        "hz": profile.hz,
        "samples": profile.samples.len(),
        "count": seen.samples,
        "by_thread": list(seen.by_thread()),
        "by_innermost_function": list(seen.by_leaf()),
        "notes": profile.notes,
    })
}
