//! `unknown`: stalled, and no cause fits. Says what is missing, and what was seen.

use super::case::{Case, number, syscall_words, word};
use super::verdict::{Cause, Confidence};
use super::{Account, Finding};

pub(super) const NEXT: &[&str] = &[
    "Record it (`stallscope watch --record FILE`) and look at the threads and rings in the report.",
    "If the summary says that something was not permitted: run as root, or with CAP_SYS_PTRACE.",
    "Compare with docs/causes.md: it lists stalls that are known and not yet told apart by this version.",
];

pub(super) fn account(case: &Case<'_>, findings: &[(Cause, Finding)]) -> Account {
    let missing: Vec<&str> = findings
        .iter()
        .filter_map(|(_, finding)| match finding {
            Finding::Missing(what) => Some(what.as_str()),
            _ => None,
        })
        .collect();
    let mut evidence =
        vec![word("waiting without progress", case.onset.demand.clone(), Some(case.onset.at_ns))];
    evidence.extend(case.queue_evidence());
    for thread in case.runtime() {
        let tid = thread.last.tid;
        let call = syscall_words(thread.last).unwrap_or_else(|| String::from("not readable"));
        evidence.push(word(format!("thread {tid} is in"), call, None));
        if let Some(share) = thread.wants_cpu {
            evidence.push(number(
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
        evidence.push(number(format!("ring {fd} unsubmitted entries"), pending, "entries", None));
        evidence.push(number(
            format!("ring {fd} unreaped completions"),
            unreaped,
            "completions",
            None,
        ));
    }
    let because = if missing.is_empty() {
        String::from("none of the causes this version knows fits")
    } else {
        format!("the evidence to tell is missing: {}", missing.join(" "))
    };
    Account {
        confidence: Confidence::Possible,
        summary: format!(
            "The server is stalled ({}), and {}.",
            case.onset.demand,
            because.trim_end_matches('.')
        ),
        evidence,
    }
}
