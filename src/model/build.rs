//! Builds a model from a sample and what is remembered of the ones before it.

use std::collections::BTreeMap;
use std::sync::Arc;

use stallscope_probes::sample::{
    CgroupRaw, EpollRaw, HeartbeatRaw, ListenerRaw, ProcessRaw, RingRaw, RingState, Sample,
    SocketsRaw, TcpRaw, ThreadRaw,
};
use stallscope_probes::{Probe, Reading, Why};

use super::peers::Peers;
use super::resources::Resources;
use super::threads::Roles;
use super::tiers::{self, Classes, TierModel};
use super::watcher::Watcher;
use super::{
    AppModel, FdsModel, ListenerModel, Model, PortsModel, ProcessModel, RingModel, ServedModel,
    TcpModel, ThreadModel,
};

/// Makes models from a stream of samples: rates from the last good reading and this one.
#[derive(Debug)]
pub struct ModelBuilder {
    pid: i32,
    ticks_per_s: u64,
    roles: Roles,
    process: Option<(u64, ProcessRaw)>,
    /// The reading that takes its place once it is old enough itself.
    process_next: Option<(u64, ProcessRaw)>,
    threads: BTreeMap<i32, (u64, ThreadRaw)>,
    /// The last models of the threads, and when they were read.
    thread_models: Option<(u64, Arc<[Arc<ThreadModel>]>)>,
    /// The last good reading of each ring.
    rings: BTreeMap<i32, RingModel>,
    peers: Peers,
    resources: Resources,
    watcher: Watcher,
    shared: SharedLists,
    drops: BTreeMap<u32, u32>,
    tcp: Option<TcpRaw>,
    page: Option<(u64, HeartbeatRaw)>,
}

impl ModelBuilder {
    /// For the process `pid`; `ticks_per_s` is `sysconf(_SC_CLK_TCK)` of its machine.
    pub fn new(pid: i32, ticks_per_s: u64) -> Self {
        Self {
            pid,
            ticks_per_s: ticks_per_s.max(1),
            roles: Roles::default(),
            process: None,
            process_next: None,
            threads: BTreeMap::new(),
            thread_models: None,
            rings: BTreeMap::new(),
            peers: Peers::default(),
            resources: Resources::default(),
            watcher: Watcher::default(),
            shared: SharedLists::default(),
            drops: BTreeMap::new(),
            tcp: None,
            page: None,
        }
    }

    /// The model of the next sample.
    pub fn push(&mut self, sample: &Sample) -> Model {
        let at_ns = ended_ns(sample);
        let page = sample.heartbeat.got().cloned();
        let sockets = &sample.sockets;
        Model {
            seq: sample.seq,
            at_ns,
            late_ms: ms(sample.late_ns),
            process: self.process(&sample.process),
            threads: self.threads(&sample.threads, page.as_ref()),
            fds: sample
                .fds
                .reading
                .as_ref()
                .map(|fds| FdsModel { open: fds.open, limit: fds.limit.clone() }),
            fd_kinds: sample.fd_kinds.reading.clone(),
            listeners: self.listeners(&sample.listeners.reading),
            served: sockets
                .reading
                .as_ref()
                .map(|raw| share(&mut self.shared.served, served(raw, sockets.end_ns))),
            ports: sockets.reading.as_ref().map(ports),
            peers: self.peers.push(&sample.peers),
            rings: self.rings(&sample.rings),
            tcp: self.tcp(&sample.tcp.reading),
            app: self.app(&sample.heartbeat, at_ns),
            frozen: sample.cgroup.reading.as_ref().and_then(frozen),
            cgroup: self.resources.cgroup(&sample.cgroup),
            pressure: self.resources.pressure(&sample.pressure),
            tables: sample.tables.reading.clone(),
            tables_at_ns: sample.tables.end_ns,
            epolls: sample
                .epolls
                .reading
                .as_ref()
                .map(|epolls| share(&mut self.shared.epolls, epolls.clone())),
            active: sample.active.reading.clone(),
            watcher: self.watcher.push(at_ns, &sample.watcher),
            tiers: self.tiers(sample),
        }
    }

