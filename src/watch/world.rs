//! A made-up server for tests: phases of behaviour, one sample a tick, 50 ms apart.
//!
//! Values follow the measured signatures in `docs/causes.md`.

use std::net::{Ipv4Addr, SocketAddr};

use stallscope_probes::sample::{
    ArmedRaw, CgroupRaw, FdKindsRaw, FdLimitRaw, FdsRaw, HeartbeatRaw, Holder, ListenerRaw,
    PortsRaw, ProcessRaw, RingRaw, RingSource, RingState, Sample, SchedRaw, ServedRaw, SocketsRaw,
    SyscallRaw, TaskState, TcpRaw, ThreadRaw, WatcherRaw,
};
use stallscope_probes::{Probe, Reading, Why};

use super::engine::Engine;
use super::event::Event;
use crate::detect::Forecast;
use crate::diagnose::verdict::{Cause, Confidence, Verdict};

pub const TICK_NS: u64 = 50_000_000;
const PORT: u16 = 8080;
const PID: i32 = 100;

/// How the server behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Open connections and nothing to do.
    Idle,
    /// Requests come and are answered; the accept queue is empty at most ticks.
    Busy,
    /// As much as it can do, the accept queue never empty, the thread always running.
    Saturated,
    /// Saturated, and the timer of the beat never gets its turn.
    LateBeat,
    /// An always-ready task: nothing is submitted, the thread spins through its loop.
    Yield,
    /// One poll does not return: the thread spins, and nothing is reaped.
    Spin,
    /// The thread sleeps in a futex.
    Blocked,
    /// No fd is left; the loop is alive.
    FdsFull,
    /// The listener is closed; what is open is served on.
    Unlistening,
    /// SIGSTOP.
    Stopped,
    /// Entries left behind by a failed submission; the thread sleeps in epoll.
    LeftBehind,
    /// Demand, the event loop asleep in epoll, nothing accepted, nothing else wrong.
    NotAccepting,
    /// Like `Busy` but every twentieth second tick is a pause of 100 ms, as of a collector.
    Pausing,
    /// A 3-second request on every connection: nothing answered, nobody else waiting.
    SlowRequests,
}

/// What kind of server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    pub ring: bool,
    pub page: bool,
    /// System calls, wait channels and kernel stacks may be read.
    pub rights: bool,
}

/// The server.
#[derive(Debug)]
pub struct World {
    kind: Kind,
    seq: u64,
    /// For how long the machine was suspended, ns.
    slept_ns: u64,
    ring: RingState,
    thread: (u64, u64, u64, u64),
    queued: u32,
    open: u64,
    page: HeartbeatRaw,
    served: ServedRaw,
    listening: bool,
}

impl World {
    pub fn new(kind: Kind) -> Self {
        let ring = RingState { sq_entries: 256, cq_entries: 512, ..RingState::default() };
        let page = HeartbeatRaw {
            stack: String::from("tokio-uring"),
            runtime_tid: Some(PID),
            beat_every_ns: TICK_NS,
            listen_port: Some(PORT),
            ..HeartbeatRaw::default()
        };
        let served = ServedRaw { port: PORT, accepted_open: 20, ..ServedRaw::default() };
        Self {
            kind,
            seq: 0,
            slept_ns: 0,
            ring,
            thread: (0, 0, 0, 0),
            queued: 0,
            open: 31,
            page,
            served,
            listening: true,
        }
    }

    fn now_ns(&self) -> u64 {
        1_000_000_000 + self.seq * TICK_NS + self.slept_ns
    }

    /// Time passes, and nothing happens.
    pub fn sleep(&mut self, ns: u64) {
        self.slept_ns += ns;
    }

    /// The ring has been in use before.
    pub fn begin_heads_at(&mut self, base: u32) {
        let ring = &mut self.ring;
        (ring.sq_head, ring.sq_tail, ring.cq_head, ring.cq_tail) = (base, base, base, base);
    }

