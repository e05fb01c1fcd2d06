//! What the host allows the process: cgroup and pressure.

use serde::{Deserialize, Serialize};

/// From the cgroup of the process: version 2, or the controllers `cpu` and `freezer` of version 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupRaw {
    /// `cgroup.events: frozen`, or `freezer.state` of version 1.
    pub frozen: Option<bool>,
    /// `cpu.stat: nr_throttled`.
    pub nr_throttled: Option<u64>,
    /// `cpu.stat: throttled_usec` (`throttled_time`, in ns, of version 1).
    pub throttled_usec: Option<u64>,
    /// `cpu.stat: nr_periods`.
    pub nr_periods: Option<u64>,
    /// `memory.events: high`: slowed down for using more than `memory.high`.
    pub memory_high: Option<u64>,
    /// `memory.events: max`: about to go over `memory.max`.
    pub memory_max: Option<u64>,
    /// `memory.events: oom`.
    pub oom: Option<u64>,
    /// `memory.events: oom_kill`.
    pub oom_kill: Option<u64>,
}

/// Pressure stall information (`Documentation/accounting/psi.rst`): time that tasks waited, since
/// boot, or since the cgroup was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PressureRaw {
    /// Whose.
    pub scope: PressureScope,
    /// For a CPU.
    pub cpu: Option<StallTimeRaw>,
    /// For memory.
    pub memory: Option<StallTimeRaw>,
    /// For a disk.
    pub io: Option<StallTimeRaw>,
}

/// Whose pressure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PressureScope {
    /// The target's cgroup.
    Cgroup,
    /// The whole machine (`/proc/pressure`).
    Machine,
}

/// `total=` of the two lines of a pressure file, microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StallTimeRaw {
    /// At least one task waited.
    pub some_us: u64,
    /// All tasks that were not idle waited; not every kernel says it of CPUs.
    pub full_us: Option<u64>,
}
