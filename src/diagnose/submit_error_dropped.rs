//! `submit-error-dropped`: io_uring entries were left behind by a submission that failed, and the
//! runtime sleeps.
//!
//! tokio-uring 0.5.0 submits when its thread parks and drops every error of that call
//! (`driver/handle.rs Handle::flush`, `let _ =`): EAGAIN when the kernel cannot allocate a request
//! under a memory limit, ENOMEM, EBUSY on old kernels, an errno of a seccomp filter. The entries
//! stay in the queue, the thread goes on to sleep in epoll, and tries again at its next wake-up:
//! without a timer or a completion there is none.

use super::case::{Case, RingSpan, number, waiting_ops, word};
use super::verdict::{Confidence, Evidence};
use super::{Account, Finding};
use crate::model::tiers::Tier;

pub(super) const NEXT: &[&str] = &[
    "Look for memory pressure of its cgroup (memory.events, memory.max) and for a seccomp filter that refuses io_uring_enter: the error itself was dropped.",
    "Anything that wakes the thread makes it submit again, a signal included; a restart clears it. Save a recording first: a debugger or strace heals the stall and destroys the evidence.",
    "Keep a timer of some 100 ms in the runtime: it caps such a stall; retry a submission that fails, and report the error.",
];

/// Good reads of the ring that must agree.
const READS_MIN: usize = 3;
/// Share of the ticks in which the thread must be seen waiting for events.
const WAITING_SHARE_MIN: f64 = 0.8;

pub(super) fn examine(case: &Case<'_>) -> Finding {
    let rings = case.rings();
    let frozen = rings.iter().filter(|ring| ring.sq_frozen);
    let Some(ring) = frozen.max_by_key(|ring| ring.last.sq_pending()) else {
        return super::sq_not_flushed::no_frozen_queue(case, &rings);
    };
    if ring.reads < READS_MIN {
        return Finding::Missing(format!(
            "ring {} gave only {} good reads; {READS_MIN} must agree.",
            ring.fd, ring.reads
        ));
    }
    if ring.last.sqpoll == Some(true) {
        return Finding::Excluded(format!(
            "Ring {} is polled by the kernel (SQPOLL): the application does not submit.",
            ring.fd
        ));
    }
    let threads = case.runtime();
    let share = |waiting: usize, ticks: usize| waiting as f64 / ticks.max(1) as f64;
    let asleep =
        threads.iter().find(|thread| share(thread.waiting, thread.ticks) >= WAITING_SHARE_MIN);
    let Some(thread) = asleep else {
        return Finding::Excluded(format!(
            "Ring {} holds {} unsubmitted entries, but no thread of the runtime sleeps in its event loop.",
            ring.fd,
            ring.last.sq_pending()
        ));
    };
    let pending = ring.last.sq_pending();
    let since_ns = since(case, ring);
    let mut evidence = vec![number(
        ring.tier,
        format!("ring {} unsubmitted entries, head frozen at {}", ring.fd, ring.last.sq_head),
        f64::from(pending),
        "entries",
        since_ns,
    )];
    evidence.extend(waiting_ops(ring, since_ns));
    evidence.push(word(
        Tier::ThreadCalls,
        format!("thread {} sleeps in", thread.last.tid),
        super::case::syscall_words(thread.last).unwrap_or_else(|| String::from("its event loop")),
        None,
    ));
    evidence.extend(memory(case));
    evidence.extend(case.queue_evidence());
    Finding::Fits(Account {
        confidence: Confidence::Certain,
        summary: format!(
            "{pending} io_uring entries lie in ring {} unsubmitted while thread {} sleeps waiting for events: a submission failed, its error was dropped, and nothing wakes the thread to try again.",
            ring.fd, thread.last.tid
        ),
        evidence,
    })
}

fn since(case: &Case<'_>, ring: &RingSpan<'_>) -> Option<u64> {
    case.since(|model| {
        let state = model.ring(ring.fd)?.state.got()?;
        Some(state.sq_pending() > 0 && state.sq_head == ring.last.sq_head)
    })
}

/// The usual reason for a request that cannot be allocated.
fn memory(case: &Case<'_>) -> Option<Evidence> {
    let cgroup = case.last()?.cgroup.got()?;
    cgroup
        .is_short_of_memory()
        .then(|| word(Tier::Cgroup, "its cgroup ran into a memory limit", "yes", None))
}
