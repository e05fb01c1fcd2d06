//! `runtime-blocked`: the thread that runs the event loop sits in a blocking call.
//!
//! Asleep, but not where an event loop sleeps: a futex (a mutex, a condition, a Kafka flush), a
//! full pipe, a sleep, a disk. The kernel goes on completing armed operations and filling accept
//! queues; nobody takes them. Looks at the state, system call and wait channel of every thread
//! that could run the loop (proc(5)).

use stallscope_probes::sample::{SyscallRaw, TaskState};

use super::case::{Case, ThreadSpan, number, outside_evidence, syscall_words, word};
use super::loops::{Attention, attention, fds, turned_before, workers};
use super::verdict::Confidence;
use super::{Account, Finding};
use crate::detect::StallKind;
use crate::model::threads::{Doing, doing};
use crate::model::tiers::Tier;
use crate::model::{Model, ThreadModel, ThreadRole};

pub(super) const NEXT: &[&str] = &[
    "Look at the thread's system call, wait channel and kernel stack in the evidence: they say what it waits for.",
    "Move blocking calls (a flush or poll with a timeout, a lock held across work, file and DNS access, writing to a pipe that nobody drains) off the runtime's thread: spawn_blocking, or a thread of their own.",
    "If it waits for Kafka, look at the broker: a flush with a long timeout to a broker that is down blocks for all of it.",
];

/// Ticks that must agree.
const TICKS_MIN: usize = 3;
/// A thread put on a CPU this often comes back from its sleep again and again.
const WAKES_PER_S_MIN: f64 = 5.0;

pub(super) fn examine(case: &Case<'_>) -> Finding {
    let threads = case.runtime();
    if threads.is_empty() {
        let absence = case.last().and_then(|model| model.threads.absence());
        let detail = absence
            .map_or("no thread could be told to run the event loop", |absence| &absence.detail);
        return Finding::Missing(format!("{detail}."));
    }
    let workers = workers(case, &threads).len();
    if workers >= 2 {
        return Finding::Excluded(format!(
            "The runtime has {workers} workers: one that is blocked does not hold up the others."
        ));
    }
    if let Some(thread) = threads.iter().find(|thread| thread.waiting * 10 > thread.ticks) {
        match attention(case).filter(|_| case.onset.kind == StallKind::Accept) {
            // Goroutines move between threads: that one of them sleeps now means nothing as long as
            // another waits where the connections are told of.
            Some(Attention { epolls, is_paid: true }) => {
                return Finding::Excluded(format!(
                    "A thread still waits for the events of the loop that watches the listening socket (epoll fd {}).",
                    fds(&epolls)
                ));
            }
            Some(Attention { epolls, is_paid: false }) => {
                return Finding::Fits(inattentive(case, &threads, &epolls));
            }
            None => {}
        }
        if let Some(stuck) = stuck_since_the_onset(case, &threads) {
            let mut account = account(case, stuck);
            // Others go on: it holds up only what is its own.
            account.confidence = account.confidence.min(Confidence::Likely);
            return Finding::Fits(account);
        }
        return Finding::Excluded(format!(
            "Thread {} still comes back to wait for events (seen so in {} of {} samples).",
            thread.last.tid, thread.waiting, thread.ticks
        ));
    }
    if let Some(thread) = threads.iter().find(|thread| thread.running * 2 > thread.ticks) {
        return Finding::Excluded(format!(
            "Thread {} is not asleep: it was running in {} of {} samples.",
            thread.last.tid, thread.running, thread.ticks
        ));
    }
    let share = |thread: &ThreadSpan<'_>| thread.blocked as f64 / thread.ticks.max(1) as f64;
    let Some(thread) = threads
        .iter()
        .filter(|thread| {
            thread.ticks >= TICKS_MIN && share(thread) >= case.weights.blocked_share_min
        })
        .max_by(|a, b| share(a).total_cmp(&share(b)))
    else {
        return unclear(&threads);
    };
    Finding::Fits(account(case, thread))
}

