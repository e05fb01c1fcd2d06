//! `runtime-busy`: the runtime's thread computes, and does not come back to its event loop.
//!
//! One poll that takes seconds: parsing, compression, a loop that never ends. The thread is on a CPU
//! all the time, in user mode; completions and unread bytes pile up as with a blocked one.

use super::case::{Case, ThreadSpan, number};
use super::sq_not_flushed::{USER_TICKS_ONLY, reaps};
use super::verdict::{Confidence, Evidence};
use super::{Account, Finding};
use crate::model::tiers::Tier;

pub(super) const NEXT: &[&str] = &[
    "Take a CPU flamegraph of that thread (`perf record -t TID -g`, or the server's own profiler): the function that holds it stands at the top.",
    "Move the computation off the runtime's thread (spawn_blocking, a pool of its own), or divide it and yield in between.",
    "It may end by itself: what waits is then answered late. A restart loses it.",
];

/// Clock ticks of CPU time below which user and kernel mode cannot be told apart.
const TICKS_FEW: u64 = 10;
/// With so many clock ticks the split is sure.
const TICKS_SURE: u64 = 40;

pub(super) fn examine(case: &Case<'_>) -> Finding {
    let threads: Vec<ThreadSpan<'_>> = case.runtime();
    if threads.is_empty() {
        return Finding::Missing(String::from("no thread could be told to run the event loop."));
    }
    let workers = super::loops::workers(case, &threads).len();
    if workers >= 2 {
        return Finding::Excluded(format!(
            "The runtime has {workers} workers: one that computes does not hold up the others."
        ));
    }
    if let Some(last) = case.last()
        && super::fd_exhausted::is_full(last) == Some(true)
    {
        return Finding::Excluded(String::from("No fd is left: a loop spins on failing accepts."));
    }
    let running = |thread: &&ThreadSpan<'_>| {
        thread.ticks >= 3
            && thread.running as f64 >= case.weights.running_share_min * thread.ticks as f64
            && thread.waiting == 0
    };
    let Some(thread) = threads.iter().filter(running).max_by_key(|thread| used(thread)) else {
        let busiest = threads.iter().max_by_key(|thread| thread.running);
        return Finding::Excluded(busiest.map_or_else(String::new, |thread| {
            format!(
                "Thread {} was running in only {} of {} samples.",
                thread.last.tid, thread.running, thread.ticks
            )
        }));
    };
    judge(case, thread)
}

fn used(thread: &ThreadSpan<'_>) -> u64 {
    thread.cpu_ticks.map_or(0, |(user, kernel)| user + kernel)
}

