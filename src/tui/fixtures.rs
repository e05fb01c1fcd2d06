//! Fixed models for the tests of the view.

#[path = "fixtures_around.rs"]
mod around;
#[path = "fixtures_causes.rs"]
mod causes;

use std::sync::Arc;

use stallscope_probes::sample::{
    ArmedRaw, FdKindsRaw, FdLimitRaw, HeartbeatRaw, Holder, PressureScope, RingSource, RingState,
    ServedRaw, SyscallRaw, TaskState,
};
use stallscope_probes::{Absence, Reading, Why};

use around::{calm_cgroup, peers, tiers, watcher};
pub use causes::{chained_verdict, forecast, partial_onset, pressed, probed};

use super::SessionInfo;
use crate::detect::{Onset, StallKind};
use crate::diagnose::verdict::{Cause, Confidence, Evidence, Missing, RuledOut, Value, Verdict};
use crate::model::tiers::{Tier, TierModel, TierStatus};
use crate::model::{
    AppModel, CgroupModel, FdsModel, ListenerModel, Model, PortsModel, PressureModel, ProcessModel,
    RingModel, ServedModel, StallShare, TcpModel, ThreadModel, ThreadRole, WatcherModel,
};
use crate::watch::event::{Anchor, EndReason, Environment, Event, Incident, Step, Target};

/// Monotonic instant of tick 0, ns; wall time is then 2026-11-22T12:00:00Z.
const T0_NS: u64 = 5_000_000_000_000;
const TICK_NS: u64 = 100_000_000;

use Reading::Got;

/// The instant of a tick, ns.
pub fn at_ns(seq: u64) -> u64 {
    T0_NS + seq * TICK_NS
}

pub fn info() -> SessionInfo {
    SessionInfo {
        target: Target {
            pid: 4242,
            comm: String::from("hello-uring"),
            cmdline: String::from("./hello-uring --listen 0.0.0.0:8080 --kafka 10.0.0.7:9092"),
            exe: Some("/usr/local/bin/hello-uring".into()),
            start_time_ticks: 77,
            foreign_netns: false,
            siblings: Vec::new(),
        },
        environment: Environment {
            kernel: String::from("Linux 6.18.2"),
            cpus: 8,
            version: String::from("0.1.0"),
            interval_ms: 100,
            ticks_per_s: 100,
            fd_limits: Got(FdLimitRaw { soft: Some(1024), hard: Some(4096) }),
            limits: vec![String::from("kernel stacks need CAP_SYS_ADMIN")],
        },
        anchor: Anchor { mono_ns: T0_NS, real_ns: 1_795_348_800_000_000_000 },
        close_after_end: None,
    }
}

pub fn step(model: Model) -> Step {
    Step { model: Arc::new(model), events: Vec::new() }
}

fn thread(tid: i32, comm: &str, role: ThreadRole, nr: i64, wchan: &str) -> ThreadModel {
    ThreadModel {
        tid,
        comm: comm.to_owned(),
        role,
        state: TaskState::Sleeping,
        utime_ticks: 100,
        stime_ticks: 50,
        cpu_ratio: Got(0.012),
        delay_ratio: Got(0.001),
        switches_per_s: Got(24.0),
        syscall: Got(SyscallRaw::In { nr, arg0: 9 }),
        wchan: Got(wchan.to_owned()),
        kernel_stack: Reading::absent(Why::NotSampled, "read on suspicion only"),
    }
}

/// Numbers that mean the same on every architecture, so that snapshots hold everywhere.
const FUTEX: i64 = 455;
const EPOLL: i64 = 441;
const IO_URING_ENTER: i64 = 426;

fn threads() -> Vec<ThreadModel> {
    let mut runtime =
        thread(4242, "hello-uring", ThreadRole::Runtime, IO_URING_ENTER, "io_cqring_wait");
    runtime.cpu_ratio = Got(0.43);
    runtime.switches_per_s = Got(11_800.0);
    vec![
        thread(4240, "pprof", ThreadRole::Other, FUTEX, "futex_wait_queue"),
        runtime,
        thread(4243, "rdk:main", ThreadRole::Kafka, EPOLL, "ep_poll"),
        thread(4244, "rdk:broker1", ThreadRole::Kafka, EPOLL, "ep_poll"),
        thread(4245, "iou-wrk-4242", ThreadRole::IoWorker, IO_URING_ENTER, "io_wq_worker"),
        thread(4246, "console", ThreadRole::Other, FUTEX, "futex_wait_queue"),
    ]
}

