//! Small models and cases for the tables of tests: a calm server, and what is changed about it.

use std::net::SocketAddr;
use std::sync::Arc;

use stallscope_probes::sample::{
    AnswersRaw, ConntrackRaw, FdKindsRaw, FdLimitRaw, FileTableRaw, HeartbeatRaw, Holder,
    PeerInfoRaw, PeerRaw, ServedRaw, SyscallRaw, TablesRaw, TaskState, TcpState,
};
use stallscope_probes::{Reading, Why};

use super::verdict::Confidence;
use super::{Case, Finding};
use crate::detect::thresholds::Thresholds;
use crate::detect::{Onset, StallKind};
use crate::model::{
    AppModel, CgroupModel, FdsModel, ListenerModel, Model, PeerModel, PortsModel, ProcessModel,
    ServedModel, TcpModel, ThreadModel, ThreadRole, WatcherModel,
};

use Reading::Got;

/// Time between ticks, ns.
pub const TICK_NS: u64 = 100_000_000;
/// Ticks of a story.
pub const TICKS: usize = 60;
/// The tick of its onset.
pub const ONSET: usize = 30;
/// Monotonic instant of tick 0, ns.
const T0_NS: u64 = 1_000_000_000_000;
/// The port that the server listens on.
pub const PORT: u16 = 8080;
/// The inode of its listener.
pub const INODE: u32 = 100;
/// The main thread, which runs the event loop.
pub const PID: i32 = 4242;

/// The instant of a tick, ns.
pub fn at_ns(tick: usize) -> u64 {
    T0_NS + tick as u64 * TICK_NS
}

/// Ticks of one process, and a stall of it that began at [`ONSET`].
#[derive(Debug, Clone)]
pub struct Story {
    models: Vec<Model>,
    onset: Onset,
}

impl Story {
    /// A server that is calm all the while, and of which a stall of this kind is said.
    pub fn new(kind: StallKind) -> Self {
        let onset = Onset {
            kind,
            at_ns: at_ns(ONSET),
            within_ns: TICK_NS / 2,
            before_watch: false,
            detected_ns: at_ns(ONSET + 10),
            demand: String::from("something waits"),
            last_progress: String::from("the last tick"),
            partial: None,
        };
        Self { models: (0..TICKS).map(calm).collect(), onset }
    }

    /// Changes every tick.
    pub fn throughout(self, change: impl Fn(usize, &mut Model)) -> Self {
        self.after(0, change)
    }

    /// Changes the ticks since the onset.
    pub fn stalled(self, change: impl Fn(usize, &mut Model)) -> Self {
        self.after(ONSET, change)
    }

    /// Changes the ticks from `first` on; `change` is told how many have gone by since.
    pub fn after(mut self, first: usize, change: impl Fn(usize, &mut Model)) -> Self {
        for (since, model) in self.models.iter_mut().skip(first).enumerate() {
            change(since, model);
        }
        self
    }

    /// Watching began well after the onset.
    pub fn attached_late(mut self) -> Self {
        self.models.drain(..ONSET + 5);
        self.onset.before_watch = true;
        self.onset.at_ns = self.models[0].at_ns;
        self
    }

    /// The verdict at the last tick.
    pub fn verdict(&self) -> super::Verdict {
        self.judged_by(&super::thresholds::Thresholds::default(), super::diagnose)
    }

