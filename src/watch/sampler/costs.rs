//! Reads, and what they cost.

use stallscope_probes::sample::{ProbeCostRaw, ProbeId};
use stallscope_probes::{Probe, Reading};

use crate::watch::budget::Budget;
use crate::watch::clock::{now_ns, thread_cpu_ns};
use crate::watch::pace::Pace;

/// The paces of the probes that are not read at every tick, and what they took in this one.
#[derive(Debug)]
pub(super) struct Paces {
    paces: Vec<(ProbeId, Pace)>,
    dear_ns: u64,
}

const MS: u64 = 1_000_000;

/// Per probe: every how often at most, and what it may take of the budget, percent. Together they
/// leave more than half of it to what is read at every tick, to judging, and to savings.
const PACES: [(ProbeId, u64, u64); 8] = [
    // At every tick as long as they are as cheap as they should be.
    (ProbeId::Listeners, 0, 15),
    (ProbeId::Threads, 0, 20),
    (ProbeId::FdCensus, 250 * MS, 5),
    (ProbeId::Connections, 1_000 * MS, 5),
    (ProbeId::Peers, 500 * MS, 3),
    // Takes the ring's lock: never oftener than this unless something is wrong.
    (ProbeId::RingFdinfo, 2_000 * MS, 3),
    (ProbeId::Counters, 500 * MS, 5),
    (ProbeId::Cgroup, 500 * MS, 3),
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
        let paces =
            PACES.iter().map(|(probe, every_ns, share)| (*probe, Pace::new(*every_ns, *share)));
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
        let Some(pace) = self.find(probe) else { return true };
        let now_ns = now_ns();
        if ask.suspicious {
            pace.is_due_on_suspicion(now_ns, ask.budget, SUSPICIOUS_REST)
        } else {
            pace.is_due(now_ns)
        }
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
        if let Some((_, pace)) = self.paces.iter_mut().find(|(known, _)| *known == probe) {
            pace.was_read(begin_ns, cost_ns, ask.budget);
        }
    }

    /// Notes CPU time that a paced read took in this tick.
    pub(super) const fn pay(&mut self, cost_ns: u64) {
        self.dear_ns = self.dear_ns.saturating_add(cost_ns);
    }

    pub(super) fn costs(&self) -> Vec<ProbeCostRaw> {
        let read = self.paces.iter().filter(|(_, pace)| pace.cost_ns() > 0);
        let cost = |(probe, pace): &(ProbeId, Pace)| ProbeCostRaw {
            probe: *probe,
            cost_ns: pace.cost_ns(),
            every_ns: pace.present_every_ns(),
        };
        read.map(cost).collect()
    }

    fn find(&self, probe: ProbeId) -> Option<&Pace> {
        self.paces.iter().find(|(known, _)| *known == probe).map(|(_, pace)| pace)
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
