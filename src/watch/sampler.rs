//! Reads all probes of one process, tick by tick, each at the pace it can afford.

use std::collections::BTreeSet;
use std::path::PathBuf;

use stallscope_probes::fds::Census;
use stallscope_probes::heartbeat::PageReader;
use stallscope_probes::sample::{
    ArmedRaw, CgroupRaw, Holder, LISTENERS_MAX, ListenerRaw, RINGS_MAX, RingRaw, RingSource,
    Sample, SocketsRaw, ThreadRaw, WatcherRaw,
};
use stallscope_probes::sockets::{self, Diag, Tracker};
use stallscope_probes::{
    Absence, Probe, Reading, Why, cgroup, fds, heartbeat, netstat, process, ring, threads,
};

use super::clock::{now_ns, thread_cpu_ns};
use super::pace::Pace;

const MS: u64 = 1_000_000;

/// Paces by probe: every how often at most, and the share of the time it may take (one part in).
const THREADS_REST: u64 = 30;
const RINGS_REST: u64 = 60;
const CENSUS_FDS_EVERY_NS: u64 = 1_000 * MS;
const CENSUS_FDS_REST: u64 = 100;
const SOCKETS_EVERY_NS: u64 = 1_000 * MS;
const SOCKETS_REST: u64 = 100;
const CGROUP_EVERY_NS: u64 = 250 * MS;
const STACKS_EVERY_NS: u64 = 500 * MS;
/// On suspicion the rings and sockets may take one part in this many: it lasts a second or two,
/// and it decides the verdict.
const SUSPICIOUS_REST: u64 = 20;

/// Reads one process.
#[derive(Debug)]
pub struct Sampler {
    proc_root: PathBuf,
    cgroup_root: PathBuf,
    pid: i32,
    start_time_ticks: u64,
    /// A port the user named: its listeners count even when fds cannot be listed.
    port: Option<u16>,
    diag: Reading<Diag>,
    tracker: Tracker,
    page: Reading<PageReader>,
    page_sought_ns: u64,
    census: Reading<Census>,
    census_pace: Pace,
    census_open: Option<u64>,
    unknown_inodes: BTreeSet<u32>,
    threads: Probe<Vec<ThreadRaw>>,
    threads_pace: Pace,
    stacks_pace: Pace,
    rings: Probe<Vec<RingRaw>>,
    rings_cost_ns: u64,
    rings_pace: Pace,
    sockets: Probe<SocketsRaw>,
    sockets_pace: Pace,
    alive_pace: Pace,
    range: Reading<(u16, u16)>,
    cgroup: Probe<CgroupRaw>,
    cgroup_pace: Pace,
    seq: u64,
}

/// How often to look for a heartbeat page that was not there: the server may only be starting.
const PAGE_SEEK_EVERY_NS: u64 = 1_000 * MS;

impl Sampler {
    /// For the process `pid`, which began at `start_time_ticks`; `port` if the user named one.
    pub fn new(pid: i32, start_time_ticks: u64, port: Option<u16>, interval_ns: u64) -> Self {
        let proc_root = PathBuf::from("/proc");
        let range = sockets::local_port_range(&proc_root, pid);
        Self {
            diag: Diag::open(&proc_root, pid),
            tracker: Tracker::default(),
            page: heartbeat::find(&proc_root, pid, start_time_ticks),
            page_sought_ns: now_ns(),
            census: Reading::absent(Why::NotSampled, "not read yet"),
            census_pace: Pace::new(CENSUS_FDS_EVERY_NS, CENSUS_FDS_REST),
            census_open: None,
            unknown_inodes: BTreeSet::new(),
            threads: Probe::not_sampled("not read yet"),
            threads_pace: Pace::new(interval_ns, THREADS_REST),
            stacks_pace: Pace::new(STACKS_EVERY_NS, THREADS_REST),
            rings: Probe::not_sampled("not read yet"),
            rings_cost_ns: 0,
            rings_pace: Pace::new(interval_ns, RINGS_REST),
            sockets: Probe::not_sampled("not read yet"),
            sockets_pace: Pace::new(SOCKETS_EVERY_NS, SOCKETS_REST),
            alive_pace: Pace::new(interval_ns, SUSPICIOUS_REST),
            range,
            cgroup: Probe::not_sampled("not read yet"),
            cgroup_pace: Pace::new(CGROUP_EVERY_NS, CENSUS_FDS_REST),
            cgroup_root: PathBuf::from("/sys/fs/cgroup"),
            proc_root,
            pid,
            start_time_ticks,
            port,
            seq: 0,
        }
    }

