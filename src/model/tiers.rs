//! Tiers of evidence: what can be seen of a process, by the rights and the kernel it takes. A
//! verdict says on which it rests, and which were missing.

use serde::{Deserialize, Serialize};
use stallscope_probes::sample::{CgroupRaw, RingRaw, RingSource, Sample, ThreadRaw};
use stallscope_probes::{Absence, Reading, Why};

use super::resources::{CGROUP_MUTE, tells_nothing};

/// A kind of evidence, with a right or a kernel of its own that it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tier {
    /// State, CPU time and memory of the process (`/proc/PID/stat`): anyone.
    Process,
    /// States and scheduling of its threads (`/proc/PID/task/TID/{stat,schedstat}`): anyone.
    Threads,
    /// System calls and wait channels of its threads (`syscall`, `wchan`): ptrace read rights.
    ThreadCalls,
    /// Kernel stacks of its threads (`stack`): root.
    KernelStacks,
    /// Number and limit of its open fds.
    Fds,
    /// What the fds are (links in `/proc/PID/fd`): ptrace read rights.
    FdCensus,
    /// Accept queues (`sock_diag(7)`).
    Listeners,
    /// Connections to its ports (`sock_diag(7)`).
    Connections,
    /// Connections of its own making (`sock_diag(7)`).
    Peers,
    /// Counters of rings from their mapped memory: ptrace attach rights.
    RingMemory,
    /// Rings by `/proc/PID/fdinfo/FD`: ptrace read rights; operations in flight.
    RingFdinfo,
    /// TCP counters of its network namespace.
    Counters,
    /// The page that an instrumented server keeps.
    Heartbeat,
    /// Limits of its cgroup, and what came of them.
    Cgroup,
    /// Pressure stall information.
    Pressure,
    /// The system's file table and the namespace's connection tracking.
    Tables,
    /// What its epoll instances watch (`/proc/PID/fdinfo/FD`): ptrace read rights.
    Epolls,
    /// Connections of the watcher's own, made on request.
    ActiveProbe,
}

impl Tier {
    /// All of them, in order.
    pub const ALL: [Self; 18] = [
        Self::Process,
        Self::Threads,
        Self::ThreadCalls,
        Self::KernelStacks,
        Self::Fds,
        Self::FdCensus,
        Self::Listeners,
        Self::Connections,
        Self::Peers,
        Self::RingMemory,
        Self::RingFdinfo,
        Self::Counters,
        Self::Heartbeat,
        Self::Cgroup,
        Self::Pressure,
        Self::Tables,
        Self::Epolls,
        Self::ActiveProbe,
    ];

    /// The id, as in JSON and the docs.
    pub const fn id(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Threads => "threads",
            Self::ThreadCalls => "thread-calls",
            Self::KernelStacks => "kernel-stacks",
            Self::Fds => "fds",
            Self::FdCensus => "fd-census",
            Self::Listeners => "listeners",
            Self::Connections => "connections",
            Self::Peers => "peers",
            Self::RingMemory => "ring-memory",
            Self::RingFdinfo => "ring-fdinfo",
            Self::Counters => "counters",
            Self::Heartbeat => "heartbeat",
            Self::Cgroup => "cgroup",
            Self::Pressure => "pressure",
            Self::Tables => "tables",
            Self::Epolls => "epolls",
            Self::ActiveProbe => "active-probe",
        }
    }

    /// In a few words, for a line that lists several.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Process => "process state",
            Self::Threads => "thread states",
            Self::ThreadCalls => "system calls",
            Self::KernelStacks => "kernel stacks",
            Self::Fds => "fd count",
            Self::FdCensus => "fd census",
            Self::Listeners => "accept queues",
            Self::Connections => "connections",
            Self::Peers => "outgoing connections",
            Self::RingMemory => "ring memory",
            Self::RingFdinfo => "ring fdinfo",
            Self::Counters => "TCP counters",
            Self::Heartbeat => "heartbeat page",
            Self::Cgroup => "cgroup",
            Self::Pressure => "pressure",
            Self::Tables => "shared tables",
            Self::Epolls => "epoll sets",
            Self::ActiveProbe => "active probe",
        }
    }

    /// What it tells, in one line.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Process => "whether it runs at all, its CPU time and memory",
            Self::Threads => "which threads run, sleep or wait for a CPU",
            Self::ThreadCalls => "which system call and kernel function each thread sleeps in",
            Self::KernelStacks => "the way of each sleeping thread through the kernel",
            Self::Fds => "how many fds are open, and their limit",
            Self::FdCensus => "what the fds are, and which sockets and rings are its own",
            Self::Listeners => "connections that wait to be accepted, and drops",
            Self::Connections => "what clients sent and the process has not read",
            Self::Peers => "its connections to brokers, databases and other servers",
            Self::RingMemory => "heads and tails of its rings at every tick, last completions",
            Self::RingFdinfo => "operations in flight in its rings, and the overflow list",
            Self::Counters => "overflows, drops and resets of its network namespace",
            Self::Heartbeat => "what the server says of itself",
            Self::Cgroup => "freezing, throttling and memory limits of its cgroup",
            Self::Pressure => "time lost waiting for CPU, memory or disk",
            Self::Tables => "whether the file table or connection tracking is full",
            Self::Epolls => "whether the event loop watches its listening sockets",
            Self::ActiveProbe => "whether a new client is let in, and answered",
        }
    }
}

