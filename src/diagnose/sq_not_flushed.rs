//! `sq-not-flushed`: io_uring entries are prepared, and the runtime never hands them over.
//!
//! tokio-uring 0.5.0 submits only when its runtime parks (`Runtime::new` → `on_thread_park` →
//! `Handle::flush`). A task that is always ready keeps the scheduler from parking: since tokio
//! 1.50 a woken task counts as pending work and the loop takes `park_yield`, which runs no hook.
//! The thread spins, calls `epoll_wait(0)` now and then, and neither the next accept nor any
//! read or write reaches the kernel, until the submission queue is full.

use super::case::{Case, RingSpan, ThreadSpan, number, waiting_ops};
use super::verdict::Confidence;
use super::{Account, Finding};
use crate::model::tiers::Tier;

pub(super) const NEXT: &[&str] = &[
    "Take a CPU flamegraph: the task that never stops being ready stands at the top of the runtime's thread.",
    "Move that task to another thread or runtime, or let it wait (a sleep, a notification) instead of yielding: yield_now loops, self-waking futures and saturated channel consumers keep a tokio-uring runtime from ever submitting.",
    "As a safety net, submit from the loop itself: an operation that fills the submission queue, or a driver patched to flush on every tick; a timer alone does not help, since the runtime still does not park.",
    "A restart clears the stall, and it comes back as soon as the task does.",
];

/// Good reads of the ring that must agree.
const READS_MIN: usize = 3;
/// The runtime's thread wants a CPU for at least this share of the time: it spins.
const SPINS_MIN: f64 = 0.5;
/// A loop that turns calls `epoll_wait(0)` every 61 polls (tokio's event interval) and so spends
/// 3 to 12 % of its CPU time in the kernel (measured); a thread stuck in one poll spends none.
/// Clock ticks are samples: two in the kernel are no accident.
const KERNEL_TICKS_CERTAIN: u64 = 2;
/// At 3 % the chance of so many clock ticks in user mode only is 1 %.
pub(super) const USER_TICKS_ONLY: u64 = 150;
/// Beats are due every 50 ms.
const BEAT_FRESH_MS: f64 = 500.0;

pub(super) fn examine(case: &Case<'_>) -> Finding {
    let rings = case.rings();
    if rings.is_empty() {
        return no_rings(case);
    }
    let Some(ring) =
        rings.iter().filter(|ring| ring.sq_frozen).max_by_key(|ring| ring.last.sq_pending())
    else {
        return no_frozen_queue(case, &rings);
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
    if ring.cq_frozen {
        return Finding::Excluded(format!(
            "Ring {} also has {} completions that nobody reaps: the thread does not turn its loop at all.",
            ring.fd,
            ring.last.cq_pending()
        ));
    }
    judge_thread(case, ring)
}

/// A poll that does not return leaves what the kernel completes meanwhile unreaped; a loop that turns
/// reaps it, and what it asks for next is what waits. A long turn (a hundred messages of a channel at
/// a time) leaves no trace in the kernel, but this.
pub(super) fn reaps(ring: &RingSpan<'_>) -> bool {
    ring.last.cq_pending() == 0
        && ring.last.cq_tail > 0
        && ring.last.sq_pending() >= ENTRIES_OF_SEVERAL
}

/// More entries than one connection has in hand, next to an accept.
const ENTRIES_OF_SEVERAL: u32 = 3;

/// Why no submission queue is stuck.
pub(super) fn no_frozen_queue(case: &Case<'_>, rings: &[RingSpan<'_>]) -> Finding {
    if rings.is_empty() {
        return no_rings(case);
    }
    Finding::Excluded(String::from(
        "Every ring's entries were handed to the kernel: no submission queue is frozen with entries in it.",
    ))
}

/// Why no ring could be judged.
pub(super) fn no_rings(case: &Case<'_>) -> Finding {
    let rings = case.last().map(|model| &model.rings);
    match rings.and_then(|rings| rings.absence()) {
        Some(absence) => {
            Finding::Missing(format!("the rings could not be read ({}).", absence.detail))
        }
        None if rings.and_then(|rings| rings.got()).is_some_and(|rings| rings.is_empty()) => {
            Finding::Excluded(String::from("The process has no io_uring."))
        }
        None => Finding::Missing(String::from(
            "no good read of a ring since the onset (the kernel leaves the section out while it holds the ring's lock).",
        )),
    }
}