    /// Whether the target lives in another network namespace.
    pub fn foreign_netns(&self) -> bool {
        self.diag.got().is_some_and(Diag::foreign)
    }

    /// Notes ticks that were missed: their numbers are left out.
    pub fn skip(&mut self, ticks: u64) {
        self.seq = self.seq.saturating_add(ticks);
    }

    /// Reads everything that is due. `suspicious`: something waits and does not move, so look
    /// closer.
    pub fn sample(&mut self, due_ns: u64, suspicious: bool) -> Sample {
        let late_ns = now_ns().saturating_sub(due_ns);
        // The process first: if it is another one by now, nothing else must be believed.
        let process = timed(|| {
            process::read(&self.proc_root, self.pid).and_then(|raw| {
                if raw.start_time_ticks == self.start_time_ticks {
                    Reading::Got(raw)
                } else {
                    Reading::absent(Why::Gone, "the pid belongs to another process by now")
                }
            })
        });
        let heartbeat = timed(|| self.read_page());
        let fds = timed(|| fds::read(&self.proc_root, self.pid));
        if let Some(open) = fds.got().map(|fds| fds.open) {
            self.refresh_census(open);
        }
        let listeners = timed(|| self.read_listeners());
        self.read_rings(suspicious);
        self.read_threads(suspicious);
        self.read_sockets(&listeners, suspicious);
        let tcp = timed(|| netstat::read(&self.proc_root, self.pid));
        if self.cgroup_pace.is_due(now_ns()) {
            let (read, cost_ns) =
                costed(|| cgroup::read(&self.proc_root, &self.cgroup_root, self.pid));
            self.cgroup_pace.was_read(read.begin_ns, cost_ns);
            self.cgroup = read;
        }
        let seq = self.seq;
        self.seq += 1;
        Sample {
            seq,
            due_ns,
            late_ns,
            process,
            threads: self.threads.clone(),
            fds,
            listeners,
            sockets: self.sockets.clone(),
            rings: self.rings.clone(),
            tcp,
            heartbeat,
            fd_kinds: Probe::not_sampled("not read yet"),
            peers: Probe::not_sampled("not read yet"),
            cgroup: self.cgroup.clone(),
            pressure: Probe::not_sampled("not read yet"),
            watcher: WatcherRaw::default(),
        }
    }

    fn read_page(&mut self) -> Reading<stallscope_probes::sample::HeartbeatRaw> {
        let missing = self.page.got().is_none();
        if missing && now_ns().saturating_sub(self.page_sought_ns) >= PAGE_SEEK_EVERY_NS {
            self.page = heartbeat::find(&self.proc_root, self.pid, self.start_time_ticks);
            self.page_sought_ns = now_ns();
        }
        self.page.as_ref().and_then(PageReader::read)
    }

    /// Lists the target's fds anew when their number changed: a ring or a listener may have come
    /// or gone.
    fn refresh_census(&mut self, open: u64) {
        let stale = self.census_open != Some(open) || !self.unknown_inodes.is_empty();
        let begin_ns = now_ns();
        if !stale || !self.census_pace.is_due(begin_ns) {
            return;
        }
        let (census, cost_ns) = costed(|| fds::census(&self.proc_root, self.pid));
        self.census_pace.was_read(census.begin_ns, cost_ns);
        self.census = census.reading;
        self.census_open = Some(open);
        self.unknown_inodes.clear();
    }

    /// The target's listeners, and those of others on its ports.
    fn read_listeners(&mut self) -> Reading<Vec<ListenerRaw>> {
        let all = match self.diag.as_ref().and_then(Diag::listeners) {
            Reading::Got(all) => all,
            Reading::Absent(absence) => return Reading::Absent(absence),
        };
        let Some(census) = self.census.got() else {
            // Without a list of fds nobody knows whose they are: only a port that was named helps.
            return match (self.port, self.census.absence()) {
                (Some(port), _) => {
                    Reading::Got(all.into_iter().filter(|one| one.local.port() == port).collect())
                }
                (None, Some(absence)) => Reading::Absent(absence.clone()),
                (None, None) => Reading::Got(Vec::new()),
            };
        };
        let mut kept: Vec<ListenerRaw> = all;
        for listener in &mut kept {
            let own = census.socket_inodes.contains(&u64::from(listener.inode));
            listener.holder = if own { Holder::Target } else { Holder::Other };
        }
        let ports: BTreeSet<u16> = kept
            .iter()
            .filter(|listener| listener.holder == Holder::Target)
            .map(|listener| listener.local.port())
            .chain(self.port)
            .collect();
        kept.retain(|listener| ports.contains(&listener.local.port()));
        kept.sort_by_key(|listener| {
            (listener.holder == Holder::Other, listener.local, listener.inode)
        });
        kept.truncate(LISTENERS_MAX);
        Reading::Got(kept)
    }

