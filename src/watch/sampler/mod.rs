//! Reads all probes of one process, tick by tick, each at the pace it can afford.
//!
//! At every tick: the process, its heartbeat page, the number of its fds, the memory of its rings.
//! Listeners and threads too, as long as they are as cheap as they should be; all else at a pace
//! that follows its cost (`costs`).

mod census;
mod costs;
#[cfg(test)]
mod live_tests;
mod network;
mod shared;

use std::path::{Path, PathBuf};
use std::time::Duration;

use stallscope_probes::heartbeat::PageReader;
use stallscope_probes::pidfd::PidFd;
use stallscope_probes::ring::{RingAccess, Rings};
use stallscope_probes::sample::{
    ActiveRaw, CgroupRaw, FdsRaw, HeartbeatRaw, PressureRaw, ProbeCostRaw, ProbeId, ProcessRaw,
    RingRaw, Sample, TcpRaw, ThreadRaw, WatcherRaw,
};
use stallscope_probes::{
    Probe, Reading, Why, cgroup, fds, heartbeat, netstat, own, pressure, process, threads,
};

use self::census::FdCensus;
use self::costs::{Ask, Paces, costed, timed};
use self::network::Network;
use self::shared::Shared;
use super::active::{self, ActiveProbe};
use super::budget::Budget;
use super::clock::{now_ns, process_cpu_ns, thread_cpu_ns};
use super::session::Probes;

const MS: u64 = 1_000_000;

/// How often to look for a heartbeat page that was not there: the server may only be starting.
const PAGE_SEEK_EVERY_NS: u64 = 1_000 * MS;
/// How often the watcher looks at its own memory and fds.
const OWN_EVERY_NS: u64 = 1_000 * MS;
/// How often kernel stacks are read on suspicion.
const STACKS_EVERY_NS: u64 = 500 * MS;
/// Each thread is read in full at least this often.
const THREADS_FULL_WITHIN_NS: u64 = 2_000 * MS;

/// A tick that is due.
#[derive(Debug, Clone, Copy)]
pub struct Due<'a> {
    /// When, ns.
    pub due_ns: u64,
    /// Whether something waits and does not move: look closer.
    pub suspicious: bool,
    /// Threads that are read in full at every tick: those that run the event loop.
    pub important_tids: &'a [i32],
    /// Time between ticks that was asked for, ns.
    pub interval_asked_ns: u64,
    /// Time between ticks at present, ns.
    pub interval_ns: u64,
    /// What may be spent.
    pub budget: &'a Budget,
}

/// Reads one process.
#[derive(Debug)]
pub struct Sampler {
    pid: i32,
    start_time_ticks: u64,
    proc_root: PathBuf,
    probes: Probes,
    exit: Reading<PidFd>,
    paces: Paces,
    process: process::Watch,
    fds: fds::Watch,
    census: FdCensus,
    network: Network,
    rings: Rings,
    rings_read: Probe<Vec<RingRaw>>,
    threads_watch: threads::Watch,
    threads: Probe<Vec<ThreadRaw>>,
    stacks_ns: u64,
    page: Reading<PageReader>,
    page_sought_ns: u64,
    counters_watch: netstat::Watch,
    counters: Probe<TcpRaw>,
    cgroup_watch: cgroup::Watch,
    cgroup: Probe<CgroupRaw>,
    pressure_watch: pressure::Watch,
    pressure: Probe<PressureRaw>,
    shared: Shared,
    active: Option<ActiveProbe>,
    own: (u64, Option<u64>, Option<u64>),
    fast_cost_ns: u64,
    seq: u64,
    missed: u64,
}

