//! The raw sample: what the kernel said at one tick, before any arithmetic.
//!
//! Counters are as the kernel gives them (wrapping where it says so); rates and ratios are made
//! in the layer above. Every list has a bound, named where it is filled.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::reading::{Probe, Reading};

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
    /// Its cgroup.
    pub cgroup: Probe<CgroupRaw>,
}

/// Threads read in detail per sample.
pub const THREADS_MAX: usize = 64;
/// Rings read per sample.
pub const RINGS_MAX: usize = 32;
/// Listeners kept per sample.
pub const LISTENERS_MAX: usize = 64;
/// Destinations kept in [`PortsRaw::top`].
pub const DESTINATIONS_MAX: usize = 8;
/// Entries not yet submitted that are kept per ring.
pub const PENDING_OPS_MAX: usize = 32;

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

/// From `/proc/PID/task/TID/{stat,schedstat,syscall,wchan,stack}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreadRaw {
    /// Thread id.
    pub tid: i32,
    /// Thread name, as the process chose it: hostile text.
    pub comm: String,
    /// Scheduler state.
    pub state: TaskState,
    /// User CPU time, clock ticks.
    pub utime_ticks: u64,
    /// Kernel CPU time, clock ticks.
    pub stime_ticks: u64,
    /// Time on a CPU, ns, and time waiting for one (`schedstat`).
    pub sched: Reading<SchedRaw>,
    /// The system call the thread is in.
    pub syscall: Reading<SyscallRaw>,
    /// The kernel function it sleeps in; empty when it does not sleep.
    pub wchan: Reading<String>,
    /// Its kernel stack, innermost first; read only on suspicion.
    pub kernel_stack: Reading<Vec<String>>,
}

/// From `/proc/PID/task/TID/schedstat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchedRaw {
    /// Time spent on a CPU, ns.
    pub run_ns: u64,
    /// Time spent runnable but waiting for a CPU, ns.
    pub delay_ns: u64,
    /// Times the thread was put on a CPU.
    pub timeslices: u64,
}

/// From `/proc/PID/task/TID/syscall`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SyscallRaw {
    /// Runnable: not inside a system call as far as the kernel says.
    Running,
    /// Blocked, but not in a system call (page fault, signal stop).
    NotInSyscall,
    /// In this system call (number of the machine's own table), with its first argument.
    In {
        /// System call number.
        nr: i64,
        /// First argument (the fd, for most waits).
        arg0: u64,
    },
}

/// Open fds and their limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FdsRaw {
    /// Open now.
    pub open: u64,
    /// Soft `RLIMIT_NOFILE`; absent when unlimited or unreadable.
    pub limit_soft: Option<u64>,
    /// Hard `RLIMIT_NOFILE`.
    pub limit_hard: Option<u64>,
    /// Whether `open` came from `st_size` of `/proc/PID/fd` (6.2+) rather than from a listing.
    pub from_st_size: bool,
}

/// Who holds a listening socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Holder {
    /// The watched process has an fd for it.
    Target,
    /// Another process listens on the same port.
    Other,
    /// The target's fds could not be listed.
    Unknown,
}

/// One listening socket, from `INET_DIAG` (`sock_diag(7)`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerRaw {
    /// Where it listens.
    pub local: SocketAddr,
    /// Its inode: tells `SO_REUSEPORT` siblings apart.
    pub inode: u32,
    /// Accept queue: connections established but not accepted (`ss -l` Recv-Q).
    pub queued: u32,
    /// Accept queue limit: the smaller of backlog and somaxconn (`ss -l` Send-Q). The queue is
    /// full at limit + 1.
    pub limit: u32,
    /// Connections and SYNs dropped at this socket since it was made.
    pub drops: Option<u32>,
    /// Who holds it.
    pub holder: Holder,
}

/// A census of the namespace's TCP sockets, from one dump. Dear: taken seldom, oftener on suspicion.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketsRaw {
    /// Per port that the target listens on.
    pub served: Vec<ServedRaw>,
    /// Ephemeral ports.
    pub ports: PortsRaw,
    /// Sockets seen in the dump.
    pub total: u32,
    /// Whether the dump was cut at its bound.
    pub truncated: bool,
}