    fn progress(&mut self, requests: u32) {
        self.ring.sq_head = self.ring.sq_head.wrapping_add(requests * 2);
        self.ring.sq_tail = self.ring.sq_head;
        self.ring.cq_head = self.ring.cq_head.wrapping_add(requests * 2);
        self.ring.cq_tail = self.ring.cq_head;
        let at_ns = self.now_ns();
        self.page.requests += u64::from(requests);
        self.page.responses += u64::from(requests);
        self.page.last_response_ns = Some(at_ns);
        self.served.fingerprint = self.served.fingerprint.wrapping_add(1);
    }

    fn accept(&mut self, connections: u64) {
        self.page.accepted += connections;
        self.page.last_accept_ns = Some(self.now_ns());
        self.served.accepted_seen += connections;
        self.served.fingerprint = self.served.fingerprint.wrapping_add(1);
    }

    fn beat(&mut self) {
        self.page.beat_ns = Some(self.now_ns());
    }

    /// What was left over from a busy tick has been dealt with.
    fn settle(&mut self) {
        self.ring.sq_tail = self.ring.sq_head;
        self.ring.cq_tail = self.ring.cq_head;
        self.served.unread_bytes = 0;
        self.served.unread_sockets = 0;
    }

    /// CPU time of this tick in ms: user, kernel.
    fn cpu(&mut self, user_ms: u64, kernel_ms: u64) {
        self.thread.0 += user_ms;
        self.thread.1 += kernel_ms;
    }

    /// One tick in `phase`.
    pub fn tick(&mut self, phase: Phase) -> Sample {
        let (state, nr, wchan) = match phase {
            Phase::Idle => self.idle(),
            Phase::Busy | Phase::Pausing => self.busy(phase),
            Phase::Saturated => {
                self.beat();
                self.saturated()
            }
            Phase::LateBeat => self.saturated(),
            Phase::Yield => self.spinning(true),
            Phase::Spin => self.spinning(false),
            Phase::Blocked => self.blocked(),
            Phase::FdsFull => self.fds_full(),
            Phase::Unlistening => {
                self.listening = false;
                self.idle()
            }
            Phase::Stopped => self.stopped(),
            Phase::LeftBehind => self.left_behind(),
            Phase::NotAccepting => self.not_accepting(),
            Phase::SlowRequests => self.slow_requests(),
        };
        let sample = self.sample(state, nr, wchan);
        self.seq += 1;
        sample
    }

    fn idle(&mut self) -> (TaskState, i64, &'static str) {
        self.beat();
        self.settle();
        self.queued = 0;
        (TaskState::Sleeping, 232, "ep_poll")
    }

    fn busy(&mut self, phase: Phase) -> (TaskState, i64, &'static str) {
        if phase == Phase::Pausing && self.seq % 20 < 2 {
            self.queued = 2;
            return (TaskState::Sleeping, 202, "futex_do_wait");
        }
        self.beat();
        self.settle();
        self.progress(50);
        self.accept(2);
        self.cpu(10, 10);
        self.queued = u32::from(self.seq.is_multiple_of(7));
        (TaskState::Sleeping, 232, "ep_poll")
    }

    fn saturated(&mut self) -> (TaskState, i64, &'static str) {
        self.progress(500);
        self.accept(20);
        self.cpu(30, 20);
        self.queued = 900 + (self.seq % 5) as u32;
        self.ring.sq_tail = self.ring.sq_head.wrapping_add(3);
        self.served.unread_bytes = 4096;
        self.served.unread_sockets = 30;
        (TaskState::Running, -1, "")
    }

    fn spinning(&mut self, turning: bool) -> (TaskState, i64, &'static str) {
        self.queued += 1;
        if turning {
            self.beat();
            self.cpu(44, 6);
            self.ring.sq_tail = self.ring.sq_head.wrapping_add(22);
            self.ring.cq_tail = self.ring.cq_head;
            self.ring.pending = Reading::Got(vec![("ACCEPT".into(), 8), ("WRITE".into(), 12)]);
        } else {
            self.cpu(50, 0);
            self.ring.cq_tail = self.ring.cq_head.wrapping_add(21);
            self.served.unread_bytes = 500;
        }
        (TaskState::Running, -1, "")
    }

