//! The raw sample: what the kernel said at one tick, before any arithmetic.
//!
//! Counters are as the kernel gives them (wrapping where it says so); rates and ratios are made
//! in the layer above. Every list has a bound, named where it is filled.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::reading::{Absence, Probe, Reading};

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
    /// The watcher itself.
    pub watcher: WatcherRaw,
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
    /// How often it gave up its CPU, and how often it was made to (`status`); read seldom.
    pub switches: Reading<SwitchesRaw>,
}

/// From `/proc/PID/task/TID/status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwitchesRaw {
    /// `voluntary_ctxt_switches`: it went to sleep.
    pub voluntary: u64,
    /// `nonvoluntary_ctxt_switches`: it was preempted.
    pub involuntary: u64,
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FdsRaw {
    /// Open now.
    pub open: u64,
    /// `RLIMIT_NOFILE`.
    pub limit: Reading<FdLimitRaw>,
    /// Whether `open` came from `st_size` of `/proc/PID/fd` (6.2+) rather than from a listing.
    pub from_st_size: bool,
}

/// `RLIMIT_NOFILE`; `None` is "unlimited".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FdLimitRaw {
    /// Soft limit: what counts.
    pub soft: Option<u64>,
    /// Hard limit.
    pub hard: Option<u64>,
}

/// What the open fds are, by their links in `/proc/PID/fd`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FdKindsRaw {
    /// Sockets of any family.
    pub sockets: u32,
    /// `io_uring` instances.
    pub rings: u32,
    /// epoll instances.
    pub epolls: u32,
    /// eventfds, timerfds, signalfds, pidfds and other anonymous inodes.
    pub anonymous: u32,
    /// Pipes.
    pub pipes: u32,
    /// Files, folders and devices.
    pub files: u32,
    /// Fds looked at.
    pub looked_at: u32,
    /// Whether there were more fds than the census looks at.
    pub truncated: bool,
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
    /// full at limit + 1. `/proc/net/tcp` does not tell it.
    pub limit: Option<u32>,
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
    /// `TIME_WAIT` on the served port: this side closed first.
    pub time_wait: u32,
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
    /// `TIME_WAIT` sockets with a local port in the range that is not served: connections made
    /// here, and closed here first.
    pub time_wait: u32,
    /// Destinations that use most of the range, most first (at most [`DESTINATIONS_MAX`]). Only
    /// sockets of one (source, destination) share the range, so this is the real head room.
    pub top: Vec<(SocketAddr, u32)>,
}

/// A TCP connection of the target's own making (its local port is not one it listens on).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerRaw {
    /// The other side.
    pub remote: SocketAddr,
    /// Its local port.
    pub local_port: u16,
    /// Its inode.
    pub inode: u32,
    /// Its state.
    pub state: TcpState,
    /// Bytes received and not read by the target.
    pub unread_bytes: u32,
    /// Bytes written by the target and not acknowledged by the other side (`ss` Send-Q).
    pub unsent_bytes: u32,
    /// What `INET_DIAG_INFO` says; absent while connecting.
    pub info: Option<PeerInfoRaw>,
}

/// From `struct tcp_info` (`linux/tcp.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerInfoRaw {
    /// Retransmissions of the oldest unacknowledged segment, in a row.
    pub retransmits: u8,
    /// Segments sent again since the connection began.
    pub retransmitted: u32,
    /// Smoothed round-trip time, microseconds.
    pub rtt_us: u32,
    /// Segments sent and not acknowledged.
    pub unacked: u32,
    /// Since data was last sent, ms.
    pub last_sent_ms: u32,
    /// Since data was last received, ms.
    pub last_received_ms: u32,
}

/// States of a TCP socket (`include/net/tcp_states.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
#[expect(missing_docs, reason = "the names of RFC 9293")]
pub enum TcpState {
    Established = 1,
    SynSent = 2,
    SynRecv = 3,
    FinWait1 = 4,
    FinWait2 = 5,
    TimeWait = 6,
    Close = 7,
    CloseWait = 8,
    LastAck = 9,
    Listen = 10,
    Closing = 11,
    NewSynRecv = 12,
}

