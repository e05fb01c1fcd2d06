//! What the watcher may spend: CPU time per time. It keeps to that by slowing down.
//!
//! A calm watcher spends less than it may, and saves the rest, for at most half a minute. On
//! suspicion a closer look is paid from the savings: it decides the verdict, and is over in a
//! second or two. Who has nothing left goes on at the calm pace; who is in debt waits.

/// Savings are kept for this long.
const SAVED_NS: u64 = 30_000_000_000;

/// The interval is not stretched beyond this, however little may be spent.
const INTERVAL_MAX_NS: u64 = 10_000_000_000;

/// One part in this many of the news goes into the running mean of a tick's cost: a single dear
/// tick (cold caches, a page fault) changes nothing.
const MEAN_OVER: u64 = 16;

const PPM: u64 = 1_000_000;

/// A share of one core, and what is left of it.
#[derive(Debug, Clone)]
pub struct Budget {
    ppm: u64,
    savings_ns: i64,
    refilled_ns: u64,
    /// Running mean of what a tick costs that is always paid, ns.
    tick_ns: u64,
}

impl Budget {
    /// `ppm` millionths of one core (10,000 is 1 %), with full savings: the first look is the
    /// dearest.
    pub fn new(ppm: u32, now_ns: u64) -> Self {
        let ppm = u64::from(ppm.max(1));
        Self { ppm, savings_ns: savings_max(ppm), refilled_ns: now_ns, tick_ns: 0 }
    }

    /// The share, in millionths of one core.
    pub const fn ppm(&self) -> u64 {
        self.ppm
    }

    /// A tick is over: it cost `spent_ns` of CPU time, of which `dear_ns` went to reads that are
    /// paced by their own cost.
    pub fn spend(&mut self, now_ns: u64, spent_ns: u64, dear_ns: u64) {
        let earned_ns = now_ns.saturating_sub(self.refilled_ns).saturating_mul(self.ppm) / PPM;
        self.refilled_ns = now_ns;
        let signed = |ns: u64| i64::try_from(ns).unwrap_or(i64::MAX);
        self.savings_ns = self
            .savings_ns
            .saturating_add(signed(earned_ns))
            .min(savings_max(self.ppm))
            .saturating_sub(signed(spent_ns));
        let always_ns = spent_ns.saturating_sub(dear_ns);
        self.tick_ns = if self.tick_ns == 0 {
            always_ns
        } else {
            (self.tick_ns.saturating_mul(MEAN_OVER - 1).saturating_add(always_ns)) / MEAN_OVER
        };
    }

    /// Whether a closer look of this cost can be paid from the savings.
    pub fn affords(&self, cost_ns: u64) -> bool {
        i64::try_from(cost_ns).is_ok_and(|cost_ns| cost_ns < self.savings_ns)
    }

    /// The time between ticks: as asked for, or as much longer as the budget demands.
    pub fn interval_ns(&self, asked_ns: u64) -> u64 {
        let debt_ns = u64::try_from(self.savings_ns.saturating_neg()).unwrap_or(0);
        let afford_ns = self.time_for(self.tick_ns);
        asked_ns
            .max(afford_ns.min(INTERVAL_MAX_NS))
            .max(self.time_for(debt_ns).min(INTERVAL_MAX_NS))
    }

    /// How long it takes to earn `cost_ns`.
    pub const fn time_for(&self, cost_ns: u64) -> u64 {
        cost_ns.saturating_mul(PPM) / self.ppm
    }
}

fn savings_max(ppm: u64) -> i64 {
    i64::try_from(SAVED_NS / PPM * ppm).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: u64 = 1_000_000;
    const ONE_PERCENT: u32 = 10_000;

    /// Ticks of `always` and `dear` cost until `end_ns`; the CPU time that was spent.
    fn run(budget: &mut Budget, asked_ns: u64, cost: (u64, u64), end_ns: u64) -> (u64, u64) {
        let (mut now_ns, mut spent_ns, mut ticks) = (0, 0, 0);
        while now_ns < end_ns {
            budget.spend(now_ns, cost.0 + cost.1, cost.1);
            spent_ns += cost.0 + cost.1;
            ticks += 1;
            now_ns += budget.interval_ns(asked_ns);
        }
        (spent_ns, ticks)
    }

    #[test]
    fn a_cheap_tick_keeps_the_interval_and_a_dear_one_stretches_it() {
        let mut budget = Budget::new(ONE_PERCENT, 0);
        run(&mut budget, 50 * MS, (MS / 10, 0), 10_000 * MS);
        assert_eq!(budget.interval_ns(50 * MS), 50 * MS);
        let mut budget = Budget::new(ONE_PERCENT, 0);
        run(&mut budget, 50 * MS, (2 * MS, 0), 10_000 * MS);
        assert_eq!(budget.interval_ns(50 * MS), 200 * MS);
    }

    #[test]
    fn a_single_dear_tick_does_not_slow_the_rest() {
        let mut budget = Budget::new(ONE_PERCENT, 0);
        run(&mut budget, 50 * MS, (MS / 10, 0), 1_000 * MS);
        budget.spend(1_000 * MS, 2 * MS, 0);
        assert_eq!(budget.interval_ns(50 * MS), 50 * MS);
    }

    #[test]
    fn savings_pay_for_a_closer_look_and_are_bounded() {
        let mut budget = Budget::new(ONE_PERCENT, 0);
        budget.spend(3_600_000 * MS, 0, 0);
        assert!(budget.affords(299 * MS) && !budget.affords(300 * MS));
        budget.spend(3_600_000 * MS, 250 * MS, 250 * MS);
        assert!(budget.affords(49 * MS) && !budget.affords(51 * MS));
        budget.spend(3_600_000 * MS, 60 * MS, 60 * MS);
        assert_eq!(budget.interval_ns(50 * MS), 1_000 * MS, "a debt of 10 ms is a second's wait");
    }

    proptest! {
        /// Whatever the ticks cost, no more than the budget and the savings is spent, but for the
        /// last tick.
        #[test]
        fn the_budget_is_kept(
            ppm in 100_u32..100_000, always in 1_000_u64..20_000_000, dear in 0_u64..20_000_000,
        ) {
            let end_ns = 600_000 * MS;
            let mut budget = Budget::new(ppm, 0);
            let (spent_ns, _) = run(&mut budget, 10 * MS, (always, dear), end_ns);
            let earned_ns = end_ns / PPM * u64::from(ppm);
            let saved_ns = SAVED_NS / PPM * u64::from(ppm);
            // A tick that costs more than ten seconds earn cannot be waited for in full.
            prop_assume!(budget.time_for(always + dear) <= INTERVAL_MAX_NS);
            prop_assert!(
                spent_ns <= earned_ns + saved_ns + 2 * (always + dear),
                "{spent_ns} of {earned_ns} and {saved_ns}"
            );
        }
    }
}