impl Sampler {
    /// For the process `pid`, which began at `start_time_ticks`; `port` if the user named one.
    pub fn new(pid: i32, start_time_ticks: u64, port: Option<u16>, probes: Probes) -> Self {
        let proc_root = PathBuf::from("/proc");
        let cgroup_root = Path::new("/sys/fs/cgroup");
        let access = match probes {
            Probes::Auto => RingAccess::Memory,
            Probes::Procfs => RingAccess::FdinfoOnly,
        };
        Self {
            exit: PidFd::open(pid),
            paces: Paces::new(),
            process: process::Watch::new(&proc_root, pid),
            fds: fds::Watch::new(&proc_root, pid),
            census: FdCensus::new(&proc_root, pid),
            network: Network::new(&proc_root, pid, port, probes),
            rings: Rings::new(&proc_root, pid, access),
            rings_read: Probe::not_sampled("not read yet"),
            threads_watch: threads::Watch::new(&proc_root, pid),
            threads: Probe::not_sampled("not read yet"),
            stacks_ns: 0,
            page: heartbeat::find(&proc_root, pid, start_time_ticks),
            page_sought_ns: now_ns(),
            counters_watch: netstat::Watch::new(&proc_root, pid),
            counters: Probe::not_sampled("not read yet"),
            cgroup_watch: cgroup::Watch::new(&proc_root, cgroup_root, pid),
            cgroup: Probe::not_sampled("not read yet"),
            pressure_watch: pressure::Watch::new(&proc_root, cgroup_root, pid),
            pressure: Probe::not_sampled("not read yet"),
            shared: Shared::new(&proc_root, pid),
            active: None,
            own: (0, None, None),
            fast_cost_ns: 0,
            seq: 0,
            missed: 0,
            proc_root,
            pid,
            start_time_ticks,
            probes,
        }
    }

    /// Makes connections of its own from now on.
    pub fn probe_actively(&mut self, plan: active::Plan) {
        self.active = Some(ActiveProbe::new(plan, &self.proc_root, self.pid));
    }

    /// Whether the target lives in another network namespace.
    pub fn foreign_netns(&self) -> bool {
        self.network.foreign()
    }

    /// Notes ticks that were missed: their numbers are left out.
    pub const fn skip(&mut self, ticks: u64) {
        self.seq = self.seq.saturating_add(ticks);
        self.missed = self.missed.saturating_add(ticks);
    }

    /// CPU time that paced reads took in the last tick, ns.
    pub const fn dear_ns(&self) -> u64 {
        self.paces.dear_ns()
    }

    /// Sleeps for so long, or until the target exits; true when it has exited.
    pub fn wait_exit(&self, timeout: Duration) -> bool {
        match &self.exit {
            Reading::Got(process) => process.wait_exit(timeout),
            // Its end then shows at the next tick.
            Reading::Absent(_) => {
                std::thread::sleep(timeout);
                false
            }
        }
    }

    /// Lets go of everything that is the target's.
    pub fn release(&mut self) {
        self.rings.release();
        self.network.release();
        if let Some(active) = &mut self.active {
            active.release();
        }
    }

    /// Reads everything that is due.
    pub fn sample(&mut self, due: &Due<'_>) -> Sample {
        let late_ns = now_ns().saturating_sub(due.due_ns);
        let ask = Ask { suspicious: due.suspicious, budget: due.budget };
        self.paces.begin_tick();
        let (fast, fast_cost_ns) = costed(|| self.read_fast());
        self.fast_cost_ns = fast_cost_ns;
        let Fast { process, heartbeat, fds } = fast;
        if process.reading.absence().is_some_and(|absence| absence.why == Why::Gone) {
            // What it held must not be held any longer by us.
            self.release();
        }
        let has_new = self.network.read_listeners(&self.census.last, &mut self.paces, ask);
        let changed = has_new || self.rings.is_stale();
        let open = fds.got().map(|fds| fds.open);
        if self.census.advance(open, changed, &mut self.paces, ask) {
            self.follow_rings();
            if has_new {
                // Whose the new one is can be told now.
                self.network.dump_listeners(&self.census.last, &mut self.paces, ask);
            }
        }
        self.read_ring_fdinfo(ask);
        self.read_threads(due, process.got().map(|process| process.threads));
        self.network.read_sockets(&self.census.last, &mut self.paces, ask);
        self.network.read_peers(&self.census.last, &mut self.paces, ask);
        let listeners = self.network.own_listeners();
        self.shared.read_epolls(&self.census.last, &listeners, &mut self.paces, ask);
        self.read_host(ask);
        let watcher = self.watcher(due);
        let seq = self.seq;
        self.seq += 1;
        Sample {
            seq,
            due_ns: due.due_ns,
            late_ns,
            process,
            threads: self.threads.clone(),
            fds,
            listeners: self.network.listeners.clone(),
            sockets: self.network.sockets.clone(),
            rings: self.rings_read.clone(),
            tcp: self.counters.clone(),
            heartbeat,
            fd_kinds: self.census.kinds.clone(),
            peers: self.network.peers.clone(),
            cgroup: self.cgroup.clone(),
            pressure: self.pressure.clone(),
            tables: self.shared.tables.clone(),
            epolls: self.shared.epolls.clone(),
            active: self.read_active(due.suspicious),
            watcher,
        }
    }

