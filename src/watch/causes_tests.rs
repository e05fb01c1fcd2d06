//! Every cause through the whole pipe, from made-up samples with the measured signatures
//! (`docs/causes.md`): attached before it and long after; each beside its twin, which differs in one
//! thing and is no stall, or another one.

use std::net::SocketAddr;

use stallscope_probes::sample::{
    AnswersRaw, ArmedRaw, CgroupRaw, ConntrackRaw, EpollRaw, Holder, ListenerRaw, PeerInfoRaw,
    PeerRaw, PortsRaw, RingState, Sample, ServedRaw, SyscallRaw, TablesRaw, TaskState, TcpState,
    ThreadRaw,
};
use stallscope_probes::{Probe, Reading, Why};

use super::config::Config;
use super::engine::Engine;
use super::event::Event;
use super::world::{Kind, Phase, TICK_NS, World};
use crate::detect::thresholds::Thresholds;
use crate::diagnose::verdict::Verdict;

pub(super) const RING: Kind = Kind { ring: true, page: false, rights: true };
pub(super) const EPOLL: Kind = Kind { ring: false, page: false, rights: true };
const PAGE: Kind = Kind { ring: false, page: true, rights: true };

/// Ticks of health before, and of the fault.
pub(super) const BEFORE: u64 = 80;
const AFTER: u64 = 140;

/// What is changed in a sample: ticks since the fault, or `None` before it.
pub(super) type Change = fn(Option<u64>, &mut Sample);

pub(super) struct Run {
    pub onset_ticks: Vec<f64>,
    pub verdicts: Vec<Verdict>,
    recovered: usize,
}

/// `before` ticks of health, then the fault for [`AFTER`] ticks.
pub(super) fn run(kind: Kind, phase: Phase, before: u64, change: Change) -> Run {
    run_by(Thresholds::default(), kind, phase, before, change)
}

pub(super) fn run_by(
    detect: Thresholds,
    kind: Kind,
    phase: Phase,
    before: u64,
    change: Change,
) -> Run {
    let mut world = World::new(kind);
    let mut engine = Engine::with(100, 100, Config { detect, ..Config::default() });
    let mut run = Run { onset_ticks: Vec::new(), verdicts: Vec::new(), recovered: 0 };
    // What has been going on before anybody looked has been going on for as long.
    let head_start = BEFORE - before;
    for tick in head_start..BEFORE + AFTER {
        let healthy = tick < BEFORE && before > 0;
        let mut sample = world.tick(if healthy { Phase::Busy } else { phase });
        answered(&mut sample);
        let since = if before == 0 { Some(tick + 10_000) } else { tick.checked_sub(BEFORE) };
        change(since, &mut sample);
        for event in engine.push(&sample).events {
            match event {
                Event::Onset(onset) => {
                    run.onset_ticks.push((onset.at_ns as f64 - 1e9) / TICK_NS as f64);
                }
                Event::Verdict(verdict) if verdict.cause.is_stall() => run.verdicts.push(verdict),
                Event::Recovered { .. } => run.recovered += 1,
                _ => {}
            }
        }
    }
    run
}

/// The connections of a healthy server: some wait, all for a moment only.
pub(super) fn answered(sample: &mut Sample) {
    served(sample, |served| {
        served.answers = Some(AnswersRaw {
            awaiting: 5,
            oldest_ms: Some(3),
            last_sent_ms: Some(0),
            last_received_ms: Some(0),
            ..AnswersRaw::default()
        });
    });
}

pub(super) fn served(sample: &mut Sample, change: impl FnOnce(&mut ServedRaw)) {
    if let Reading::Got(sockets) = &mut sample.sockets.reading {
        change(&mut sockets.served[0]);
    }
}

/// Since the fault nobody was answered.
pub(super) fn unanswered(since: Option<u64>, sample: &mut Sample) {
    let Some(ticks) = since else { return };
    let ms = u32::try_from(ticks * TICK_NS / 1_000_000).unwrap();
    served(sample, |served| {
        served.answers = Some(AnswersRaw {
            awaiting: 32,
            never_answered: 4,
            oldest_ms: Some(ms),
            last_sent_ms: Some(ms),
            last_received_ms: Some(ms),
            ..AnswersRaw::default()
        });
    });
}

