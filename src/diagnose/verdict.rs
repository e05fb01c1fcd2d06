//! What the diagnosis says.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::model::Model;
use crate::model::tiers::Tier;

/// Every cause and non-stall this version can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// io_uring entries are prepared and never handed to the kernel: the runtime never parks.
    SqNotFlushed,
    /// io_uring entries were left behind by a failed submission, and the runtime sleeps.
    SubmitErrorDropped,
    /// io_uring completions wait, and the task that should reap them is gone.
    CompletionsNotReaped,
    /// The event loop turns, and nobody accepts: the accept loop has ended, or waits for something else.
    AcceptNotArmed,
    /// The ring defers its completions to a call that the runtime never makes.
    TaskrunDeferred,
    /// The listening socket is closed; the process lives.
    ListenerGone,
    /// Cancelled accepts take connections that nobody knows of.
    AcceptLeaked,
    /// Another socket listens on the same port, takes part of the connections, and does not serve them.
    ReuseportSibling,
    /// Accepts on a non-blocking listener fail at once, for ever.
    AcceptEagainStorm,
    /// The runtime's thread sits in a blocking call.
    RuntimeBlocked,
    /// The runtime's thread computes and does not come back to its loop.
    RuntimeBusy,
    /// Every worker of a multi-thread runtime is blocked or computes.
    WorkersBlocked,
    /// No fd is left for another connection.
    FdExhausted,
    /// The system's file table is full.
    FileTableFull,
    /// Connections come faster than they are accepted: the accept queue overflows.
    AcceptQueueOverflow,
    /// Too many handshakes are under way: SYNs are dropped.
    SynBacklogFull,
    /// No local port is left for another connection to the same destination.
    EphemeralPortsExhausted,
    /// The connection tracking table is full: new connections are dropped.
    ConntrackFull,
    /// The Kafka broker cannot be reached, and requests wait for it.
    KafkaUnreachable,
    /// The Kafka broker answers too slowly, and requests wait for it.
    KafkaSlow,
    /// The Kafka producer's queue is full, and requests wait for room in it.
    KafkaQueueFull,
    /// Nobody polls the Kafka producer: deliveries are never reported, and requests wait for them.
    KafkaNotPolled,
    /// Stopped by a signal, a tracer or a frozen cgroup.
    ProcessStopped,
    /// The cgroup's CPU quota is used up: the process waits most of the time.
    CpuThrottled,
    /// Nothing to do, and ready for it.
    HealthyIdle,
    /// Work to do, and doing it.
    HealthyBusy,
    /// Stalled, and no cause fits the evidence.
    Unknown,
}

impl Cause {
    /// The causes of stalls, in the order in which they are examined.
    pub const STALLS: [Self; 24] = [
        Self::ProcessStopped,
        Self::CpuThrottled,
        Self::ListenerGone,
        Self::SqNotFlushed,
        Self::SubmitErrorDropped,
        Self::CompletionsNotReaped,
        Self::RuntimeBlocked,
        Self::RuntimeBusy,
        Self::WorkersBlocked,
        Self::FdExhausted,
        Self::FileTableFull,
        Self::AcceptEagainStorm,
        Self::AcceptLeaked,
        Self::TaskrunDeferred,
        Self::ReuseportSibling,
        Self::AcceptNotArmed,
        Self::KafkaQueueFull,
        Self::KafkaUnreachable,
        Self::KafkaSlow,
        Self::KafkaNotPolled,
        Self::EphemeralPortsExhausted,
        Self::ConntrackFull,
        Self::SynBacklogFull,
        Self::AcceptQueueOverflow,
    ];

    /// The id, as in JSON and the docs.
    pub const fn id(self) -> &'static str {
        match self {
            Self::SqNotFlushed => "sq-not-flushed",
            Self::SubmitErrorDropped => "submit-error-dropped",
            Self::CompletionsNotReaped => "completions-not-reaped",
            Self::AcceptNotArmed => "accept-not-armed",
            Self::TaskrunDeferred => "taskrun-deferred",
            Self::ListenerGone => "listener-gone",
            Self::AcceptLeaked => "accept-leaked",
            Self::ReuseportSibling => "reuseport-sibling",
            Self::AcceptEagainStorm => "accept-eagain-storm",
            Self::RuntimeBlocked => "runtime-blocked",
            Self::RuntimeBusy => "runtime-busy",
            Self::WorkersBlocked => "workers-blocked",
            Self::FdExhausted => "fd-exhausted",
            Self::FileTableFull => "file-table-full",
            Self::AcceptQueueOverflow => "accept-queue-overflow",
            Self::SynBacklogFull => "syn-backlog-full",
            Self::EphemeralPortsExhausted => "ephemeral-ports-exhausted",
            Self::ConntrackFull => "conntrack-full",
            Self::KafkaUnreachable => "kafka-unreachable",
            Self::KafkaSlow => "kafka-slow",
            Self::KafkaQueueFull => "kafka-queue-full",
            Self::KafkaNotPolled => "kafka-not-polled",
            Self::ProcessStopped => "process-stopped",
            Self::CpuThrottled => "cpu-throttled",
            Self::HealthyIdle => "healthy-idle",
            Self::HealthyBusy => "healthy-busy",
            Self::Unknown => "unknown",
        }
    }

    /// From its id.
    pub fn from_id(id: &str) -> Option<Self> {
        let others = [Self::HealthyIdle, Self::HealthyBusy, Self::Unknown];
        Self::STALLS.into_iter().chain(others).find(|cause| cause.id() == id)
    }

    /// Whether this is a stall.
    pub const fn is_stall(self) -> bool {
        !matches!(self, Self::HealthyIdle | Self::HealthyBusy)
    }
}

