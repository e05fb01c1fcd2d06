//! `workers-blocked`: every worker of a multi-thread runtime is blocked or computes, and none waits
//! for events.
//!
//! In a healthy tokio runtime one idle worker always holds the I/O driver and sleeps in epoll; the
//! others sleep on a futex. When none is in epoll, nobody learns of new events: all workers are
//! blocked, or the one that held the driver is, and nobody has taken it over (tokio issue 4730).
//!
//! A server that hands its requests to a pool of threads stalls the same way when all of them are
//! stuck, though its loop goes on.

use std::collections::BTreeMap;

use super::case::{Case, ThreadSpan, number, word};
use super::pool::{self, Stuck};
use super::runtime_blocked::blocked_on;
use super::verdict::{Confidence, Evidence};
use super::{Account, Finding};
use crate::model::ThreadModel;
use crate::model::threads::{Doing, doing};
use crate::model::tiers::Tier;

pub(super) const NEXT: &[&str] = &[
    "Look at what the workers are in (evidence below): a lock held by one of them, a sleep, a synchronous client, a computation.",
    "Move blocking calls to spawn_blocking or a thread of their own; do not hold a std lock across work.",
    "More workers put it off, and do not cure it. A restart clears it until it happens again.",
];

/// Ticks that must agree.
const TICKS_MIN: usize = 3;

pub(super) fn examine(case: &Case<'_>) -> Finding {
    let threads = case.runtime();
    let workers = super::loops::workers(case, &threads);
    if workers.len() < 2 {
        return pool::stuck(case).map_or_else(
            || Finding::Excluded(String::from("The process has no multi-thread runtime.")),
            |pool| Finding::Fits(account_of_pool(case, &pool)),
        );
    }
    if let Some(worker) = workers.iter().find(|worker| worker.waiting > 0) {
        return Finding::Excluded(format!(
            "Worker {} waits for events (seen so in {} of {} samples).",
            worker.last.tid, worker.waiting, worker.ticks
        ));
    }
    let away = |worker: &ThreadSpan<'_>| {
        let away = worker.blocked + worker.running;
        let least = case.weights.away_share_min * worker.ticks as f64;
        worker.ticks >= TICKS_MIN && away as f64 >= least
    };
    if let Some(worker) = workers.iter().find(|worker| !away(worker)) {
        let absent = worker.last.syscall.absence().filter(|_| worker.blocked == 0);
        return Finding::Missing(absent.map_or_else(
            || format!("worker {} was seen too seldom to tell.", worker.last.tid),
            |absence| format!("what the workers sleep in could not be read ({}).", absence.detail),
        ));
    }
    let computing = workers.iter().filter(|worker| worker.running * 2 > worker.ticks).count();
    Finding::Fits(account(case, &workers, computing))
}

fn account(case: &Case<'_>, workers: &[&ThreadSpan<'_>], computing: usize) -> Account {
    let mut by_call: BTreeMap<String, usize> = BTreeMap::new();
    for worker in workers.iter().filter(|worker| worker.running * 2 <= worker.ticks) {
        let call = super::case::syscall_words(worker.last);
        *by_call.entry(blocked_on(worker.last, call.as_deref())).or_default() += 1;
    }
    let mut words: Vec<String> =
        by_call.iter().map(|(what, count)| format!("{count} in {what}")).collect();
    if computing > 0 {
        words.push(format!("{computing} computing"));
    }
    let since_ns = case.since(|model| {
        let tids = workers.iter().map(|worker| worker.last.tid);
        let mut workers = tids.filter_map(|tid| model.thread(tid)).peekable();
        workers.peek()?;
        Some(workers.all(|thread| doing(thread) != Doing::Waiting))
    });
    let mut evidence: Vec<Evidence> = vec![number(
        Tier::ThreadCalls,
        format!("workers that wait for events, of {}", workers.len()),
        0.0,
        "workers",
        since_ns.or(Some(case.onset.at_ns)),
    )];
    evidence.push(word(Tier::ThreadCalls, "where they are", words.join(", "), None));
    let named = workers.iter().take(WORKERS_NAMED_MAX);
    evidence.extend(named.filter_map(|worker| stack_of(worker.last)));
    evidence.extend(case.queue_evidence());
    // The state of a thread that computes is the same as that of one that works: it is the lack of
    // progress that tells.
    let confidence =
        if computing == workers.len() { Confidence::Likely } else { Confidence::Certain };
    Account {
        confidence,
        summary: format!(
            "None of the {} workers of the runtime waits for events: {}.",
            workers.len(),
            words.join(", ")
        ),
        evidence,
    }
}

/// The loop goes on, and nobody is left to handle what it hands over.
fn account_of_pool(case: &Case<'_>, pool: &Stuck) -> Account {
    let count = pool.tids.len();
    let words: Vec<String> =
        pool.calls.iter().map(|(call, count)| format!("{count} in {call}")).collect();
    let words = words.join(", ");
    let since_ns = case.since(|model| {
        let mut threads = pool.tids.iter().filter_map(|tid| model.thread(*tid)).peekable();
        threads.peek()?;
        Some(threads.all(|thread| doing(thread) == Doing::Blocked))
    });
    let signal = "threads of its pool that are stuck";
    let mut evidence = vec![
        number(Tier::ThreadCalls, signal, count as f64, "threads", since_ns),
        word(Tier::ThreadCalls, "where they are", words.clone(), None),
    ];
    evidence.extend(pool.backend.map(|backend| backend.evidence()));
    for tid in pool.tids.iter().take(WORKERS_NAMED_MAX) {
        let thread = case.last().and_then(|last| last.thread(*tid));
        evidence.extend(thread.and_then(stack_of));
    }
    evidence.extend(case.queue_evidence());
    let backend = pool.backend.map_or_else(String::new, |backend| format!("; {}", backend.words()));
    Account {
        confidence: pool.confidence,
        summary: format!(
            "All {count} threads that handle requests are blocked ({words}), while the event loop goes on{backend}."
        ),
        evidence,
    }
}

/// Where a worker is in the kernel, as evidence.
fn stack_of(worker: &ThreadModel) -> Option<Evidence> {
    let stack = worker.kernel_stack.got().filter(|stack| !stack.is_empty())?;
    let frames: Vec<&str> = stack.iter().take(4).map(String::as_str).collect();
    let signal = format!("worker {} kernel stack", worker.tid);
    Some(word(Tier::KernelStacks, signal, frames.join(" < "), None))
}

/// Workers whose stacks are shown.
const WORKERS_NAMED_MAX: usize = 4;