fn shared(threads: Vec<ThreadModel>) -> Arc<[Arc<ThreadModel>]> {
    threads.into_iter().map(Arc::new).collect()
}

fn ring(seq: u64) -> RingModel {
    let turned = (seq * 2_460) as u32;
    RingModel {
        fd: 9,
        at_ns: at_ns(seq),
        source: RingSource::Memory { confirmed: true },
        state: Got(RingState {
            sq_entries: 256,
            sq_head: turned,
            sq_tail: turned,
            cq_entries: 512,
            cq_head: turned,
            cq_tail: turned + 3,
            ..RingState::default()
        }),
        armed: Got(ArmedRaw {
            at_ns: at_ns(seq.saturating_sub(4)),
            operations: vec![(13, 1), (22, 52)],
            overflow: 0,
        }),
        submissions_per_s: Got(24_600.0),
        completions_per_s: Got(24_590.0),
    }
}

fn listener(queued: u32, limit: u32, drops: u32, new: u32) -> ListenerModel {
    ListenerModel {
        local: ([0, 0, 0, 0], 8080).into(),
        inode: 31_337,
        holder: Holder::Target,
        queued,
        limit: Some(limit),
        drops: Some(drops),
        drops_new: Got(new),
    }
}

fn app(seq: u64) -> AppModel {
    let wave = f64::from((seq % 7) as u32) * 130.0;
    AppModel {
        raw: HeartbeatRaw {
            stack: String::from("tokio-uring"),
            runtime_tid: Some(4242),
            kafka_tid: Some(4243),
            beat_ns: Some(at_ns(seq) - 12_000_000),
            beat_every_ns: 20_000_000,
            accepted: 1_900 + seq,
            open: 52,
            requests: seq * 1_230,
            responses: seq * 1_230,
            producer_queue: 12,
            delivered: seq * 1_229,
            ..HeartbeatRaw::default()
        },
        beat_age_ms: Some(12.0),
        accepts_per_s: Got(10.0),
        requests_per_s: Got(11_800.0 + wave),
        responses_per_s: Got(11_790.0 + wave),
        delivered_per_s: Got(11_700.0 + wave),
    }
}

/// A tokio-uring server under load.
pub fn healthy(seq: u64) -> Model {
    Model {
        seq,
        at_ns: at_ns(seq),
        late_ms: 0.2,
        process: Got(ProcessModel {
            state: TaskState::Sleeping,
            cpu_cores: Got(0.61),
            rss_bytes: 34 << 20,
            threads: 6,
        }),
        threads: Got(shared(threads())),
        fds: Got(FdsModel {
            open: 61 + seq % 3,
            limit: Got(FdLimitRaw { soft: Some(1024), hard: Some(524_288) }),
        }),
        fd_kinds: Got(FdKindsRaw {
            sockets: 52,
            rings: 1,
            epolls: 1,
            anonymous: 3,
            pipes: 0,
            files: 4,
            looked_at: 61,
            truncated: false,
        }),
        listeners: Got([listener(0, 1024, 0, 0)].into()),
        served: Got([ServedModel {
            raw: ServedRaw { port: 8080, accepted_open: 52, ..ServedRaw::default() },
            at_ns: at_ns(seq.saturating_sub(12)),
        }]
        .into()),
        ports: Got(PortsModel {
            size: 28_232,
            in_use: 1_204,
            time_wait: 1_150,
            range: (32_768, 60_999),
            top: vec![(([10, 0, 0, 7], 9092).into(), 4)],
        }),
        peers: Got(peers(seq).into()),
        rings: Got([ring(seq)].into()),
        tcp: Got(TcpModel {
            listen_overflows_new: Some(0),
            listen_drops_new: Some(0),
            passive_opens_new: Some(1),
            active_opens_new: Some(0),
            out_rsts_new: Some(0),
            retrans_segs_new: Some(0),
            req_q_full_drops_new: Some(0),
            req_q_full_cookies_new: Some(0),
        }),
        app: Got(app(seq)),
        frozen: Got(false),
        cgroup: Got(calm_cgroup()),
        pressure: Got(PressureModel {
            scope: PressureScope::Cgroup,
            cpu: Some(StallShare { some: 0.021, full: Some(0.004) }),
            memory: Some(StallShare { some: 0.0, full: Some(0.0) }),
            io: Some(StallShare { some: 0.0, full: Some(0.0) }),
        }),
        tables: Reading::absent(Why::NotSampled, "not read yet"),
        tables_at_ns: 0,
        epolls: Reading::absent(Why::NotSampled, "not read yet"),
        active: Reading::absent(Why::Unsupported, "not asked for"),
        watcher: watcher(),
        tiers: tiers(&[
            (Tier::KernelStacks, Why::NotSampled, "kernel stacks are read only on suspicion"),
            (Tier::Tables, Why::NotSampled, "not read yet"),
            (Tier::Epolls, Why::NotSampled, "not read yet"),
            (Tier::ActiveProbe, Why::Unsupported, "not asked for"),
        ]),
    }
}

