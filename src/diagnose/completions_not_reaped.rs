//! `completions-not-reaped`: io_uring completions wait, the thread sleeps in its event loop, and
//! the task that should take them is gone.
//!
//! tokio-uring 0.5.0 reaps in a plain task (`runtime/mod.rs drive_uring_wakes`): a panic in it, from
//! a waker or from `Ops::complete`, ends it silently and nothing starts it again. The kernel goes on
//! posting until the completion queue is full; then its overflow list grows, which is a consequence.

use super::case::{Case, number, word};
use super::verdict::{Confidence, Evidence};
use super::{Account, Finding};
use crate::model::tiers::Tier;

pub(super) const NEXT: &[&str] = &[
    "Look for a panic in the server's log, once, at the onset: the task that drives the ring died of it.",
    "Restart the server: nothing brings that task back.",
    "Let a panic end the process (panic = \"abort\", or a supervisor that checks that the runtime answers) instead of a task on which everything depends.",
];

/// Good reads of the ring that must agree.
const READS_MIN: usize = 3;

pub(super) fn examine(case: &Case<'_>) -> Finding {
    let rings = case.rings();
    let frozen = rings.iter().filter(|ring| ring.cq_frozen);
    let Some(ring) = frozen.max_by_key(|ring| ring.last.cq_pending()) else {
        return if rings.is_empty() {
            super::sq_not_flushed::no_rings(case)
        } else {
            Finding::Excluded(String::from("No ring holds completions that nobody reaps."))
        };
    };
    if ring.reads < READS_MIN {
        return Finding::Missing(format!(
            "ring {} gave only {} good reads; {READS_MIN} must agree.",
            ring.fd, ring.reads
        ));
    }
    let threads = case.runtime();
    let unreaped = ring.last.cq_pending();
    let Some(thread) = threads.iter().find(|thread| thread.waiting * 10 >= thread.ticks * 8) else {
        return Finding::Excluded(format!(
            "Ring {} holds {unreaped} completions, but the runtime's thread does not come back to its event loop to reap them.",
            ring.fd
        ));
    };
    let head = ring.last.cq_head;
    let since_ns = case.since(|model| {
        let state = model.ring(ring.fd)?.state.got()?;
        Some(state.cq_pending() > 0 && state.cq_head == head)
    });
    let mut evidence: Vec<Evidence> = vec![number(
        ring.tier,
        format!("ring {} unreaped completions, head frozen at {head}", ring.fd),
        f64::from(unreaped),
        "completions",
        since_ns,
    )];
    evidence.push(word(
        Tier::ThreadCalls,
        format!("thread {} sleeps in", thread.last.tid),
        super::case::syscall_words(thread.last).unwrap_or_else(|| String::from("its event loop")),
        None,
    ));
    if ring.last.overflowing {
        let signal = format!("ring {} completions beyond its queue", ring.fd);
        evidence.push(word(ring.tier, signal, "wait in the overflow list", None));
    }
    evidence.extend(case.queue_evidence());
    Finding::Fits(Account {
        confidence: Confidence::Certain,
        summary: format!(
            "{unreaped} completions wait in ring {} while thread {} sleeps in its event loop: what should reap them is gone, most likely by a panic.",
            ring.fd, thread.last.tid
        ),
        evidence,
    })
}
