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
    /// No fd is left for another connection.
    FdExhausted,
    /// The runtime's thread sits in a blocking call.
    RuntimeBlocked,
    /// Stopped by a signal, a tracer or a frozen cgroup.
    ProcessStopped,
    /// Nothing to do, and ready for it.
    HealthyIdle,
    /// Work to do, and doing it.
    HealthyBusy,
    /// Stalled, and no cause fits the evidence.
    Unknown,
}

impl Cause {
    /// The causes of stalls, in the order in which they are examined.
    pub const STALLS: [Self; 4] =
        [Self::ProcessStopped, Self::SqNotFlushed, Self::RuntimeBlocked, Self::FdExhausted];

    /// The id, as in JSON and the docs.
    pub const fn id(self) -> &'static str {
        match self {
            Self::SqNotFlushed => "sq-not-flushed",
            Self::FdExhausted => "fd-exhausted",
            Self::RuntimeBlocked => "runtime-blocked",
            Self::ProcessStopped => "process-stopped",
            Self::HealthyIdle => "healthy-idle",
            Self::HealthyBusy => "healthy-busy",
            Self::Unknown => "unknown",
        }
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
    /// What to do, one sentence each.
    pub next: Vec<String>,
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