/// The same server, whose runtime never parks: entries wait in the ring.
pub fn sq_stalled(seq: u64) -> Model {
    let mut model = healthy(seq);
    let mut threads = threads();
    let runtime = &mut threads[1];
    runtime.state = TaskState::Running;
    runtime.cpu_ratio = Got(0.998);
    runtime.switches_per_s = Got(31.0);
    runtime.syscall = Got(SyscallRaw::Running);
    runtime.wchan = Got(String::new());
    model.threads = Got(shared(threads));
    model.listeners = Got([listener(9, 1024, 0, 0)].into());
    let mut ring = ring(20);
    ring.at_ns = at_ns(seq);
    if let Got(state) = &mut ring.state {
        state.cq_head = state.cq_tail;
        state.sq_tail = state.sq_head + 53;
        state.pending = Got((0..32).map(|at| ("WRITE".to_owned(), 20 + at)).collect());
    }
    ring.submissions_per_s = Got(0.0);
    ring.completions_per_s = Got(0.0);
    model.rings = Got([ring].into());
    if let Got(app) = &mut model.app {
        app.accepts_per_s = Got(0.0);
        app.requests_per_s = Got(0.0);
        app.responses_per_s = Got(0.0);
        app.delivered_per_s = Got(0.0);
        app.raw.producer_queue = 0;
    }
    model
}

/// A tokio server without a free fd.
pub fn fd_exhausted(seq: u64) -> Model {
    let mut model = healthy(seq);
    model.fds = Got(FdsModel {
        open: 1024,
        limit: Got(FdLimitRaw { soft: Some(1024), hard: Some(524_288) }),
    });
    model.rings = Got([].into());
    model.fd_kinds = Got(FdKindsRaw {
        sockets: 1_013,
        epolls: 1,
        anonymous: 4,
        files: 6,
        looked_at: 1_024,
        ..FdKindsRaw::default()
    });
    for tier in Arc::make_mut(&mut model.tiers) {
        tier.status = match tier.tier {
            Tier::RingMemory | Tier::RingFdinfo => TierStatus::no_ring(),
            Tier::Tables | Tier::Epolls | Tier::ActiveProbe => continue,
            _ => TierStatus::Active,
        };
    }
    model.cgroup = Got(CgroupModel {
        throttled_ratio: Some(0.42),
        throttled_new: Some(7),
        throttled_ms_new: Some(310.0),
        ..calm_cgroup()
    });
    model.listeners = Got(vec![
        listener(1025, 1024, 8_658, 41),
        ListenerModel {
            local: "[2001:db8:85a3::8a2e:370:7334]:8443".parse().unwrap(),
            holder: Holder::Other,
            drops: None,
            limit: None,
            ..listener(0, 128, 0, 0)
        },
    ]
    .into());
    if let Got(app) = &mut model.app {
        app.raw.stack = String::from("tokio");
        app.raw.open = 1_013;
        app.raw.accept_errors = 148_213;
        app.raw.accept_errno = Some(24);
        app.accepts_per_s = Got(0.0);
    }
    if let Got(served) = &mut model.served {
        Arc::make_mut(served)[0].raw = ServedRaw {
            port: 8080,
            accepted_open: 1_013,
            queued: 1_025,
            close_wait: 311,
            syn_recv: 64,
            unread_sockets: 17,
            unread_bytes: 12 << 10,
            ..ServedRaw::default()
        };
    }
    model
}