    /// The tiers are put into words only when one of them has changed: most ticks are alike.
    fn tiers(&mut self, sample: &Sample) -> Arc<[TierModel]> {
        let classes = tiers::classes(sample);
        match &self.shared.tiers {
            Some((then, tiers)) if *then == classes => Arc::clone(tiers),
            _ => {
                let tiers: Arc<[TierModel]> = tiers::of(sample).into();
                self.shared.tiers = Some((classes, Arc::clone(&tiers)));
                tiers
            }
        }
    }

    fn process(&mut self, probe: &Probe<ProcessRaw>) -> Reading<ProcessModel> {
        let raw = match &probe.reading {
            Reading::Got(raw) => raw,
            Reading::Absent(absence) => return Reading::Absent(absence.clone()),
        };
        let cpu_cores = match &self.process {
            None => no_previous(),
            Some((_, before)) if before.start_time_ticks != raw.start_time_ticks => restarted(),
            Some((then_ns, before)) => {
                let used = |raw: &ProcessRaw| raw.utime_ticks.saturating_add(raw.stime_ticks);
                match (used(raw).checked_sub(used(before)), elapsed_s(*then_ns, probe.begin_ns)) {
                    (Some(ticks), Some(s)) => {
                        Reading::Got(ticks as f64 / self.ticks_per_s as f64 / s)
                    }
                    (None, _) => restarted(),
                    (_, None) => no_previous(),
                }
            }
        };
        self.keep_process(probe.begin_ns, raw, cpu_cores.got().is_none());
        Reading::Got(ProcessModel {
            state: raw.state,
            cpu_cores,
            rss_bytes: raw.rss_bytes,
            threads: raw.threads,
        })
    }

    /// CPU time comes in ticks of 10 ms: over less than a few of them a ratio is noise, so a
    /// reading becomes the base of the next ones only when it is old enough.
    fn keep_process(&mut self, at_ns: u64, raw: &ProcessRaw, anew: bool) {
        if anew {
            self.process = Some((at_ns, raw.clone()));
            self.process_next = None;
            return;
        }
        let next = self.process_next.get_or_insert_with(|| (at_ns, raw.clone()));
        if at_ns.saturating_sub(next.0) >= CPU_BASE_NS {
            self.process = Some(std::mem::replace(next, (at_ns, raw.clone())));
        }
    }

    fn threads(
        &mut self,
        probe: &Probe<Vec<ThreadRaw>>,
        page: Option<&HeartbeatRaw>,
    ) -> Reading<Arc<[Arc<ThreadModel>]>> {
        let raws = match &probe.reading {
            Reading::Got(raws) => raws,
            Reading::Absent(absence) => return Reading::Absent(absence.clone()),
        };
        // A read carried along from an earlier tick says again what it said then.
        if let Some((_, models)) =
            self.thread_models.as_ref().filter(|(read_ns, _)| *read_ns == probe.begin_ns)
        {
            return Reading::Got(Arc::clone(models));
        }
        self.peers.saw_threads(raws);
        let roles = self.roles.assign(self.pid, raws, page);
        // Two ticks may come in quick succession (one was late): a share of so little time says
        // nothing, so the last one stands until there is enough.
        let last_ns = self.threads.values().map(|(then_ns, _)| *then_ns).max();
        let too_soon =
            last_ns.is_some_and(|last_ns| probe.begin_ns.saturating_sub(last_ns) < THREAD_BASE_NS);
        let models: Vec<Arc<ThreadModel>> = raws
            .iter()
            .zip(roles)
            .map(|(raw, role)| {
                let before = self.threads.get(&raw.tid);
                let rates = match self.last_rates(raw.tid).filter(|_| too_soon) {
                    Some(rates) => rates,
                    None => thread_rates(before, raw, probe.begin_ns),
                };
                self.shared_thread(ThreadModel {
                    tid: raw.tid,
                    comm: raw.comm.clone(),
                    role,
                    state: raw.state,
                    utime_ticks: raw.utime_ticks,
                    stime_ticks: raw.stime_ticks,
                    cpu_ratio: rates.as_ref().map(|rates| rates.cpu),
                    delay_ratio: rates.as_ref().map(|rates| rates.delay),
                    switches_per_s: rates.map(|rates| rates.switches_per_s),
                    syscall: raw.syscall.clone(),
                    wchan: raw.wchan.clone(),
                    kernel_stack: raw.kernel_stack.clone(),
                })
            })
            .collect();
        if !too_soon {
            let kept = raws.iter().map(|raw| (raw.tid, (probe.begin_ns, raw.clone())));
            self.threads = kept.collect();
        }
        let mut last = self.thread_models.take().map(|(_, models)| models);
        let models = share(&mut last, models);
        self.thread_models = Some((probe.begin_ns, Arc::clone(&models)));
        Reading::Got(models)
    }