/// Connections to one port the target listens on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServedRaw {
    /// The port.
    pub port: u16,
    /// ESTABLISHED or `CLOSE_WAIT` and accepted (they have an inode).
    pub accepted_open: u32,
    /// ESTABLISHED and not accepted yet (no inode).
    pub queued: u32,
    /// Accepted connections in `CLOSE_WAIT`: the peer has closed, the server has not.
    pub close_wait: u32,
    /// `SYN_RECV`: the handshake is not done.
    pub syn_recv: u32,
    /// Accepted connections with unread bytes.
    pub unread_sockets: u32,
    /// Their unread bytes.
    pub unread_bytes: u64,
    /// Bytes written and not acknowledged, all accepted connections.
    pub unsent_bytes: u64,
    /// Order-independent hash over (inode, unread, unsent) of the accepted connections: equal in
    /// two dumps when nothing was accepted, closed, read or written in between.
    pub fingerprint: u64,
    /// Connections that were seen accepted for the first time, since watching began.
    pub accepted_seen: u64,
    /// Connections that were seen accepted before and are gone, since watching began.
    pub closed_seen: u64,
}

/// Ephemeral ports of the namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortsRaw {
    /// `net.ipv4.ip_local_port_range`, both ends included.
    pub range: (u16, u16),
    /// Distinct local ports within the range that some TCP socket uses, `TIME_WAIT` included.
    pub in_use: u32,
    /// `TIME_WAIT` sockets with a local port in the range.
    pub time_wait: u32,
    /// Destinations that use most of the range, most first (at most [`DESTINATIONS_MAX`]). Only
    /// sockets of one (source, destination) share the range, so this is the real head room.
    pub top: Vec<(SocketAddr, u32)>,
}

/// One `io_uring`, from `/proc/PID/fdinfo/FD`. Heads and tails are u32 and wrap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RingRaw {
    /// The fd of the ring in the target.
    pub fd: i32,
    /// The counters; absent (`Locked`) when the kernel left the section out.
    pub state: Reading<RingState>,
}

/// The counters of one ring.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RingState {
    /// Submission queue entries.
    pub sq_entries: u32,
    /// Next entry the kernel will take.
    pub sq_head: u32,
    /// Next entry the application will fill.
    pub sq_tail: u32,
    /// Completion queue entries.
    pub cq_entries: u32,
    /// Next completion the application will reap.
    pub cq_head: u32,
    /// Next completion the kernel will post.
    pub cq_tail: u32,
    /// Whether the kernel polls the submission queue itself (SQPOLL).
    pub sqpoll: bool,
    /// Completions that did not fit the queue and wait in the overflow list.
    pub overflow: u32,
    /// Armed operations by opcode number (13 accept, 22 read, 26 send, 27 recv).
    pub armed: Vec<(u8, u32)>,
    /// Entries prepared and not submitted: opcode and fd (at most [`PENDING_OPS_MAX`]).
    pub pending: Vec<(String, i32)>,
    /// Results below zero among completions not reaped: errno (positive) and how many.
    pub failed: Vec<(i32, u32)>,
}

impl RingState {
    /// Entries prepared and not yet submitted.
    pub const fn sq_pending(&self) -> u32 {
        self.sq_tail.wrapping_sub(self.sq_head)
    }

    /// Completions posted and not yet reaped.
    pub const fn cq_pending(&self) -> u32 {
        self.cq_tail.wrapping_sub(self.cq_head)
    }

    /// Armed operations of one opcode.
    pub fn armed_of(&self, opcode: u8) -> u32 {
        self.armed
            .iter()
            .filter(|(op, _)| *op == opcode)
            .fold(0, |sum, (_, count)| sum.saturating_add(*count))
    }
}