/// Another user's process: nothing may be read.
pub fn foreign(seq: u64) -> Model {
    fn no<T>() -> Reading<T> {
        Reading::absent(
            Why::NotPermitted,
            "cannot read /proc/4242/fd: Permission denied (os error 13); run as the same user or \
             with CAP_SYS_PTRACE",
        )
    }
    Model {
        seq,
        at_ns: at_ns(seq),
        late_ms: 0.1,
        process: no(),
        threads: no(),
        fds: no(),
        fd_kinds: no(),
        peers: no(),
        listeners: no(),
        served: no(),
        ports: no(),
        rings: no(),
        tcp: no(),
        app: Reading::absent(Why::Unsupported, "the process keeps no heartbeat page"),
        frozen: no(),
        cgroup: no(),
        pressure: no(),
        tables: no(),
        tables_at_ns: 0,
        epolls: no(),
        active: Reading::absent(Why::Unsupported, "not asked for"),
        watcher: WatcherModel { interval_ms: 200.0, ..watcher() },
        tiers: Tier::ALL
            .map(|tier| TierModel {
                tier,
                status: no::<()>()
                    .absence()
                    .map_or(TierStatus::Active, |absence| TierStatus::without(tier, absence)),
            })
            .into(),
    }
}

/// Names that try to act on the terminal, and single readings that are absent.
pub fn hostile(seq: u64) -> Model {
    let mut model = healthy(seq);
    let mut evil = threads();
    evil[1].comm = String::from("\x1b[2J\x1b]0;owned\x07");
    evil[0].comm = "A".repeat(10_000);
    evil[2].comm = String::from("\u{202e}drowssap\u{200b}");
    evil[3].comm = String::from("名前のとても長い糸");
    evil[4].comm = String::from("a\nb\rc\u{9b}31m");
    evil[4].wchan = Got(String::from("\x1b[31mred"));
    evil[2].syscall = Reading::absent(Why::NotPermitted, "EACCES");
    evil[2].wchan = Reading::absent(Why::NotPermitted, "EACCES");
    evil[3].cpu_ratio = Reading::absent(Why::NoPrevious, "first reading");
    evil[3].delay_ratio = Reading::absent(Why::NoPrevious, "first reading");
    evil[3].switches_per_s = Reading::absent(Why::NoPrevious, "first reading");
    evil[5].syscall = Got(SyscallRaw::In { nr: 9_999, arg0: 0 });
    model.threads = Got(shared(evil));
    if let Got(app) = &mut model.app {
        app.raw.stack = String::from("\x1b[31mtokio\u{202e}");
    }
    let mut locked = ring(seq);
    locked.fd = 11;
    locked.state = Reading::absent(Why::Locked, "the kernel held uring_lock");
    locked.source = RingSource::Fdinfo(Absence {
        why: Why::NotPermitted,
        detail: String::from("pidfd_getfd \x1b[31m: EPERM"),
    });
    model.rings = Got([ring(seq), locked].into());
    model.tiers = tiers(&[(Tier::ThreadCalls, Why::NotPermitted, "\x1b[2Jcannot read\u{202e}")]);
    model
}

pub fn onset() -> Onset {
    Onset {
        kind: StallKind::Ring,
        at_ns: at_ns(20),
        within_ns: 50_000_000,
        before_watch: false,
        detected_ns: at_ns(25),
        demand: String::from("9 connections wait to be accepted, 53 entries wait in ring 9"),
        last_progress: String::from("ring 9 took its last entry"),
        partial: None,
    }
}