/// Nobody waits where the waiting connections are told of: the thread that should is the one that
/// stopped, or waits in a loop within its loop.
fn inattentive(case: &Case<'_>, threads: &[ThreadSpan<'_>], epolls: &[i32]) -> Account {
    let fallback = || threads.iter().find(|thread| thread.blocked == thread.ticks);
    let held_up = stuck_since_the_onset(case, threads).or_else(fallback);
    let nobody = word(
        Tier::Epolls,
        format!(
            "threads that wait for epoll fd {}, which watches the listening socket",
            fds(epolls)
        ),
        "none",
        None,
    );
    if let Some(thread) = held_up {
        let mut account = account(case, thread);
        account.confidence = account.confidence.min(Confidence::Likely);
        account.evidence.push(nobody);
        return account;
    }
    let elsewhere = threads.iter().filter_map(|thread| {
        let call = syscall_words(thread.last)?;
        let signal = format!("thread {} system call", thread.last.tid);
        Some(word(Tier::ThreadCalls, signal, call, None))
    });
    let mut evidence = vec![nobody];
    evidence.extend(elsewhere.take(THREADS_NAMED_MAX));
    evidence.extend(case.queue_evidence());
    Account {
        confidence: Confidence::Likely,
        summary: format!(
            "No thread waits for the events of the listening socket (epoll fd {}): the one that should waits for something else within its event loop, and does not come back to it.",
            fds(epolls)
        ),
        evidence,
    }
}

/// Threads whose call is told; a loop for each CPU may be many.
const THREADS_NAMED_MAX: usize = 4;

/// Of several event loops, one that turned before the onset and has been blocked since: each serves
/// connections of its own.
fn stuck_since_the_onset<'a, 'b>(
    case: &Case<'_>,
    threads: &'b [ThreadSpan<'a>],
) -> Option<&'b ThreadSpan<'a>> {
    threads.iter().find(|thread| {
        thread.ticks >= TICKS_MIN
            && thread.blocked == thread.ticks
            && turned_before(case, thread.last.tid)
    })
}

