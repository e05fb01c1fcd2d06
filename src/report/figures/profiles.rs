//! The profiles of a run, merged per kind, maker and phase.

use std::collections::{BTreeMap, BTreeSet};

use super::Phase;
use crate::profile::folded::Folded;
use crate::profile::stacks::{Kind, Maker};
use crate::profile::window::{self, Window};
use crate::report::facts::Facts;
use crate::report::flames;
use crate::report::text::sentence;
use crate::watch::event::ProfileWindow;

/// Notes kept of one group.
const NOTES_MAX: usize = 16;

/// Windows of one kind and maker that lie in one phase.
#[derive(Debug, Clone)]
pub(in crate::report) struct Group {
    pub kind: Kind,
    pub maker: Maker,
    /// Healthy or stalled.
    pub phase: Phase,
    pub begin_ns: u64,
    pub end_ns: u64,
    /// Time that the windows cover, ns.
    pub covered_ns: u64,
    pub windows: u64,
    /// Samples a second, where all windows agree.
    pub hz: Option<u32>,
    /// What they could not see, printable, each once.
    pub notes: Vec<String>,
    pub folded: Folded,
}

impl Group {
    /// `CPU time, by the process itself`.
    pub fn title(&self) -> String {
        format!("{}, by {}", kind_name(self.kind), maker_name(self.maker))
    }
}

/// What is counted, for people.
pub(in crate::report) const fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Cpu => "CPU time",
        Kind::OffCpu => "Time spent waiting",
        Kind::Wall => "Elapsed time",
    }
}

/// Who made it, for people.
pub(in crate::report) const fn maker_name(maker: Maker) -> &'static str {
    match maker {
        Maker::Itself => "the process itself",
        Maker::Watcher => "the watcher",
    }
}

/// All groups that have a window, by kind, maker and phase.
pub(in crate::report) fn groups(facts: &Facts<'_>) -> Vec<Group> {
    let profiles = &facts.incident.profiles;
    let kinds: BTreeSet<(Kind, Maker)> =
        profiles.iter().map(|profile| (profile.kind, profile.maker)).collect();
    let onset_ns = facts.episode().map(|_| facts.zero_ns());
    let mut groups = Vec::new();
    for (kind, maker) in kinds {
        let of_kind: Vec<&ProfileWindow> = profiles
            .iter()
            .filter(|profile| (profile.kind, profile.maker) == (kind, maker))
            .collect();
        let windows: Vec<Window<'_>> =
            of_kind.iter().map(|profile| flames::window(profile)).collect();
        let choice = window::choose(&windows, kind, onset_ns, facts.recovered_ns());
        let notes = notes(&of_kind);
        for (phase, windows) in [(Phase::Healthy, choice.healthy), (Phase::Stalled, choice.stalled)]
        {
            groups.extend(group(kind, maker, phase, &windows, &notes));
        }
    }
    groups
}

fn group(
    kind: Kind,
    maker: Maker,
    phase: Phase,
    windows: &[Window<'_>],
    notes: &[String],
) -> Option<Group> {
    let hz = windows.first()?.hz;
    Some(Group {
        kind,
        maker,
        phase,
        begin_ns: windows.iter().map(|window| window.begin_ns).min()?,
        end_ns: windows.iter().map(|window| window.end_ns).max()?,
        covered_ns: window::covered_ns(windows),
        windows: windows.len() as u64,
        hz: windows.iter().all(|window| window.hz == hz).then_some(hz),
        notes: notes.to_vec(),
        folded: flames::for_view(windows),
    })
}

fn notes(profiles: &[&ProfileWindow]) -> Vec<String> {
    let notes: BTreeSet<&str> =
        profiles.iter().flat_map(|profile| &profile.notes).map(String::as_str).collect();
    notes.into_iter().take(NOTES_MAX).map(sentence).collect()
}

/// Counts by function that was on the stack, each once per stack, most first. The thread, which
/// stands outermost, is no function.
pub(in crate::report) fn totals(folded: &Folded) -> Vec<(String, u64)> {
    let mut sums: BTreeMap<&str, u64> = BTreeMap::new();
    for (stack, count) in &folded.stacks {
        let functions: BTreeSet<&str> = stack.split(';').skip(1).collect();
        for function in functions {
            let sum = sums.entry(function).or_default();
            *sum = sum.saturating_add(*count);
        }
    }
    let mut sums: Vec<(String, u64)> =
        sums.into_iter().map(|(function, sum)| (function.to_owned(), sum)).collect();
    sums.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
    sums
}

/// A function's share of two profiles, 0 to 1.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::report) struct Share {
    /// Hostile text, made printable when it was folded.
    pub function: String,
    pub before: f64,
    pub after: f64,
}

/// The functions with the largest shares on either side, at most `rows_max`, the greatest change
/// first. A side without a sample has no share to compare.
pub(in crate::report) fn shares(
    before: &[(String, u64)],
    after: &[(String, u64)],
    samples: (u64, u64),
    rows_max: usize,
) -> Vec<Share> {
    let share = |count: u64, samples: u64| count as f64 / samples.max(1) as f64;
    let mut rows: BTreeMap<&str, (f64, f64)> = BTreeMap::new();
    for (function, count) in before {
        rows.entry(function).or_default().0 = share(*count, samples.0);
    }
    for (function, count) in after {
        rows.entry(function).or_default().1 = share(*count, samples.1);
    }
    let mut rows: Vec<Share> = rows
        .into_iter()
        .map(|(function, (before, after))| Share { function: function.to_owned(), before, after })
        .collect();
    let reach = |row: &Share| row.before.max(row.after);
    rows.sort_by(|a, b| reach(b).total_cmp(&reach(a)).then(a.function.cmp(&b.function)));
    rows.truncate(rows_max);
    let change = |row: &Share| (row.after - row.before).abs();
    // Stable: of equal changes the larger share comes first.
    rows.sort_by(|a, b| change(b).total_cmp(&change(a)));
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_counts_once_per_stack_and_a_thread_is_none() {
        let folded =
            crate::profile::folded::merge(["main;run;run;poll 5\nmain;run;park 3\nidle 1\n"]);
        let own = |name: &str, count| (name.to_owned(), count);
        assert_eq!(totals(&folded), [own("run", 8), own("poll", 5), own("park", 3)]);
    }

    #[test]
    fn the_greatest_change_comes_first_of_the_largest() {
        let count = |name: &str, count| (name.to_owned(), count);
        let before = [count("a", 90), count("b", 10)];
        let after = [count("a", 10), count("c", 10)];
        let rows = shares(&before, &after, (100, 20), 2);
        let names: Vec<&str> = rows.iter().map(|row| row.function.as_str()).collect();
        assert_eq!(names, ["c", "a"]);
        assert!((rows[0].after - 0.5).abs() < 1e-9 && rows[0].before.abs() < 1e-9);
    }
}
