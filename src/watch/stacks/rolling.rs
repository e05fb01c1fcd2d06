//! The last seconds of what was caught, so that the profile of what led to a stall is there when the
//! stall is found.

use std::collections::{BTreeMap, VecDeque};

use stallscope_probes::stacks::follow::{Caught, StackId, Wait};

/// How far back it reaches, ns: a stall is found within ten seconds of its onset at the latest but
/// for rare ones, and ten seconds before it are wanted.
pub const REACH_NS: u64 = 40_000_000_000;
/// Stretches kept: 40 bytes each.
pub const CAUGHT_MAX: usize = 200_000;

/// A bounded window into the past.
#[derive(Debug, Default)]
pub struct Rolling {
    caught: VecDeque<Caught>,
    /// What is older than this is not whole, ns.
    whole_since_ns: u64,
}

impl Rolling {
    /// Empty, from `now_ns` on.
    pub fn new(now_ns: u64) -> Self {
        Self { caught: VecDeque::new(), whole_since_ns: now_ns }
    }

    /// Takes in what was caught until `now_ns`, and lets go of what is too old.
    pub fn push(&mut self, caught: impl IntoIterator<Item = Caught>, now_ns: u64) {
        self.caught.extend(caught);
        let oldest_ns = now_ns.saturating_sub(REACH_NS);
        while let Some(first) = self.caught.front()
            && (end_ns(first) < oldest_ns || self.caught.len() > CAUGHT_MAX)
        {
            self.whole_since_ns = self.whole_since_ns.max(end_ns(first));
            self.caught.pop_front();
        }
        self.whole_since_ns = self.whole_since_ns.max(oldest_ns);
    }

    /// Since when nothing is missing, ns.
    pub const fn whole_since_ns(&self) -> u64 {
        self.whole_since_ns
    }

    /// Forgets everything: numbers of stacks have lost their meaning.
    pub fn clear(&mut self, now_ns: u64) {
        self.caught.clear();
        self.whole_since_ns = now_ns;
    }

    /// What lies, wholly or in part, between two instants, with the waits that go on.
    pub fn cut(
        &self,
        begin_ns: u64,
        until_ns: u64,
        away: impl Iterator<Item = Wait>,
    ) -> Vec<Caught> {
        let within = |caught: &Caught| match caught {
            Caught::Ran { at_ns, .. } => (begin_ns..until_ns).contains(at_ns),
            Caught::Waited(wait) => wait.end_ns > begin_ns && wait.begin_ns < until_ns,
        };
        let going_on = away.map(Caught::Waited);
        self.caught.iter().copied().chain(going_on).filter(within).collect()
    }

    /// Where each thread was last caught on a CPU since `since_ns`.
    pub fn last_ran(&self, since_ns: u64) -> BTreeMap<i32, StackId> {
        let mut last = BTreeMap::new();
        for caught in &self.caught {
            if let Caught::Ran { at_ns, tid, stack, .. } = caught
                && *at_ns >= since_ns
            {
                last.insert(*tid, *stack);
            }
        }
        last
    }
}

const fn end_ns(caught: &Caught) -> u64 {
    match caught {
        Caught::Ran { at_ns, .. } => *at_ns,
        Caught::Waited(wait) => wait.end_ns,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ran(at_ns: u64) -> Caught {
        Caught::Ran { at_ns, tid: 1, stack: at_ns as u32, period_ns: 1 }
    }

    fn wait(begin_ns: u64, end_ns: u64) -> Wait {
        Wait { tid: 1, begin_ns, end_ns, stack: None, preempted: false }
    }

    #[test]
    fn what_overlaps_is_cut_out_and_what_goes_on_is_there_too() {
        let mut rolling = Rolling::new(0);
        rolling.push([ran(10), Caught::Waited(wait(11, 30)), ran(31)], 40);
        let cut = rolling.cut(20, 31, std::iter::once(wait(25, 40)));
        assert_eq!(cut, [Caught::Waited(wait(11, 30)), Caught::Waited(wait(25, 40))]);
        assert_eq!(rolling.last_ran(0), BTreeMap::from([(1, 31)]));
        assert!(rolling.last_ran(32).is_empty());
    }

    #[test]
    fn the_past_is_bounded_in_time_and_number_and_says_since_when_it_is_whole() {
        let mut rolling = Rolling::new(5);
        rolling.push([ran(10)], 10);
        assert_eq!(rolling.whole_since_ns(), 5);
        rolling.push([], 11 + REACH_NS);
        assert_eq!(rolling.cut(0, u64::MAX, std::iter::empty()), []);
        assert_eq!(rolling.whole_since_ns(), 11);
        let later = 12 + REACH_NS;
        rolling.push((0..CAUGHT_MAX as u64 + 2).map(|nth| ran(later + nth)), later);
        assert_eq!(rolling.cut(0, u64::MAX, std::iter::empty()).len(), CAUGHT_MAX);
        assert_eq!(rolling.whole_since_ns(), later + 1);
        rolling.clear(later + 9);
        assert_eq!(rolling.whole_since_ns(), later + 9);
    }
}
