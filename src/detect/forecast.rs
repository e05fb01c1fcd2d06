//! What will run out, and when.

use serde::{Deserialize, Serialize};

/// What runs out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ForecastKind {
    /// fds.
    Fds,
    /// Ephemeral ports to one destination.
    Ports,
    /// Room in an accept queue.
    AcceptQueue,
    /// Entries of a submission queue that are prepared and not flushed.
    Submissions,
}

/// Something runs out if it goes on like this.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Forecast {
    /// What.
    pub kind: ForecastKind,
    /// When this was foreseen, ns.
    pub at_ns: u64,
    /// In how many seconds it will have run out; `None` when it is nearly full and no trend shows.
    pub in_s: Option<f64>,
    /// How full it is, 0 to 1.
    pub used_ratio: f64,
    /// One sentence; may hold hostile text.
    pub text: String,
}
