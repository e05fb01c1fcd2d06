//! Reads, and what they cost.

use stallscope_probes::sample::{ProbeCostRaw, ProbeId};
use stallscope_probes::{Probe, Reading};

use crate::watch::budget::Budget;
use crate::watch::clock::{now_ns, thread_cpu_ns};
use crate::watch::pace::Pace;

/// The paces of the probes that are not read at every tick, and what they took in this one.
#[derive(Debug)]
pub(super) struct Paces {
    paces: Vec<Paced>,
    dear_ns: u64,
}

#[derive(Debug)]
struct Paced {
    probe: ProbeId,
    pace: Pace,
    /// On suspicion not oftener than this, ns.
    hurry_ns: u64,
    begin_ns: u64,
}

const MS: u64 = 1_000_000;

/// A tick comes a little early or late: half a millisecond must not cost a whole tick.
const SLACK_NS: u64 = MS / 2;

/// Per probe: every how often at most, what it may take of the budget, percent, and every how often
/// at most on suspicion. The shares together leave a third of it to what is read at every tick, to
/// judging, and to savings.
const PACES: [(ProbeId, u64, u64, u64); 11] = [
    // At every tick as long as they are as cheap as they should be.
    (ProbeId::Listeners, 0, 15, 0),
    (ProbeId::Threads, 0, 20, 0),
    (ProbeId::FdCensus, 250 * MS, 5, 0),
    // The walk alone takes half a millisecond: at every tick it would use up the savings within half
    // a minute, and a stall that lasts longer would be looked at once a second.
    (ProbeId::Connections, 400 * MS, 5, 200 * MS),
    (ProbeId::Clients, 400 * MS, 3, 200 * MS),
    (ProbeId::Peers, 500 * MS, 3, 200 * MS),
    // Takes the ring's lock: never oftener than this unless something is wrong.
    (ProbeId::RingFdinfo, 2_000 * MS, 3, 0),
    (ProbeId::Counters, 500 * MS, 5, 0),
    (ProbeId::Cgroup, 500 * MS, 3, 100 * MS),
    (ProbeId::Tables, 1_000 * MS, 2, 250 * MS),
    // Takes the mutex of the instance that the event loop waits on.
    (ProbeId::Epolls, 500 * MS, 2, 500 * MS),
];

/// On suspicion a probe may take one part in this many of the time, while there are savings.
const SUSPICIOUS_REST: u64 = 20;

/// Whether a read is due, and who asks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ask<'a> {
    pub suspicious: bool,
    pub budget: &'a Budget,
}

impl Paces {
    pub(super) fn new() -> Self {
        let paces = PACES.iter().map(|(probe, every_ns, share, hurry_ns)| Paced {
            probe: *probe,
            pace: Pace::new(*every_ns, *share),
            hurry_ns: *hurry_ns,
            begin_ns: 0,
        });
        Self { paces: paces.collect(), dear_ns: 0 }
    }

    /// A tick begins.
    pub(super) const fn begin_tick(&mut self) {
        self.dear_ns = 0;
    }

    /// CPU time that paced reads took in this tick, ns.
    pub(super) const fn dear_ns(&self) -> u64 {
        self.dear_ns
    }

    pub(super) fn is_due(&self, probe: ProbeId, ask: Ask<'_>) -> bool {
        let Some(paced) = self.paces.iter().find(|paced| paced.probe == probe) else {
            return true;
        };
        let now_ns = now_ns();
        if !ask.suspicious {
            return paced.pace.is_due(now_ns);
        }
        let since_ns = now_ns.saturating_sub(paced.begin_ns).saturating_add(SLACK_NS);
        since_ns >= paced.hurry_ns
            && paced.pace.is_due_on_suspicion(now_ns, ask.budget, SUSPICIOUS_REST)
    }

    /// Reads, and paces the probe by what that cost.
    pub(super) fn read<T>(
        &mut self,
        probe: ProbeId,
        ask: Ask<'_>,
        read: impl FnOnce() -> Reading<T>,
    ) -> Probe<T> {
        let (read, cost_ns) = costed(|| timed(read));
        self.pay(cost_ns);
        self.was_read(probe, ask, read.begin_ns, cost_ns);
        read
    }

    /// Paces a probe by what a read that began at `begin_ns` cost in all.
    pub(super) fn was_read(&mut self, probe: ProbeId, ask: Ask<'_>, begin_ns: u64, cost_ns: u64) {
        if let Some(paced) = self.paces.iter_mut().find(|paced| paced.probe == probe) {
            paced.pace.was_read(begin_ns, cost_ns, ask.budget);
            paced.begin_ns = begin_ns;
        }
    }

    /// Notes CPU time that a paced read took in this tick.
    pub(super) const fn pay(&mut self, cost_ns: u64) {
        self.dear_ns = self.dear_ns.saturating_add(cost_ns);
    }

    pub(super) fn costs(&self) -> Vec<ProbeCostRaw> {
        let read = self.paces.iter().filter(|paced| paced.pace.cost_ns() > 0);
        let cost = |paced: &Paced| ProbeCostRaw {
            probe: paced.probe,
            cost_ns: paced.pace.cost_ns(),
            every_ns: paced.pace.present_every_ns(),
        };
        read.map(cost).collect()
    }
}

/// Does `work`, and says what CPU time it cost, ns.
pub(super) fn costed<T>(work: impl FnOnce() -> T) -> (T, u64) {
    let before_ns = thread_cpu_ns();
    let done = work();
    (done, thread_cpu_ns().saturating_sub(before_ns))
}

/// Reads, and stamps begin and end.
pub(super) fn timed<T>(read: impl FnOnce() -> Reading<T>) -> Probe<T> {
    let begin_ns = now_ns();
    let reading = read();
    Probe { begin_ns, end_ns: now_ns(), reading }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suspicion_hurries_a_cheap_probe_but_not_beyond_its_own_pace() {
        let budget = Budget::new(10_000, 0);
        let (calm, hurried) = (false, true);
        let ask = |suspicious| Ask { suspicious, budget: &budget };
        let mut paces = Paces::new();
        assert!(paces.is_due(ProbeId::Epolls, ask(hurried)), "never read");
        let cost_ns = MS / 100;
        // Since the last read, what asks, whether it is due.
        for (probe, ago_ns, suspicious, due) in [
            (ProbeId::Connections, 350 * MS, calm, false),
            (ProbeId::Connections, 450 * MS, calm, true),
            (ProbeId::Connections, 150 * MS, hurried, false),
            (ProbeId::Connections, 200 * MS, hurried, true),
            (ProbeId::Epolls, 400 * MS, hurried, false),
            (ProbeId::Epolls, 500 * MS, hurried, true),
            (ProbeId::Listeners, 10 * MS, hurried, true),
        ] {
            let begin_ns = now_ns().saturating_sub(ago_ns);
            paces.was_read(probe, ask(calm), begin_ns, cost_ns);
            assert_eq!(paces.is_due(probe, ask(suspicious)), due, "{probe:?} {ago_ns}");
        }
    }

    #[test]
    fn the_shares_leave_something_to_what_is_read_at_every_tick() {
        let shares: u64 = PACES.iter().map(|(_, _, share, _)| share).sum();
        assert!(shares <= 67, "{shares} percent");
    }
}
