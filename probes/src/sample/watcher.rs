//! The watcher itself.

use serde::{Deserialize, Serialize};

/// The watcher's own doing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatcherRaw {
    /// CPU time of its whole process since it began, ns.
    pub cpu_ns: u64,
    /// CPU time of the thread that samples and judges, ns.
    pub sampling_cpu_ns: u64,
    /// Its resident memory, bytes; read seldom.
    pub rss_bytes: Option<u64>,
    /// Its open fds; read seldom.
    pub open_fds: Option<u64>,
    /// Time between ticks that was asked for, ns.
    pub interval_asked_ns: u64,
    /// Time between ticks now, ns: longer when the budget does not allow what was asked for.
    pub interval_ns: u64,
    /// The budget: CPU time per time, in millionths (10,000 is 1 % of a core).
    pub budget_ppm: u32,
    /// Ticks that were due and did not take place, since it began.
    pub ticks_missed: u64,
    /// What the last read of each probe cost.
    pub costs: Vec<ProbeCostRaw>,
}

/// What one probe costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeCostRaw {
    /// Which.
    pub probe: ProbeId,
    /// CPU time of its last read, ns.
    pub cost_ns: u64,
    /// Time between its reads at present, ns.
    pub every_ns: u64,
}

/// The probes, as the watcher paces them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProbeId {
    /// Process, fds, heartbeat page and the rings' memory: read at every tick.
    Fast,
    /// Listening sockets.
    Listeners,
    /// Threads.
    Threads,
    /// What the fds are.
    FdCensus,
    /// Connections and ephemeral ports.
    Connections,
    /// Connections of the target's own making.
    Peers,
    /// fdinfo of the rings.
    RingFdinfo,
    /// TCP counters of the namespace.
    Counters,
    /// cgroup and pressure.
    Cgroup,
    /// Tables of the host and the namespace.
    Tables,
    /// epoll instances.
    Epolls,
    /// Connections of the served ports, of many sockets.
    Clients,
}