/// How a tier stands at one tick.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TierStatus {
    /// It is read.
    Active,
    /// It cannot be had now.
    Absent {
        /// The class of the reason.
        class: Why,
        /// The reason, one sentence: may hold hostile text.
        why: String,
        /// What would permit it.
        permit: String,
    },
    /// Reading it went wrong.
    Failed {
        /// What went wrong, one sentence: may hold hostile text.
        why: String,
    },
}

impl TierStatus {
    /// How `tier` stands when it was not read for this reason.
    pub fn without(tier: Tier, absence: &Absence) -> Self {
        let why = absence.detail.clone();
        match absence.why {
            Why::Failed | Why::Malformed => Self::Failed { why },
            class => Self::Absent {
                class,
                why: match class {
                    Why::NotSampled if why.is_empty() => String::from("not due yet"),
                    Why::NotSampled => format!("not due yet: {why}"),
                    _ => why,
                },
                permit: permit(tier, class).to_owned(),
            },
        }
    }

    /// How the tiers of rings stand in a process that has none: no gap in what is seen.
    pub fn no_ring() -> Self {
        Self::Absent {
            class: Why::Unsupported,
            why: String::from("the process has no io_uring"),
            permit: String::from("nothing: there is no ring to read"),
        }
    }

    /// Whether it is read.
    pub const fn is_active(&self) -> bool {
        matches!(self, Self::Active)
    }

    /// Why it is not read; `None` when it is.
    pub fn why(&self) -> Option<&str> {
        match self {
            Self::Active => None,
            Self::Absent { why, .. } | Self::Failed { why } => Some(why),
        }
    }

    /// In one word, as in JSON.
    pub const fn id(&self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Absent { .. } => "absent",
            Self::Failed { .. } => "failed",
        }
    }

    /// Whether it may be otherwise at the next look, without anything having changed: not due
    /// yet, or the kernel held a lock just then.
    pub const fn is_passing(&self) -> bool {
        matches!(self, Self::Absent { class, .. } if is_passing(*class))
    }

    /// Whether coming from `before` to this is news: not that a slow probe has had its first turn.
    pub fn is_news_after(&self, before: &Self) -> bool {
        let came_up = before.is_passing() && self.is_active();
        // The words of a reason may vary from tick to tick; its class is what matters.
        let same = match (before, self) {
            (Self::Absent { class: then, .. }, Self::Absent { class: now, .. }) => then == now,
            (Self::Failed { .. }, Self::Failed { .. }) => true,
            (then, now) => then == now,
        };
        !same && !came_up && !self.is_passing()
    }
}

const fn is_passing(class: Why) -> bool {
    matches!(class, Why::NotSampled | Why::NoPrevious | Why::Locked)
}

/// One tier and how it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TierModel {
    /// Which.
    pub tier: Tier,
    /// How it stands.
    pub status: TierStatus,
}

/// Every tier, in order, as it stands in `sample`.
pub(super) fn of(sample: &Sample) -> Vec<TierModel> {
    let status = |tier| match tier {
        Tier::Process => plain(tier, &sample.process.reading),
        Tier::Threads => plain(tier, &sample.threads.reading),
        Tier::ThreadCalls | Tier::KernelStacks => of_threads(tier, &sample.threads.reading),
        Tier::Fds => plain(tier, &sample.fds.reading),
        Tier::FdCensus => plain(tier, &sample.fd_kinds.reading),
        Tier::Listeners => plain(tier, &sample.listeners.reading),
        Tier::Connections => plain(tier, &sample.sockets.reading),
        Tier::Peers => plain(tier, &sample.peers.reading),
        Tier::RingMemory | Tier::RingFdinfo => of_rings(tier, &sample.rings.reading),
        Tier::Counters => plain(tier, &sample.tcp.reading),
        Tier::Heartbeat => plain(tier, &sample.heartbeat.reading),
        Tier::Cgroup => of_cgroup(&sample.cgroup.reading),
        Tier::Pressure => plain(tier, &sample.pressure.reading),
        Tier::Tables => plain(tier, &sample.tables.reading),
        Tier::Epolls => plain(tier, &sample.epolls.reading),
        Tier::ActiveProbe => plain(tier, &sample.active.reading),
    };
    Tier::ALL.into_iter().map(|tier| TierModel { tier, status: status(tier) }).collect()
}

