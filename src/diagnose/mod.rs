//! From an onset and the ticks around it to a verdict: the cause, its evidence, what was ruled
//! out, what to do. Pure. One file per cause.

mod accept_eagain_storm;
mod accept_leaked;
mod accept_not_armed;
mod accept_queue_overflow;
mod backends;
mod case;
mod chain;
mod completions_not_reaped;
mod conntrack_full;
mod cpu_throttled;
mod ephemeral_ports_exhausted;
mod fd_exhausted;
mod file_table_full;
#[cfg(test)]
mod fixtures;
mod healthy;
mod kafka;
mod kafka_not_polled;
mod kafka_queue_full;
mod kafka_slow;
mod kafka_unreachable;
mod listener_gone;
mod loops;
mod outside;
mod pool;
mod process_stopped;
mod reuseport_sibling;
mod runtime_blocked;
mod runtime_busy;
mod sq_not_flushed;
mod submit_error_dropped;
mod syn_backlog_full;
mod taskrun_deferred;
pub mod thresholds;
mod unknown;
pub mod verdict;
mod workers_blocked;

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
        Cause::AcceptEagainStorm => accept_eagain_storm::NEXT,
        Cause::AcceptLeaked => accept_leaked::NEXT,
        Cause::AcceptNotArmed => accept_not_armed::NEXT,
        Cause::AcceptQueueOverflow => accept_queue_overflow::NEXT,
        Cause::CompletionsNotReaped => completions_not_reaped::NEXT,
        Cause::ConntrackFull => conntrack_full::NEXT,
        Cause::CpuThrottled => cpu_throttled::NEXT,
        Cause::EphemeralPortsExhausted => ephemeral_ports_exhausted::NEXT,
        Cause::FdExhausted => fd_exhausted::NEXT,
        Cause::FileTableFull => file_table_full::NEXT,
        Cause::KafkaNotPolled => kafka_not_polled::NEXT,
        Cause::KafkaQueueFull => kafka_queue_full::NEXT,
        Cause::KafkaSlow => kafka_slow::NEXT,
        Cause::KafkaUnreachable => kafka_unreachable::NEXT,
        Cause::ListenerGone => listener_gone::NEXT,
        Cause::ProcessStopped => process_stopped::NEXT,
        Cause::ReuseportSibling => reuseport_sibling::NEXT,
        Cause::RuntimeBlocked => runtime_blocked::NEXT,
        Cause::RuntimeBusy => runtime_busy::NEXT,
        Cause::SqNotFlushed => sq_not_flushed::NEXT,
        Cause::SubmitErrorDropped => submit_error_dropped::NEXT,
        Cause::SynBacklogFull => syn_backlog_full::NEXT,
        Cause::TaskrunDeferred => taskrun_deferred::NEXT,
        Cause::Unknown => unknown::NEXT,
        Cause::WorkersBlocked => workers_blocked::NEXT,
        Cause::HealthyIdle | Cause::HealthyBusy => &[],
    };
    steps.iter().map(|&step| step.to_owned()).collect()
}

fn examine(cause: Cause, case: &Case<'_>) -> Finding {
    match cause {
        Cause::AcceptEagainStorm => accept_eagain_storm::examine(case),
        Cause::AcceptLeaked => accept_leaked::examine(case),
        Cause::AcceptNotArmed => accept_not_armed::examine(case),
        Cause::AcceptQueueOverflow => accept_queue_overflow::examine(case),
        Cause::CompletionsNotReaped => completions_not_reaped::examine(case),
        Cause::ConntrackFull => conntrack_full::examine(case),
        Cause::CpuThrottled => cpu_throttled::examine(case),
        Cause::EphemeralPortsExhausted => ephemeral_ports_exhausted::examine(case),
        Cause::FdExhausted => fd_exhausted::examine(case),
        Cause::FileTableFull => file_table_full::examine(case),
        Cause::KafkaNotPolled => kafka_not_polled::examine(case),
        Cause::KafkaQueueFull => kafka_queue_full::examine(case),
        Cause::KafkaSlow => kafka_slow::examine(case),
        Cause::KafkaUnreachable => kafka_unreachable::examine(case),
        Cause::ListenerGone => listener_gone::examine(case),
        Cause::ProcessStopped => process_stopped::examine(case),
        Cause::ReuseportSibling => reuseport_sibling::examine(case),
        Cause::RuntimeBlocked => runtime_blocked::examine(case),
        Cause::RuntimeBusy => runtime_busy::examine(case),
        Cause::SqNotFlushed => sq_not_flushed::examine(case),
        Cause::SubmitErrorDropped => submit_error_dropped::examine(case),
        Cause::SynBacklogFull => syn_backlog_full::examine(case),
        Cause::TaskrunDeferred => taskrun_deferred::examine(case),
        Cause::WorkersBlocked => workers_blocked::examine(case),
        Cause::HealthyIdle | Cause::HealthyBusy | Cause::Unknown => {
            Finding::Excluded(String::from("not a cause of stalls"))
        }
    }
}

