//! Made-up incidents, one per kind of report. The figures are plausible, not measured.

#![allow(dead_code, unused_imports, reason = "each test binary uses some of them")]

mod around;
mod causes;
mod hour;
pub mod poison;
mod profiles;
mod stacks;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use around::{
    FD_ERROR, PRESSURE_ERROR, fd_kinds, fd_limit, missing, peers, pressure, tiers, watcher,
};
pub use causes::{accept_not_armed, runtime_blocked, unknown};
pub use hour::restless_hour;
use profiles::{others_waiting, profile, serving, spinning, waiting, waits};
use stallscope::detect::{Onset, StallKind};
use stallscope::diagnose::verdict::{
    Cause, Confidence, Evidence, Link, Part, RuledOut, Value, Verdict,
};
use stallscope::model::tiers::Tier;
use stallscope::model::{
    AppModel, CgroupModel, FdsModel, ListenerModel, Model, PortsModel, ProcessModel, RingModel,
    ThreadModel, ThreadRole,
};
use stallscope::watch::config::Config;
use stallscope::watch::event::{Anchor, EndReason, Environment, Event, Incident, Target};
use stallscope_probes::sample::{
    ArmedRaw, Fault, FaultRaw, HeartbeatRaw, Holder, RingSource, RingState, SyscallRaw, TaskState,
};
use stallscope_probes::{Reading, Why};

pub const MS: u64 = 1_000_000;
pub const S: u64 = 1_000 * MS;
/// When the made-up runs begin.
pub const BEGIN_NS: u64 = 5_000 * S;
pub const INTERVAL_MS: u64 = 50;

