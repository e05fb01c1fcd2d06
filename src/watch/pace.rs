//! When a probe is read next: at every tick when it is cheap, seldomer the dearer it is.

/// A tick comes a little early or late: half a millisecond must not cost a whole tick.
const SLACK_NS: u64 = 500_000;

/// Paces one probe by what its last read cost.
///
/// Cost is CPU time: on a machine that is short of CPUs, time that passed while the watcher waited
/// for one was no burden on anybody, and must not make it look away just when it matters.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    every_ns: u64,
    /// After a read that cost `c`, at least `c` times this passes: the inverse of its duty.
    rest: u64,
    due_ns: u64,
}

impl Pace {
    /// At most every `every_ns`, and never more than one part in `rest` of the time.
    pub const fn new(every_ns: u64, rest: u64) -> Self {
        Self { every_ns, rest, due_ns: 0 }
    }

    /// Whether it is due.
    pub const fn is_due(&self, now_ns: u64) -> bool {
        now_ns >= self.due_ns
    }

    /// Records a read.
    pub fn was_read(&mut self, begin_ns: u64, cost_ns: u64) {
        let wait_ns = self.every_ns.max(cost_ns.saturating_mul(self.rest));
        self.due_ns = begin_ns.saturating_add(wait_ns).saturating_sub(SLACK_NS);
    }

    /// Brings the next read forward: no later than `every_ns` and one part in `rest` allow.
    pub fn hurry(&mut self, last_begin_ns: u64, last_cost_ns: u64, every_ns: u64, rest: u64) {
        let wait_ns = every_ns.max(last_cost_ns.saturating_mul(rest));
        self.due_ns = self.due_ns.min(last_begin_ns.saturating_add(wait_ns));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dear_probe_is_read_seldomer_and_hurries_on_suspicion() {
        let ms = 1_000_000;
        let mut pace = Pace::new(50 * ms, 100);
        assert!(pace.is_due(0));
        pace.was_read(0, ms / 10);
        assert!(pace.is_due(50 * ms) && !pace.is_due(49 * ms));
        pace.was_read(0, 5 * ms);
        assert!(!pace.is_due(400 * ms) && pace.is_due(500 * ms));
        pace.hurry(0, 5 * ms, 50 * ms, 20);
        assert!(pace.is_due(100 * ms) && !pace.is_due(99 * ms));
    }
}
