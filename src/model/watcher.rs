//! What watching costs: the watcher's own CPU time, memory, fds and pace.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use stallscope_probes::sample::{ProbeCostRaw, ProbeId, WatcherRaw};
use stallscope_probes::{Reading, Why};

use super::base::Base;
use super::build::{no_previous, restarted, share};

/// The watcher itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WatcherModel {
    /// CPU time per time of its whole process, over at least a second: 1.0 is one core.
    pub cpu_ratio: Reading<f64>,
    /// The same of the thread that samples and judges.
    pub sampling_cpu_ratio: Reading<f64>,
    /// Resident memory, bytes; `None` until it was read.
    pub rss_bytes: Option<u64>,
    /// Open fds; `None` until they were counted.
    pub open_fds: Option<u64>,
    /// Time between ticks now, ms.
    pub interval_ms: f64,
    /// Time between ticks that was asked for, ms.
    pub interval_asked_ms: f64,
    /// CPU time per time it may take, 0 when there is no budget.
    pub budget_ratio: f64,
    /// Ticks that were due and did not take place, since it began.
    pub ticks_missed: u64,
    /// What the last read of each probe cost, and how often it is read.
    pub costs: Arc<[ProbeCostRaw]>,
}

impl WatcherModel {
    /// Whether it looks less often than was asked for, to keep its budget.
    pub fn slowed(&self) -> bool {
        self.interval_asked_ms > 0.0 && self.interval_ms > self.interval_asked_ms
    }

    /// Ticks a second; `None` before the first interval is known.
    pub fn ticks_per_s(&self) -> Option<f64> {
        (self.interval_ms > 0.0).then(|| 1e3 / self.interval_ms)
    }
}

/// A probe by what it reads, in a few words.
pub const fn probe_name(probe: ProbeId) -> &'static str {
    match probe {
        ProbeId::Fast => "process, fds, page, ring memory",
        ProbeId::Listeners => "accept queues",
        ProbeId::Threads => "threads",
        ProbeId::FdCensus => "fd census",
        ProbeId::Connections => "connections",
        ProbeId::Peers => "outgoing connections",
        ProbeId::RingFdinfo => "ring fdinfo",
        ProbeId::Counters => "TCP counters",
        ProbeId::Cgroup => "cgroup, pressure",
        ProbeId::Tables => "shared tables",
        ProbeId::Epolls => "epoll sets",
        ProbeId::Clients => "clients, of many sockets",
    }
}

/// Makes it from the readings of one run.
#[derive(Debug, Default)]
pub(super) struct Watcher {
    base: Base<(u64, u64)>,
    costs: Option<Arc<[ProbeCostRaw]>>,
}

impl Watcher {
    pub(super) fn push(&mut self, at_ns: u64, raw: &WatcherRaw) -> WatcherModel {
        let used = (raw.cpu_ns, raw.sampling_cpu_ns);
        let before = self.base.before(at_ns, &used);
        let ratio = |now_ns: u64, then_ns: fn((u64, u64)) -> u64| match before {
            // Whoever took this sample has used some.
            _ if now_ns == 0 => Reading::absent(Why::NotSampled, "its CPU time was not measured"),
            None => no_previous(),
            Some((s, then)) => match now_ns.checked_sub(then_ns(then)) {
                Some(more_ns) => Reading::Got(more_ns as f64 / 1e9 / s),
                None => restarted(),
            },
        };
        WatcherModel {
            cpu_ratio: ratio(raw.cpu_ns, |(all_ns, _)| all_ns),
            sampling_cpu_ratio: ratio(raw.sampling_cpu_ns, |(_, sampling_ns)| sampling_ns),
            rss_bytes: raw.rss_bytes,
            open_fds: raw.open_fds,
            interval_ms: raw.interval_ns as f64 / 1e6,
            interval_asked_ms: raw.interval_asked_ns as f64 / 1e6,
            budget_ratio: f64::from(raw.budget_ppm) / 1e6,
            ticks_missed: raw.ticks_missed,
            costs: share(&mut self.costs, raw.costs.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    fn raw(cpu_ns: u64, sampling_cpu_ns: u64) -> WatcherRaw {
        WatcherRaw {
            cpu_ns,
            sampling_cpu_ns,
            interval_asked_ns: 50_000_000,
            interval_ns: 50_000_000,
            budget_ppm: 10_000,
            ..WatcherRaw::default()
        }
    }

    #[test]
    fn its_cpu_time_is_taken_over_a_second() {
        let mut watcher = Watcher::default();
        assert_eq!(watcher.push(S, &raw(100, 50)).cpu_ratio, no_previous());
        assert_eq!(watcher.push(S + S / 2, &raw(200, 90)).cpu_ratio, no_previous());
        let model = watcher.push(2 * S, &raw(100 + S / 100, 50 + S / 200));
        assert_eq!(
            (model.cpu_ratio, model.sampling_cpu_ratio),
            (Reading::Got(0.01), Reading::Got(0.005))
        );
        assert_eq!(watcher.push(3 * S, &raw(7, 7)).cpu_ratio, restarted());
        let unmeasured = watcher.push(4 * S, &raw(0, 0)).cpu_ratio;
        assert_eq!(unmeasured.absence().map(|absence| absence.why), Some(Why::NotSampled));
    }

    #[test]
    fn it_is_slowed_when_its_interval_is_longer_than_was_asked_for() {
        for (asked_ns, now_ns, slowed) in
            [(50, 50, false), (50, 100, true), (50, 25, false), (0, 100, false)]
        {
            let raw = WatcherRaw {
                interval_asked_ns: asked_ns * 1_000_000,
                interval_ns: now_ns * 1_000_000,
                ..raw(0, 0)
            };
            assert_eq!(Watcher::default().push(S, &raw).slowed(), slowed, "{asked_ns} {now_ns}");
        }
        let model = Watcher::default().push(S, &raw(0, 0));
        assert_eq!((model.ticks_per_s(), model.budget_ratio), (Some(20.0), 0.01));
        assert_eq!(Watcher::default().push(S, &WatcherRaw::default()).ticks_per_s(), None);
    }
}