fn unclear(threads: &[ThreadSpan<'_>]) -> Finding {
    let thread = threads.iter().max_by_key(|thread| thread.ticks);
    let absent = thread.and_then(|thread| {
        let syscall = thread.last.syscall.absence();
        syscall.filter(|_| thread.blocked == 0 && thread.ticks >= TICKS_MIN)
    });
    match (absent, thread) {
        (Some(absence), _) => Finding::Missing(format!(
            "what the runtime's thread sleeps in could not be read ({}).",
            absence.detail
        )),
        (None, Some(thread)) => Finding::Excluded(format!(
            "Thread {} was blocked outside its event loop in only {} of {} samples.",
            thread.last.tid, thread.blocked, thread.ticks
        )),
        (None, None) => Finding::Missing(String::from("no thread was seen.")),
    }
}

fn account(case: &Case<'_>, thread: &ThreadSpan<'_>) -> Account {
    let tid = thread.last.tid;
    let since_ns = case.since(|model| {
        let thread = model.thread(tid)?;
        Some(matches!(doing(thread), Doing::Blocked))
    });
    let since_ns = since_ns.or(Some(case.onset.at_ns));
    let call = syscall_words(thread.last);
    let channel = thread.last.wchan.got().filter(|wchan| !wchan.is_empty());
    let mut evidence = Vec::new();
    if let Some(call) = &call {
        let signal = format!("thread {tid} system call");
        evidence.push(word(Tier::ThreadCalls, signal, call.clone(), since_ns));
    }
    if let Some(channel) = channel {
        let signal = format!("thread {tid} wait channel");
        evidence.push(word(Tier::ThreadCalls, signal, channel.clone(), since_ns));
    }
    evidence.push(word(
        Tier::Threads,
        format!("thread {tid} state"),
        thread.last.state.letter().to_string(),
        since_ns,
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
    if let Some(stack) = thread.last.kernel_stack.got().filter(|stack| !stack.is_empty()) {
        let frames: Vec<&str> = stack.iter().take(6).map(String::as_str).collect();
        let signal = format!("thread {tid} kernel stack");
        evidence.push(word(Tier::KernelStacks, signal, frames.join(" < "), None));
    }
    let beat_ms = case.last().and_then(|model| model.app.got()?.beat_age_ms);
    if let Some(beat_ms) = beat_ms {
        let signal = "age of the runtime's last heartbeat";
        evidence.push(number(Tier::Heartbeat, signal, beat_ms, "ms", None));
    }
    for ring in case.rings().iter().filter(|ring| ring.cq_frozen) {
        evidence.push(number(
            ring.tier,
            format!("ring {} unreaped completions, head frozen", ring.fd),
            f64::from(ring.last.cq_pending()),
            "completions",
            None,
        ));
    }
    evidence.extend(case.queue_evidence());
    evidence.extend(case.last().into_iter().flat_map(outside_evidence));
    Account {
        confidence: confidence(case, thread, call.is_some()),
        summary: format!(
            "The runtime's thread {tid} is blocked in {} and does not come back to its event loop.",
            blocked_on(thread.last, call.as_deref())
        ),
        evidence,
    }
}

/// Certain when the thread is surely the one that runs the loop, or the ring it should reap shows
/// it; likely when it was only guessed from outside.
fn confidence(case: &Case<'_>, thread: &ThreadSpan<'_>, call_known: bool) -> Confidence {
    let told = |model: &Model| {
        model.app.got().and_then(|app| app.raw.runtime_tid) == Some(thread.last.tid)
    };
    let told = case.last().is_some_and(told);
    let seen_waiting_before = case.history.iter().any(|model| {
        let threads = model.all_threads();
        threads
            .into_iter()
            .any(|other| other.tid == thread.last.tid && doing(other) == Doing::Waiting)
    });
    // An accept loop that sleeps after each refusal looks blocked too, and is not what is wrong.
    if case.last().and_then(super::fd_exhausted::is_full) == Some(true)
        && wakes_per_s(case, thread).is_some_and(|rate| rate >= WAKES_PER_S_MIN)
    {
        return Confidence::Possible;
    }
    let ring_frozen = case.rings().iter().any(|ring| ring.cq_frozen);
    let kind = case.onset.kind;
    if call_known && (told || ring_frozen || (seen_waiting_before && kind != StallKind::Stopped)) {
        Confidence::Certain
    } else if call_known && thread.last.role == ThreadRole::Runtime {
        Confidence::Likely
    } else {
        Confidence::Possible
    }
}

/// How often the thread was put on a CPU, by the mean of the judged ticks.
fn wakes_per_s(case: &Case<'_>, thread: &ThreadSpan<'_>) -> Option<f64> {
    let rates: Vec<f64> = case
        .judged()
        .iter()
        .filter_map(|model| {
            let thread = model.thread(thread.last.tid)?;
            thread.switches_per_s.got().copied()
        })
        .collect();
    (!rates.is_empty()).then(|| rates.iter().sum::<f64>() / rates.len() as f64)
}

/// What it waits for, in words.
pub(super) fn blocked_on(thread: &ThreadModel, call: Option<&str>) -> String {
    let wchan = thread.wchan.got().map_or("", String::as_str);
    let kind = if thread.state == TaskState::DiskSleep {
        "an uninterruptible wait (disk, network file system or a kernel lock)"
    } else if wchan.contains("pipe_write") {
        "a write to a full pipe that nobody drains"
    } else if wchan.contains("pipe_read") {
        "a read from an empty pipe"
    } else if call.is_some_and(|call| call.contains("nanosleep"))
        || matches!(thread.syscall.got(), Some(SyscallRaw::In { nr, .. }) if crate::model::syscall::name(*nr) == Some("restart_syscall"))
    {
        "a sleep"
    } else if wchan.contains("futex") || call == Some("futex") {
        "a wait for a lock, a condition or another thread, such as a Kafka flush"
    } else {
        "a blocking call"
    };
    match call {
        Some(call) => format!("{kind} ({call})"),
        None => kind.to_owned(),
    }
}