    fn read_fast(&mut self) -> Fast {
        // The process first: if it is another one by now, nothing else must be believed.
        let process = timed(|| {
            let start = self.start_time_ticks;
            self.process.read().and_then(|raw| {
                if raw.start_time_ticks == start {
                    Reading::Got(raw)
                } else {
                    Reading::absent(Why::Gone, "the pid belongs to another process by now")
                }
            })
        });
        let heartbeat = timed(|| self.read_page());
        let fds = timed(|| match self.probes {
            Probes::Auto => self.fds.read(),
            Probes::Procfs => fds::read_by_listing(&self.proc_root, self.pid),
        });
        self.read_rings();
        Fast { process, heartbeat, fds }
    }

    fn read_page(&mut self) -> Reading<HeartbeatRaw> {
        let missing = self.page.got().is_none();
        if missing && now_ns().saturating_sub(self.page_sought_ns) >= PAGE_SEEK_EVERY_NS {
            self.page = heartbeat::find(&self.proc_root, self.pid, self.start_time_ticks);
            self.page_sought_ns = now_ns();
        }
        self.page.as_ref().and_then(PageReader::read)
    }

    fn read_rings(&mut self) {
        if let Some(absence) = self.census.last.absence() {
            self.rings_read = timed(|| Reading::Absent(absence.clone()));
            return;
        }
        let rings = &mut self.rings;
        self.rings_read = timed(|| Reading::Got(rings.read()));
    }

    fn follow_rings(&mut self) {
        let fds = self.census.last.got().map_or(&[][..], |census| &census.rings);
        self.rings.follow(fds);
        self.read_rings();
    }

    /// What only fdinfo tells, of one ring. It takes the ring's lock, and a ring with thousands of
    /// armed operations is dear to read: the pace follows that.
    fn read_ring_fdinfo(&mut self, ask: Ask<'_>) {
        if self.rings_read.got().is_none_or(Vec::is_empty) {
            return;
        }
        if self.probes == Probes::Auto && !self.paces.is_due(ProbeId::RingFdinfo, ask) {
            return;
        }
        let begin_ns = now_ns();
        let rings = &mut self.rings;
        let ((), cost_ns) = costed(|| {
            // One a tick; without their memory all of them, or they would be out of date.
            let reads = if self.probes == Probes::Auto { 1 } else { rings.fds().len() };
            for _ in 0..reads {
                rings.read_fdinfo(now_ns);
            }
        });
        self.paces.pay(cost_ns);
        self.paces.was_read(ProbeId::RingFdinfo, ask, begin_ns, cost_ns);
        self.read_rings();
    }

