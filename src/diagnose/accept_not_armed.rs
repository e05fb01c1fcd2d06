//! `accept-not-armed`: the event loop turns, open connections are served, and nobody accepts.
//!
//! The accept loop has returned (a `?` on an error), its task was dropped or lost a select!, or it
//! waits for something else, such as a semaphore. On io_uring no accept is in flight; with epoll the
//! listening socket is no longer watched, or its readiness is not acted on.

use stallscope_probes::ring::OP_ACCEPT;

use super::accept_queue_overflow::accepts_go_on;
use super::case::{Case, ThreadSpan, number, word};
use super::loops::{Attention, attention, fds};
use super::verdict::{Confidence, Evidence};
use super::{Account, Finding};
use crate::model::Model;
use crate::model::tiers::Tier;

pub(super) const NEXT: &[&str] = &[
    "Look in the log for the error or panic with which the accept loop ended, at the onset.",
    "If the loop takes a permit (a semaphore, a connection limit) before it accepts, look at who holds the permits.",
    "A restart clears it. Supervise the accept loop: never leave it by `?`, log and go on after an error, and end the process when it ends.",
];

/// Reads of the operations in flight that must agree. On kernels before 6.16 a read that did not
/// get the ring's lock leaves armed accepts out (`io_uring/fdinfo.c`), and every third or fourth
/// read under load does not get it.
const READS_CERTAIN: usize = 4;

pub(super) fn examine(case: &Case<'_>) -> Finding {
    let Some(last) = case.last() else {
        return Finding::Missing(String::from("no sample was taken."));
    };
    match case.queue_stuck() {
        None => {
            let why = last.listeners.absence().map_or("", |absence| &absence.detail);
            return Finding::Missing(format!("the accept queues could not be read ({why})."));
        }
        Some(false) => {
            return Finding::Excluded(String::from(
                "No connection has been waiting in an accept queue all the time.",
            ));
        }
        Some(true) => {}
    }
    let longest = last.own_listeners().max_by_key(|listener| listener.queued);
    // Since the onset: before it there were some.
    if let Some(sign) = longest.and_then(|listener| accepts_go_on(case.judged(), listener)) {
        return Finding::Excluded(format!("Connections are accepted ({}).", sign.signal));
    }
    if super::fd_exhausted::is_full(last) == Some(true) {
        return Finding::Excluded(String::from("No fd is left: an accept would fail."));
    }
    let threads = case.runtime();
    // A loop that is busy with the connections it has is seldom seen waiting.
    let answering = case.onset.partial.is_some();
    let turns = |thread: &&ThreadSpan<'_>| {
        thread.waiting * 10 >= thread.ticks * 5
            || (answering && thread.waiting + thread.running > 0)
    };
    let Some(thread) = threads.iter().find(turns) else {
        return if threads.is_empty()
            || threads.iter().all(|thread| thread.blocked + thread.running + thread.waiting == 0)
        {
            Finding::Missing(String::from("where the runtime's thread sleeps could not be read."))
        } else {
            Finding::Excluded(String::from(
                "The runtime's thread does not come back to wait for events: nobody could accept.",
            ))
        };
    };
    if let Some(ring) = case.rings().iter().find(|ring| ring.sq_frozen || ring.cq_frozen) {
        return Finding::Excluded(format!(
            "Ring {} has entries unsubmitted or completions unreaped: the delay is there.",
            ring.fd
        ));
    }
    let waits = word(
        Tier::ThreadCalls,
        format!("thread {} waits for events in", thread.last.tid),
        super::case::syscall_words(thread.last).unwrap_or_else(|| String::from("its event loop")),
        None,
    );
    if last.all_rings().is_empty() || !serves_by_ring(case) {
        return by_epoll(case, last, waits);
    }
    by_ring(case, waits)
}

/// Whether the ring is what the server's connections go through: a ring may be used for files only.
fn serves_by_ring(case: &Case<'_>) -> bool {
    case.rings().iter().any(|ring| ring.last.cq_tail > 0 || ring.last.sq_tail > 0)
}

fn by_ring(case: &Case<'_>, waits: Evidence) -> Finding {
    let reads = case.armed(OP_ACCEPT);
    if let Some((fd, _, count)) = reads.iter().rev().find(|(_, _, count)| *count > 0) {
        return Finding::Excluded(format!("{count} accepts are armed in ring {fd}."));
    }
    if reads.is_empty() {
        return Finding::Missing(String::from(
            "the operations in flight of no ring could be read since the onset.",
        ));
    }
    let confidence =
        if reads.len() >= READS_CERTAIN { Confidence::Certain } else { Confidence::Likely };
    let mut evidence = vec![
        number(Tier::RingFdinfo, "accepts in flight", 0.0, "operations", None),
        number(Tier::RingFdinfo, "reads that agree", reads.len() as f64, "reads", None),
        waits,
    ];
    evidence.extend(case.queue_evidence());
    Finding::Fits(account(confidence, "no accept is in flight in any ring", evidence))
}

fn by_epoll(case: &Case<'_>, last: &Model, waits: Evidence) -> Finding {
    if let Some(Attention { epolls, is_paid: false }) = attention(case) {
        return Finding::Excluded(format!(
            "An event loop would hear of the waiting connections (epoll fd {}), but no thread waits for its events: whichever should is held up elsewhere.",
            fds(&epolls)
        ));
    }
    let stuck = last.own_listeners().max_by_key(|listener| listener.queued);
    let epolls = last.epolls.got();
    let watched = epolls.zip(stuck).map(|(epolls, stuck)| {
        epolls
            .iter()
            .any(|epoll| epoll.listeners.iter().any(|(inode, asks)| *inode == stuck.inode && *asks))
    });
    let mut evidence = Vec::new();
    if let (Some(watched), Some(stuck)) = (watched, stuck) {
        let value = if watched { "watched by an epoll set" } else { "in no epoll set" };
        let signal = format!("listening socket of {}", stuck.local);
        evidence.push(word(Tier::Epolls, signal, value, None));
    }
    evidence.push(waits);
    evidence.extend(case.queue_evidence());
    let (confidence, how) = match watched {
        Some(false) => (Confidence::Certain, "no event loop watches the listening socket"),
        Some(true) => (Confidence::Likely, "the event loop is told of them and takes none"),
        None => (Confidence::Likely, "the event loop sleeps all the same"),
    };
    Finding::Fits(account(confidence, how, evidence))
}

fn account(confidence: Confidence, how: &str, evidence: Vec<Evidence>) -> Account {
    Account {
        confidence,
        summary: format!(
            "Connections wait to be accepted, and {how}: the accept loop has ended, or waits for something else."
        ),
        evidence,
    }
}
