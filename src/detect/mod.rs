//! From the stream of models to the onset of a stall and to recovery. Pure: time is passed in.

mod detector;
mod forecast;
mod habits;
mod listening;
mod looks;
mod onset;
mod patience;
mod signs;
mod subject;
pub mod thresholds;
mod track;

pub use detector::{Detector, Transition};
pub use forecast::{Forecast, ForecastKind, Forecaster};

use serde::{Deserialize, Serialize};

/// What stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StallKind {
    /// The process as a whole is stopped.
    Stopped,
    /// A ring holds entries or completions that nobody moves.
    Ring,
    /// The runtime's thread no longer turns its loop while clients wait.
    Runtime,
    /// Connections wait in the accept queue and none is accepted.
    Accept,
    /// Connections are accepted, and their requests are not answered.
    Answers,
    /// A listening socket is gone: connections are refused.
    Listener,
    /// A queue or table is full: new connections are turned away, or cannot be made.
    Full,
    /// The process gets hardly any CPU time of its cgroup.
    Throttled,
}

/// A stall has begun.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Onset {
    /// What stopped.
    pub kind: StallKind,
    /// When: the last progress, or the first unmet demand after it, ns.
    pub at_ns: u64,
    /// Half-width of the uncertainty of `at_ns`, ns (0: the server itself recorded it).
    pub within_ns: u64,
    /// Whether it had begun when watching began: `at_ns` is then what the waiting connections or the
    /// server's page have recorded, else the first look.
    pub before_watch: bool,
    /// When it was noticed, ns.
    pub detected_ns: u64,
    /// What is waiting, in words.
    pub demand: String,
    /// What progressed last, in words.
    pub last_progress: String,
    /// What goes on all the same, in words, when only a part is stalled.
    pub partial: Option<String>,
}