/// The verdict on a stall: the surest cause that fits, unless another that fits brings it about;
/// among equals the one examined first.
pub fn diagnose(case: &Case<'_>) -> Verdict {
    let findings: Vec<(Cause, Finding)> =
        Cause::STALLS.into_iter().map(|cause| (cause, examine(cause, case))).collect();
    let fitting = |finding: &'_ Finding| match finding {
        Finding::Fits(account) => Some(account.clone()),
        _ => None,
    };
    let fits: Vec<(Cause, Account)> =
        findings.iter().filter_map(|(cause, finding)| Some((*cause, fitting(finding)?))).collect();
    let mut best: Option<&(Cause, Account)> = None;
    for candidate in fits.iter().filter(|(cause, account)| !brought_about(*cause, account, &fits)) {
        if best.is_none_or(|(_, other)| candidate.1.confidence > other.confidence) {
            best = Some(candidate);
        }
    }
    let named = best.map(|(cause, _)| *cause);
    let ruled_out = findings
        .iter()
        .filter(|(cause, _)| Some(*cause) != named)
        .map(|(cause, finding)| RuledOut { cause: *cause, because: because(finding, named) })
        .collect();
    let (cause, account) = match best {
        Some((cause, account)) => (*cause, account.clone()),
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
        chain: chain::of(case, cause),
        unknowable: unknowable(case),
        next: next_steps(cause),
    }
}

/// What a cause brings about: seen together, the first is the cause and the others are what came
/// of it, however sure they are.
const fn brings_about(cause: Cause) -> &'static [Cause] {
    match cause {
        Cause::ProcessStopped => &[
            Cause::CpuThrottled,
            Cause::RuntimeBlocked,
            Cause::WorkersBlocked,
            Cause::TaskrunDeferred,
            Cause::AcceptNotArmed,
            Cause::KafkaSlow,
            Cause::KafkaUnreachable,
        ],
        Cause::KafkaUnreachable | Cause::KafkaSlow | Cause::KafkaQueueFull => {
            &[Cause::FdExhausted, Cause::AcceptQueueOverflow, Cause::AcceptNotArmed]
        }
        Cause::ConntrackFull | Cause::EphemeralPortsExhausted => {
            &[Cause::KafkaUnreachable, Cause::KafkaSlow]
        }
        Cause::AcceptLeaked => &[Cause::FdExhausted, Cause::AcceptQueueOverflow],
        Cause::FdExhausted | Cause::FileTableFull => &[
            Cause::AcceptQueueOverflow,
            Cause::RuntimeBusy,
            Cause::WorkersBlocked,
            Cause::AcceptEagainStorm,
            Cause::AcceptNotArmed,
        ],
        Cause::CpuThrottled => &[
            Cause::AcceptQueueOverflow,
            Cause::RuntimeBusy,
            Cause::WorkersBlocked,
            Cause::SqNotFlushed,
            Cause::KafkaSlow,
        ],
        _ => &[],
    }
}

/// Whether another cause that fits brings `cause` about, and was there no later. Of what has held
/// since before the watch nobody knows the order.
fn brought_about(cause: Cause, account: &Account, fits: &[(Cause, Account)]) -> bool {
    fits.iter().any(|(other, theirs)| {
        brings_about(*other).contains(&cause)
            && theirs.confidence >= Confidence::Likely
            && match (theirs.since_ns(), account.since_ns()) {
                (Some(theirs), Some(ours)) => theirs <= ours.saturating_add(TOGETHER_NS),
                _ => true,
            }
    })
}

/// Evidence is read at different paces: what is this close together cannot be put in order.
const TOGETHER_NS: u64 = 500_000_000;

/// What can no longer be known of a stall that is older than the watch.
fn unknowable(case: &Case<'_>) -> Vec<String> {
    let mut unknowable = Vec::new();
    if case.onset.before_watch {
        // Without a record of it the onset is the first look at it.
        let is_dated = case.history.first().is_some_and(|first| case.onset.at_ns < first.at_ns);
        unknowable.push(if case.onset.within_ns == 0 {
            String::from(
                "What led to it: it was so when watching began. Its onset is the server's own record of its last progress.",
            )
        } else if is_dated {
            String::from(
                "What led to it: it was so when watching began. Its onset is since when those have waited that wait.",
            )
        } else {
            String::from(
                "When it began, and what led to it: it was so when watching began.",
            )
        });
    }
    unknowable
}

impl Account {
    /// Since when its strongest evidence has held.
    fn since_ns(&self) -> Option<u64> {
        self.evidence.first().and_then(|evidence| evidence.since_ns)
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
