//! From (previous, current) raw sample to rates, head room and ratios. Pure: no clock, no I/O.

pub mod answers;
mod base;
mod build;
pub mod call;
pub mod peers;
mod resources;
pub mod syscall;
pub mod threads;
pub mod tiers;
mod watcher;

use std::net::SocketAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use stallscope_probes::Reading;
use stallscope_probes::sample::{
    ActiveRaw, ArmedRaw, EpollRaw, FdKindsRaw, FdLimitRaw, HeartbeatRaw, Holder, RingSource,
    RingState, ServedRaw, SyscallRaw, TablesRaw, TaskState,
};

pub use build::ModelBuilder;
pub use peers::PeerModel;
pub use resources::{CgroupModel, PressureModel, StallShare};
use tiers::{Tier, TierModel, TierStatus};
pub use watcher::{WatcherModel, probe_name};

/// One tick, ready to be judged and drawn. Times are `CLOCK_MONOTONIC` ns.
///
/// Many ticks are kept, so lists are behind `Arc`: ticks share what did not change between them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Model {
    /// Number of the tick.
    pub seq: u64,
    /// When its fast reads had ended.
    pub at_ns: u64,
    /// How late the tick began, ms.
    pub late_ms: f64,
    /// The process.
    pub process: Reading<ProcessModel>,
    /// Its threads, by tid.
    pub threads: Reading<Arc<[Arc<ThreadModel>]>>,
    /// Open fds against their limit.
    pub fds: Reading<FdsModel>,
    /// What the open fds are, from the last census.
    pub fd_kinds: Reading<FdKindsRaw>,
    /// Listening sockets: the target's own, then others on the same ports.
    pub listeners: Reading<Arc<[ListenerModel]>>,
    /// Connections per served port, from the last census.
    pub served: Reading<Arc<[ServedModel]>>,
    /// Ephemeral ports, from the last census.
    pub ports: Reading<PortsModel>,
    /// Connections of the target's own making, from the last look at them.
    pub peers: Reading<Arc<[PeerModel]>>,
    /// io_uring instances, by fd.
    pub rings: Reading<Arc<[RingModel]>>,
    /// TCP counters of the namespace.
    pub tcp: Reading<TcpModel>,
    /// What the heartbeat page says.
    pub app: Reading<AppModel>,
    /// Whether the cgroup is frozen.
    pub frozen: Reading<bool>,
    /// What the cgroup did to the process of late.
    pub cgroup: Reading<CgroupModel>,
    /// Time that tasks waited for want of a resource, of late.
    pub pressure: Reading<PressureModel>,
    /// Tables that it shares with others and that can be full.
    pub tables: Reading<TablesRaw>,
    /// When they were last read, ns: not at every tick.
    pub tables_at_ns: u64,
    /// Its epoll instances, from the last look at them (on suspicion only).
    pub epolls: Reading<Arc<[EpollRaw]>>,
    /// What a connection of the watcher's own met with.
    pub active: Reading<ActiveRaw>,
    /// What watching costs.
    pub watcher: WatcherModel,
    /// Which kinds of evidence there are, and why not the others. In JSON they have a line of
    /// their own, since they hardly ever change.
    #[serde(skip)]
    pub tiers: Arc<[TierModel]>,
}

/// The process as a whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProcessModel {
    /// State of the main thread.
    pub state: TaskState,
    /// CPU time per time: 1.0 is one core.
    pub cpu_cores: Reading<f64>,
    /// Resident memory, bytes.
    pub rss_bytes: u64,
    /// Threads alive.
    pub threads: u64,
}

/// What a thread is for, as far as that can be told from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ThreadRole {
    /// Runs the async runtime (or the event loop) that owns the sockets.
    Runtime,
    /// librdkafka's, or the one that polls its producer.
    Kafka,
    /// io_uring's kernel workers (`iou-wrk-*`, `iou-sqp-*`).
    IoWorker,
    /// Anything else: profilers, consoles, pools, helpers.
    Other,
}

/// One thread.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ThreadModel {
    /// Thread id.
    pub tid: i32,
    /// Name, as the process chose it: hostile text, escape it where it is drawn.
    pub comm: String,
    /// What it is for.
    pub role: ThreadRole,
    /// Scheduler state.
    pub state: TaskState,
    /// User CPU time since it began, clock ticks.
    pub utime_ticks: u64,
    /// Kernel CPU time since it began, clock ticks.
    pub stime_ticks: u64,
    /// Share of the time it was on a CPU, 0 to 1.
    pub cpu_ratio: Reading<f64>,
    /// Share of the time it waited for a CPU, 0 to 1.
    pub delay_ratio: Reading<f64>,
    /// Times a second it was put on a CPU.
    pub switches_per_s: Reading<f64>,
    /// The system call it is in.
    pub syscall: Reading<SyscallRaw>,
    /// The kernel function it sleeps in; empty when it does not.
    pub wchan: Reading<String>,
    /// Kernel stack, innermost first (read on suspicion only).
    pub kernel_stack: Reading<Vec<String>>,
}

/// Open fds against their limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FdsModel {
    /// Open now.
    pub open: u64,
    /// `RLIMIT_NOFILE`.
    pub limit: Reading<FdLimitRaw>,
}

impl FdsModel {
    /// The soft limit; `None` when there is none, or it could not be read.
    pub fn soft_limit(&self) -> Option<u64> {
        self.limit.got().and_then(|limit| limit.soft)
    }

    /// Open over limit, 0 to 1 (above when the limit was lowered); `None` without a limit.
    pub fn used_ratio(&self) -> Option<f64> {
        self.soft_limit().filter(|limit| *limit > 0).map(|limit| self.open as f64 / limit as f64)
    }
}