fn ring(sample: &mut Sample, change: impl FnOnce(&mut RingState)) {
    if let Reading::Got(rings) = &mut sample.rings.reading
        && let Reading::Got(state) = &mut rings[0].state
    {
        change(state);
    }
}

fn armed(sample: &mut Sample, operations: &[(u8, u32)]) {
    let at_ns = sample.process.end_ns;
    if let Reading::Got(rings) = &mut sample.rings.reading {
        rings[0].armed =
            Reading::Got(ArmedRaw { at_ns, operations: operations.to_vec(), overflow: 0 });
    }
}

pub(super) fn thread(sample: &mut Sample, change: impl FnOnce(&mut Vec<ThreadRaw>)) {
    if let Reading::Got(threads) = &mut sample.threads.reading {
        change(threads);
    }
}

/// A thread like the first, with another name and place.
pub(super) fn another(
    threads: &[ThreadRaw],
    tid: i32,
    comm: &str,
    nr: i64,
    wchan: &str,
) -> ThreadRaw {
    ThreadRaw {
        tid,
        comm: comm.to_owned(),
        state: TaskState::Sleeping,
        syscall: Reading::Got(SyscallRaw::In { nr, arg0: 3 }),
        wchan: Reading::Got(wchan.to_owned()),
        ..threads[0].clone()
    }
}

fn put<T>(sample: &Sample, value: T) -> Probe<T> {
    let at_ns = sample.process.end_ns;
    Probe { begin_ns: at_ns, end_ns: at_ns, reading: Reading::Got(value) }
}

pub(super) fn listeners(sample: &mut Sample, change: impl FnOnce(&mut Vec<ListenerRaw>)) {
    if let Reading::Got(listeners) = &mut sample.listeners.reading {
        change(listeners);
    }
}

pub(super) fn broker(state: TcpState, unsent_bytes: u32, info: Option<(u32, u32, u8)>) -> PeerRaw {
    PeerRaw {
        remote: SocketAddr::from(([10, 0, 0, 7], 9092)),
        local_port: 40_000,
        inode: 77,
        state,
        unread_bytes: 0,
        unsent_bytes,
        info: info.map(|(last_sent_ms, last_received_ms, retransmits)| PeerInfoRaw {
            retransmits,
            retransmitted: 0,
            rtt_us: 200,
            unacked: 0,
            last_sent_ms,
            last_received_ms,
            sent_bytes: Some(900),
            received_bytes: Some(900),
        }),
    }
}

pub(super) fn with_producer(sample: &mut Sample, peers: Vec<PeerRaw>) {
    thread(sample, |threads| {
        let rdk = another(threads, 200, "rdk:broker1", 7, "do_sys_poll");
        threads.push(rdk);
    });
    sample.peers = put(sample, peers);
}

pub(super) const FINE: (u32, u32, u8) = (2, 1, 0);

pub(super) fn ms_of(since: Option<u64>) -> u32 {
    u32::try_from(since.unwrap_or(0) * TICK_NS / 1_000_000).unwrap()
}

fn kafka_unreachable(since: Option<u64>, sample: &mut Sample) {
    unanswered(since, sample);
    let peers = match since {
        None => vec![broker(TcpState::Established, 0, Some(FINE))],
        Some(_) => Vec::new(),
    };
    with_producer(sample, peers);
}

pub(super) fn kafka_slow(since: Option<u64>, sample: &mut Sample) {
    unanswered(since, sample);
    let ms = ms_of(since);
    let info = if since.is_some() { (ms.saturating_sub(20), ms + 10, 0) } else { FINE };
    with_producer(sample, vec![broker(TcpState::Established, 0, Some(info))]);
}

/// The broker does not read: its window is closed.
fn kafka_window_closed(since: Option<u64>, sample: &mut Sample) {
    unanswered(since, sample);
    let ms = ms_of(since);
    let peer = match since {
        None => broker(TcpState::Established, 0, Some(FINE)),
        Some(_) => broker(TcpState::Established, 200_000, Some((1, ms, 0))),
    };
    with_producer(sample, vec![peer]);
}