/// Of each tier, in order, the class of the reason why it is absent.
pub(super) type Classes = [Option<Why>; Tier::ALL.len()];

/// The class of every reason why something is absent in `sample`, for each tier: as long as these
/// stay as they are, so do the tiers, but for the wording. Makes no text, unlike [`of`].
pub(super) fn classes(sample: &Sample) -> Classes {
    fn class<T>(reading: &Reading<T>) -> Option<Why> {
        reading.absence().map(|absence| absence.why)
    }
    fn among<T>(
        list: &Reading<Vec<T>>,
        empty: Why,
        of_one: impl Fn(&T) -> Option<Why>,
    ) -> Option<Why> {
        let Some(all) = list.got() else { return class(list) };
        // As in `first_reason`: one that has no reason decides.
        let mut settled = Some(empty);
        for (at, one) in all.iter().enumerate() {
            let why = of_one(one)?;
            if at == 0 || (settled.is_some_and(is_passing) && !is_passing(why)) {
                settled = Some(why);
            }
        }
        settled
    }
    let threads = &sample.threads.reading;
    let rings = &sample.rings.reading;
    Tier::ALL.map(|tier| match tier {
        Tier::Process => class(&sample.process.reading),
        Tier::Threads => class(threads),
        Tier::ThreadCalls => {
            among(threads, Why::Gone, |thread| class(&thread.wchan).and(class(&thread.syscall)))
        }
        Tier::KernelStacks => among(threads, Why::Gone, |thread| class(&thread.kernel_stack)),
        Tier::Fds => class(&sample.fds.reading),
        Tier::FdCensus => class(&sample.fd_kinds.reading),
        Tier::Listeners => class(&sample.listeners.reading),
        Tier::Connections => class(&sample.sockets.reading),
        Tier::Peers => class(&sample.peers.reading),
        Tier::RingMemory => among(rings, Why::Unsupported, |ring| match &ring.source {
            RingSource::Memory { .. } => class(&ring.state),
            RingSource::Fdinfo(absence) => Some(absence.why),
        }),
        Tier::RingFdinfo => among(rings, Why::Unsupported, |ring| match &ring.source {
            RingSource::Memory { .. } => class(&ring.armed),
            RingSource::Fdinfo(_) => class(&ring.armed).and(class(&ring.state)),
        }),
        Tier::Counters => class(&sample.tcp.reading),
        Tier::Heartbeat => class(&sample.heartbeat.reading),
        Tier::Cgroup => match sample.cgroup.got() {
            Some(raw) if raw.frozen.is_none() && tells_nothing(raw) => Some(Why::Unsupported),
            _ => class(&sample.cgroup.reading),
        },
        Tier::Pressure => class(&sample.pressure.reading),
        Tier::Tables => class(&sample.tables.reading),
        Tier::Epolls => class(&sample.epolls.reading),
        Tier::ActiveProbe => class(&sample.active.reading),
    })
}

fn plain<T>(tier: Tier, reading: &Reading<T>) -> TierStatus {
    reading.absence().map_or(TierStatus::Active, |absence| TierStatus::without(tier, absence))
}

/// What is read of each thread apart: it is there when it was read of any.
fn of_threads(tier: Tier, reading: &Reading<Vec<ThreadRaw>>) -> TierStatus {
    let threads = match reading {
        Reading::Got(threads) => threads,
        Reading::Absent(absence) => return TierStatus::without(tier, absence),
    };
    let absence = |thread: &ThreadRaw| {
        if tier == Tier::KernelStacks {
            thread.kernel_stack.absence().cloned()
        } else {
            // Either tells where a thread sleeps.
            thread.wchan.absence().and(thread.syscall.absence()).cloned()
        }
    };
    first_reason(tier, threads.iter().map(absence)).unwrap_or_else(|| {
        let detail = String::from("no thread was listed");
        TierStatus::without(tier, &Absence { why: Why::Gone, detail })
    })
}

/// The freezer alone is something: it tells a process that is stopped from one that is not.
fn of_cgroup(reading: &Reading<CgroupRaw>) -> TierStatus {
    let mute = |raw: &CgroupRaw| raw.frozen.is_none() && tells_nothing(raw);
    if reading.got().is_some_and(mute) {
        let detail = CGROUP_MUTE.to_owned();
        return TierStatus::without(Tier::Cgroup, &Absence { why: Why::Unsupported, detail });
    }
    plain(Tier::Cgroup, reading)
}