    /// The model of the same thread at the last look, if nothing about it has changed.
    fn shared_thread(&self, model: ThreadModel) -> Arc<ThreadModel> {
        let last = self.thread_models.as_ref().and_then(|(_, models)| {
            models.iter().find(|other| other.tid == model.tid && ***other == model)
        });
        last.map_or_else(|| Arc::new(model), Arc::clone)
    }

    /// The rates last given for a thread.
    fn last_rates(&self, tid: i32) -> Option<Reading<ThreadRates>> {
        let (_, models) = self.thread_models.as_ref()?;
        let model = models.iter().find(|model| model.tid == tid)?;
        let rates = model.cpu_ratio.clone().and_then(|cpu| {
            model.delay_ratio.clone().and_then(|delay| {
                let switches = model.switches_per_s.clone();
                switches.map(|switches_per_s| ThreadRates { cpu, delay, switches_per_s })
            })
        });
        Some(rates)
    }

    fn listeners(&mut self, reading: &Reading<Vec<ListenerRaw>>) -> Reading<Arc<[ListenerModel]>> {
        let raws = match reading {
            Reading::Got(raws) => raws,
            Reading::Absent(absence) => return Reading::Absent(absence.clone()),
        };
        let models = raws
            .iter()
            .map(|raw| ListenerModel {
                local: raw.local,
                inode: raw.inode,
                holder: raw.holder,
                queued: raw.queued,
                limit: raw.limit,
                drops: raw.drops,
                drops_new: match (raw.drops, self.drops.get(&raw.inode)) {
                    (None, _) => {
                        Reading::absent(Why::Unsupported, "the kernel gave no drop counter")
                    }
                    (_, None) => no_previous(),
                    (Some(now), Some(before)) => Reading::Got(now.wrapping_sub(*before)),
                },
            })
            .collect();
        self.drops = raws.iter().filter_map(|raw| Some((raw.inode, raw.drops?))).collect();
        Reading::Got(share(&mut self.shared.listeners, models))
    }

    fn rings(&mut self, probe: &Probe<Vec<RingRaw>>) -> Reading<Arc<[RingModel]>> {
        let raws = match &probe.reading {
            Reading::Got(raws) => raws,
            Reading::Absent(absence) => return Reading::Absent(absence.clone()),
        };
        let models = raws.iter().map(|raw| self.ring(raw, probe.end_ns)).collect();
        self.rings.retain(|fd, _| raws.iter().any(|raw| raw.fd == *fd));
        Reading::Got(share(&mut self.shared.rings, models))
    }

