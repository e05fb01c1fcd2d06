//! What a stall changed: two sets of stacks made comparable.

use std::collections::{BTreeMap, BTreeSet};

use super::folded::{Folded, OTHER_STACKS};

/// Stands before frames that no healthy stack has at that place.
pub const ONLY_MARK: char = '★';

/// Stacks of two stretches as lines for a differential flamegraph, `stack before after`: the counts
/// before are scaled so that both totals are equal, since neither the length of the stretches nor how
/// busy they were is what is compared. Frames that came up only after begin with [`ONLY_MARK`].
///
/// The heaviest `stacks_max` stacks of either side are kept; the others are summed up in one.
pub fn lines(before: &Folded, after: &Folded, stacks_max: usize) -> Vec<String> {
    let known = prefixes(before);
    let mut counts: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for (stack, count) in &before.stacks {
        counts.entry(stack).or_default().0 = scaled(*count, before.samples, after.samples);
    }
    for (stack, count) in &after.stacks {
        counts.entry(stack).or_default().1 = *count;
    }
    let mut heaviest: Vec<(&str, (u64, u64))> = counts.into_iter().collect();
    heaviest.sort_by(|a, b| b.1.0.max(b.1.1).cmp(&a.1.0.max(a.1.1)).then(a.0.cmp(b.0)));
    let rest = heaviest.split_off(heaviest.len().min(stacks_max));
    let cut = (scaled(before.cut_samples, before.samples, after.samples), after.cut_samples);
    let other =
        rest.iter().fold(cut, |sum, (_, n)| (sum.0.saturating_add(n.0), sum.1.saturating_add(n.1)));
    let mut lines: Vec<String> = heaviest
        .into_iter()
        .map(|(stack, (before, after))| format!("{} {before} {after}", marked(stack, &known)))
        .collect();
    if other != (0, 0) {
        lines.push(format!("{OTHER_STACKS} {} {}", other.0, other.1));
    }
    lines.sort_unstable();
    lines
}

/// `count` of a total of `from`, as if the total were `to`; rounded.
fn scaled(count: u64, from: u64, to: u64) -> u64 {
    if from == 0 {
        return 0;
    }
    let product = u128::from(count) * u128::from(to) + u128::from(from / 2);
    u64::try_from(product / u128::from(from)).unwrap_or(u64::MAX)
}

/// Every beginning of a stack, up to each of its frames.
fn prefixes(folded: &Folded) -> BTreeSet<&str> {
    let mut known = BTreeSet::new();
    for stack in folded.stacks.keys() {
        known.extend(stack.match_indices(';').filter_map(|(at, _)| stack.get(..at)));
        known.insert(stack.as_str());
    }
    known
}

/// The stack with the mark before every frame that is not there in the healthy one. A mark that a
/// name brings along is taken off: the process does not say what is new.
fn marked(stack: &str, known: &BTreeSet<&str>) -> String {
    let mut text = String::with_capacity(stack.len() + 16);
    let mut end = 0;
    for frame in stack.split(';') {
        end += frame.len();
        if !text.is_empty() {
            text.push(';');
        }
        if !stack.get(..end).is_some_and(|prefix| known.contains(prefix)) {
            text.push(ONLY_MARK);
            text.push(' ');
        }
        let name = frame.trim_start_matches([ONLY_MARK, ' ']);
        text.push_str(if name.is_empty() { "(unnamed)" } else { name });
        end += 1;
    }
    text
}

/// One function on both sides, as shares of each side's total.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// The function.
    pub name: String,
    /// Share before, 0 to 1.
    pub before: f64,
    /// Share after, 0 to 1.
    pub after: f64,
}

/// Innermost functions by how much their share changed, the greatest change first.
pub fn changes(before: &Folded, after: &Folded) -> Vec<Change> {
    let mut shares: BTreeMap<String, (f64, f64)> = BTreeMap::new();
    for (name, count) in before.by_leaf() {
        shares.entry(name).or_default().0 = count as f64 / before.samples.max(1) as f64;
    }
    for (name, count) in after.by_leaf() {
        shares.entry(name).or_default().1 = count as f64 / after.samples.max(1) as f64;
    }
    let mut changes: Vec<Change> =
        shares.into_iter().map(|(name, (before, after))| Change { name, before, after }).collect();
    let size = |change: &Change| (change.after - change.before).abs();
    changes.sort_by(|a, b| size(b).total_cmp(&size(a)).then(a.name.cmp(&b.name)));
    changes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::profile::folded::merge;

    #[test]
    fn totals_are_made_equal_and_what_is_new_is_marked() {
        let before = merge(["main;run;poll 3\nmain;run;park 1\n"]);
        let after = merge(["main;run;poll 10\nmain;run;spin;wake 30\n"]);
        assert_eq!(
            lines(&before, &after, 10),
            ["main;run;park 10 0", "main;run;poll 30 10", "main;run;★ spin;★ wake 0 30"]
        );
        assert_eq!(
            lines(&before, &after, 1),
            ["(other stacks) 10 30", "main;run;poll 30 10"],
            "nothing is lost"
        );
    }

    #[test]
    fn a_name_cannot_claim_to_be_new() {
        let both = merge(["main;★ spin 1\n★;x 1\n"]);
        assert_eq!(lines(&both, &both, 9), ["(unnamed);x 1 1", "main;spin 1 1"]);
    }

    #[test]
    fn the_greatest_change_comes_first_whatever_the_totals() {
        let before = merge(["t;a 50\nt;b 50\n"]);
        let after = merge(["t;a 5\nt;c 5\n"]);
        let names: Vec<String> =
            changes(&before, &after).into_iter().map(|change| change.name).collect();
        assert_eq!(names, ["b", "c", "a"]);
    }

    proptest! {
        #[test]
        fn every_line_has_two_counts_and_the_second_add_up(
            a in "([abc★](;[abc ★]){0,3} [1-9]\n){0,6}",
            b in "([abc★](;[abc ★]){0,3} [1-9]\n){1,6}",
            stacks_max in 1_usize..5,
        ) {
            let (before, after) = (merge([a.as_str()]), merge([b.as_str()]));
            let mut sum = 0;
            for line in lines(&before, &after, stacks_max) {
                let (rest, count) = line.rsplit_once(' ').expect("two counts");
                let (_, first) = rest.rsplit_once(' ').expect("two counts");
                prop_assert!(first.parse::<u64>().is_ok());
                sum += count.parse::<u64>().expect("a number");
            }
            prop_assert_eq!(sum, after.samples);
        }
    }
}