fn judge_thread(case: &Case<'_>, ring: &RingSpan<'_>) -> Finding {
    let threads = case.runtime();
    let spins = |thread: &&ThreadSpan<'_>| {
        thread.wants_cpu.is_some_and(|share| share >= SPINS_MIN)
            || (thread.wants_cpu.is_none() && thread.running * 10 >= thread.ticks * 8)
    };
    let Some(thread) = threads.iter().find(spins) else {
        let asleep = threads.iter().find(|thread| thread.waiting > 0);
        return match asleep {
            Some(thread) => Finding::Excluded(format!(
                "Ring {} holds {} unsubmitted entries, but the runtime's thread {} sleeps waiting for events instead of spinning: the entries were left behind, for example by a failed submission.",
                ring.fd,
                ring.last.sq_pending(),
                thread.last.tid
            )),
            None if threads.is_empty() => {
                Finding::Fits(account(case, ring, None, Confidence::Possible))
            }
            None => Finding::Excluded(format!(
                "Ring {} holds {} unsubmitted entries, but the runtime's thread does not run: it never comes to submit.",
                ring.fd,
                ring.last.sq_pending()
            )),
        };
    };
    let fits = |confidence| Finding::Fits(account(case, ring, Some(thread), confidence));
    // The server's own beat is a timer on that loop: while it goes on, the loop turns.
    let beat_ms = case.last().and_then(|model| model.app.got()?.beat_age_ms);
    if beat_ms.is_some_and(|beat_ms| beat_ms < BEAT_FRESH_MS) {
        return fits(Confidence::Certain);
    }
    match thread.cpu_ticks {
        Some((_, kernel)) if kernel >= KERNEL_TICKS_CERTAIN => fits(Confidence::Certain),
        Some((_, kernel)) if kernel > 0 => fits(Confidence::Likely),
        Some((user, _)) if user >= USER_TICKS_ONLY && !reaps(ring) => Finding::Excluded(format!(
            "Thread {} computes and never enters the kernel ({user} clock ticks of CPU time, none of them there): one poll does not return, which is not a loop that forgets to submit.",
            thread.last.tid
        )),
        Some(_) if reaps(ring) => fits(Confidence::Likely),
        Some((user, _)) => Finding::Missing(format!(
            "after {user} clock ticks of CPU time it cannot be told yet whether thread {} turns its loop or computes.",
            thread.last.tid
        )),
        None => fits(Confidence::Possible),
    }
}

fn account(
    case: &Case<'_>,
    ring: &RingSpan<'_>,
    thread: Option<&ThreadSpan<'_>>,
    confidence: Confidence,
) -> Account {
    let pending = ring.last.sq_pending();
    let head = ring.last.sq_head;
    let since_ns = case.since(|model| {
        let state = model.ring(ring.fd)?.state.got()?;
        Some(state.sq_pending() > 0 && state.sq_head == head)
    });
    let mut evidence = vec![number(
        ring.tier,
        format!("ring {} unsubmitted entries, head frozen at {head}", ring.fd),
        f64::from(pending),
        "entries",
        since_ns,
    )];
    evidence.extend(waiting_ops(ring, since_ns));
    if let Some(thread) = thread {
        if let Some(share) = thread.wants_cpu {
            evidence.push(number(
                Tier::Threads,
                format!("thread {} wants a CPU", thread.last.tid),
                share * 100.0,
                "% of the time",
                since_ns,
            ));
        }
        if let Some((user, kernel)) = thread.cpu_ticks.filter(|(user, kernel)| user + kernel > 0) {
            let share = kernel as f64 / (user + kernel) as f64;
            evidence.push(number(
                Tier::Threads,
                format!("thread {} CPU time spent in the kernel", thread.last.tid),
                share * 100.0,
                "%",
                since_ns,
            ));
        }
    }
    evidence.push(number(
        ring.tier,
        format!("ring {} unreaped completions", ring.fd),
        f64::from(ring.last.cq_pending()),
        "completions",
        None,
    ));
    evidence.extend(case.queue_evidence());
    let spinning = thread.map_or_else(String::new, |thread| {
        format!(" while thread {} spins without ever parking", thread.last.tid)
    });
    Account {
        confidence,
        summary: format!(
            "{pending} io_uring entries wait in ring {} and are never submitted{spinning}: some task is always ready, and this runtime submits only when it parks.",
            ring.fd
        ),
        evidence,
    }
}