impl TcpState {
    /// From the number in a message; `None` for one this version does not know.
    pub const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Established,
            2 => Self::SynSent,
            3 => Self::SynRecv,
            4 => Self::FinWait1,
            5 => Self::FinWait2,
            6 => Self::TimeWait,
            7 => Self::Close,
            8 => Self::CloseWait,
            9 => Self::LastAck,
            10 => Self::Listen,
            11 => Self::Closing,
            12 => Self::NewSynRecv,
            _ => return None,
        })
    }
}

/// One `io_uring`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RingRaw {
    /// The fd of the ring in the target.
    pub fd: i32,
    /// Where `state` comes from.
    pub source: RingSource,
    /// The counters; absent when they could not be read, with the reason.
    pub state: Reading<RingState>,
    /// What only fdinfo tells; absent until it was read, which is seldom.
    pub armed: Reading<ArmedRaw>,
}

/// Where the counters of a ring come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RingSource {
    /// The ring's own memory, mapped read-only.
    Memory {
        /// Whether fdinfo has confirmed the layout; until then only its own masks and entries do.
        confirmed: bool,
    },
    /// `/proc/PID/fdinfo/FD`, and why not its memory.
    Fdinfo(Absence),
}

/// Operations in flight, from `/proc/PID/fdinfo/FD`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArmedRaw {
    /// When that read had ended, `CLOCK_MONOTONIC` ns.
    pub at_ns: u64,
    /// By opcode number (13 accept, 22 read, 26 send, 27 recv).
    pub operations: Vec<(u8, u32)>,
    /// Completions that did not fit the queue and wait in the overflow list.
    pub overflow: u32,
}

impl ArmedRaw {
    /// Operations of one opcode.
    pub fn of(&self, opcode: u8) -> u32 {
        self.operations
            .iter()
            .filter(|(op, _)| *op == opcode)
            .fold(0, |sum, (_, count)| sum.saturating_add(*count))
    }
}

/// The counters of one ring. Heads and tails are u32 and wrap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Whether the kernel polls the submission queue itself (SQPOLL); the ring's memory does not
    /// tell, fdinfo does.
    pub sqpoll: Option<bool>,
    /// Whether completions wait in the overflow list (`IORING_SQ_CQ_OVERFLOW`).
    pub overflowing: bool,
    /// Entries the kernel refused as malformed, since the ring was made; fdinfo does not tell.
    pub sq_dropped: Option<u32>,
    /// Completions lost for want of memory, since the ring was made; fdinfo does not tell.
    pub cq_lost: Option<u32>,
    /// Entries prepared and not submitted: opcode and fd (at most [`PENDING_OPS_MAX`]); absent
    /// where the size of an entry cannot be told.
    pub pending: Reading<Vec<(String, i32)>>,
    /// Results below zero among completions not reaped: errno (positive) and how many.
    pub failed: Reading<Vec<(i32, u32)>>,
    /// Results below zero among the last completions posted, reaped or not (at most
    /// [`RECENT_COMPLETIONS_MAX`] are looked at): errno and how many. fdinfo does not tell.
    pub recent: Reading<Vec<(i32, u32)>>,
}

impl Default for RingState {
    /// A ring of no entries in which nothing happened.
    fn default() -> Self {
        Self {
            sq_entries: 0,
            sq_head: 0,
            sq_tail: 0,
            cq_entries: 0,
            cq_head: 0,
            cq_tail: 0,
            sqpoll: None,
            overflowing: false,
            sq_dropped: None,
            cq_lost: None,
            pending: Reading::Got(Vec::new()),
            failed: Reading::Got(Vec::new()),
            recent: Reading::Got(Vec::new()),
        }
    }
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
