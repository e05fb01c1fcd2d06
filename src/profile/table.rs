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
        "unit": profile.kind.unit().replace('µ', "u"),
        "seconds": profile.length_ns() as f64 / 1e9,
        "hz": profile.hz,
        "samples": profile.samples.len(),
        "count": seen.samples,
        "by_thread": list(seen.by_thread()),
        "by_innermost_function": list(seen.by_leaf()),
        "notes": profile.notes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::fold::fold;
    use crate::profile::folded;
    use crate::profile::made::{self, Plan};

    /// A profile of it, as it is told.
    fn told(plan: &Plan<'_>) -> (Profile, Folded) {
        let profile = made::profile(plan);
        let seen = folded::merge([fold(&profile).as_str()]);
        (profile, seen)
    }

    const PERIOD_NS: u64 = 1_000_000_000 / 99;

    #[test]
    fn who_ran_where_by_share_and_count() {
        let samples: [(&str, &[&str], u64); 4] = [
            ("worker", &["main", "poll"], PERIOD_NS),
            ("worker", &["main", "poll"], PERIOD_NS),
            ("worker", &["main", "park"], PERIOD_NS),
            ("rdk:main", &["serve", "poll"], PERIOD_NS),
        ];
        let (profile, seen) = told(&Plan { kind: Kind::Cpu, samples: &samples });
        let files = [String::from("a\u{1b}[31m.svg")];
        let text = table(&profile, &seen, &files, "it cost little");
        assert_eq!(
            text,
            "time on a CPU: 1.0 s, 4 samples at 99 Hz: 4 % of one CPU\n\
             \n\
             by thread\n\
             \u{20} 75.0 %           3  worker\n\
             \u{20} 25.0 %           1  rdk:main\n\
             \n\
             innermost function\n\
             \u{20} 75.0 %           3  poll\n\
             \u{20} 25.0 %           1  park\n\
             \n\
             written: a\\x1b[31m.svg\n\
             note: a note\n\
             note: it cost little\n"
        );
    }

    #[test]
    fn waits_are_told_in_time_and_a_name_cannot_write_to_the_terminal() {
        let samples: [(&str, &[&str], u64); 2] = [
            ("worker", &["main", "read\u{1b}]0;owned\u{7}"], 2_500_000_000),
            ("worker", &["main", "park"], 1_500_000),
        ];
        let (profile, seen) = told(&Plan { kind: Kind::OffCpu, samples: &samples });
        let text = table(&profile, &seen, &[], "");
        assert!(text.starts_with("time spent waiting: 1.0 s, 2 waits\n"), "{text}");
        assert!(text.contains("2.50 s  read") && text.contains("1.5 ms  park"), "{text}");
        assert!(!text.contains(['\u{1b}', '\u{7}']), "{text:?}");
    }

    #[test]
    fn an_empty_profile_says_what_that_means_and_rows_are_bounded() {
        for (kind, words) in [
            (Kind::Cpu, "all of them slept"),
            (Kind::OffCpu, "all of them ran"),
            (Kind::Wall, "Nothing was caught"),
        ] {
            let (profile, seen) = told(&Plan { kind, samples: &[] });
            let text = table(&profile, &seen, &[], "cost");
            assert!(text.contains(words) && !text.contains("by thread"), "{text}");
        }
        let names: Vec<String> = (0..ROWS_MAX + 2).map(|nth| format!("function_{nth}")).collect();
        let stacks: Vec<[&str; 1]> = names.iter().map(|name| [name.as_str()]).collect();
        let samples: Vec<(&str, &[&str], u64)> =
            stacks.iter().map(|stack| ("worker", &stack[..], PERIOD_NS)).collect();
        let (profile, seen) = told(&Plan { kind: Kind::Cpu, samples: &samples });
        let text = table(&profile, &seen, &[], "");
        assert_eq!(text.matches("function_").count(), ROWS_MAX);
        assert!(text.contains("… and 2 more\n"), "{text}");
        let value = json(&profile, &seen);
        let rows = value["by_innermost_function"].as_array().map(Vec::len);
        assert_eq!(rows, Some(ROWS_MAX));
    }

    #[test]
    fn an_amount_has_the_unit_that_suits_it() {
        let cases = [
            (Kind::Cpu, 1_234_567, "1234567"),
            (Kind::OffCpu, 0, "0 us"),
            (Kind::OffCpu, 999, "999 us"),
            (Kind::OffCpu, 1_000, "1.0 ms"),
            (Kind::Wall, 999_949, "999.9 ms"),
            (Kind::Wall, 1_000_000, "1.00 s"),
        ];
        for (kind, count, text) in cases {
            assert_eq!(amount(count, kind), text);
        }
    }

    #[test]
    fn as_data_it_has_its_unit_and_its_numbers() {
        let samples: [(&str, &[&str], u64); 1] = [("worker", &["main", "park"], 1_500_000)];
        let (profile, seen) = told(&Plan { kind: Kind::OffCpu, samples: &samples });
        let expected = json!({
            "kind": "off-cpu",
            "unit": "us",
            "seconds": 1.0,
            "hz": 99,
            "samples": 1,
            "count": 1_500,
            "by_thread": [{ "name": "worker", "count": 1_500 }],
            "by_innermost_function": [{ "name": "park", "count": 1_500 }],
            "notes": ["a note"],
        });
        assert_eq!(json(&profile, &seen), expected);
    }
}