fn kafka_not_polled(since: Option<u64>, sample: &mut Sample) {
    unanswered(since, sample);
    with_producer(sample, vec![broker(TcpState::Established, 0, Some(FINE))]);
}

fn queue_full(since: Option<u64>, sample: &mut Sample) {
    kafka_unreachable(since, sample);
    if let Reading::Got(page) = &mut sample.heartbeat.reading {
        page.producer_queue_max = Some(100);
        page.producer_queue = if since.is_some() { 100 } else { 3 };
        page.queue_full = since.unwrap_or(0);
        if since.is_some() {
            page.requests = page.responses + 50;
        }
    }
}

pub(super) fn listener_gone(since: Option<u64>, sample: &mut Sample) {
    if let (Some(ticks), Reading::Got(tcp)) = (since, &mut sample.tcp.reading) {
        tcp.out_rsts = Some(ticks * 3);
    } else if let Reading::Got(tcp) = &mut sample.tcp.reading {
        tcp.out_rsts = Some(0);
    }
    if since.is_some() {
        // What is open is served on; to a look of now these are connections like any other.
        let peer = |inode| PeerRaw {
            local_port: 8080,
            inode,
            remote: SocketAddr::from(([10, 0, 0, 9], 1_000 + inode as u16)),
            ..broker(TcpState::Established, 0, Some(FINE))
        };
        sample.peers = put(sample, vec![peer(1), peer(2), peer(3)]);
        if let Reading::Got(sockets) = &mut sample.sockets.reading {
            sockets.served.clear();
        }
    }
}

/// No fd is left, and who comes is taken with one kept in reserve and closed at once.
fn turned_away(since: Option<u64>, sample: &mut Sample) {
    at_the_limit(since, sample);
    if let (Some(ticks), Reading::Got(fds)) = (since, &mut sample.fds.reading) {
        fds.open -= u64::from(ticks % 3 == 1);
    }
    resets(since, sample);
}

pub(super) fn at_the_limit(since: Option<u64>, sample: &mut Sample) {
    if let (Some(_), Reading::Got(fds)) = (since, &mut sample.fds.reading)
        && let Reading::Got(limit) = &fds.limit
    {
        fds.open = limit.soft.unwrap();
    }
}

pub(super) fn resets(since: Option<u64>, sample: &mut Sample) {
    if let Reading::Got(tcp) = &mut sample.tcp.reading {
        tcp.out_rsts = Some(since.map_or(0, |ticks| ticks * 3));
    }
}

pub(super) fn sibling(since: Option<u64>, sample: &mut Sample) {
    let Some(ticks) = since else { return };
    listeners(sample, |listeners| {
        let own = listeners[0].clone();
        listeners.push(ListenerRaw {
            inode: 43,
            queued: u32::try_from(ticks.min(1_000)).unwrap() + 1,
            holder: Holder::Other,
            ..own
        });
    });
}

pub(super) fn overflow(since: Option<u64>, sample: &mut Sample) {
    let Some(ticks) = since else { return };
    listeners(sample, |listeners| {
        listeners[0].limit = Some(8);
        listeners[0].queued = 8 + u32::from(ticks % 3 > 0);
        // A wave of retries each second.
        listeners[0].drops = Some(u32::try_from(ticks / 20 * 30).unwrap() + 30);
    });
}

/// A burst that overflowed once.
pub(super) fn burst(since: Option<u64>, sample: &mut Sample) {
    let Some(ticks) = since else { return };
    listeners(sample, |listeners| listeners[0].drops = Some(if ticks > 5 { 40 } else { 0 }));
}

pub(super) fn syn(since: Option<u64>, sample: &mut Sample) {
    let ticks = since.unwrap_or(0);
    if let Reading::Got(tcp) = &mut sample.tcp.reading {
        tcp.req_q_full_drops = Some(ticks * 5);
        tcp.req_q_full_cookies = Some(0);
    }
    if since.is_some() {
        served(sample, |served| served.syn_recv = 256);
        listeners(sample, |listeners| listeners[0].limit = Some(256));
    }
}