fn of_rings(tier: Tier, reading: &Reading<Vec<RingRaw>>) -> TierStatus {
    let rings = match reading {
        Reading::Got(rings) => rings,
        Reading::Absent(absence) => return TierStatus::without(tier, absence),
    };
    let absence = |ring: &RingRaw| match (tier, &ring.source) {
        (Tier::RingMemory, RingSource::Memory { .. }) => ring.state.absence().cloned(),
        (Tier::RingMemory, RingSource::Fdinfo(absence)) => Some(absence.clone()),
        (_, RingSource::Fdinfo(_)) => ring.armed.absence().and(ring.state.absence()).cloned(),
        (_, RingSource::Memory { .. }) => ring.armed.absence().cloned(),
    };
    first_reason(tier, rings.iter().map(absence)).unwrap_or_else(TierStatus::no_ring)
}

/// Active when one of several has no reason not to be; else the first reason that is not a matter
/// of a moment, else the first. `None` when there are none at all.
fn first_reason(tier: Tier, reasons: impl Iterator<Item = Option<Absence>>) -> Option<TierStatus> {
    let mut first: Option<TierStatus> = None;
    for reason in reasons {
        let Some(absence) = reason else { return Some(TierStatus::Active) };
        let status = TierStatus::without(tier, &absence);
        let settles = first.as_ref().is_none_or(|first| first.is_passing() && !status.is_passing());
        if settles {
            first = Some(status);
        }
    }
    first
}

/// What would permit it.
const fn permit(tier: Tier, class: Why) -> &'static str {
    match class {
        Why::NotPermitted => rights(tier),
        Why::Unsupported => kernel(tier),
        Why::NotSampled => match tier {
            Tier::KernelStacks | Tier::Epolls => "a stall that is suspected: it is read only then",
            _ => "a little time: it is read at its own pace",
        },
        Why::Locked => "a moment in which the kernel does not hold the ring's lock",
        Why::NoPrevious | Why::Restarted => "a second reading",
        Why::Gone | Why::Malformed | Why::Failed => "nothing: what was to be read is not there",
    }
}

/// The rights it takes (proc(5), `fs/proc/base.c`; `pidfd_getfd(2)`;
/// `network_namespaces(7)`).
const fn rights(tier: Tier) -> &'static str {
    match tier {
        Tier::Process | Tier::Threads | Tier::Heartbeat => {
            "run as root or as the user of the process (a /proc mounted with hidepid hides others')"
        }
        Tier::KernelStacks => "run as root (CAP_SYS_ADMIN)",
        Tier::ThreadCalls | Tier::Fds | Tier::FdCensus | Tier::RingFdinfo | Tier::Epolls => {
            "run as root (CAP_SYS_PTRACE) or as the user of the process"
        }
        Tier::RingMemory => {
            "run as root (CAP_SYS_PTRACE), or as the user of the process with kernel.yama.ptrace_scope 0"
        }
        Tier::Listeners
        | Tier::Connections
        | Tier::Peers
        | Tier::Counters
        | Tier::Tables
        | Tier::ActiveProbe => {
            "run as root (CAP_SYS_PTRACE for its fds, CAP_SYS_ADMIN for another network namespace)"
        }
        Tier::Cgroup | Tier::Pressure => "read access to the cgroup file system",
    }
}

/// The kernel or the process it takes.
const fn kernel(tier: Tier) -> &'static str {
    match tier {
        Tier::KernelStacks => "a kernel with CONFIG_STACKTRACE",
        Tier::ThreadCalls => "a kernel with CONFIG_HAVE_ARCH_TRACEHOOK and CONFIG_KALLSYMS",
        Tier::RingMemory => "Linux 5.6 or later (pidfd_getfd), and a layout of rings that is known",
        Tier::RingFdinfo => "Linux 6.1 or later",
        Tier::Heartbeat => "a server that keeps a heartbeat page (docs/heartbeat.md)",
        Tier::Cgroup => "a cgroup with the controller cpu, memory or freezer",
        Tier::Pressure => "a kernel with CONFIG_PSI, not started with psi=0",
        Tier::Listeners | Tier::Connections | Tier::Peers => "a kernel with CONFIG_INET_DIAG",
        Tier::ActiveProbe => "`--probe tcp` or `--probe http`: it makes connections of its own",
        Tier::Epolls => "a process with an epoll instance",
        Tier::Process
        | Tier::Threads
        | Tier::Fds
        | Tier::FdCensus
        | Tier::Counters
        | Tier::Tables => "another kernel: this one does not have it",
    }
}

#[cfg(test)]
#[path = "tiers_tests.rs"]
mod tests;