/// One tick's worth of made-up state.
#[derive(Debug, Clone)]
pub struct State {
    pub requests_per_s: f64,
    pub beat_age_ms: f64,
    pub queued: u32,
    pub open_fds: u64,
    pub ring: Option<RingState>,
    pub runtime: (TaskState, f64, SyscallRaw, &'static str),
    pub stack: Option<Vec<&'static str>>,
    pub fault: Option<FaultRaw>,
    pub heartbeat: bool,
}

impl State {
    /// A busy, healthy server; `n` makes it breathe.
    pub fn busy(n: u64) -> Self {
        let wobble = ((n * 7919) % 23) as f64;
        Self {
            requests_per_s: 9_400.0 + wobble * 31.0,
            beat_age_ms: 2.0 + wobble,
            queued: (n % 3) as u32,
            open_fds: 182 + n % 9,
            ring: None,
            runtime: (TaskState::Sleeping, 0.58 + wobble / 200.0, EPOLL, "ep_poll"),
            stack: None,
            fault: None,
            heartbeat: true,
        }
    }
}

pub const EPOLL: SyscallRaw = SyscallRaw::In { nr: 232, arg0: 3 };

pub fn addr(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

pub fn absent<T>(why: Why, detail: &str) -> Reading<T> {
    Reading::absent(why, detail)
}

/// A thread that does nothing worth a word.
fn idle_thread(tid: i32, comm: &str, role: ThreadRole, cpu: f64) -> ThreadModel {
    ThreadModel {
        tid,
        comm: comm.to_owned(),
        role,
        state: TaskState::Sleeping,
        utime_ticks: 100,
        stime_ticks: 50,
        cpu_ratio: Reading::Got(cpu),
        delay_ratio: Reading::Got(0.01),
        switches_per_s: Reading::Got(40.0),
        syscall: Reading::Got(SyscallRaw::In { nr: 202, arg0: 0x7f3a_1c00_0910 }),
        wchan: Reading::Got(String::from("futex_wait_queue")),
        kernel_stack: absent(Why::NotSampled, "read on suspicion only"),
    }
}

fn threads(state: &State) -> Arc<[Arc<ThreadModel>]> {
    let (task, cpu, syscall, wchan) = state.runtime;
    let mut runtime = idle_thread(4242, "tokio-uring", ThreadRole::Runtime, cpu);
    runtime.state = task;
    runtime.syscall = Reading::Got(syscall);
    runtime.wchan = Reading::Got(wchan.to_owned());
    let mut kafka = idle_thread(4245, "rdk:broker1", ThreadRole::Kafka, 0.06);
    if let Some(stack) = &state.stack {
        let frames = |stack: &[&str]| stack.iter().map(|frame| (*frame).to_owned()).collect();
        runtime.kernel_stack = Reading::Got(frames(stack));
        kafka.kernel_stack =
            Reading::Got(frames(&["poll_schedule_timeout", "do_sys_poll", "__x64_sys_poll"]));
    }
    vec![
        runtime,
        idle_thread(4244, "rdk:main", ThreadRole::Kafka, 0.01),
        kafka,
        idle_thread(4246, "kafka-poll", ThreadRole::Kafka, 0.02),
        idle_thread(4249, "profiler", ThreadRole::Other, 0.0),
    ]
    .into_iter()
    .map(Arc::new)
    .collect()
}

fn app(state: &State) -> Reading<AppModel> {
    if !state.heartbeat {
        return absent(Why::Unsupported, "the process keeps no heartbeat page");
    }
    let raw = HeartbeatRaw {
        stack: String::from("tokio-uring"),
        runtime_tid: Some(4242),
        beat_every_ns: 20 * MS,
        fault: state.fault,
        ..HeartbeatRaw::default()
    };
    Reading::Got(AppModel {
        raw,
        beat_age_ms: Some(state.beat_age_ms),
        accepts_per_s: Reading::Got(state.requests_per_s / 16.0),
        requests_per_s: Reading::Got(state.requests_per_s),
        responses_per_s: Reading::Got(state.requests_per_s),
        delivered_per_s: Reading::Got(state.requests_per_s),
    })
}

/// A tick from a state. Every 40th ring reading is locked, as on a busy 6.18.
pub fn model(seq: u64, state: &State) -> Arc<Model> {
    let at_ns = BEGIN_NS + seq * INTERVAL_MS * MS;
    let ring = state.ring.clone().map(|ring| RingModel {
        fd: 9,
        at_ns,
        source: RingSource::Memory { confirmed: true },
        armed: Reading::Got(ArmedRaw {
            at_ns: at_ns - (seq % 20) * INTERVAL_MS * MS,
            operations: vec![(13, 1), (22, 128)],
            overflow: 0,
        }),
        state: if seq % 40 == 17 {
            absent(Why::Locked, "the kernel held the ring's lock and left its counters out")
        } else {
            Reading::Got(ring)
        },
        submissions_per_s: Reading::Got(0.0),
        completions_per_s: Reading::Got(0.0),
    });
    Arc::new(Model {
        seq,
        at_ns,
        late_ms: if seq % 97 == 5 { 3.4 } else { 0.2 },
        process: Reading::Got(ProcessModel {
            state: state.runtime.0,
            cpu_cores: Reading::Got(state.runtime.1),
            rss_bytes: 48 << 20,
            threads: 5,
        }),
        threads: Reading::Got(threads(state)),
        fds: Reading::Got(FdsModel { open: state.open_fds, limit: fd_limit() }),
        fd_kinds: fd_kinds(state),
        peers: Reading::Got(peers(at_ns).into()),
        listeners: Reading::Got(
            [ListenerModel {
                local: addr(8080),
                inode: 77_120,
                holder: Holder::Target,
                queued: state.queued,
                limit: Some(1_024),
                drops: Some(0),
                drops_new: Reading::Got(0),
            }]
            .into(),
        ),
        served: Reading::Got([].into()),
        ports: Reading::Got(PortsModel {
            size: 28_232,
            in_use: 410 + (seq % 50) as u32,
            time_wait: 120,
            range: (32_768, 60_999),
            top: vec![(addr(9092), 3)],
        }),
        rings: Reading::Got(ring.into_iter().collect::<Vec<_>>().into()),
        tcp: absent(Why::NotSampled, "not due"),
        app: app(state),
        frozen: absent(Why::NotPermitted, "cgroup.events: permission denied"),
        cgroup: Reading::Got(CgroupModel {
            throttled_ratio: Some(0.1),
            throttled_new: Some(2),
            throttled_ms_new: Some(31.5),
            memory_high_new: Some(0),
            memory_max_new: Some(0),
            oom_kills_new: Some(0),
        }),
        pressure: pressure(state),
        tables: Reading::absent(Why::NotSampled, "not read yet"),
        tables_at_ns: 0,
        epolls: Reading::absent(Why::NotSampled, "not read yet"),
        active: Reading::absent(Why::Unsupported, "not asked for"),
        watcher: watcher(seq),
        tiers: tiers(state),
    })
}

fn text(tier: Tier, signal: &str, value: &str, since_ns: Option<u64>) -> Evidence {
    Evidence {
        tier,
        signal: signal.to_owned(),
        value: Value::Text(value.to_owned()),
        unit: String::new(),
        since_ns,
    }
}

fn figure(tier: Tier, signal: &str, value: f64, unit: &str, since_ns: Option<u64>) -> Evidence {
    Evidence {
        tier,
        signal: signal.to_owned(),
        value: Value::Number(value),
        unit: unit.to_owned(),
        since_ns,
    }
}

fn link(at_ns: u64, part: Part, what: &str) -> Link {
    Link { at_ns, what: what.to_owned(), part }
}

fn ruled_out(cause: Cause, because: &str) -> RuledOut {
    RuledOut { cause, because: because.to_owned() }
}

/// A run without events.
pub fn quiet(models: Vec<Arc<Model>>) -> Incident {
    Incident {
        target: Target {
            pid: 4242,
            comm: String::from("tokio-uring"),
            cmdline: String::from("stallscope serve tokio-uring --listen 127.0.0.1:8080 --profile"),
            exe: Some(PathBuf::from("/usr/local/bin/stallscope")),
            start_time_ticks: 480_112,
            foreign_netns: false,
            siblings: Vec::new(),
        },
        environment: Environment {
            kernel: String::from("Linux 6.18.0"),
            cpus: 2,
            version: String::from("0.1.0"),
            interval_ms: INTERVAL_MS,
            ticks_per_s: 100,
            fd_limits: fd_limit(),
            limits: vec![String::from(
                "the cgroup of the process could not be read: permission denied",
            )],
        },
        config: Config::default(),
        // 2026-03-14T09:26:50.000Z
        anchor: Anchor { mono_ns: BEGIN_NS, real_ns: 1_773_480_410 * S },
        models,
        events: Vec::new(),
        profiles: Vec::new(),
        stacks: Vec::new(),
        end: EndReason::TimeUp,
        losses: Vec::new(),
    }
}

const ONSET_TICK: u64 = 244;
const ONSET_NS: u64 = BEGIN_NS + ONSET_TICK * INTERVAL_MS * MS;

/// `io_uring` entries are prepared and never flushed; never recovers; profiles on both sides.
pub fn sq_not_flushed() -> Incident {
    let fault = FaultRaw { fault: Fault::SqNotFlushed, begin_ns: ONSET_NS, end_ns: None };
    let models = (0..520).map(|seq| model(seq, &sq_state(seq, fault))).collect();
    let mut incident = quiet(models);
    incident.events = vec![
        Event::Note {
            at_ns: BEGIN_NS + 40 * MS,
            text: String::from("found ring fd 9 (256 entries)"),
        },
        Event::Onset(Onset {
            kind: StallKind::Ring,
            at_ns: ONSET_NS + 4 * MS,
            within_ns: 25 * MS,
            before_watch: false,
            detected_ns: ONSET_NS + 512 * MS,
            demand: String::from("64 entries of ring 9 wait to be submitted"),
            last_progress: String::from("ring 9 took entry 1,804,112"),
            partial: None,
        }),
        Event::Verdict(sq_verdict(Confidence::Likely, ONSET_NS + 512 * MS)),
        Event::Verdict(sq_verdict(Confidence::Certain, ONSET_NS + 1_012 * MS)),
    ];
    incident.profiles =
        (0..13).map(|n| profile(n * 2, &if n < 6 { serving() } else { spinning() })).collect();
    let off = (3..13).map(|n| waits(n * 2, &if n < 6 { waiting() } else { others_waiting() }));
    incident.profiles.extend(off);
    incident.stacks = vec![stacks::spinning(ONSET_NS + 700 * MS)];
    incident.end = EndReason::TimeUp;
    incident
}

fn sq_state(seq: u64, fault: FaultRaw) -> State {
    let mut state = State::busy(seq);
    let taken = 1_790_000 + seq.min(ONSET_TICK) as u32 * 58;
    let mut ring = RingState {
        sq_entries: 256,
        sq_head: taken,
        sq_tail: taken + (seq % 4) as u32,
        cq_entries: 512,
        cq_head: taken - 140,
        cq_tail: taken - 140 + (seq % 6) as u32,
        ..RingState::default()
    };
    if seq >= ONSET_TICK {
        let since = seq - ONSET_TICK;
        state.requests_per_s = if since < 2 { 2_100.0 } else { 0.0 };
        state.beat_age_ms = 1.0 + (seq % 3) as f64;
        state.queued = (since * 9).min(1_025) as u32;
        state.runtime = (TaskState::Running, 0.995, SyscallRaw::Running, "");
        state.stack = (since > 10).then(Vec::new);
        state.fault = Some(fault);
        ring.sq_tail = taken + 64;
        ring.cq_head = taken - 140;
        ring.cq_tail = taken - 140;
        ring.pending = Reading::Got((0..32).map(|n| (String::from("WRITE"), 12 + n)).collect());
    }
    state.ring = Some(ring);
    state
}

fn sq_verdict(confidence: Confidence, detected_ns: u64) -> Verdict {
    let since = Some(ONSET_NS + 4 * MS);
    Verdict {
        onset_ns: since,
        before_watch: false,
        detected_ns,
        cause: Cause::SqNotFlushed,
        confidence,
        summary: String::from(
            "The runtime prepares io_uring entries and never hands them to the kernel: 64 responses \
             are written into ring 9 and not submitted, because a task keeps the runtime from \
             parking, and it submits only when it parks",
        ),
        evidence: vec![
            figure(Tier::RingMemory, "ring 9, entries not submitted", 64.0, "entries", since),
            figure(
                Tier::RingMemory,
                "ring 9, head of the submission queue",
                1_804_152.0,
                "",
                since,
            ),
            text(Tier::ThreadCalls, "runtime thread 4242", "R, never in a system call", since),
            figure(Tier::Threads, "runtime thread 4242, CPU", 99.5, "% of one core", since),
            figure(
                Tier::Listeners,
                "accept queue of 127.0.0.1:8080",
                90.0,
                "connections",
                Some(ONSET_NS + 60 * MS),
            ),
            text(Tier::RingMemory, "opcodes not submitted", "WRITE", None),
        ],
        ruled_out: vec![
            ruled_out(Cause::ProcessStopped, "the runtime’s thread is running"),
            ruled_out(
                Cause::RuntimeBlocked,
                "the runtime’s thread is in no system call and its beat is fresh",
            ),
            ruled_out(Cause::FdExhausted, "190 of 1,024 fds are open"),
        ],
        rests_on: vec![Tier::Threads, Tier::ThreadCalls, Tier::Listeners, Tier::RingMemory],
        missing: vec![missing(Tier::Counters, "not due yet: not due")],
        chain: vec![
            link(ONSET_NS, Part::Cause, "a task of the runtime’s thread 4242 is always ready"),
            link(ONSET_NS + 4 * MS, Part::Cause, "64 entries of ring 9 stay unsubmitted"),
            link(ONSET_NS + 60 * MS, Part::Consequence, "no response is written"),
            link(
                ONSET_NS + 120 * MS,
                Part::Consequence,
                "the accept queue of 127.0.0.1:8080 grows",
            ),
            link(
                ONSET_NS + 5_700 * MS,
                Part::Consequence,
                "the accept queue is full: clients are dropped",
            ),
        ],
        unknowable: Vec::new(),
        next: vec![
            String::from("Look for a task that is always ready: the stalled flamegraph names it"),
            String::from(
                "Make it yield to the timer (tokio::time::sleep), not to the scheduler (yield_now)",
            ),
            String::from("Submit after each batch of work, not only on park"),
        ],
    }
}

/// No fd is left, then connections close.
pub fn fd_exhausted_recovered() -> Incident {
    let onset_ns = BEGIN_NS + 120 * INTERVAL_MS * MS;
    let recovered_ns = onset_ns + 6_150 * MS;
    let models = (0..400)
        .map(|seq| {
            let mut state = State::busy(seq);
            state.open_fds = (188 + seq * 7).min(1_024);
            if (120..243).contains(&seq) {
                state.requests_per_s = 310.0;
                state.queued = ((seq - 119) * 6) as u32;
                state.runtime = (TaskState::Running, 0.61, EPOLL, "ep_poll");
                state.stack = Some(vec!["ep_poll", "do_epoll_wait", "__x64_sys_epoll_wait"]);
            }
            if seq >= 243 {
                state.open_fds = 702 - seq % 5;
            }
            model(seq, &state)
        })
        .collect();
    let mut incident = quiet(models);
    let verdict = Verdict {
        onset_ns: Some(onset_ns),
        before_watch: false,
        detected_ns: onset_ns + 300 * MS,
        cause: Cause::FdExhausted,
        confidence: Confidence::Certain,
        summary: String::from(
            "All 1,024 file descriptors are open, so no connection can be accepted",
        ),
        evidence: vec![
            figure(Tier::Fds, "open fds", 1_024.0, "fds", Some(onset_ns)),
            figure(Tier::Fds, "limit", 1_024.0, "fds", None),
            text(Tier::Heartbeat, "last error of accept", "EMFILE", Some(onset_ns)),
        ],
        ruled_out: vec![ruled_out(Cause::SqNotFlushed, "the process has no ring")],
        rests_on: vec![Tier::Fds, Tier::Heartbeat],
        missing: Vec::new(),
        chain: Vec::new(),
        unknowable: Vec::new(),
        next: vec![
            String::from("Raise the soft limit: prlimit --pid 4242 --nofile=65536"),
            String::from("Close idle connections, and back off when accept fails with EMFILE"),
        ],
    };
    incident.events = vec![
        Event::Onset(Onset {
            kind: StallKind::Accept,
            at_ns: onset_ns,
            within_ns: 0,
            before_watch: false,
            detected_ns: onset_ns + 300 * MS,
            demand: String::from("6 connections wait in the accept queue"),
            last_progress: String::from("an accept succeeded"),
            partial: None,
        }),
        Event::Verdict(verdict),
        Event::Recovered { at_ns: recovered_ns, stalled_ms: 6_150.0 },
    ];
    incident.end = EndReason::TargetGone;
    incident.losses = vec![String::from("3 frames of the recording were damaged and skipped")];
    incident
}

/// Nothing stalls; no heartbeat, no ring, not ours.
pub fn healthy() -> Incident {
    let models =
        (0..200).map(|seq| model(seq, &State { heartbeat: false, ..State::busy(seq) })).collect();
    let mut incident = quiet(models);
    incident.events = vec![Event::Verdict(Verdict {
        onset_ns: None,
        before_watch: false,
        detected_ns: BEGIN_NS + 9 * S,
        cause: Cause::HealthyBusy,
        confidence: Confidence::Likely,
        summary: String::from("Work arrives and is done"),
        evidence: vec![figure(
            Tier::Listeners,
            "accept queue of 127.0.0.1:8080",
            2.0,
            "connections",
            None,
        )],
        ruled_out: Vec::new(),
        rests_on: vec![Tier::Listeners],
        missing: vec![
            missing(Tier::FdCensus, FD_ERROR),
            missing(Tier::Counters, "not due yet: not due"),
            missing(Tier::Heartbeat, "the process keeps no heartbeat page"),
            missing(Tier::Pressure, PRESSURE_ERROR),
        ],
        chain: Vec::new(),
        unknowable: Vec::new(),
        next: Vec::new(),
    })];
    incident
}

/// No tick at all.
pub fn empty() -> Incident {
    let mut incident = quiet(Vec::new());
    incident.end = EndReason::TargetGone;
    incident
}

/// Every case by name.
pub fn all() -> [(&'static str, Incident); 7] {
    [
        ("sq-not-flushed", sq_not_flushed()),
        ("fd-exhausted-recovered", fd_exhausted_recovered()),
        ("runtime-blocked", runtime_blocked()),
        ("accept-not-armed", accept_not_armed()),
        ("healthy", healthy()),
        ("unknown", unknown()),
        ("empty", empty()),
    ]
}
