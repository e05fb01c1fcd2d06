//! What watching yields, live or replayed.

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use stallscope_probes::Reading;
use stallscope_probes::sample::FdLimitRaw;

use super::config::Config;
use crate::detect::{Forecast, Onset};
use crate::diagnose::verdict::Verdict;
use crate::model::Model;
use crate::profile::stacks::{Kind, Maker, ThreadStacks};

/// Who is being watched, and where. Names stem from the process: hostile text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// Process id, as seen by the watcher.
    pub pid: i32,
    /// Process name.
    pub comm: String,
    /// Command line, arguments joined by spaces, at most 4 KiB.
    pub cmdline: String,
    /// Executable, if it could be read.
    pub exe: Option<PathBuf>,
    /// Start, clock ticks after boot.
    pub start_time_ticks: u64,
    /// Whether the target lives in another network namespace than the watcher.
    pub foreign_netns: bool,
    /// Other processes that hold the same listening sockets (`SO_REUSEPORT` or inherited), by pid.
    pub siblings: Vec<i32>,
}

/// The machine and the conditions of a run: shown in the report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment {
    /// `uname -sr`.
    pub kernel: String,
    /// CPUs online.
    pub cpus: usize,
    /// Version of stallscope.
    pub version: String,
    /// Sampling interval, ms.
    pub interval_ms: u64,
    /// Clock ticks per second (`sysconf(_SC_CLK_TCK)`).
    pub ticks_per_s: u64,
    /// fd limits of the target at the start.
    pub fd_limits: Reading<FdLimitRaw>,
    /// What was not permitted or not there, one sentence each.
    pub limits: Vec<String>,
}

/// One monotonic and one wall instant, taken together: all wall times are made from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anchor {
    /// `CLOCK_MONOTONIC`, ns.
    pub mono_ns: u64,
    /// `CLOCK_REALTIME`, ns since 1970.
    pub real_ns: u64,
}

impl Anchor {
    /// Wall time of a monotonic instant, ns since 1970.
    pub const fn real_ns_at(&self, mono_ns: u64) -> u64 {
        self.real_ns.wrapping_add(mono_ns.wrapping_sub(self.mono_ns))
    }

    /// RFC 3339 in UTC with milliseconds.
    pub fn rfc3339(&self, mono_ns: u64) -> String {
        let ms = (self.real_ns_at(mono_ns) / 1_000_000) as i64;
        jiff::Timestamp::from_millisecond(ms)
            .map_or_else(|_| String::from("out of range"), |at| format!("{at:.3}"))
    }

    /// `HH:MM:SS.mmm` in UTC.
    pub fn clock_time(&self, mono_ns: u64) -> String {
        let full = self.rfc3339(mono_ns);
        full.split_once('T').map_or(full.clone(), |(_, time)| time.trim_end_matches('Z').to_owned())
    }
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// A stall began.
    Onset(Onset),
    /// Its cause, or a better account of it.
    Verdict(Verdict),
    /// It is over.
    Recovered {
        /// When progress resumed, ns.
        at_ns: u64,
        /// How long it lasted, ms.
        stalled_ms: f64,
    },
    /// Something will run out if it goes on like this.
    Forecast(Forecast),
    /// Something else worth a line in the log.
    Note {
        /// When, ns.
        at_ns: u64,
        /// One sentence; may hold names from the process: hostile text.
        text: String,
    },
}

/// One tick of watching.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// The tick.
    pub model: Arc<Model>,
    /// What happened in it.
    pub events: Vec<Event>,
}

/// Why watching ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// `--for` ran out.
    TimeUp,
    /// `--until-stall`, and one was named.
    Stalled,
    /// The target exited.
    TargetGone,
    /// The user or a signal ended it.
    Interrupted,
    /// The recording stops here.
    RecordingEnds,
    /// The recording reached its bound; watching went on without it.
    RecordingFull,
}

/// A profile of one stretch of time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProfileWindow {
    /// Begin, `CLOCK_MONOTONIC` ns.
    pub begin_ns: u64,
    /// End, ns.
    pub end_ns: u64,
    /// What is counted, and in what unit.
    pub kind: Kind,
    /// Who made it.
    pub maker: Maker,
    /// Samples taken a second of CPU time.
    pub hz: u32,
    /// Folded stacks: `thread;outer;inner count` lines; frames of the kernel end in `_[k]`,
    /// inlined ones in `_[i]`, guessed ones in `_[?]`. Hostile text.
    pub folded: String,
    /// What it could not see, one sentence each.
    pub notes: Vec<String>,
}

/// A whole run, as a report needs it.
#[derive(Debug, Clone, PartialEq)]
pub struct Incident {
    /// Who.
    pub target: Target,
    /// Where.
    pub environment: Environment,
    /// The thresholds it was judged by.
    pub config: Config,
    /// Wall time.
    pub anchor: Anchor,
    /// Every tick kept, oldest first.
    pub models: Vec<Arc<Model>>,
    /// What happened, oldest first.
    pub events: Vec<Event>,
    /// Profiles, oldest first.
    pub profiles: Vec<ProfileWindow>,
    /// Whole stacks of the threads, oldest first.
    pub stacks: Vec<ThreadStacks>,
    /// Why it ended.
    pub end: EndReason,
    /// What was lost or damaged, one sentence each.
    pub losses: Vec<String>,
}

impl Incident {
    /// The first onset.
    pub fn onset(&self) -> Option<&Onset> {
        self.events.iter().find_map(|event| match event {
            Event::Onset(onset) => Some(onset),
            _ => None,
        })
    }

    /// The last verdict on a stall, or else the last one.
    pub fn verdict(&self) -> Option<&Verdict> {
        let verdicts = || {
            self.events.iter().rev().filter_map(|event| match event {
                Event::Verdict(verdict) => Some(verdict),
                _ => None,
            })
        };
        verdicts().find(|verdict| verdict.cause.is_stall()).or_else(|| verdicts().next())
    }
}
