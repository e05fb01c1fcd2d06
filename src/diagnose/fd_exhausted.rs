//! `fd-exhausted`: no fd is left, so no connection can be accepted.
//!
//! accept(2) fails with EMFILE once `RLIMIT_NOFILE` fds are open, and the connection stays in the
//! accept queue. A loop without back-off then spins on the error; one with it sleeps. On io_uring
//! the completions carry -24, even with an empty queue (`io_accept` reserves the fd first).

use stallscope_probes::Reading;

use super::case::{Case, RingSpan, number, word};
use super::verdict::{Confidence, Evidence};
use super::{Account, Finding};
use crate::model::Model;
use crate::model::tiers::Tier;

pub(super) const NEXT: &[&str] = &[
    "Give it room now, without a restart: `prlimit --pid PID --nofile=65536:65536` takes effect at the next accept.",
    "Find what holds the fds: connections that are never closed (CLOSE_WAIT, idle keep-alive, handlers that wait on a slow backend) or a leak.",
    "Cap the connections in flight below the limit, time out idle ones, and back off 10 to 100 ms when accept fails.",
];

/// EMFILE of errno(3).
const EMFILE: i32 = 24;
/// So close to the limit, the next accept or two fail.
const NEAR: u64 = 2;

/// Whether no fd is left; `None` when they could not be counted.
pub(super) fn is_full(model: &Model) -> Option<bool> {
    let fds = model.fds.got()?;
    let limit = fds.limit.got()?;
    Some(limit.soft.is_some_and(|limit| fds.open >= limit))
}

pub(super) fn examine(case: &Case<'_>) -> Finding {
    let Some(last) = case.last() else {
        return Finding::Missing(String::from("no sample was taken."));
    };
    let fds = match &last.fds {
        Reading::Got(fds) => fds,
        Reading::Absent(absence) => {
            return Finding::Missing(format!(
                "open fds could not be counted ({}).",
                absence.detail
            ));
        }
    };
    let limit = match &fds.limit {
        Reading::Got(limit) => limit.soft,
        Reading::Absent(absence) => {
            return Finding::Missing(format!(
                "the limit of open fds is unknown ({}).",
                absence.detail
            ));
        }
    };
    let Some(limit) = limit else {
        return Finding::Excluded(format!("{} fds are open and there is no limit.", fds.open));
    };
    let judged = case.judged();
    let full = judged.iter().filter(|model| is_full(model) == Some(true)).count();
    let refused = refusals(case);
    let mostly_full = full * 2 > judged.len();
    let near = fds.open.saturating_add(NEAR) >= limit;
    let short = mostly_full || (near && refused.is_some());
    if !short {
        return Finding::Excluded(format!("{} of {limit} fds are open: there is room.", fds.open));
    }
    let waits = case.queue_evidence();
    if waits.is_none() && refused.is_none() {
        return Finding::Excluded(format!(
            "{} of {limit} fds are open, but no connection waits to be accepted.",
            fds.open
        ));
    }
    let confidence = if mostly_full { Confidence::Certain } else { Confidence::Likely };
    let mut evidence = vec![number(
        Tier::Fds,
        format!("open fds (limit {limit})"),
        fds.open as f64,
        "fds",
        case.since(is_full),
    )];
    evidence.extend(waits);
    evidence.extend(refused);
    evidence.extend(close_wait(last));
    evidence.extend(kinds(last));
    Finding::Fits(Account {
        confidence,
        summary: format!(
            "{} file descriptors are open and the limit is {limit}, so no further connection can be accepted.",
            fds.open
        ),
        evidence,
    })
}

/// Accepts refused with EMFILE, as the server or the ring itself records them.
fn refusals(case: &Case<'_>) -> Option<Evidence> {
    let first = case.judged().first()?;
    let last = case.last()?;
    if let Some(app) = last.app.got().filter(|app| app.raw.accept_errno == Some(EMFILE)) {
        let before = first.app.got()?.raw.accept_errors;
        let more = app.raw.accept_errors.saturating_sub(before);
        if more > 0 {
            return Some(number(
                Tier::Heartbeat,
                "accepts refused with EMFILE",
                more as f64,
                "accepts",
                Some(first.at_ns),
            ));
        }
    }
    let rings = case.rings();
    let tier = rings.iter().find(|ring| refused_in(ring) > 0)?.tier;
    let refused: u32 = rings.iter().map(refused_in).fold(0, u32::saturating_add);
    let signal = "completions with EMFILE in the ring";
    Some(word(tier, signal, refused.to_string(), Some(last.at_ns)))
}

/// Completions with EMFILE: those not reaped; and the last ones posted, if some were posted in the
/// judged time (a ring at rest shows for hours what once went wrong).
fn refused_in(ring: &RingSpan<'_>) -> u32 {
    let of = |errors: &Reading<Vec<(i32, u32)>>| {
        let errors = errors.got().into_iter().flatten();
        errors
            .filter(|(errno, _)| *errno == EMFILE)
            .fold(0_u32, |sum, (_, count)| sum.saturating_add(*count))
    };
    let recent = if ring.cq_posting { of(&ring.last.recent) } else { 0 };
    of(&ring.last.failed).max(recent)
}

/// What holds the fds: sockets are clients or a pool, files and pipes are something else.
fn kinds(last: &Model) -> Option<Evidence> {
    let kinds = last.fd_kinds.got()?;
    let words: Vec<String> = [
        (kinds.sockets, "sockets"),
        (kinds.files, "files"),
        (kinds.pipes, "pipes"),
        (kinds.anonymous, "eventfds, timerfds and their kin"),
        (kinds.epolls, "epolls"),
        (kinds.rings, "rings"),
    ]
    .into_iter()
    .filter(|(count, _)| *count > 0)
    .map(|(count, name)| format!("{count} {name}"))
    .collect();
    (!words.is_empty()).then(|| word(Tier::FdCensus, "what the fds are", words.join(", "), None))
}

/// Connections whose peer has gone and that the server keeps: the usual leak.
fn close_wait(last: &Model) -> Option<Evidence> {
    let count: u32 =
        last.all_served().iter().map(|served| served.raw.close_wait).fold(0, u32::saturating_add);
    (count > 0).then(|| {
        number(
            Tier::Connections,
            "connections closed by the peer and not by the server",
            f64::from(count),
            "connections",
            None,
        )
    })
}
