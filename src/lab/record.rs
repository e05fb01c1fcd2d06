//! What is kept of one run. Pure.

use serde::{Deserialize, Serialize};

use super::victims::Truth;

/// When the watcher came to the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// While it was healthy.
    Before,
    /// Five seconds after the fault had taken hold.
    After,
}

impl Way {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Before, Self::After];

    /// As on the command line, in JSON and in the names of files.
    pub const fn id(self) -> &'static str {
        match self {
            Self::Before => "before",
            Self::After => "after",
        }
    }
}

/// What became of one way of watching.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Outcome {
    /// The cause was named, nothing else was named with any certainty, and it was dated; of a
    /// healthy run: silence.
    Right,
    /// The right cause, with a wrong date.
    Misdated,
    /// The last verdict was `unknown`.
    Unknown,
    /// Another cause was named: at the end, or on the way there and likely or certain.
    Wrong {
        /// Which.
        cause: String,
    },
    /// No verdict.
    Missed,
    /// An alarm while all was well.
    FalseAlarm,
    /// It cannot be run here.
    NotRun {
        /// Why, in one sentence.
        why: String,
    },
    /// The run itself went wrong, and says nothing about the watcher.
    Broken {
        /// How, in one sentence.
        why: String,
    },
}

impl Outcome {
    /// As in JSON.
    pub const fn id(&self) -> &'static str {
        match self {
            Self::Right => "right",
            Self::Misdated => "misdated",
            Self::Unknown => "unknown",
            Self::Wrong { .. } => "wrong",
            Self::Missed => "missed",
            Self::FalseAlarm => "false-alarm",
            Self::NotRun { .. } => "not-run",
            Self::Broken { .. } => "broken",
        }
    }

    /// Whether the watcher was put to the test at all.
    pub const fn is_judged(&self) -> bool {
        !matches!(self, Self::NotRun { .. } | Self::Broken { .. })
    }

    /// Whether a matrix with this in it may still succeed.
    pub const fn is_fine(&self) -> bool {
        matches!(self, Self::Right | Self::NotRun { .. })
    }
}

/// One way of watching one run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WayRecord {
    /// Which way.
    pub way: Way,
    /// What became of it.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// Cause of the last verdict on a stall.
    pub named: Option<String>,
    /// How sure that verdict was.
    pub confidence: Option<String>,
    /// Onset given minus onset true, ms. Of a watcher that came after, nothing.
    pub onset_error_ms: Option<f64>,
    /// First verdict that names the right cause minus the truth, or minus the beginning of the
    /// watch when that is later, ms.
    pub delay_ms: Option<f64>,
    /// Whether that was within 500 ms and what the cause's definition takes.
    pub in_time: Option<bool>,
    /// Onsets given while all was well.
    pub alarms: u32,
    /// How often a verdict named another cause than the one before it, on the same stall.
    pub flips: u32,
    /// How long the process was watched while all was well, s.
    pub healthy_s: f64,
    /// What else is worth saying, one sentence each.
    pub notes: Vec<String>,
}

impl WayRecord {
    /// A record of nothing but an outcome.
    pub const fn bare(way: Way, outcome: Outcome) -> Self {
        Self {
            way,
            outcome,
            named: None,
            confidence: None,
            onset_error_ms: None,
            delay_ms: None,
            in_time: None,
            alarms: 0,
            flips: 0,
            healthy_s: 0.0,
            notes: Vec::new(),
        }
    }
}

/// One run of one scenario.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// Which scenario.
    pub scenario: String,
    /// Which repetition, from 0.
    pub rep: u32,
    /// What its chance came from.
    pub seed: u64,
    /// Version of stallscope.
    pub version: String,
    /// Id of the cause that had to be found, or `healthy`.
    pub expected: String,
    /// What the cause's definition takes, beyond 500 ms, ms.
    pub definition_ms: f64,
    /// What the faulting process wrote down.
    pub truth: Option<Truth>,
    /// How long it took, s.
    pub took_s: f64,
    /// What became of each way of watching.
    pub ways: Vec<WayRecord>,
}

/// What stands in the place of a cause where all is to be well.
pub const HEALTHY: &str = "healthy";

impl RunRecord {
    /// Whether a matrix with this in it may still succeed.
    pub fn is_fine(&self) -> bool {
        self.ways.iter().all(|way| way.outcome.is_fine())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_survives_its_file() {
        let mut way =
            WayRecord::bare(Way::After, Outcome::Wrong { cause: String::from("kafka-slow") });
        way.onset_error_ms = Some(-3.25);
        let text = serde_json::to_string(&way).unwrap();
        assert!(text.contains(r#""outcome":"wrong","cause":"kafka-slow""#), "{text}");
        assert_eq!(serde_json::from_str::<WayRecord>(&text).unwrap(), way);
    }

    #[test]
    fn only_what_is_right_or_not_run_is_fine() {
        let why = String::new();
        for outcome in [Outcome::Right, Outcome::NotRun { why: why.clone() }] {
            assert!(outcome.is_fine(), "{outcome:?}");
        }
        let cause = String::new();
        for outcome in [
            Outcome::Misdated,
            Outcome::Unknown,
            Outcome::Wrong { cause },
            Outcome::Missed,
            Outcome::FalseAlarm,
            Outcome::Broken { why },
        ] {
            assert!(!outcome.is_fine(), "{outcome:?}");
        }
    }
}
