//! Which looks at the stacks of all threads are worth showing.

use crate::profile::stacks::ThreadStacks;
use crate::report::facts::Facts;

/// A look, and what it shows.
#[derive(Debug, Clone, Copy)]
pub(in crate::report) struct Look<'a> {
    /// As in JSON: `before`, `stalled`, `stalled-last`, `last`.
    pub id: &'static str,
    /// For people.
    pub title: &'static str,
    pub stacks: &'a ThreadStacks,
}

/// The last look before the stall, the first and the last one in it; without a stall the last of
/// all. Never more than three.
pub(in crate::report) fn looks<'a>(facts: &Facts<'a>) -> Vec<Look<'a>> {
    let stacks = &facts.incident.stacks;
    let look = |id, title, stacks| Look { id, title, stacks };
    if facts.episode().is_none() {
        let last = stacks.last().map(|stacks| look("last", "The last look", stacks));
        return last.into_iter().collect();
    }
    let (begin_ns, end_ns) = (facts.zero_ns(), facts.recovered_ns().unwrap_or(u64::MAX));
    let before = stacks.iter().rev().find(|look| look.at_ns < begin_ns);
    let within = |look: &&ThreadStacks| (begin_ns..end_ns).contains(&look.at_ns);
    let first = stacks.iter().find(within);
    let last = stacks.iter().rev().find(within);
    let last = last.filter(|last| first.is_some_and(|first| first.at_ns != last.at_ns));
    [
        before.map(|stacks| look("before", "Before the stall", stacks)),
        first.map(|stacks| look("stalled", "In the stall", stacks)),
        last.map(|stacks| look("stalled-last", "In the stall, last", stacks)),
    ]
    .into_iter()
    .flatten()
    .collect()
}
