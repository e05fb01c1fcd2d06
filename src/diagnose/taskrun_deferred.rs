//! `taskrun-deferred`: the ring runs its completions only inside a call that the runtime never
//! makes.
//!
//! With `IORING_SETUP_DEFER_TASKRUN` completions are made only in `io_uring_enter(2)` with
//! `IORING_ENTER_GETEVENTS`, called by the thread that submits; tokio-uring 0.5.0 waits in epoll and
//! never passes it. With `IORING_SETUP_IOPOLL` and no SQPOLL the same holds. An accept stays armed
//! while connections wait, and the completion queue never moves. Setup flags cannot be read from
//! outside, so the combination is the evidence.

use stallscope_probes::ring::OP_ACCEPT;

use super::case::{Case, number, word};
use super::verdict::Confidence;
use super::{Account, Finding};
use crate::detect::StallKind;
use crate::model::tiers::Tier;

pub(super) const NEXT: &[&str] = &[
    "Look at how the ring is built: IORING_SETUP_DEFER_TASKRUN (setup_defer_taskrun) or IORING_SETUP_IOPOLL (setup_iopoll) does not go together with a runtime that waits in epoll.",
    "Drop the flag, or let the loop call io_uring_enter with IORING_ENTER_GETEVENTS.",
    "A restart does not help: it is so from the first connection on.",
];

pub(super) fn examine(case: &Case<'_>) -> Finding {
    let rings = case.rings();
    if rings.is_empty() {
        return super::sq_not_flushed::no_rings(case);
    }
    if case.onset.kind == StallKind::Stopped || case.queue_stuck() != Some(true) {
        return Finding::Excluded(String::from(
            "No connection has been waiting in an accept queue all the time.",
        ));
    }
    let accepts = case.armed(OP_ACCEPT);
    let armed: Vec<_> = accepts.iter().filter(|(_, _, count)| *count > 0).collect();
    let Some((fd, _, count)) = armed.last() else {
        return if accepts.is_empty() {
            Finding::Missing(String::from(
                "the operations in flight of no ring could be read since the onset.",
            ))
        } else {
            Finding::Excluded(String::from("No accept is armed in any ring."))
        };
    };
    let Some(ring) = rings.iter().find(|ring| ring.fd == *fd) else {
        return Finding::Missing(format!("ring {fd} was not read since the onset."));
    };
    if ring.cq_posting || !ring.cq_still {
        return Finding::Excluded(format!(
            "Ring {fd} completes operations: its completion queue moves."
        ));
    }
    if ring.sq_frozen || ring.cq_frozen {
        return Finding::Excluded(format!(
            "Ring {fd} has entries unsubmitted or completions unreaped: the delay is there."
        ));
    }
    let threads = case.runtime();
    let Some(thread) = threads.iter().find(|thread| thread.waiting * 10 >= thread.ticks * 8) else {
        return Finding::Excluded(String::from(
            "The runtime's thread does not sleep in its event loop.",
        ));
    };
    let reads = armed.iter().map(|(_, at_ns, _)| *at_ns).collect::<std::collections::BTreeSet<_>>();
    let never = ring.last.cq_tail == 0;
    let confidence =
        if never || reads.len() >= 2 { Confidence::Certain } else { Confidence::Likely };
    let mut evidence = vec![
        number(
            Tier::RingFdinfo,
            format!("ring {fd} accepts armed"),
            f64::from(*count),
            "operations",
            None,
        ),
        number(
            ring.tier,
            format!("ring {fd} completions ever posted"),
            f64::from(ring.last.cq_tail),
            "completions",
            None,
        ),
        word(
            Tier::ThreadCalls,
            format!("thread {} sleeps in", thread.last.tid),
            super::case::syscall_words(thread.last)
                .unwrap_or_else(|| String::from("its event loop")),
            None,
        ),
    ];
    evidence.extend(case.queue_evidence());
    Finding::Fits(Account {
        confidence,
        summary: format!(
            "An accept is armed in ring {fd} while connections wait, and the ring completes nothing: its completions are deferred to a call that this runtime never makes."
        ),
        evidence,
    })
}