pub(super) fn conntrack(since: Option<u64>, sample: &mut Sample) {
    let table = |entries, drops| ConntrackRaw {
        entries,
        max: 262_144,
        drops,
        early_drops: 0,
        insert_failed: 0,
    };
    let table = since.map_or_else(|| table(100, 0), |ticks| table(262_144, ticks));
    let files = Reading::absent(Why::NotSampled, "");
    sample.tables = put(sample, TablesRaw { files, conntrack: Reading::Got(table) });
}

pub(super) fn ports(since: Option<u64>, sample: &mut Sample) {
    if let Reading::Got(sockets) = &mut sample.sockets.reading {
        let used = if since.is_some() { 100 } else { 7 };
        sockets.ports = PortsRaw {
            range: (40_000, 40_099),
            in_use: used,
            time_wait: used,
            top: vec![(SocketAddr::from(([127, 0, 0, 1], 8080)), used)],
        };
    }
}

fn throttled(since: Option<u64>, sample: &mut Sample) {
    let ticks = since.map_or(0, |ticks| ticks + 1);
    let all = BEFORE + 20_000;
    sample.cgroup = put(
        sample,
        CgroupRaw {
            frozen: Some(false),
            nr_periods: Some(all + ticks),
            nr_throttled: Some(ticks),
            throttled_usec: Some(ticks * 49_000),
            ..CgroupRaw::default()
        },
    );
    if since.is_some() {
        thread(sample, |threads| {
            threads[0].state = TaskState::Running;
            threads[0].syscall = Reading::Got(SyscallRaw::Running);
            if let Reading::Got(sched) = &mut threads[0].sched {
                sched.delay_ns = ticks * TICK_NS;
            }
        });
    }
}

fn storm(since: Option<u64>, sample: &mut Sample) {
    let Some(ticks) = since else { return };
    ring(sample, |state| {
        let done = u32::try_from(ticks * 5_000).unwrap();
        state.cq_head = state.cq_head.wrapping_add(done);
        state.cq_tail = state.cq_head;
        state.sq_head = state.sq_head.wrapping_add(done);
        state.sq_tail = state.sq_head;
        state.recent = Reading::Got(vec![(11, 32)]);
    });
}

pub(super) fn leaked(since: Option<u64>, sample: &mut Sample) {
    let accepts = since.map_or(1, |ticks| u32::try_from(ticks.min(200)).unwrap() + 2);
    armed(sample, &[(13, accepts), (22, 20)]);
    let Some(ticks) = since else { return };
    let ms = ms_of(since);
    served(sample, |served| {
        served.close_wait = u32::try_from(ticks.min(500)).unwrap();
        served.answers = Some(AnswersRaw {
            neglected: u32::try_from(ticks.min(500)).unwrap() + 1,
            neglected_oldest_ms: Some(ms),
            awaiting: 1,
            oldest_ms: Some(ms),
            last_sent_ms: Some(ms),
            ..AnswersRaw::default()
        });
    });
}

fn not_armed(since: Option<u64>, sample: &mut Sample) {
    armed(sample, if since.is_some() { &[(22, 20)] } else { &[(13, 1), (22, 20)] });
}

fn deferred(_: Option<u64>, sample: &mut Sample) {
    armed(sample, &[(13, 1)]);
    ring(sample, |state| {
        (state.sq_head, state.sq_tail) = (1, 1);
        (state.cq_head, state.cq_tail) = (0, 0);
    });
}

fn not_reaped(since: Option<u64>, sample: &mut Sample) {
    if since.is_some() {
        ring(sample, |state| state.cq_tail = state.cq_head.wrapping_add(21));
    }
}

fn not_watched(since: Option<u64>, sample: &mut Sample) {
    let listeners = if since.is_some() { Vec::new() } else { vec![(42, true)] };
    sample.epolls = put(sample, vec![EpollRaw { fd: 5, watched: 12, listeners }]);
}