/// How sure a verdict is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Confidence {
    /// Fits, but so might something else, or evidence is missing.
    Possible,
    /// Fits, and the neighbours do not.
    Likely,
    /// Proven by the state of the kernel's own objects.
    Certain,
}

impl Confidence {
    /// As in JSON.
    pub const fn id(self) -> &'static str {
        match self {
            Self::Possible => "possible",
            Self::Likely => "likely",
            Self::Certain => "certain",
        }
    }
}

/// A value in evidence: a number or a word.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Value {
    /// A number, in the unit beside it.
    Number(f64),
    /// A word or name; may stem from the observed process: hostile text.
    Text(String),
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Number(number) if number.fract() == 0.0 => write!(f, "{number:.0}"),
            Self::Number(number) => write!(f, "{number:.2}"),
            Self::Text(text) => f.write_str(text),
        }
    }
}

/// One observation that speaks for a verdict.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// What kind of evidence it is.
    pub tier: Tier,
    /// What was looked at, in words: `ring 9 unsubmitted entries`.
    pub signal: String,
    /// What it showed.
    pub value: Value,
    /// Unit of the value; empty for words.
    pub unit: String,
    /// Since when it has shown that, ns; `None` when it is not known.
    pub since_ns: Option<u64>,
}

/// A cause that was considered and does not fit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuledOut {
    /// Which.
    pub cause: Cause,
    /// Why not, in one sentence.
    pub because: String,
}

/// A kind of evidence that could not be had for a verdict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// Which.
    pub tier: Tier,
    /// Why, in one sentence; may hold hostile text.
    pub why: String,
}

/// What is the matter, since when, and how one can tell.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// When the stall began, ns; `None` for a healthy verdict.
    pub onset_ns: Option<u64>,
    /// Whether the stall was there at the first look: it may then have begun before `onset_ns`,
    /// unless the server itself recorded it.
    pub before_watch: bool,
    /// When this verdict was reached, ns.
    pub detected_ns: u64,
    /// The cause.
    pub cause: Cause,
    /// How sure.
    pub confidence: Confidence,
    /// One sentence.
    pub summary: String,
    /// What speaks for it, strongest first.
    pub evidence: Vec<Evidence>,
    /// What does not fit, and why.
    pub ruled_out: Vec<RuledOut>,
    /// The kinds of evidence that speak for it, in order, each once.
    pub rests_on: Vec<Tier>,
    /// The kinds of evidence that could not be had, in order, each once.
    pub missing: Vec<Missing>,
    /// What happened in which order, oldest first: the cause, what led to it, and what came of it.
    pub chain: Vec<Link>,
    /// What can no longer be known, one sentence each: of a stall older than the watch, its onset.
    pub unknowable: Vec<String>,
    /// What to do, one sentence each.
    pub next: Vec<String>,
}

/// One event in the chain from cause to consequence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// When, ns.
    pub at_ns: u64,
    /// What happened, in words; may hold hostile text.
    pub what: String,
    /// Its part in the stall.
    pub part: Part,
}

/// The part of an event in a stall.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// It led to what is named as the cause, or is that cause.
    Cause,
    /// It came of it.
    Consequence,
}

/// The kinds of evidence in `evidence`, in order, each once.
pub fn rests_on(evidence: &[Evidence]) -> Vec<Tier> {
    let tiers: BTreeSet<Tier> = evidence.iter().map(|one| one.tier).collect();
    tiers.into_iter().collect()
}

/// The kinds of evidence that could not be had at the tick of `last`. Rings are not missed where
/// the process has none.
pub fn missing(last: Option<&Model>) -> Vec<Missing> {
    let Some(last) = last else { return Vec::new() };
    let no_ring = last.rings.got().is_some_and(|rings| rings.is_empty());
    let of_rings = |tier| matches!(tier, Tier::RingMemory | Tier::RingFdinfo);
    last.tiers
        .iter()
        .filter(|model| !(no_ring && of_rings(model.tier)))
        .filter_map(|model| {
            let why = model.status.why()?.to_owned();
            Some(Missing { tier: model.tier, why })
        })
        .collect()
}
