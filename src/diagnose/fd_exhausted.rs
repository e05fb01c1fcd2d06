//! `fd-exhausted`: no fd is left, so no connection can be accepted.
//!
//! accept(2) fails with EMFILE once `RLIMIT_NOFILE` fds are open, and the connection stays in the
//! accept queue. A loop without back-off then spins on the error; one with it sleeps. On io_uring
//! the completions carry -24, even with an empty queue (`io_accept` reserves the fd first).

use stallscope_probes::Reading;

use super::case::{Case, RingSpan, ThreadSpan, number, word};
use super::outside::{TICKS_MIN, tcp_count};
use super::verdict::{Confidence, Evidence};
use super::{Account, Finding, kafka};
use crate::model::Model;
use crate::model::tiers::Tier;

pub(super) const NEXT: &[&str] = &[
    "Give it room now, without a restart: `prlimit --pid PID --nofile=65536:65536` takes effect at the next accept.",
    "Find what holds the fds: connections that are never closed (CLOSE_WAIT, idle keep-alive, handlers that wait on a slow backend) or a leak.",
    "Cap the connections in flight below the limit, time out idle ones, and back off 10 to 100 ms when accept fails.",
];

/// An error of accept(2), by number and name (errno(3)).
#[derive(Debug, Clone, Copy)]
pub(super) struct Errno {
    pub number: i32,
    pub name: &'static str,
}

/// EMFILE of errno(3).
const EMFILE: Errno = Errno { number: 24, name: "EMFILE" };
/// So close to the limit, the next accept or two fail.
const NEAR: u64 = 2;

/// Whether no fd is left; `None` when they could not be counted.
pub(super) fn is_full(model: &Model) -> Option<bool> {
    let fds = model.fds.got()?;
    let limit = fds.limit.got()?;
    Some(limit.soft.is_some_and(|limit| fds.open >= limit))
}

/// Whether none is left but one in reserve, which is not always there.
fn is_nearly_full(model: &Model) -> bool {
    let limit = model.fds.got().and_then(|fds| Some((fds.open, fds.soft_limit()?)));
    limit.is_some_and(|(open, limit)| open.saturating_add(1) >= limit)
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
    let refused = refusals(case, EMFILE);
    let mostly_full = full * 2 > judged.len();
    let near = fds.open.saturating_add(NEAR) >= limit;
    let mostly_near =
        judged.iter().filter(|model| is_nearly_full(model)).count() * 2 > judged.len();
    let resets = resets(case).filter(|_| mostly_near);
    let short = mostly_full || (near && (refused.is_some() || resets.is_some()));
    if !short {
        return Finding::Excluded(format!("{} of {limit} fds are open: there is room.", fds.open));
    }
    let waits = case.queue_evidence();
    if waits.is_none() && refused.is_none() && resets.is_none() {
        return Finding::Excluded(format!(
            "{} of {limit} fds are open, but no connection waits to be accepted.",
            fds.open
        ));
    }
    let since_ns = match (&waits, &refused) {
        (None, None) => case.since(|model| Some(is_nearly_full(model))),
        _ => case.since(is_full),
    };
    let before = led_to(case, since_ns);
    // Nobody tries to accept: it would be so with fds to spare.
    let asleep = refused.is_none() && sleeps_on(case);
    let confidence = if before.is_some() || asleep {
        Confidence::Possible
    } else if mostly_full && (waits.is_some() || refused.is_some()) {
        Confidence::Certain
    } else {
        Confidence::Likely
    };
    let mut evidence = vec![number(
        Tier::Fds,
        format!("open fds (limit {limit})"),
        fds.open as f64,
        "fds",
        since_ns,
    )];
    evidence.extend(before);
    evidence.extend(waits);
    evidence.extend(refused);
    evidence.extend(resets);
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

/// Resets sent again and again while nobody waits to be accepted: whoever is taken in with an fd kept
/// in reserve is closed at once. Of the whole network namespace, so they may be another's.
fn resets(case: &Case<'_>) -> Option<Evidence> {
    let count = tcp_count(case, |tcp| tcp.out_rsts_new).filter(|count| *count >= RESETS_MIN)?;
    let signal = "resets sent in the network namespace, within the last seconds";
    Some(number(Tier::Counters, signal, count as f64, "resets", None))
}

/// One reset may be anybody's.
const RESETS_MIN: u64 = 2;

/// A thread that backs off after a refused accept wakes at least so often to try again.
const WAKES_PER_S_MIN: f64 = 5.0;

/// Whether every thread that could accept is blocked outside its loop, and does not even wake.
fn sleeps_on(case: &Case<'_>) -> bool {
    let threads = case.runtime();
    let sleeps = |thread: &ThreadSpan<'_>| {
        let wakes = case.judged().iter().filter_map(|model| {
            let thread = model.thread(thread.last.tid)?;
            thread.switches_per_s.got().copied()
        });
        let wakes: Vec<f64> = wakes.collect();
        let blocked = thread.ticks >= TICKS_MIN && thread.blocked == thread.ticks;
        let per_s = wakes.iter().sum::<f64>() / wakes.len().max(1) as f64;
        blocked && !wakes.is_empty() && per_s < WAKES_PER_S_MIN
    };
    !threads.is_empty() && threads.iter().all(sleeps)
}