    fn read_threads(&mut self, due: &Due<'_>, count: Option<u64>) {
        let ask = Ask { suspicious: due.suspicious, budget: due.budget };
        if !self.paces.is_due(ProbeId::Threads, ask) {
            return;
        }
        let now_ns = now_ns();
        let stacks = due.suspicious && now_ns.saturating_sub(self.stacks_ns) >= STACKS_EVERY_NS;
        if stacks {
            self.stacks_ns = now_ns;
        }
        let full_within = THREADS_FULL_WITHIN_NS / due.interval_ns.max(1);
        let asked = threads::Ask {
            threads: count,
            // One that has not been on a CPU sleeps where it slept. What escapes that way, a thread
            // that waits for a CPU, matters when something does not move.
            important: if due.suspicious { due.important_tids } else { &[] },
            full_within: u32::try_from(full_within).unwrap_or(u32::MAX).max(1),
            stacks,
            switches: true,
        };
        let watch = &mut self.threads_watch;
        let mut read = match self.probes {
            Probes::Auto => self.paces.read(ProbeId::Threads, ask, || watch.read(&asked)),
            Probes::Procfs => self
                .paces
                .read(ProbeId::Threads, ask, || threads::read(&self.proc_root, self.pid, stacks)),
        };
        if due.suspicious && !stacks {
            keep_stacks(&mut read, &self.threads);
        }
        self.threads = read;
    }

    /// What the namespace and the host say.
    fn read_host(&mut self, ask: Ask<'_>) {
        if self.paces.is_due(ProbeId::Counters, ask) {
            let watch = &mut self.counters_watch;
            self.counters = self.paces.read(ProbeId::Counters, ask, || watch.read());
        }
        if self.paces.is_due(ProbeId::Cgroup, ask) {
            let (cgroup, pressure) = (&mut self.cgroup_watch, &mut self.pressure_watch);
            let ((cgroup, pressure), cost_ns) =
                costed(|| (timed(|| cgroup.read()), timed(|| pressure.read())));
            self.paces.pay(cost_ns);
            self.paces.was_read(ProbeId::Cgroup, ask, cgroup.begin_ns, cost_ns);
            (self.cgroup, self.pressure) = (cgroup, pressure);
        }
        self.shared.read_tables(&mut self.paces, ask);
    }

    fn read_active(&mut self, suspicious: bool) -> Probe<ActiveRaw> {
        match &mut self.active {
            Some(active) => active.tick(&self.network.listeners.reading, suspicious),
            None => Probe {
                reading: Reading::absent(Why::Unsupported, "not asked for"),
                ..Probe::not_sampled("")
            },
        }
    }

    /// What the watcher itself takes.
    fn watcher(&mut self, due: &Due<'_>) -> WatcherRaw {
        let now_ns = now_ns();
        if now_ns.saturating_sub(self.own.0) >= OWN_EVERY_NS {
            let usage = own::usage();
            self.own = (now_ns, usage.rss_bytes.got().copied(), usage.open_fds.got().copied());
        }
        let mut costs = self.paces.costs();
        costs.insert(
            0,
            ProbeCostRaw {
                probe: ProbeId::Fast,
                cost_ns: self.fast_cost_ns,
                every_ns: due.interval_ns,
            },
        );
        WatcherRaw {
            cpu_ns: process_cpu_ns(),
            sampling_cpu_ns: thread_cpu_ns(),
            rss_bytes: self.own.1,
            open_fds: self.own.2,
            interval_asked_ns: due.interval_asked_ns,
            interval_ns: due.interval_ns,
            budget_ppm: u32::try_from(due.budget.ppm()).unwrap_or(u32::MAX),
            ticks_missed: self.missed,
            costs,
        }
    }
}

/// What is read at every tick.
struct Fast {
    process: Probe<ProcessRaw>,
    heartbeat: Probe<HeartbeatRaw>,
    fds: Probe<FdsRaw>,
}

/// Carries kernel stacks along between the ticks that read them.
fn keep_stacks(read: &mut Probe<Vec<ThreadRaw>>, before: &Probe<Vec<ThreadRaw>>) {
    let (Reading::Got(now), Some(before)) = (&mut read.reading, before.got()) else { return };
    for thread in now {
        let old = before.iter().find(|old| old.tid == thread.tid && old.wchan == thread.wchan);
        if let Some(stack) = old.filter(|old| old.kernel_stack.got().is_some()) {
            thread.kernel_stack = stack.kernel_stack.clone();
        }
    }
}
