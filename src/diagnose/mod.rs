//! From an onset and the ticks around it to a verdict: the cause, its evidence, what was ruled
//! out, what to do. Pure. One file per cause.

mod case;
mod fd_exhausted;
mod healthy;
mod process_stopped;
mod runtime_blocked;
mod sq_not_flushed;
mod unknown;
pub mod verdict;

use std::sync::Arc;

pub use case::Case;
pub use healthy::healthy;

use crate::model::Model;
use verdict::{Cause, Confidence, Evidence, RuledOut, Verdict, missing, rests_on};

/// What one cause makes of a case.
#[derive(Debug, Clone, PartialEq)]
pub enum Finding {
    /// It explains the stall.
    Fits(Account),
    /// It does not, because.
    Excluded(String),
    /// It cannot be told, for want of this.
    Missing(String),
}

/// How a cause explains a stall.
#[derive(Debug, Clone, PartialEq)]
pub struct Account {
    /// How sure.
    pub confidence: Confidence,
    /// One sentence.
    pub summary: String,
    /// What speaks for it, strongest first.
    pub evidence: Vec<Evidence>,
}

/// What to do about a cause, one sentence each.
fn next_steps(cause: Cause) -> Vec<String> {
    let steps: &[&str] = match cause {
        Cause::SqNotFlushed => sq_not_flushed::NEXT,
        Cause::FdExhausted => fd_exhausted::NEXT,
        Cause::RuntimeBlocked => runtime_blocked::NEXT,
        Cause::ProcessStopped => process_stopped::NEXT,
        Cause::Unknown => unknown::NEXT,
        _ => &[],
    };
    steps.iter().map(|&step| step.to_owned()).collect()
}

fn examine(cause: Cause, case: &Case<'_>) -> Finding {
    match cause {
        Cause::ProcessStopped => process_stopped::examine(case),
        Cause::SqNotFlushed => sq_not_flushed::examine(case),
        Cause::RuntimeBlocked => runtime_blocked::examine(case),
        Cause::FdExhausted => fd_exhausted::examine(case),
        _ => Finding::Excluded(String::from("not a cause of stalls")),
    }
}

/// The verdict on a stall: the surest cause that fits; among equals the one examined first.
pub fn diagnose(case: &Case<'_>) -> Verdict {
    let findings: Vec<(Cause, Finding)> =
        Cause::STALLS.into_iter().map(|cause| (cause, examine(cause, case))).collect();
    let mut best: Option<(Cause, &Account)> = None;
    for (cause, finding) in &findings {
        if let Finding::Fits(account) = finding
            && best.is_none_or(|(_, other)| account.confidence > other.confidence)
        {
            best = Some((*cause, account));
        }
    }
    let named = best.map(|(cause, _)| cause);
    let ruled_out = findings
        .iter()
        .filter(|(cause, _)| Some(*cause) != named)
        .map(|(cause, finding)| RuledOut { cause: *cause, because: because(finding, named) })
        .collect();
    let (cause, account) = match best {
        Some((cause, account)) => (cause, account.clone()),
        None => (Cause::Unknown, unknown::account(case, &findings)),
    };
    Verdict {
        onset_ns: Some(case.onset.at_ns),
        before_watch: case.onset.before_watch,
        detected_ns: case.now_ns,
        cause,
        confidence: account.confidence,
        summary: account.summary,
        rests_on: rests_on(&account.evidence),
        missing: missing(case.last()),
        evidence: account.evidence,
        ruled_out,
        chain: Vec::new(),
        unknowable: Vec::new(),
        next: next_steps(cause),
    }
}

fn because(finding: &Finding, named: Option<Cause>) -> String {
    match finding {
        Finding::Excluded(because) => because.clone(),
        Finding::Missing(what) => format!("Could not be judged: {what}"),
        Finding::Fits(account) => {
            let named = named.map_or("unknown", Cause::id);
            format!(
                "It fits too ({}), but {named} explains more: {}",
                account.confidence.id(),
                account.summary
            )
        }
    }
}

/// How many of `history` are at most `back_ns` before `now_ns`.
fn recent(history: &[Arc<Model>], now_ns: u64, back_ns: u64) -> &[Arc<Model>] {
    let first = history.partition_point(|model| model.at_ns < now_ns.saturating_sub(back_ns));
    &history[first..]
}