/// What held the fds up before they ran out: requests that wait for Kafka each hold one. Where
/// watching began later than either, the fds are held by such requests or by something else.
fn led_to(case: &Case<'_>, full_ns: Option<u64>) -> Option<Evidence> {
    let full_ns = full_ns.unwrap_or(case.now_ns);
    let first_ns = case.history.first()?.at_ns;
    let held = full_ns == first_ns && held_by_requests(case.last()?);
    kafka::trouble_before(case, if held { full_ns.saturating_add(1) } else { full_ns })
}

/// Whether most of the accepted connections have a request that waits for its answer: it is not a
/// leak then, nor clients that are idle.
fn held_by_requests(last: &Model) -> bool {
    // Of ports whose connections were not asked nothing is known.
    let asked = last.all_served().iter().filter_map(|served| {
        let (awaiting, _) = crate::model::answers::waiting(&served.raw.answers?);
        Some((awaiting, served.raw.accepted_open))
    });
    let (awaiting, open) = asked.fold((0_u32, 0_u32), |(awaiting, open), (more, others)| {
        (awaiting.saturating_add(more), open.saturating_add(others))
    });
    awaiting > 0 && awaiting >= open / 2
}

/// Accepts refused with this error, as the server or the ring itself records them.
pub(super) fn refusals(case: &Case<'_>, errno: Errno) -> Option<Evidence> {
    let first = case.judged().first()?;
    let last = case.last()?;
    if let Some(app) = last.app.got().filter(|app| app.raw.accept_errno == Some(errno.number)) {
        let before = first.app.got().map(|app| app.raw.accept_errors);
        let more = before.map(|before| app.raw.accept_errors.saturating_sub(before));
        if let Some(more @ 1..) = more {
            return Some(number(
                Tier::Heartbeat,
                format!("accepts refused with {}", errno.name),
                more as f64,
                "accepts",
                Some(first.at_ns),
            ));
        }
    }
    let rings = case.rings();
    let tier = rings.iter().find(|ring| refused_in(ring, errno) > 0)?.tier;
    let refused: u32 =
        rings.iter().map(|ring| refused_in(ring, errno)).fold(0, u32::saturating_add);
    let signal = format!("completions with {} in the ring", errno.name);
    Some(word(tier, signal, refused.to_string(), Some(last.at_ns)))
}