    fn ring(&mut self, raw: &RingRaw, at_ns: u64) -> RingModel {
        let before = self.rings.get(&raw.fd);
        let state = match &raw.state {
            Reading::Got(state) => state,
            Reading::Absent(absence) => {
                return RingModel {
                    fd: raw.fd,
                    at_ns,
                    source: raw.source.clone(),
                    state: raw.state.clone(),
                    armed: raw.armed.clone(),
                    submissions_per_s: Reading::Absent(absence.clone()),
                    completions_per_s: Reading::Absent(absence.clone()),
                };
            }
        };
        let rate = |count: fn(&RingState) -> u32| {
            let Some(before) = before else { return no_previous() };
            match (before.state.got(), elapsed_s(before.at_ns, at_ns)) {
                (Some(then), Some(s)) => {
                    Reading::Got(f64::from(count(state).wrapping_sub(count(then))) / s)
                }
                _ => no_previous(),
            }
        };
        // A read carried along from an earlier tick says again what it said then.
        if let Some(before) = before.filter(|before| before.at_ns == at_ns) {
            return before.clone();
        }
        let model = RingModel {
            fd: raw.fd,
            at_ns,
            source: raw.source.clone(),
            state: raw.state.clone(),
            armed: raw.armed.clone(),
            submissions_per_s: rate(|ring| ring.sq_head),
            completions_per_s: rate(|ring| ring.cq_head),
        };
        self.rings.insert(raw.fd, model.clone());
        model
    }

    fn tcp(&mut self, reading: &Reading<TcpRaw>) -> Reading<TcpModel> {
        let now = match reading {
            Reading::Got(raw) => *raw,
            Reading::Absent(absence) => return Reading::Absent(absence.clone()),
        };
        let Some(before) = self.tcp.replace(now) else { return no_previous() };
        let new = |now: Option<u64>, before: Option<u64>| now?.checked_sub(before?);
        Reading::Got(TcpModel {
            listen_overflows_new: new(now.listen_overflows, before.listen_overflows),
            listen_drops_new: new(now.listen_drops, before.listen_drops),
            passive_opens_new: new(now.passive_opens, before.passive_opens),
            active_opens_new: new(now.active_opens, before.active_opens),
            out_rsts_new: new(now.out_rsts, before.out_rsts),
            retrans_segs_new: new(now.retrans_segs, before.retrans_segs),
            req_q_full_drops_new: new(now.req_q_full_drops, before.req_q_full_drops),
            req_q_full_cookies_new: new(now.req_q_full_cookies, before.req_q_full_cookies),
        })
    }

    fn app(&mut self, probe: &Probe<HeartbeatRaw>, at_ns: u64) -> Reading<AppModel> {
        let raw = match &probe.reading {
            Reading::Got(raw) => raw,
            Reading::Absent(absence) => return Reading::Absent(absence.clone()),
        };
        let before = self.page.as_ref();
        let rate = |value: fn(&HeartbeatRaw) -> u64| match before {
            None => no_previous(),
            Some((then_ns, page)) => {
                match (value(raw).checked_sub(value(page)), elapsed_s(*then_ns, probe.begin_ns)) {
                    (Some(more), Some(s)) => Reading::Got(more as f64 / s),
                    (None, _) => restarted(),
                    (_, None) => no_previous(),
                }
            }
        };
        let model = AppModel {
            raw: raw.clone(),
            beat_age_ms: raw.beat_ns.map(|beat_ns| ms(at_ns.saturating_sub(beat_ns))),
            accepts_per_s: rate(|page| page.accepted),
            requests_per_s: rate(|page| page.requests),
            responses_per_s: rate(|page| page.responses),
            delivered_per_s: rate(|page| page.delivered),
        };
        self.page = Some((probe.begin_ns, raw.clone()));
        Reading::Got(model)
    }
}

/// Shortest base for CPU time that is counted in ticks: a quarter of a second is 25 ticks.
const CPU_BASE_NS: u64 = 250_000_000;

/// Shortest base for a thread's shares. The kernel brings `schedstat` up to date at its own tick,
/// every 1 to 10 ms.
const THREAD_BASE_NS: u64 = 20_000_000;

/// The lists of the last tick, to be shared with the next one if nothing in them has changed.
#[derive(Debug, Default)]
struct SharedLists {
    listeners: Option<Arc<[ListenerModel]>>,
    served: Option<Arc<[ServedModel]>>,
    rings: Option<Arc<[RingModel]>>,
    epolls: Option<Arc<[EpollRaw]>>,
    tiers: Option<(Classes, Arc<[TierModel]>)>,
}