/// From `/proc/PID/net/{netstat,snmp}`: counters of the whole namespace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TcpRaw {
    /// `TcpExt: ListenOverflows`: an accept queue was full.
    pub listen_overflows: Option<u64>,
    /// `TcpExt: ListenDrops`: SYNs dropped at listeners for any reason.
    pub listen_drops: Option<u64>,
    /// `Tcp: PassiveOpens`: connections that reached some accept queue.
    pub passive_opens: Option<u64>,
    /// `Tcp: ActiveOpens`: connections begun here.
    pub active_opens: Option<u64>,
    /// `Tcp: OutRsts`: resets sent.
    pub out_rsts: Option<u64>,
    /// `Tcp: RetransSegs`: segments sent again.
    pub retrans_segs: Option<u64>,
}

/// From the cgroup v2 of the process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupRaw {
    /// `cgroup.events: frozen`.
    pub frozen: Option<bool>,
    /// `cpu.stat: nr_throttled`.
    pub nr_throttled: Option<u64>,
    /// `cpu.stat: throttled_usec`.
    pub throttled_usec: Option<u64>,
}

/// The heartbeat page as read from outside. Times are `CLOCK_MONOTONIC` ns; 0 on the page means
/// "never", and becomes `None` here. The byte layout is in `docs/heartbeat.md`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeartbeatRaw {
    /// Which server wrote it (`tokio`, `tokio-uring`): hostile text.
    pub stack: String,
    /// Thread that runs the runtime.
    pub runtime_tid: Option<i32>,
    /// Thread that polls the Kafka producer.
    pub kafka_tid: Option<i32>,
    /// Last beat of the runtime's thread.
    pub beat_ns: Option<u64>,
    /// Interval at which that thread means to beat, ns.
    pub beat_every_ns: u64,
    /// Port it serves on.
    pub listen_port: Option<u16>,
    /// Last successful accept.
    pub last_accept_ns: Option<u64>,
    /// Last response written.
    pub last_response_ns: Option<u64>,
    /// Connections accepted.
    pub accepted: u64,
    /// Connections open now.
    pub open: u64,
    /// Requests parsed.
    pub requests: u64,
    /// Responses written.
    pub responses: u64,
    /// Accept calls that failed.
    pub accept_errors: u64,
    /// errno of the last one.
    pub accept_errno: Option<i32>,
    /// Events queued to the producer.
    pub queued: u64,
    /// Last beat of the Kafka thread.
    pub kafka_beat_ns: Option<u64>,
    /// Events the broker acknowledged.
    pub delivered: u64,
    /// Events that could not be delivered.
    pub failed: u64,
    /// Messages in the producer's queue.
    pub producer_queue: u64,
    /// A fault made on purpose: which, and when.
    pub fault: Option<FaultRaw>,
}

/// A fault made on purpose, recorded by the process that made it at the instant it took hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultRaw {
    /// Which.
    pub fault: Fault,
    /// When it took hold.
    pub begin_ns: u64,
    /// When it was undone.
    pub end_ns: Option<u64>,
}

/// Faults the instrumented servers can make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// An always-ready task on the tokio-uring runtime.
    SqNotFlushed,
    /// A low fd limit and connections that are never closed.
    FdExhausted,
    /// The runtime's thread in a blocking call.
    RuntimeBlocked,
    /// SIGSTOP to itself.
    ProcessStopped,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 4] =
        [Self::SqNotFlushed, Self::FdExhausted, Self::RuntimeBlocked, Self::ProcessStopped];

    /// The number on the heartbeat page (0 means none).
    pub const fn code(self) -> u64 {
        match self {
            Self::SqNotFlushed => 1,
            Self::FdExhausted => 2,
            Self::RuntimeBlocked => 3,
            Self::ProcessStopped => 4,
        }
    }

    /// From the number on the heartbeat page.
    pub const fn from_code(code: u64) -> Option<Self> {
        match code {
            1 => Some(Self::SqNotFlushed),
            2 => Some(Self::FdExhausted),
            3 => Some(Self::RuntimeBlocked),
            4 => Some(Self::ProcessStopped),
            _ => None,
        }
    }

    /// The id, as on the command line and in verdicts.
    pub const fn id(self) -> &'static str {
        match self {
            Self::SqNotFlushed => "sq-not-flushed",
            Self::FdExhausted => "fd-exhausted",
            Self::RuntimeBlocked => "runtime-blocked",
            Self::ProcessStopped => "process-stopped",
        }
    }
}