    fn blocked(&mut self) -> (TaskState, i64, &'static str) {
        self.queued += 1;
        self.page.requests = self.page.responses + 1;
        self.ring.cq_tail = self.ring.cq_head.wrapping_add(20);
        self.served.unread_bytes = 500;
        (TaskState::Sleeping, 202, "futex_do_wait")
    }

    fn fds_full(&mut self) -> (TaskState, i64, &'static str) {
        self.beat();
        self.open = 64;
        self.queued = 67;
        self.page.accept_errors += 1;
        self.page.accept_errno = Some(24);
        (TaskState::Sleeping, 232, "ep_poll")
    }

    fn stopped(&mut self) -> (TaskState, i64, &'static str) {
        self.queued += 1;
        (TaskState::Stopped, 232, "do_signal_stop")
    }

    fn left_behind(&mut self) -> (TaskState, i64, &'static str) {
        self.beat();
        self.queued = 3;
        self.ring.sq_tail = self.ring.sq_head.wrapping_add(2);
        (TaskState::Sleeping, 232, "ep_poll")
    }

    fn not_accepting(&mut self) -> (TaskState, i64, &'static str) {
        self.beat();
        self.queued = 20;
        (TaskState::Sleeping, 232, "ep_poll")
    }

    fn slow_requests(&mut self) -> (TaskState, i64, &'static str) {
        self.beat();
        self.settle();
        self.queued = 0;
        self.page.requests = self.page.responses + 20;
        (TaskState::Sleeping, 232, "ep_poll")
    }

    fn sample(&self, state: TaskState, nr: i64, wchan: &str) -> Sample {
        let at_ns = self.now_ns();
        let denied = "not permitted: run as root";
        Sample {
            seq: self.seq,
            due_ns: at_ns,
            late_ns: 0,
            process: probe(at_ns, self.process(state)),
            threads: probe(at_ns, vec![self.thread(state, nr, wchan)]),
            fds: probe(
                at_ns,
                FdsRaw {
                    open: self.open,
                    limit: Reading::Got(FdLimitRaw { soft: Some(64), hard: Some(64) }),
                    from_st_size: true,
                },
            ),
            listeners: probe(at_ns, self.listening.then(|| self.listener()).into_iter().collect()),
            sockets: probe(at_ns, self.sockets()),
            rings: if self.kind.rights {
                probe(at_ns, self.rings())
            } else {
                absent(at_ns, Why::NotPermitted, denied)
            },
            tcp: probe(at_ns, TcpRaw::default()),
            heartbeat: if self.kind.page {
                probe(at_ns, self.page.clone())
            } else {
                absent(at_ns, Why::Unsupported, "no page")
            },
            fd_kinds: if self.kind.rights {
                probe(at_ns, FdKindsRaw { sockets: 22, looked_at: 31, ..FdKindsRaw::default() })
            } else {
                absent(at_ns, Why::NotPermitted, denied)
            },
            peers: probe(at_ns, Vec::new()),
            cgroup: probe(at_ns, CgroupRaw { frozen: Some(false), ..CgroupRaw::default() }),
            pressure: absent(at_ns, Why::Unsupported, "the kernel keeps no pressure"),
            tables: Probe::not_sampled("not read yet"),
            epolls: Probe::not_sampled("not read yet"),
            active: absent(at_ns, Why::Unsupported, "not asked for"),
            watcher: WatcherRaw {
                cpu_ns: self.seq * 200_000,
                sampling_cpu_ns: self.seq * 150_000,
                interval_asked_ns: TICK_NS,
                interval_ns: TICK_NS,
                budget_ppm: 10_000,
                ..WatcherRaw::default()
            },
        }
    }

    fn process(&self, state: TaskState) -> ProcessRaw {
        let (utime_ticks, stime_ticks) = (self.thread.0 / 10, self.thread.1 / 10);
        ProcessRaw {
            state,
            utime_ticks,
            stime_ticks,
            threads: 1,
            rss_bytes: 1 << 20,
            start_time_ticks: 7,
        }
    }

