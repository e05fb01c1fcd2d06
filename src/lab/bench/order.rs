//! Which run comes when. Pure.

use std::time::Duration;

use super::plan::Plan;
use super::record::RunRecord;

/// One run to come: which cell, in which round from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    /// Place in the plan's cells.
    pub cell: usize,
    /// Which round, from 0.
    pub round: u32,
}

/// All runs: A B A B …, each round every cell once. Those that are compared are so a few seconds
/// apart, and what the machine does in the course of an hour befalls all alike.
pub fn order(plan: &Plan) -> Vec<Turn> {
    (0..plan.rounds)
        .flat_map(|round| (0..plan.cells.len()).map(move |cell| Turn { cell, round }))
        .collect()
}

/// The runs that are still to come. One that failed is tried again.
pub fn left(plan: &Plan, records: &[RunRecord]) -> Vec<Turn> {
    let keys: Vec<String> = plan.cells.iter().map(super::plan::Cell::key).collect();
    let is_over = |turn: &Turn| {
        records.iter().any(|record| {
            record.round == turn.round && record.cell == keys[turn.cell] && record.is_measured()
        })
    };
    order(plan).into_iter().filter(|turn| !is_over(turn)).collect()
}

/// What a file of records holds.
#[derive(Debug, Default, PartialEq)]
pub struct Kept {
    /// Runs of this plan, the last of each cell and round.
    pub records: Vec<RunRecord>,
    /// Lines of another plan.
    pub foreign: u64,
    /// Lines that are none, but the last.
    pub broken: u64,
    /// Whether the last line was not written to its end.
    pub is_torn: bool,
}

/// Reads the lines that earlier runs have left.
pub fn kept(text: &str, hash: &str) -> Kept {
    let mut kept = Kept::default();
    let whole = text.ends_with('\n') || text.is_empty();
    let lines: Vec<&str> = text.lines().collect();
    for (at, line) in lines.iter().enumerate() {
        let is_last = at + 1 == lines.len();
        match serde_json::from_str::<RunRecord>(line) {
            _ if is_last && !whole => kept.is_torn = true,
            Ok(record) if record.plan == hash => {
                let same =
                    |other: &RunRecord| (&other.cell, other.round) == (&record.cell, record.round);
                kept.records.retain(|other| !same(other));
                kept.records.push(record);
            }
            Ok(_) => kept.foreign += 1,
            Err(_) => kept.broken += 1,
        }
    }
    kept
}

/// How long the rest takes: as the runs that are over took, or as the plan says.
pub fn time_left(plan: &Plan, left: usize, over: &[Duration]) -> Duration {
    let count = u32::try_from(over.len()).unwrap_or(u32::MAX);
    let each = over.iter().sum::<Duration>().checked_div(count).unwrap_or(plan.run_takes());
    each * u32::try_from(left).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::bench::record::tests::{failed, measured};
    use crate::lab::bench::summary::tests::plan;

    #[test]
    fn rounds_take_turns() {
        let turns: Vec<_> = order(&plan(2, 3)).iter().map(|turn| (turn.round, turn.cell)).collect();
        assert_eq!(turns, [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)]);
    }

    #[test]
    fn what_is_over_is_left_out_and_what_failed_is_not() {
        let plan = plan(2, 2);
        let key = |cell: usize| plan.cells[cell].key();
        let records = vec![measured(&key(0), 0, 1.0), failed(&key(1), 0, "it broke")];
        let left: Vec<_> = left(&plan, &records).iter().map(|t| (t.round, t.cell)).collect();
        assert_eq!(left, [(0, 1), (1, 0), (1, 1)]);
    }

    #[test]
    fn a_torn_last_line_is_no_run_and_the_last_word_on_a_run_counts() {
        let line = |record: &RunRecord| serde_json::to_string(record).unwrap();
        let (first, second) = (measured("a", 0, 1.0), measured("a", 0, 2.0));
        let other = RunRecord { plan: String::from("other"), ..measured("b", 0, 1.0) };
        let text = format!("{}\nno json\n{}\n{}\n", line(&first), line(&other), line(&second));
        let read = kept(&text, &first.plan);
        assert_eq!((read.records.as_slice(), read.foreign, read.broken), (&[second][..], 1, 1));
        assert!(!read.is_torn);

        let torn = line(&first);
        let read = kept(&format!("{}\n{}", line(&first), &torn[..torn.len() / 2]), &first.plan);
        assert_eq!((read.records.len(), read.is_torn, read.broken), (1, true, 0));
        // Without its end nobody knows whether a line is whole, though it may look so.
        let read = kept(&torn, &first.plan);
        assert_eq!((read.records.len(), read.is_torn), (0, true));
        assert_eq!(kept("", "x"), Kept::default());
    }

    #[test]
    fn the_time_left_is_learnt() {
        let plan = plan(2, 2);
        let s = Duration::from_secs;
        assert_eq!(time_left(&plan, 2, &[]), plan.run_takes() * 2);
        assert_eq!(time_left(&plan, 3, &[s(4), s(6)]), s(15));
        assert_eq!(time_left(&plan, 0, &[s(4)]), Duration::ZERO);
    }
}