/// `list`, or `last` where the two are equal: so many ticks are kept that copies would cost.
pub(super) fn share<T: PartialEq>(last: &mut Option<Arc<[T]>>, list: Vec<T>) -> Arc<[T]> {
    if let Some(last) = last.as_ref().filter(|last| ***last == *list) {
        return Arc::clone(last);
    }
    let list: Arc<[T]> = list.into();
    *last = Some(Arc::clone(&list));
    list
}

struct ThreadRates {
    cpu: f64,
    delay: f64,
    switches_per_s: f64,
}

fn thread_rates(
    before: Option<&(u64, ThreadRaw)>,
    now: &ThreadRaw,
    now_ns: u64,
) -> Reading<ThreadRates> {
    let Some((then_ns, before)) = before else { return no_previous() };
    let Some(s) = elapsed_s(*then_ns, now_ns) else { return no_previous() };
    let (before, now) = match (&before.sched, &now.sched) {
        (Reading::Got(before), Reading::Got(now)) => (before, now),
        (_, Reading::Absent(absence)) => return Reading::Absent(absence.clone()),
        (Reading::Absent(_), _) => return no_previous(),
    };
    let more = |now: u64, before: u64| now.checked_sub(before).map(|more| more as f64);
    match (
        more(now.run_ns, before.run_ns),
        more(now.delay_ns, before.delay_ns),
        more(now.timeslices, before.timeslices),
    ) {
        (Some(run_ns), Some(delay_ns), Some(slices)) => Reading::Got(ThreadRates {
            cpu: (run_ns / 1e9 / s).min(1.0),
            delay: (delay_ns / 1e9 / s).min(1.0),
            switches_per_s: slices / s,
        }),
        // A tid that was re-used by a younger thread.
        _ => restarted(),
    }
}

fn served(raw: &SocketsRaw, at_ns: u64) -> Vec<ServedModel> {
    raw.served.iter().map(|raw| ServedModel { raw: *raw, at_ns }).collect()
}

fn ports(raw: &SocketsRaw) -> PortsModel {
    let (low, high) = raw.ports.range;
    PortsModel {
        size: u32::from(high).saturating_sub(u32::from(low)).saturating_add(1),
        in_use: raw.ports.in_use,
        time_wait: raw.ports.time_wait,
        range: raw.ports.range,
        top: raw.ports.top.clone(),
    }
}

fn frozen(raw: &CgroupRaw) -> Reading<bool> {
    raw.frozen.map_or_else(
        || Reading::absent(Why::Unsupported, "the cgroup has no freezer"),
        Reading::Got,
    )
}

/// When the last read of the tick had ended.
fn ended_ns(sample: &Sample) -> u64 {
    let ends = [
        sample.process.end_ns,
        sample.threads.end_ns,
        sample.fds.end_ns,
        sample.listeners.end_ns,
        sample.sockets.end_ns,
        sample.rings.end_ns,
        sample.tcp.end_ns,
        sample.heartbeat.end_ns,
        sample.fd_kinds.end_ns,
        sample.peers.end_ns,
        sample.cgroup.end_ns,
        sample.pressure.end_ns,
    ];
    ends.into_iter().fold(sample.due_ns.saturating_add(sample.late_ns), u64::max)
}

fn elapsed_s(then_ns: u64, now_ns: u64) -> Option<f64> {
    now_ns.checked_sub(then_ns).filter(|ns| *ns > 0).map(|ns| ns as f64 / 1e9)
}

fn ms(ns: u64) -> f64 {
    ns as f64 / 1e6
}

pub(super) fn no_previous<T>() -> Reading<T> {
    Reading::absent(Why::NoPrevious, "a rate needs two readings")
}

pub(super) fn restarted<T>() -> Reading<T> {
    Reading::absent(Why::Restarted, "a counter went back: this is another process or thread")
}

#[cfg(test)]
#[path = "build_tests.rs"]
pub(super) mod tests;