    fn read_rings(&mut self, suspicious: bool) {
        let fds: Vec<i32> = match &self.census {
            Reading::Got(census) => census.rings.iter().copied().take(RINGS_MAX).collect(),
            Reading::Absent(absence) => {
                self.rings.reading = Reading::Absent(absence.clone());
                return;
            }
        };
        if suspicious {
            self.rings_pace.hurry(self.rings.begin_ns, self.rings_cost_ns, 0, SUSPICIOUS_REST);
        }
        if !self.rings_pace.is_due(now_ns()) {
            return;
        }
        (self.rings, self.rings_cost_ns) = costed(|| {
            let read = |fd: &i32| {
                let parsed = ring::read_fdinfo(&self.proc_root, self.pid, *fd);
                let absent = || Absence { why: Why::NotSampled, detail: String::new() };
                RingRaw {
                    fd: *fd,
                    source: RingSource::Fdinfo(absent()),
                    state: parsed.as_ref().map(|parsed| parsed.state.clone()),
                    armed: parsed.map(|parsed| ArmedRaw { at_ns: now_ns(), ..parsed.armed }),
                }
            };
            let rings: Vec<RingRaw> = fds.iter().map(read).collect();
            // A ring that was closed since the census is gone, not unreadable.
            let there =
                |ring: &RingRaw| ring.state.absence().is_none_or(|why| why.why != Why::Gone);
            Reading::Got(rings.into_iter().filter(there).collect())
        });
        self.rings_pace.was_read(self.rings.begin_ns, self.rings_cost_ns);
    }

    fn read_threads(&mut self, suspicious: bool) {
        if !self.threads_pace.is_due(now_ns()) {
            return;
        }
        let want_stacks = suspicious && self.stacks_pace.is_due(now_ns());
        let (mut read, cost_ns) = costed(|| threads::read(&self.proc_root, self.pid, want_stacks));
        if want_stacks {
            self.stacks_pace.was_read(read.begin_ns, cost_ns);
        } else if suspicious {
            keep_stacks(&mut read, &self.threads);
        }
        self.threads = read;
        self.threads_pace.was_read(self.threads.begin_ns, cost_ns);
    }

    fn read_sockets(&mut self, listeners: &Probe<Vec<ListenerRaw>>, suspicious: bool) {
        let now_ns = now_ns();
        let whole = self.sockets_pace.is_due(now_ns);
        let alive = suspicious && self.alive_pace.is_due(now_ns);
        if !whole && !alive {
            return;
        }
        let own = listeners.got().into_iter().flatten();
        let ports: BTreeSet<u16> = own
            .filter(|listener| listener.holder != Holder::Other)
            .map(|listener| listener.local.port())
            .collect();
        let ports: Vec<u16> = ports.into_iter().collect();
        let range = match &self.range {
            Reading::Got(range) => *range,
            Reading::Absent(absence) => {
                self.sockets.reading = Reading::Absent(absence.clone());
                return;
            }
        };
        let (tracker, diag) = (&mut self.tracker, &self.diag);
        if let Some(before) = self.sockets.got().filter(|_| !whole) {
            let cost_ns;
            (self.sockets, cost_ns) = costed(|| {
                let dump = diag.as_ref().and_then(|diag| diag.connections_alive(&ports));
                dump.map(|dump| tracker.update_alive(&dump, &ports, before))
            });
            self.alive_pace.was_read(self.sockets.begin_ns, cost_ns);
        } else {
            let cost_ns;
            (self.sockets, cost_ns) = costed(|| {
                let dump = diag.as_ref().and_then(|diag| diag.connections(&ports, range));
                dump.map(|dump| tracker.update(&dump, &ports, range))
            });
            self.sockets_pace.was_read(self.sockets.begin_ns, cost_ns);
        }
    }
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

/// Reads, and says what CPU time it cost.
fn costed<T>(read: impl FnOnce() -> Reading<T>) -> (Probe<T>, u64) {
    let before_ns = thread_cpu_ns();
    let probe = timed(read);
    (probe, thread_cpu_ns().saturating_sub(before_ns))
}

fn timed<T>(read: impl FnOnce() -> Reading<T>) -> Probe<T> {
    let begin_ns = now_ns();
    let reading = read();
    Probe { begin_ns, end_ns: now_ns(), reading }
}