    /// What a cause makes of it at the last tick.
    pub fn found(&self, examine: fn(&Case<'_>) -> Finding) -> Finding {
        self.judged_by(&super::thresholds::Thresholds::default(), examine)
    }

    /// What is made of it at the last tick, by these thresholds.
    pub fn judged_by<T>(
        &self,
        weights: &super::thresholds::Thresholds,
        judge: fn(&Case<'_>) -> T,
    ) -> T {
        let history: Vec<Arc<Model>> = self.models.iter().cloned().map(Arc::new).collect();
        let now_ns = history.last().map_or(0, |model| model.at_ns);
        let thresholds = &Thresholds::default();
        judge(&Case { onset: &self.onset, history: &history, now_ns, thresholds, weights })
    }
}

/// What a row of a table expects.
#[derive(Debug, Clone, Copy)]
pub enum Expect {
    /// It fits, this surely, and the summary or some evidence has these words.
    Fits(Confidence, &'static str),
    /// It is excluded, in a sentence with these words.
    Excluded(&'static str),
    /// It could not be judged, for want of what these words name.
    Missing(&'static str),
}

/// Holds each row of a table against what `examine` finds.
pub fn hold(examine: fn(&Case<'_>) -> Finding, rows: Vec<(&str, Story, Expect)>) {
    for (name, story, expect) in rows {
        let found = story.found(examine);
        let held = match (&found, expect) {
            (Finding::Fits(account), Expect::Fits(confidence, words)) => {
                let mut texts: Vec<String> = vec![account.summary.clone()];
                texts.extend(
                    account
                        .evidence
                        .iter()
                        .map(|one| format!("{}: {} {}", one.signal, one.value, one.unit)),
                );
                account.confidence == confidence && texts.iter().any(|text| text.contains(words))
            }
            (Finding::Excluded(because), Expect::Excluded(words)) => because.contains(words),
            (Finding::Missing(what), Expect::Missing(words)) => what.contains(words),
            _ => false,
        };
        assert!(held, "{name}: expected {expect:?}, found {found:#?}");
    }
}

/// A reading that could not be had.
pub fn absent<T>() -> Reading<T> {
    Reading::absent(Why::NotPermitted, "permission denied")
}

/// An epoll server that keeps no page and has nothing to do.
pub fn calm(tick: usize) -> Model {
    let now_ns = at_ns(tick);
    Model {
        seq: tick as u64,
        at_ns: now_ns,
        late_ms: 0.0,
        process: Got(ProcessModel {
            state: TaskState::Sleeping,
            cpu_cores: Got(0.01),
            rss_bytes: 10 << 20,
            threads: 1,
        }),
        threads: Got([Arc::new(thread(PID, "server", ThreadRole::Runtime))].into()),
        fds: Got(FdsModel {
            open: 20,
            limit: Got(FdLimitRaw { soft: Some(1024), hard: Some(4096) }),
        }),
        fd_kinds: Got(FdKindsRaw {
            sockets: 12,
            epolls: 1,
            looked_at: 20,
            ..FdKindsRaw::default()
        }),
        listeners: Got([listener(INODE, Holder::Target, 0)].into()),
        served: Got([served(now_ns)].into()),
        ports: Got(PortsModel {
            size: 28_232,
            in_use: 12,
            time_wait: 2,
            range: (32_768, 60_999),
            top: vec![(([10, 0, 0, 9], 5432).into(), 4)],
        }),
        peers: Got([].into()),
        rings: Got([].into()),
        tcp: Got(TcpModel {
            listen_overflows_new: Some(0),
            listen_drops_new: Some(0),
            passive_opens_new: Some(0),
            active_opens_new: Some(0),
            out_rsts_new: Some(0),
            retrans_segs_new: Some(0),
            req_q_full_drops_new: Some(0),
            req_q_full_cookies_new: Some(0),
        }),
        app: Reading::absent(Why::Unsupported, "the process keeps no heartbeat page"),
        frozen: Got(false),
        cgroup: Got(CgroupModel {
            throttled_ratio: Some(0.0),
            throttled_new: Some(0),
            throttled_ms_new: Some(0.0),
            memory_high_new: Some(0),
            memory_max_new: Some(0),
            oom_kills_new: Some(0),
        }),
        pressure: Reading::absent(Why::Unsupported, "no PSI"),
        tables: Got(TablesRaw {
            files: Got(FileTableRaw { open: 2_000, max: 100_000, exempt: Some(false) }),
            conntrack: Got(ConntrackRaw {
                entries: 40,
                max: 1_000,
                drops: 0,
                early_drops: 0,
                insert_failed: 0,
            }),
        }),
        tables_at_ns: now_ns,
        epolls: Reading::absent(Why::NotSampled, "read on suspicion only"),
        active: Reading::absent(Why::Unsupported, "not asked for"),
        watcher: watcher(),
        tiers: [].into(),
    }
}

/// What watching costs: nothing here.
fn watcher() -> WatcherModel {
    WatcherModel {
        cpu_ratio: absent(),
        sampling_cpu_ratio: absent(),
        rss_bytes: None,
        open_fds: None,
        interval_ms: 100.0,
        interval_asked_ms: 100.0,
        budget_ratio: 0.0,
        ticks_missed: 0,
        costs: [].into(),
    }
}

/// A thread that waits for events.
pub fn thread(tid: i32, comm: &str, role: ThreadRole) -> ThreadModel {
    ThreadModel {
        tid,
        comm: comm.to_owned(),
        role,
        state: TaskState::Sleeping,
        utime_ticks: 10,
        stime_ticks: 10,
        cpu_ratio: Got(0.01),
        delay_ratio: Got(0.0),
        switches_per_s: Got(20.0),
        syscall: Got(SyscallRaw::In { nr: EPOLL_PWAIT2, arg0: 3 }),
        wchan: Got(String::from("ep_poll")),
        kernel_stack: Reading::absent(Why::NotSampled, "read on suspicion only"),
    }
}

/// The same number on every architecture (as `FUTEX_WAIT` below).
const EPOLL_PWAIT2: i64 = 441;
const FUTEX_WAIT: i64 = 455;

/// Changes one thread.
pub fn change_thread(model: &mut Model, tid: i32, change: impl Fn(&mut ThreadModel)) {
    let Got(threads) = &mut model.threads else { return };
    let changed: Vec<Arc<ThreadModel>> = threads
        .iter()
        .map(|thread| {
            let mut thread = (**thread).clone();
            if thread.tid == tid {
                change(&mut thread);
            }
            Arc::new(thread)
        })
        .collect();
    *threads = changed.into();
}

/// Adds a thread.
pub fn add_thread(model: &mut Model, thread: ThreadModel) {
    let Got(threads) = &mut model.threads else { return };
    *threads = threads.iter().cloned().chain([Arc::new(thread)]).collect();
}

/// The loop's thread waits for a lock.
pub fn block(model: &mut Model) {
    change_thread(model, PID, |thread| {
        thread.syscall = Got(SyscallRaw::In { nr: FUTEX_WAIT, arg0: 0 });
        thread.wchan = Got(String::from("futex_do_wait"));
    });
}

/// The loop's thread computes.
pub fn spin(model: &mut Model) {
    change_thread(model, PID, |thread| {
        thread.state = TaskState::Running;
        thread.cpu_ratio = Got(0.99);
        thread.syscall = Got(SyscallRaw::Running);
        thread.wchan = Got(String::new());
    });
}

/// A listener on [`PORT`] of every address.
pub fn listener(inode: u32, holder: Holder, queued: u32) -> ListenerModel {
    ListenerModel {
        local: ([0, 0, 0, 0], PORT).into(),
        inode,
        holder,
        queued,
        limit: Some(128),
        drops: Some(0),
        drops_new: Got(0),
    }
}

/// So many connections wait in the accept queue.
pub fn queue(model: &mut Model, queued: u32) {
    model.listeners = Got([listener(INODE, Holder::Target, queued)].into());
}

/// A census of the served port: twelve connections at rest.
pub fn served(now_ns: u64) -> ServedModel {
    let answers = AnswersRaw { last_sent_ms: Some(40), ..AnswersRaw::default() };
    ServedModel {
        raw: ServedRaw {
            port: PORT,
            accepted_open: 12,
            accepted_seen: 12,
            answers: Some(answers),
            ..ServedRaw::default()
        },
        at_ns: now_ns,
    }
}

/// Changes the census.
pub fn census(model: &mut Model, change: impl Fn(&mut ServedRaw)) {
    if let Got(served) = &mut model.served {
        let mut all = served.to_vec();
        for one in &mut all {
            change(&mut one.raw);
        }
        *served = all.into();
    }
}

/// So many requests were taken in and not answered.
pub fn requests_wait(model: &mut Model, awaiting: u32) {
    census(model, |raw| {
        raw.answers = Some(AnswersRaw {
            awaiting,
            oldest_ms: Some(1_500),
            last_sent_ms: Some(1_400),
            last_received_ms: Some(900),
            ..AnswersRaw::default()
        });
    });
}

/// Changes the TCP counters.
pub fn tcp(model: &mut Model, change: impl Fn(&mut TcpModel)) {
    if let Got(tcp) = &mut model.tcp {
        change(tcp);
    }
}

/// Changes the tables.
pub fn tables(model: &mut Model, change: impl Fn(&mut FileTableRaw, &mut ConntrackRaw)) {
    if let Got(TablesRaw { files: Got(files), conntrack: Got(conntrack) }) = &mut model.tables {
        change(files, conntrack);
    }
}

/// A page that a server keeps: as many requests answered as came in.
pub fn page(tick_ns: u64) -> AppModel {
    AppModel {
        raw: HeartbeatRaw {
            stack: String::from("tokio"),
            runtime_tid: Some(PID),
            beat_ns: Some(tick_ns),
            beat_every_ns: 50_000_000,
            listen_port: Some(PORT),
            accepted: 12,
            requests: 500,
            responses: 500,
            queued: 500,
            delivered: 500,
            producer_queue_max: Some(1_000),
            kafka_beat_ns: Some(tick_ns),
            ..HeartbeatRaw::default()
        },
        beat_age_ms: Some(10.0),
        accepts_per_s: Got(0.0),
        requests_per_s: Got(0.0),
        responses_per_s: Got(0.0),
        delivered_per_s: Got(0.0),
    }
}

/// Gives the server a page, changed like this.
pub fn keep_page(model: &mut Model, change: impl Fn(&mut HeartbeatRaw)) {
    let mut app = page(model.at_ns);
    change(&mut app.raw);
    model.app = Got(app);
}

/// The address of a Kafka broker.
pub fn broker() -> SocketAddr {
    ([10, 0, 0, 7], 9092).into()
}

/// A connection to a Kafka broker that has just answered.
pub fn kafka_peer(now_ns: u64) -> PeerModel {
    PeerModel {
        raw: PeerRaw {
            remote: broker(),
            local_port: 40_000,
            inode: 500,
            state: TcpState::Established,
            unread_bytes: 0,
            unsent_bytes: 0,
            info: Some(PeerInfoRaw {
                retransmits: 0,
                retransmitted: 0,
                rtt_us: 300,
                unacked: 0,
                last_sent_ms: 41,
                last_received_ms: 40,
                sent_bytes: Some(900),
                received_bytes: Some(900),
            }),
        },
        at_ns: now_ns,
        kafka: true,
        retransmitted_new: Got(0),
    }
}

/// librdkafka's threads, a thread that polls the producer, and a broker that answers.
pub fn with_kafka(model: &mut Model) {
    add_thread(model, thread(PID + 1, "rdk:main", ThreadRole::Kafka));
    add_thread(model, thread(PID + 2, "rdk:broker1", ThreadRole::Kafka));
    add_thread(model, thread(PID + 3, "producer pollin", ThreadRole::Kafka));
    model.peers = Got([kafka_peer(model.at_ns)].into());
}

/// Changes the connections to others.
pub fn peers(model: &mut Model, change: impl Fn(&mut PeerModel)) {
    if let Got(peers) = &mut model.peers {
        let mut all = peers.to_vec();
        all.iter_mut().for_each(change);
        *peers = all.into();
    }
}
