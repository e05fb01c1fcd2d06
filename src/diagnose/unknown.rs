//! `unknown`: stalled, and no cause fits. Says what is missing, and what was seen.

use super::backends::{Backend, awaited};
use super::case::{Case, number, outside_evidence, syscall_words, word};
use super::verdict::{Cause, Confidence};
use super::{Account, Finding};
use crate::detect::StallKind;
use crate::model::RingModel;
use crate::model::tiers::Tier;

pub(super) const NEXT: &[&str] = &[
    "Record it (`stallscope watch --record FILE`) and look at the threads and rings in the report.",
    "If the summary says that something was not permitted: run as root, or with CAP_SYS_PTRACE.",
    "Compare with docs/causes.md: it says for each known cause what it looks like from outside, and how to check it by hand.",
];

pub(super) fn account(case: &Case<'_>, findings: &[(Cause, Finding)]) -> Account {
    let missing: Vec<&str> = findings
        .iter()
        .filter_map(|(_, finding)| match finding {
            Finding::Missing(what) => Some(what.as_str()),
            _ => None,
        })
        .collect();
    let demand = case.onset.demand.clone();
    let mut evidence =
        vec![word(demanded(case), "waiting without progress", demand, Some(case.onset.at_ns))];
    evidence.extend(case.queue_evidence());
    for thread in case.runtime() {
        let tid = thread.last.tid;
        let signal = format!("thread {tid} is in");
        let state = thread.last.state.letter();
        let unread = format!("state {state}, its system call is not readable");
        evidence.push(syscall_words(thread.last).map_or_else(
            || word(Tier::Threads, signal.clone(), unread, None),
            |call| word(Tier::ThreadCalls, signal.clone(), call, None),
        ));
        if let Some(share) = thread.wants_cpu {
            evidence.push(number(
                Tier::Threads,
                format!("thread {tid} wants a CPU"),
                share * 100.0,
                "% of the time",
                None,
            ));
        }
    }
    for ring in case.rings() {
        let fd = ring.fd;
        let pending = f64::from(ring.last.sq_pending());
        let unreaped = f64::from(ring.last.cq_pending());
        let signal = format!("ring {fd} unsubmitted entries");
        evidence.push(number(ring.tier, signal, pending, "entries", None));
        evidence.push(number(
            ring.tier,
            format!("ring {fd} unreaped completions"),
            unreaped,
            "completions",
            None,
        ));
    }
    let backends = awaited(case);
    evidence.extend(backends.iter().take(BACKENDS_NAMED_MAX).map(Backend::evidence));
    evidence.extend(case.last().into_iter().flat_map(outside_evidence));
    let because = if missing.is_empty() {
        String::from("none of the causes this version knows fits")
    } else {
        format!("the evidence to tell is missing: {}", missing.join(" "))
    };
    let waits_for = backends.first().map_or_else(String::new, |backend| {
        format!(" It may wait for another service: {}.", backend.words())
    });
    Account {
        confidence: Confidence::Possible,
        summary: format!(
            "The server is stalled ({}), and {}.{waits_for}",
            case.onset.demand,
            because.trim_end_matches('.')
        ),
        evidence,
    }
}

/// Other services that are named.
const BACKENDS_NAMED_MAX: usize = 4;

/// Which kind of evidence showed the demand.
fn demanded(case: &Case<'_>) -> Tier {
    let Some(last) = case.last() else { return Tier::Process };
    match case.onset.kind {
        StallKind::Stopped if last.frozen.got() == Some(&true) => Tier::Cgroup,
        StallKind::Stopped => Tier::Process,
        StallKind::Ring => last.all_rings().first().map_or(Tier::RingMemory, RingModel::tier),
        // A server with a page is judged by it, another by what its clients sent.
        StallKind::Runtime if last.app.got().is_some() => Tier::Heartbeat,
        StallKind::Runtime | StallKind::Answers => Tier::Connections,
        StallKind::Accept | StallKind::Listener | StallKind::Full => Tier::Listeners,
        StallKind::Throttled => Tier::Cgroup,
    }
}