/// One listening socket.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ListenerModel {
    /// Where it listens.
    pub local: SocketAddr,
    /// Its inode.
    pub inode: u32,
    /// Who holds it.
    pub holder: Holder,
    /// Accept queue: established, not accepted.
    pub queued: u32,
    /// Limit of the accept queue; `/proc/net/tcp` does not tell it.
    pub limit: Option<u32>,
    /// Dropped at this socket since it was made.
    pub drops: Option<u32>,
    /// Dropped since the tick before.
    pub drops_new: Reading<u32>,
}

/// Connections to one port, from the last census.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ServedModel {
    /// As counted.
    pub raw: ServedRaw,
    /// When the census had ended: it is taken seldom, so look how old it is.
    pub at_ns: u64,
}

/// Ephemeral ports of the namespace, from the last census.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PortsModel {
    /// Ports in the range.
    pub size: u32,
    /// Distinct ones in use.
    pub in_use: u32,
    /// Of those sockets, in TIME_WAIT.
    pub time_wait: u32,
    /// The range, both ends included.
    pub range: (u16, u16),
    /// Destinations that use most, most first.
    pub top: Vec<(SocketAddr, u32)>,
}

/// One io_uring.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RingModel {
    /// Its fd in the target.
    pub fd: i32,
    /// When it was read: not at every tick.
    pub at_ns: u64,
    /// Where its counters come from.
    pub source: RingSource,
    /// Its counters; absent (`Locked`) when the kernel left them out of this read.
    pub state: Reading<RingState>,
    /// Operations in flight, from the last read of its fdinfo.
    pub armed: Reading<ArmedRaw>,
    /// Entries the kernel took, per second, between the last two good reads.
    pub submissions_per_s: Reading<f64>,
    /// Completions the application reaped, per second, between the last two good reads.
    pub completions_per_s: Reading<f64>,
}

impl RingModel {
    /// The kind of evidence its counters are.
    pub const fn tier(&self) -> Tier {
        match self.source {
            RingSource::Memory { .. } => Tier::RingMemory,
            RingSource::Fdinfo(_) => Tier::RingFdinfo,
        }
    }
}

/// TCP counters of the namespace, as differences to the tick before.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TcpModel {
    /// Accept queue overflows.
    pub listen_overflows_new: Option<u64>,
    /// Drops at listeners.
    pub listen_drops_new: Option<u64>,
    /// Connections that reached some accept queue.
    pub passive_opens_new: Option<u64>,
    /// Connections begun.
    pub active_opens_new: Option<u64>,
    /// Resets sent.
    pub out_rsts_new: Option<u64>,
    /// Segments sent again.
    pub retrans_segs_new: Option<u64>,
    /// SYNs dropped because too many handshakes were under way.
    pub req_q_full_drops_new: Option<u64>,
    /// The same, answered with a SYN cookie instead.
    pub req_q_full_cookies_new: Option<u64>,
}

/// What the server says of itself through its heartbeat page.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AppModel {
    /// The page as read.
    pub raw: HeartbeatRaw,
    /// Age of the runtime's last beat, ms.
    pub beat_age_ms: Option<f64>,
    /// Connections accepted per second.
    pub accepts_per_s: Reading<f64>,
    /// Requests parsed per second.
    pub requests_per_s: Reading<f64>,
    /// Responses written per second.
    pub responses_per_s: Reading<f64>,
    /// Events acknowledged by the broker per second.
    pub delivered_per_s: Reading<f64>,
}

impl Model {
    /// The target's own listeners.
    pub fn own_listeners(&self) -> impl Iterator<Item = &ListenerModel> {
        let listeners = self.listeners.got().into_iter().flat_map(|listeners| listeners.iter());
        listeners.filter(|listener| listener.holder != Holder::Other)
    }

    /// Connections waiting in the target's accept queues; `None` when they could not be read.
    pub fn queued(&self) -> Option<u64> {
        self.listeners.got()?;
        Some(self.own_listeners().map(|listener| u64::from(listener.queued)).sum())
    }

    /// Its threads; none where they could not be read.
    pub fn all_threads(&self) -> impl Iterator<Item = &ThreadModel> {
        self.threads.got().into_iter().flat_map(|threads| threads.iter()).map(Arc::as_ref)
    }

    /// One of its threads.
    pub fn thread(&self, tid: i32) -> Option<&ThreadModel> {
        self.all_threads().find(|thread| thread.tid == tid)
    }

    /// The threads that run the event loop.
    pub fn runtime_threads(&self) -> impl Iterator<Item = &ThreadModel> {
        self.all_threads().filter(|thread| thread.role == ThreadRole::Runtime)
    }

    /// Its rings; none where they could not be listed.
    pub fn all_rings(&self) -> &[RingModel] {
        self.rings.got().map_or(&[], |rings| rings)
    }

    /// One of its rings.
    pub fn ring(&self, fd: i32) -> Option<&RingModel> {
        self.all_rings().iter().find(|ring| ring.fd == fd)
    }

    /// Connections to its ports; none where they could not be counted.
    pub fn all_served(&self) -> &[ServedModel] {
        self.served.got().map_or(&[], |served| served)
    }

    /// Connections of its own making; none where they could not be listed.
    pub fn all_peers(&self) -> &[PeerModel] {
        self.peers.got().map_or(&[], |peers| peers)
    }

    /// How one kind of evidence stands.
    pub fn tier(&self, tier: Tier) -> Option<&TierStatus> {
        self.tiers.iter().find(|model| model.tier == tier).map(|model| &model.status)
    }
}

#[cfg(test)]
mod memory_tests;
