//! The raw sample: what the kernel said at one tick, before any arithmetic.
//!
//! Counters are as the kernel gives them (wrapping where it says so); rates and ratios are made
//! in the layer above. Every list has a bound, named where it is filled.

mod active;
mod epoll;
mod fds;
mod heartbeat;
mod host;
mod network;
mod ring;
mod tables;
mod threads;
mod watcher;

use serde::{Deserialize, Serialize};

pub use active::{ActiveHow, ActiveOutcome, ActivePlan, ActiveRaw};
pub use epoll::EpollRaw;
pub use fds::{FdKindsRaw, FdLimitRaw, FdsRaw};
pub use heartbeat::{Fault, FaultRaw, HeartbeatRaw};
pub use host::{CgroupRaw, PressureRaw, PressureScope, StallTimeRaw};
pub use network::{
    AnswersRaw, Holder, ListenerRaw, PeerInfoRaw, PeerRaw, PortsRaw, ServedRaw, SocketsRaw, TcpRaw,
    TcpState,
};
pub use ring::{ArmedRaw, RingRaw, RingSource, RingState};
pub use tables::{ConntrackRaw, FileTableRaw, TablesRaw};
pub use threads::{SchedRaw, SwitchesRaw, SyscallRaw, ThreadRaw};
pub use watcher::{ProbeCostRaw, ProbeId, WatcherRaw};

use crate::reading::Probe;

/// Everything read in one tick. Times are `CLOCK_MONOTONIC` nanoseconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Number of the tick, from 0; ticks that the watcher missed leave a gap.
    pub seq: u64,
    /// When this tick was due.
    pub due_ns: u64,
    /// How late its first read began after that: a late watcher must not invent a stall.
    pub late_ns: u64,
    /// The process as a whole.
    pub process: Probe<ProcessRaw>,
    /// Its threads (at most [`THREADS_MAX`], the lowest tids first).
    pub threads: Probe<Vec<ThreadRaw>>,
    /// Its open file descriptors.
    pub fds: Probe<FdsRaw>,
    /// Its listening TCP sockets, and those of others on the same ports.
    pub listeners: Probe<Vec<ListenerRaw>>,
    /// The TCP sockets of its network namespace, summed up.
    pub sockets: Probe<SocketsRaw>,
    /// Its `io_uring` instances (at most [`RINGS_MAX`]).
    pub rings: Probe<Vec<RingRaw>>,
    /// TCP counters of its network namespace.
    pub tcp: Probe<TcpRaw>,
    /// Its heartbeat page, if it keeps one.
    pub heartbeat: Probe<HeartbeatRaw>,
    /// What its open fds are, from the last census of them.
    pub fd_kinds: Probe<FdKindsRaw>,
    /// TCP connections that the target itself has made: to its brokers, databases, peers (at most
    /// [`PEERS_MAX`]).
    pub peers: Probe<Vec<PeerRaw>>,
    /// Its cgroup.
    pub cgroup: Probe<CgroupRaw>,
    /// How long tasks of its cgroup, or of the machine, waited for want of a resource.
    pub pressure: Probe<PressureRaw>,
    /// Tables that it shares with others and that can be full.
    pub tables: Probe<TablesRaw>,
    /// Its epoll instances (at most [`EPOLLS_MAX`]); read on suspicion only.
    pub epolls: Probe<Vec<EpollRaw>>,
    /// What a connection of the watcher's own met with (opt-in).
    pub active: Probe<ActiveRaw>,
    /// The watcher itself.
    pub watcher: WatcherRaw,
}

/// Threads read in detail per sample.
pub const THREADS_MAX: usize = 64;
/// Rings read per sample.
pub const RINGS_MAX: usize = 32;
/// epoll instances read per sample.
pub const EPOLLS_MAX: usize = 16;
/// Listeners kept per sample.
pub const LISTENERS_MAX: usize = 64;
/// Destinations kept in [`PortsRaw::top`].
pub const DESTINATIONS_MAX: usize = 8;
/// Entries not yet submitted that are kept per ring.
pub const PENDING_OPS_MAX: usize = 32;
/// Completions, reaped or not, whose results are looked at per ring.
pub const RECENT_COMPLETIONS_MAX: u32 = 32;
/// Connections of the target's own making that are followed.
pub const PEERS_MAX: usize = 32;

/// The state letter of proc(5), `/proc/PID/stat` field 3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskState {
    /// R: on a CPU, or waiting for one.
    Running,
    /// S: interruptible sleep.
    Sleeping,
    /// D: uninterruptible sleep.
    DiskSleep,
    /// T: stopped by a signal.
    Stopped,
    /// t: stopped by a tracer.
    Tracing,
    /// Z: exited, not reaped.
    Zombie,
    /// X: dead.
    Dead,
    /// I: idle kernel thread.
    Idle,
    /// A letter this version does not know.
    Other(char),
}

impl TaskState {
    /// From the letter in `/proc/PID/stat`.
    pub const fn from_letter(letter: char) -> Self {
        match letter {
            'R' => Self::Running,
            'S' => Self::Sleeping,
            'D' => Self::DiskSleep,
            'T' => Self::Stopped,
            't' => Self::Tracing,
            'Z' => Self::Zombie,
            'X' | 'x' => Self::Dead,
            'I' => Self::Idle,
            other => Self::Other(other),
        }
    }

    /// The letter in `/proc/PID/stat`.
    pub const fn letter(self) -> char {
        match self {
            Self::Running => 'R',
            Self::Sleeping => 'S',
            Self::DiskSleep => 'D',
            Self::Stopped => 'T',
            Self::Tracing => 't',
            Self::Zombie => 'Z',
            Self::Dead => 'X',
            Self::Idle => 'I',
            Self::Other(letter) => letter,
        }
    }
}

/// From `/proc/PID/stat`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessRaw {
    /// State of the main thread.
    pub state: TaskState,
    /// User CPU time of all threads, clock ticks.
    pub utime_ticks: u64,
    /// Kernel CPU time of all threads, clock ticks.
    pub stime_ticks: u64,
    /// Threads alive.
    pub threads: u64,
    /// Resident memory, bytes.
    pub rss_bytes: u64,
    /// Start, clock ticks after boot: tells a re-used pid apart.
    pub start_time_ticks: u64,
}