fn judge(case: &Case<'_>, thread: &ThreadSpan<'_>) -> Finding {
    let tid = thread.last.tid;
    let rings = case.rings();
    let unreaped = rings.iter().find(|ring| ring.cq_frozen);
    let Some((user, kernel)) = thread.cpu_ticks else {
        return Finding::Missing(format!("the CPU time of thread {tid} could not be read."));
    };
    let ticks = user + kernel;
    let share = kernel as f64 / ticks.max(1) as f64;
    if unreaped.is_none() && rings.iter().any(|ring| ring.sq_frozen) && kernel > 0 {
        return Finding::Excluded(format!(
            "Thread {tid} enters the kernel ({kernel} of {ticks} clock ticks): its loop turns and does not submit."
        ));
    }
    let unsubmitted = unreaped.is_none() && rings.iter().any(|ring| ring.sq_frozen);
    if let Some(ring) = rings.iter().find(|ring| ring.sq_frozen && reaps(ring)) {
        return Finding::Excluded(format!(
            "Ring {} has no completion waiting: thread {tid} reaps what the kernel completes, so its loop turns.",
            ring.fd
        ));
    }
    if unsubmitted && user < USER_TICKS_ONLY {
        return Finding::Missing(format!(
            "after {user} clock ticks of CPU time it cannot be told yet whether thread {tid} computes, or turns its loop and does not submit."
        ));
    }
    if ticks < TICKS_FEW {
        let delay = thread.last.delay_ratio.got();
        let waited = delay.map_or_else(String::new, |delay| {
            format!(" (it waited for a CPU {:.0} % of the time)", delay * 100.0)
        });
        return Finding::Missing(format!(
            "thread {tid} got only {ticks} clock ticks of CPU time since the onset{waited}."
        ));
    }
    if share > case.weights.looping_kernel_share_min && unreaped.is_none() {
        return Finding::Excluded(format!(
            "Thread {tid} spends {:.0} % of its CPU time in the kernel: it goes from call to call and does not compute.",
            share * 100.0
        ));
    }
    let computes = share <= case.weights.computing_kernel_share_max;
    // A loop that turns and does not submit looks the same, but for its ring.
    let unread = case.unread_rings();
    let sure = ticks >= TICKS_SURE && (unreaped.is_some() || (computes && unread.is_none()));
    let confidence = if sure { Confidence::Certain } else { Confidence::Likely };
    let since_ns = case.since(|model| {
        let thread = model.thread(tid)?;
        Some(thread.state == stallscope_probes::sample::TaskState::Running)
    });
    let mut evidence: Vec<Evidence> = vec![
        number(
            Tier::Threads,
            format!("thread {tid} CPU time since the onset (user mode)"),
            user as f64,
            "clock ticks",
            since_ns.or(Some(case.onset.at_ns)),
        ),
        number(
            Tier::Threads,
            format!("thread {tid} CPU time spent in the kernel"),
            share * 100.0,
            "%",
            None,
        ),
    ];
    if let Some(ring) = unreaped {
        evidence.push(number(
            ring.tier,
            format!("ring {} unreaped completions, head frozen", ring.fd),
            f64::from(ring.last.cq_pending()),
            "completions",
            None,
        ));
    }
    evidence.extend(case.queue_evidence());
    let computes_on = format!(
        "The runtime's thread {tid} computes without a pause and does not come back to its event loop."
    );
    Finding::Fits(Account {
        confidence,
        summary: match unread.filter(|_| unreaped.is_none()) {
            None => computes_on,
            Some(why) => format!(
                "{computes_on} A loop that turns and submits nothing would look the same, and that could not be ruled out ({why})."
            ),
        },
        evidence,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use stallscope_probes::sample::{RingSource, RingState};
    use stallscope_probes::{Reading, Why};

    use super::super::fixtures::Expect::{Excluded, Fits};
    use super::super::fixtures::{ONSET, PID, Story, TICK_NS, at_ns, change_thread, hold, spin};
    use super::*;
    use crate::detect::StallKind;
    use crate::model::{Model, RingModel};

    /// The loop's thread computes, in user mode only.
    fn computing() -> Story {
        Story::new(StallKind::Runtime).stalled(|since, model| {
            spin(model);
            change_thread(model, PID, |thread| thread.utime_ticks += 10 * since as u64);
        })
    }

    fn with_ring(model: &mut Model, read_ns: u64, state: Reading<RingState>) {
        let absent = || Reading::absent(Why::NotSampled, "not asked for");
        let ring = RingModel {
            fd: 5,
            at_ns: read_ns,
            source: RingSource::Memory { confirmed: true },
            state,
            armed: Reading::absent(Why::NotSampled, "not asked for"),
            submissions_per_s: absent(),
            completions_per_s: absent(),
        };
        model.rings = Reading::Got(Arc::from([ring]));
    }

    /// `entries` wait since `moves` ticks after the onset; until then all that is prepared is taken.
    fn unsubmitted(moves: usize, entries: u32) -> Story {
        computing().stalled(move |since, model| {
            let sq_head = since.min(moves) as u32;
            let pending = if since < moves { 0 } else { entries };
            let state = RingState {
                sq_head,
                sq_tail: sq_head + pending,
                cq_tail: 7,
                cq_head: 7,
                ..RingState::default()
            };
            with_ring(model, model.at_ns, Reading::Got(state));
        })
    }

    #[test]
    fn a_loop_that_does_not_submit_is_told_by_its_ring_or_not_surely() {
        let locked = |_: usize, model: &mut Model| {
            with_ring(model, model.at_ns, Reading::absent(Why::Locked, "the ring was locked"));
        };
        let stale = |_: usize, model: &mut Model| {
            with_ring(model, at_ns(ONSET) - TICK_NS, Reading::Got(RingState::default()));
        };
        hold(
            examine,
            vec![
                ("no ring", computing(), Fits(Confidence::Certain, "computes without a pause")),
                (
                    "an unread ring",
                    computing().stalled(locked),
                    Fits(Confidence::Likely, "(ring 5: the ring was locked)"),
                ),
                (
                    "a read of before",
                    computing().stalled(stale),
                    Fits(Confidence::Likely, "computes"),
                ),
                ("a ring at rest", unsubmitted(0, 0), Fits(Confidence::Certain, "computes")),
                ("entries since the onset", unsubmitted(0, 9), Excluded("its loop turns")),
                // Within the judged second all was well yet.
                ("entries since later", unsubmitted(24, 9), Excluded("its loop turns")),
            ],
        );
    }
}
