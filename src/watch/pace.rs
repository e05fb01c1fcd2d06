//! When a probe is read next: at every tick when it is cheap, seldomer the dearer it is.

use super::budget::Budget;

/// A tick comes a little early or late: half a millisecond must not cost a whole tick.
const SLACK_NS: u64 = 500_000;

/// Paces one probe by what its last reads cost.
///
/// Cost is CPU time: on a machine that is short of CPUs, time that passed while the watcher waited
/// for one was no burden on anybody, and must not make it look away just when it matters.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    every_ns: u64,
    /// What it may take of the budget, percent.
    share: u64,
    last_begin_ns: u64,
    cost_ns: u64,
    wait_ns: u64,
    due_ns: u64,
}

impl Pace {
    /// At most every `every_ns`, and at most `share` percent of the budget.
    pub const fn new(every_ns: u64, share: u64) -> Self {
        Self { every_ns, share, last_begin_ns: 0, cost_ns: 0, wait_ns: every_ns, due_ns: 0 }
    }

    /// Whether it is due.
    pub const fn is_due(&self, now_ns: u64) -> bool {
        now_ns >= self.due_ns
    }

    /// Whether a closer look is due: one part in `rest` of the time, paid from the savings.
    pub fn is_due_on_suspicion(&self, now_ns: u64, budget: &Budget, rest: u64) -> bool {
        let wait_ns = self.cost_ns.saturating_mul(rest);
        let since_ns = now_ns.saturating_sub(self.last_begin_ns).saturating_add(SLACK_NS);
        self.is_due(now_ns) || (since_ns >= wait_ns && budget.affords(self.cost_ns))
    }

    /// Records a read.
    pub fn was_read(&mut self, begin_ns: u64, cost_ns: u64, budget: &Budget) {
        // The mean of two: one read may have been disturbed.
        self.cost_ns = if self.cost_ns == 0 { cost_ns } else { self.cost_ns.midpoint(cost_ns) };
        self.last_begin_ns = begin_ns;
        let earned_ns = budget.time_for(self.cost_ns).saturating_mul(100) / self.share;
        self.wait_ns = self.every_ns.max(earned_ns);
        self.due_ns = begin_ns.saturating_add(self.wait_ns).saturating_sub(SLACK_NS);
    }

    /// What a read costs, ns of CPU time.
    pub const fn cost_ns(&self) -> u64 {
        self.cost_ns
    }

    /// Time between reads at present, ns.
    pub const fn present_every_ns(&self) -> u64 {
        self.wait_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn a_dear_probe_is_read_seldomer_and_hurries_on_suspicion() {
        // One percent of a core, of which this probe may take a tenth: one part in a thousand.
        let budget = Budget::new(10_000, 0);
        let mut pace = Pace::new(50 * MS, 10);
        assert!(pace.is_due(0));
        pace.was_read(0, MS / 100, &budget);
        assert!(pace.is_due(50 * MS) && !pace.is_due(49 * MS));
        let mut pace = Pace::new(50 * MS, 10);
        pace.was_read(0, 5 * MS, &budget);
        assert!(!pace.is_due(4_900 * MS) && pace.is_due(5_000 * MS));
        assert!(pace.is_due_on_suspicion(100 * MS, &budget, 20));
        assert!(!pace.is_due_on_suspicion(99 * MS, &budget, 20));
        assert_eq!((pace.cost_ns(), pace.present_every_ns()), (5 * MS, 5_000 * MS));
    }

    #[test]
    fn without_savings_suspicion_hurries_nothing() {
        let mut budget = Budget::new(10_000, 0);
        let mut pace = Pace::new(50 * MS, 10);
        pace.was_read(0, 5 * MS, &budget);
        budget.spend(0, 299 * MS, 299 * MS);
        assert!(!pace.is_due_on_suspicion(100 * MS, &budget, 20));
        assert!(pace.is_due_on_suspicion(5_000 * MS, &budget, 20));
    }

    #[test]
    fn one_disturbed_read_counts_half() {
        let budget = Budget::new(10_000, 0);
        let mut pace = Pace::new(50 * MS, 10);
        pace.was_read(0, MS, &budget);
        pace.was_read(0, 3 * MS, &budget);
        assert_eq!(pace.cost_ns(), 2 * MS);
    }
}