/// Completions with this error: those not reaped; and the last ones posted, if some were posted in
/// the judged time (a ring at rest shows for hours what once went wrong).
fn refused_in(ring: &RingSpan<'_>, errno: Errno) -> u32 {
    let of = |errors: &Reading<Vec<(i32, u32)>>| {
        let errors = errors.got().into_iter().flatten();
        errors
            .filter(|(number, _)| *number == errno.number)
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

#[cfg(test)]
mod tests {
    use stallscope_probes::sample::{AnswersRaw, FdLimitRaw};

    use super::super::fixtures::{
        Expect, ONSET, PID, Story, absent, block, census, change_thread, hold, queue,
        requests_wait, with_kafka,
    };
    use super::*;
    use crate::detect::StallKind;
    use crate::model::FdsModel;
    use Confidence::{Certain, Possible};
    use Expect::{Excluded, Fits, Missing};
    use Reading::Got;

    fn fds(open: u64, limit: Option<u64>) -> Reading<FdsModel> {
        Got(FdsModel { open, limit: Got(FdLimitRaw { soft: limit, hard: limit }) })
    }

    /// No fd is left from this tick on, and connections wait.
    fn full(from: usize) -> impl FnOnce(Story) -> Story {
        move |story| {
            story.after(from, |_, model| {
                model.fds = fds(64, Some(64));
                queue(model, 9);
            })
        }
    }

    /// A producer whose broker is gone since the onset, with requests that wait for it.
    fn no_kafka() -> Story {
        Story::new(StallKind::Accept).throughout(|_, model| with_kafka(model)).stalled(
            |_, model| {
                requests_wait(model, 30);
                model.peers = Got([].into());
            },
        )
    }

    #[test]
    fn no_fd_is_left_and_kafka_is_no_reason() {
        let plain = || Story::new(StallKind::Accept);
        hold(
            examine,
            vec![
                ("full", full(ONSET)(plain()), Fits(Certain, "64 file descriptors are open")),
                (
                    "full, Kafka is well",
                    full(ONSET)(plain().throughout(|_, model| {
                        with_kafka(model);
                        requests_wait(model, 3);
                    })),
                    Fits(Certain, "64 file"),
                ),
                ("room", plain().stalled(|_, model| queue(model, 9)), Excluded("20 of 1024")),
                (
                    "no limit",
                    plain().stalled(|_, model| model.fds = fds(64, None)),
                    Excluded("no limit"),
                ),
                (
                    "blocked, and does not wake",
                    full(ONSET)(plain()).stalled(|_, model| {
                        block(model);
                        change_thread(model, PID, |thread| thread.switches_per_s = Got(0.0));
                    }),
                    Fits(Possible, "64 file"),
                ),
                (
                    "sleeps after each refusal",
                    full(ONSET)(plain()).stalled(|_, model| block(model)),
                    Fits(Certain, "64 file"),
                ),
                (
                    "nobody waits",
                    full(ONSET)(plain()).stalled(|_, model| queue(model, 0)),
                    Excluded("no connection waits"),
                ),
                (
                    "uncounted",
                    full(ONSET)(plain()).throughout(|_, model| model.fds = absent()),
                    Missing("permission denied"),
                ),
            ],
        );
    }

    #[test]
    fn what_came_first_is_the_cause() {
        let held_by = |awaiting: u32| {
            move |_: usize, model: &mut Model| {
                census(model, |raw| {
                    raw.accepted_open = 50;
                    raw.answers = Some(AnswersRaw {
                        awaiting,
                        oldest_ms: Some(9_000),
                        ..AnswersRaw::default()
                    });
                });
            }
        };
        hold(
            examine,
            vec![
                (
                    "Kafka first",
                    full(ONSET + 10)(no_kafka()),
                    Fits(Possible, "connections to brokers that get on: 0"),
                ),
                ("fds first", full(ONSET - 10)(no_kafka()), Fits(Certain, "64 file")),
                (
                    "came late, requests hold the fds",
                    full(ONSET)(no_kafka()).stalled(held_by(45)).attached_late(),
                    Fits(Possible, "connections to brokers"),
                ),
                (
                    "came late, idle clients hold them",
                    full(ONSET)(no_kafka()).stalled(held_by(5)).attached_late(),
                    Fits(Certain, "64 file"),
                ),
                (
                    "Kafka answers, and nobody knows why requests wait",
                    full(ONSET + 10)(no_kafka().stalled(|_, model| with_kafka(model))),
                    Fits(Certain, "64 file"),
                ),
            ],
        );
    }
}