fn evidence(tier: Tier, signal: &str, value: Value, unit: &str, since: Option<u64>) -> Evidence {
    Evidence {
        tier,
        signal: signal.to_owned(),
        value,
        unit: unit.to_owned(),
        since_ns: since.map(at_ns),
    }
}

pub fn sq_verdict() -> Verdict {
    Verdict {
        onset_ns: Some(at_ns(20)),
        before_watch: false,
        detected_ns: at_ns(25),
        cause: Cause::SqNotFlushed,
        confidence: Confidence::Certain,
        summary: String::from(
            "53 entries wait in the submission queue of ring 9 and nobody hands them to the \
             kernel: the runtime's thread 4242 is always ready and never parks.",
        ),
        evidence: vec![
            evidence(
                Tier::RingMemory,
                "ring 9 unsubmitted entries",
                Value::Number(53.0),
                "entries",
                Some(20),
            ),
            evidence(Tier::RingMemory, "ring 9 submissions", Value::Number(0.0), "per s", Some(20)),
            evidence(Tier::Threads, "thread 4242 on CPU", Value::Number(99.8), "%", Some(21)),
            evidence(
                Tier::ThreadCalls,
                "thread 4242 system call",
                Value::Text("(running)".into()),
                "",
                None,
            ),
        ],
        ruled_out: vec![
            RuledOut {
                cause: Cause::FdExhausted,
                because: String::from("61 of 1024 fds are open."),
            },
            RuledOut {
                cause: Cause::RuntimeBlocked,
                because: String::from("The runtime's thread is running, not in a blocking call."),
            },
        ],
        rests_on: vec![Tier::Threads, Tier::ThreadCalls, Tier::RingMemory],
        missing: vec![Missing {
            tier: Tier::KernelStacks,
            why: String::from("not due yet: kernel stacks are read only on suspicion"),
        }],
        chain: Vec::new(),
        unknowable: Vec::new(),
        next: vec![
            String::from(
                "Find the task that is always ready: look at tokio-console, column wakes.",
            ),
            String::from("Let it sleep or yield to the driver, so that the runtime parks."),
        ],
    }
}

pub fn fd_verdict() -> Verdict {
    Verdict {
        onset_ns: None,
        before_watch: false,
        cause: Cause::FdExhausted,
        confidence: Confidence::Likely,
        summary: String::from("All 1024 fds are open and accept fails with EMFILE."),
        rests_on: vec![Tier::Fds],
        missing: Vec::new(),
        evidence: vec![evidence(Tier::Fds, "open fds", Value::Number(1024.0), "fds", Some(12))],
        ..sq_verdict()
    }
}

pub fn healthy_verdict() -> Verdict {
    Verdict {
        onset_ns: None,
        before_watch: false,
        detected_ns: at_ns(5),
        cause: Cause::HealthyBusy,
        confidence: Confidence::Certain,
        summary: String::from("Requests are answered as fast as they come."),
        evidence: vec![evidence(
            Tier::Heartbeat,
            "responses",
            Value::Number(11_790.0),
            "per s",
            Some(1),
        )],
        ruled_out: Vec::new(),
        rests_on: vec![Tier::Heartbeat],
        missing: Vec::new(),
        chain: Vec::new(),
        unknowable: Vec::new(),
        next: Vec::new(),
    }
}

/// 60 ticks: onset at 20, noticed and named at 25, over at 40.
pub fn incident() -> Incident {
    let SessionInfo { target, environment, anchor, .. } = info();
    let model = |seq| if (20..40).contains(&seq) { sq_stalled(seq) } else { healthy(seq) };
    Incident {
        target,
        environment,
        config: crate::watch::config::Config::default(),
        anchor,
        models: (0..60).map(|seq| Arc::new(model(seq))).collect(),
        events: vec![
            Event::Onset(onset()),
            Event::Verdict(sq_verdict()),
            Event::Recovered { at_ns: at_ns(40), stalled_ms: 2_000.0 },
            Event::Note { at_ns: at_ns(45), text: String::from("profile window of 2 s stored") },
        ],
        profiles: Vec::new(),
        stacks: Vec::new(),
        end: EndReason::TimeUp,
        losses: vec![String::from("block 3 was cut short: 2 ticks lost")],
    }
}