pub(super) fn workers(since: Option<u64>, sample: &mut Sample, second: (i64, &str)) {
    thread(sample, |threads| {
        let main = another(threads, 100, "server", 202, "futex_do_wait");
        let (nr, wchan) =
            if since.is_some() { (230, "hrtimer_nanosleep") } else { (232, "ep_poll") };
        let one = another(threads, 101, "tokio-rt-worker", nr, wchan);
        let two = another(threads, 102, "tokio-rt-worker", second.0, second.1);
        *threads = vec![main, one, two];
    });
    if since.is_some() {
        served(sample, |served| {
            served.unread_bytes = 500;
            served.unread_sockets = 5;
            served.fingerprint = 1;
        });
    }
}

fn workers_blocked(since: Option<u64>, sample: &mut Sample) {
    // The second is parked: it waits to be handed a task.
    workers(since, sample, (202, "futex_do_wait"));
}

pub(super) fn one_worker_blocked(since: Option<u64>, sample: &mut Sample) {
    workers(since, sample, (232, "ep_poll"));
}

#[test]
fn each_cause_is_named_before_and_long_after() {
    let cases: [(&str, Kind, Phase, Change); 20] = [
        ("kafka-unreachable", EPOLL, Phase::SlowRequests, kafka_unreachable),
        ("kafka-slow", EPOLL, Phase::SlowRequests, kafka_slow),
        ("kafka-slow", EPOLL, Phase::SlowRequests, kafka_window_closed),
        ("kafka-not-polled", EPOLL, Phase::SlowRequests, kafka_not_polled),
        ("kafka-queue-full", PAGE, Phase::SlowRequests, queue_full),
        ("listener-gone", EPOLL, Phase::Unlistening, listener_gone),
        ("fd-exhausted", EPOLL, Phase::Busy, turned_away),
        ("reuseport-sibling", EPOLL, Phase::Busy, sibling),
        ("accept-queue-overflow", EPOLL, Phase::Saturated, overflow),
        ("syn-backlog-full", EPOLL, Phase::Busy, syn),
        ("conntrack-full", EPOLL, Phase::Idle, conntrack),
        ("ephemeral-ports-exhausted", EPOLL, Phase::Idle, ports),
        ("cpu-throttled", EPOLL, Phase::Idle, throttled),
        ("accept-eagain-storm", RING, Phase::Saturated, storm),
        ("accept-leaked", RING, Phase::Idle, leaked),
        ("accept-not-armed", RING, Phase::NotAccepting, not_armed),
        ("taskrun-deferred", RING, Phase::NotAccepting, deferred),
        ("completions-not-reaped", RING, Phase::NotAccepting, not_reaped),
        ("accept-not-armed", EPOLL, Phase::NotAccepting, not_watched),
        ("workers-blocked", EPOLL, Phase::Blocked, workers_blocked),
    ];
    let mut wrong = Vec::new();
    for (cause, kind, phase, change) in cases {
        for before in [BEFORE, 0] {
            let run = run(kind, phase, before, change);
            let named: Vec<&str> = run.verdicts.iter().map(|verdict| verdict.cause.id()).collect();
            let dated = before == 0
                || cause == "taskrun-deferred"
                || run.onset_ticks.iter().all(|tick| (tick - BEFORE as f64).abs() <= 30.0);
            if named.last() != Some(&cause)
                || named.iter().any(|one| *one != cause && *one != "unknown")
                || !dated
                || run.recovered > 0
            {
                wrong.push((cause, before, named.join(" "), run.onset_ticks, run.recovered));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn what_is_called_full_is_judged_by_the_same_share() {
    fn most_ports(since: Option<u64>, sample: &mut Sample) {
        ports(since, sample);
        if let Reading::Got(sockets) = &mut sample.sockets.reading {
            let used = &mut sockets.ports.top[0].1;
            *used = *used * 7 / 10;
        }
    }
    let half = Thresholds { ports_full_ratio: 0.5, ..Thresholds::default() };
    let run = |thresholds| run_by(thresholds, EPOLL, Phase::Idle, BEFORE, most_ports);
    let named = run(half).verdicts.last().map(|verdict| verdict.cause.id());
    assert_eq!(named, Some("ephemeral-ports-exhausted"));
    assert!(run(Thresholds::default()).onset_ticks.is_empty());
}

#[test]
fn a_pause_between_the_tries_of_clients_in_step_is_no_recovery() {
    fn in_step(since: Option<u64>, sample: &mut Sample) {
        let Some(ticks) = since else { return };
        // Tries after nought, one, two and six seconds.
        let waves = 1 + [20, 40, 120].into_iter().filter(|at| ticks >= *at).count();
        listeners(sample, |listeners| {
            listeners[0].limit = Some(8);
            listeners[0].queued = if ticks > 60 { 0 } else { 9 };
            listeners[0].drops = Some(30 * u32::try_from(waves).unwrap());
        });
    }
    let run = run(EPOLL, Phase::Saturated, BEFORE, in_step);
    assert_eq!((run.onset_ticks.len(), run.recovered), (1, 0), "{:?}", run.onset_ticks);
}

#[test]
fn an_overflow_is_older_than_the_watch_though_the_next_try_comes_later() {
    fn in_step(since: Option<u64>, sample: &mut Sample) {
        let ticks = since.unwrap() - 10_000 - BEFORE;
        let waves = 1 + [45, 65, 85, 105].into_iter().filter(|at| ticks >= *at).count();
        listeners(sample, |listeners| {
            listeners[0].limit = Some(8);
            listeners[0].queued = if (5..45).contains(&ticks) { 0 } else { 9 };
            listeners[0].drops = Some(30 * u32::try_from(waves).unwrap());
        });
    }
    let run = run(EPOLL, Phase::Saturated, 0, in_step);
    let older: Vec<bool> = run.verdicts.iter().map(|verdict| verdict.before_watch).collect();
    assert_eq!(older, [true], "{:?}", run.verdicts);
}

#[test]
fn a_table_that_is_read_seldom_dates_the_stall_no_finer_than_that() {
    /// Ticks from the fault to the first read that shows it; the one before was just before it.
    const READ_AFTER: u64 = 12;
    fn seldom(since: Option<u64>, sample: &mut Sample) {
        match since.filter(|ticks| *ticks < READ_AFTER) {
            Some(ticks) => {
                conntrack(None, sample);
                sample.tables.end_ns -= (ticks + 1) * TICK_NS;
            }
            None => conntrack(since, sample),
        }
    }
    /// The last client that came in took an fd.
    fn last_accept(since: Option<u64>, sample: &mut Sample) {
        seldom(since, sample);
        if let (Reading::Got(fds), Some(_)) = (&mut sample.fds.reading, since) {
            fds.open += 1;
        }
    }
    for (change, earliest, latest) in
        [(seldom as Change, 4.0, 7.0), (last_accept as Change, -1.0, 0.5)]
    {
        let run = run(EPOLL, Phase::Idle, BEFORE, change);
        let ticks = run.onset_ticks[0] - BEFORE as f64;
        assert!((earliest..=latest).contains(&ticks), "{ticks}");
    }
}

#[test]
fn what_waits_in_the_accept_queue_dates_the_stall_also_for_a_late_watcher() {
    fn waiting(since: Option<u64>, sample: &mut Sample) {
        not_armed(since, sample);
        if since.is_some() {
            // A late watcher came ten ticks after it.
            let late = 10_000 + BEFORE - 10;
            let ms = ms_of(since.map(|ticks| ticks.checked_sub(late).unwrap_or(ticks)));
            served(sample, |served| {
                let answers = served.answers.as_mut().unwrap();
                answers.queued_oldest_ms = Some(ms);
            });
        }
    }
    for (before, expected) in [(BEFORE, BEFORE as f64), (0, -10.0)] {
        let run = run(RING, Phase::NotAccepting, before, waiting);
        assert_eq!(run.onset_ticks.len(), 1, "{:?}", run.verdicts);
        assert!((run.onset_ticks[0] - expected).abs() < 1.0, "{before}: {:?}", run.onset_ticks);
    }
}