    fn thread(&self, state: TaskState, nr: i64, wchan: &str) -> ThreadRaw {
        let syscall = if nr < 0 { SyscallRaw::Running } else { SyscallRaw::In { nr, arg0: 5 } };
        ThreadRaw {
            tid: PID,
            comm: String::from("server"),
            state,
            utime_ticks: self.thread.0 / 10,
            stime_ticks: self.thread.1 / 10,
            sched: Reading::Got(SchedRaw {
                run_ns: (self.thread.0 + self.thread.1) * 1_000_000,
                delay_ns: 0,
                timeslices: self.seq,
            }),
            syscall: if self.kind.rights {
                Reading::Got(syscall)
            } else {
                Reading::absent(Why::NotPermitted, "not permitted")
            },
            wchan: if self.kind.rights {
                Reading::Got(wchan.to_owned())
            } else {
                Reading::absent(Why::NotPermitted, "not permitted")
            },
            kernel_stack: Reading::absent(Why::NotSampled, ""),
            switches: Reading::absent(Why::NotSampled, ""),
        }
    }

    fn listener(&self) -> ListenerRaw {
        ListenerRaw {
            local: SocketAddr::from((Ipv4Addr::LOCALHOST, PORT)),
            inode: 42,
            queued: self.queued,
            limit: Some(1024),
            drops: Some(0),
            holder: Holder::Target,
        }
    }

    fn sockets(&self) -> SocketsRaw {
        SocketsRaw {
            served: vec![self.served],
            ports: PortsRaw { range: (32768, 60999), in_use: 20, time_wait: 0, top: Vec::new() },
            total: 40,
            truncated: false,
        }
    }

    fn rings(&self) -> Vec<RingRaw> {
        let ring = RingRaw {
            fd: 9,
            source: RingSource::Memory { confirmed: true },
            state: Reading::Got(self.ring.clone()),
            armed: Reading::Got(ArmedRaw::default()),
        };
        if self.kind.ring { vec![ring] } else { Vec::new() }
    }
}

fn probe<T>(at_ns: u64, value: T) -> Probe<T> {
    Probe { begin_ns: at_ns, end_ns: at_ns, reading: Reading::Got(value) }
}

fn absent<T>(at_ns: u64, why: Why, detail: &str) -> Probe<T> {
    Probe { begin_ns: at_ns, end_ns: at_ns, reading: Reading::absent(why, detail) }
}

/// What the engine made of a run of phases.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Tick of the onset, as dated; and whether it was before the watch.
    pub onsets: Vec<(f64, bool)>,
    /// Verdicts on stalls.
    pub verdicts: Vec<Verdict>,
    /// What was said while there was none.
    pub calm: Vec<Cause>,
    /// What else was worth a line.
    pub notes: Vec<String>,
    pub recoveries: Vec<f64>,
    pub forecasts: Vec<Forecast>,
}

impl Outcome {
    pub fn last(&self) -> Option<(&'static str, Confidence)> {
        self.verdicts.last().map(|verdict| (verdict.cause.id(), verdict.confidence))
    }
}

/// Runs `phases` (each so many ticks) through the whole pipe.
pub fn run(kind: Kind, phases: &[(Phase, u64)]) -> Outcome {
    let mut world = World::new(kind);
    let mut engine = Engine::new(PID, 100);
    let mut outcome = Outcome::default();
    let tick = |at_ns: u64| (at_ns as f64 - 1e9) / TICK_NS as f64;
    for (phase, ticks) in phases {
        for _ in 0..*ticks {
            for event in engine.push(&world.tick(*phase)).events {
                match event {
                    Event::Onset(onset) => {
                        outcome.onsets.push((tick(onset.at_ns), onset.before_watch));
                    }
                    Event::Verdict(verdict) if verdict.cause.is_stall() => {
                        outcome.verdicts.push(verdict);
                    }
                    Event::Verdict(verdict) => outcome.calm.push(verdict.cause),
                    Event::Recovered { at_ns, .. } => outcome.recoveries.push(tick(at_ns)),
                    Event::Forecast(forecast) => outcome.forecasts.push(forecast),
                    Event::Note { text, .. } => outcome.notes.push(text),
                }
            }
        }
    }
    outcome
}
