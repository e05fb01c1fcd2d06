//! `accept-queue-overflow`: connections come faster than they are accepted.
//!
//! A queue is full at its limit + 1 (`sk_acceptq_is_full`, `include/net/sock.h`); the kernel then
//! drops each SYN (`tcp_conn_request`, `net/ipv4/tcp_input.c`), and the client sends it again after
//! a second and more. The server works all the while. Where nothing is accepted, a full queue is a
//! consequence and not this cause. Looks at the socket's own queue and drops; `ListenOverflows` is
//! of the whole namespace and only supports.

use std::sync::Arc;

use stallscope_probes::Reading;

use super::case::{Case, number, word};
use super::outside::{counted, ends, find, queue_of, shrank, sum, tcp_count};
use super::verdict::{Confidence, Evidence};
use super::{Account, Finding, kafka};
use crate::model::tiers::Tier;
use crate::model::{ListenerModel, Model};

pub(super) const NEXT: &[&str] = &[
    "Raise the backlog given to listen(2) and net.core.somaxconn (the smaller counts), 4096 or more: it takes effect when the socket is opened anew.",
    "Accept faster: take all that waits at each wake-up, keep several accepts armed, or spread them over threads with SO_REUSEPORT, each of which accepts.",
    "Look at what the accepting thread does in between: work done on it before the next accept is what fills the queue.",
    "Clients that connect anew for each request make most of the load: let them keep connections alive.",
];

pub(super) fn examine(case: &Case<'_>) -> Finding {
    let Some(last) = case.last() else {
        return Finding::Missing(String::from("no sample was taken."));
    };
    if let Reading::Absent(absence) = &last.listeners {
        return Finding::Missing(format!(
            "the accept queues could not be read ({}).",
            absence.detail
        ));
    }
    let Some(queue) = fullest(case, last) else {
        return Finding::Excluded(String::from("The process has no listening socket."));
    };
    match is_full(&queue) {
        Full::Yes => {}
        Full::No => return Finding::Excluded(not_full(&queue)),
        Full::Unknown(what) => return Finding::Missing(what),
    }
    match accepts_go_on(counted(case), queue.listener) {
        Some(accepted) => Finding::Fits(account(case, &queue, accepted)),
        None => Finding::Excluded(format!(
            "Nothing was accepted on {} in the last seconds ({} connections wait): a full queue is a consequence of that.",
            queue.listener.local, queue.listener.queued
        )),
    }
}

/// One accept queue over the last seconds.
struct Queue<'a> {
    listener: &'a ListenerModel,
    /// Most that waited.
    most: u32,
    /// Dropped at its socket.
    dropped: Option<u64>,
    /// Overflows of whatever queue of the namespace.
    overflows: Option<u64>,
}

enum Full {
    Yes,
    No,
    Unknown(String),
}

/// The target's queue that dropped most, else the longest.
fn fullest<'a>(case: &Case<'_>, last: &'a Model) -> Option<Queue<'a>> {
    let ticks = counted(case);
    let dropped = |listener: &ListenerModel| {
        let new = |model: &Model| find(model, listener.inode)?.drops_new.got().copied();
        sum(ticks, |model| new(model).map(u64::from))
    };
    let queues = last.own_listeners().map(|listener| Queue {
        listener,
        most: queue_of(ticks, listener.inode).into_iter().max().unwrap_or(0),
        dropped: dropped(listener),
        overflows: tcp_count(case, |tcp| tcp.listen_overflows_new),
    });
    queues.max_by_key(|queue| (queue.dropped, queue.most))
}

fn is_full(queue: &Queue<'_>) -> Full {
    let local = queue.listener.local;
    let dropped = queue.dropped.is_some_and(|dropped| dropped > 0);
    match (queue.listener.limit, queue.overflows) {
        (Some(limit), _) if queue.most >= limit.max(1) => Full::Yes,
        // Between two samples a short queue may fill and empty: the namespace counts it all the
        // same.
        (_, Some(1..)) if dropped => Full::Yes,
        (_, None) if dropped => Full::Unknown(format!(
            "SYNs were dropped at {local}, but whether for want of room in its accept queue was not read (TCP counters)."
        )),
        (None, _) if queue.dropped.is_none() => Full::Unknown(format!(
            "neither the limit of the accept queue of {local} nor its drops are known (/proc/net/tcp does not tell them)."
        )),
        _ => Full::No,
    }
}

fn account(case: &Case<'_>, queue: &Queue<'_>, accepted: Evidence) -> Account {
    let Queue { listener, most, dropped, overflows } = *queue;
    let full_at = |model: &Model| {
        let now = find(model, listener.inode)?;
        Some(now.queued >= now.limit?.max(1) || now.drops_new.got().is_some_and(|new| *new > 0))
    };
    let since_ns = first_in_row(case, full_at);
    let dropped = dropped.filter(|dropped| *dropped > 0);
    let sure = if dropped.is_some() { Confidence::Certain } else { Confidence::Likely };
    let before = kafka::trouble_before(case, since_ns.unwrap_or(case.onset.at_ns));
    let confidence = if before.is_some() { Confidence::Possible } else { sure };
    let limit = listener.limit.map_or_else(String::new, |limit| format!(" (limit {limit})"));
    let signal = format!("most in the accept queue of {}{limit}", listener.local);
    let mut evidence =
        vec![number(Tier::Listeners, signal, f64::from(most), "connections", since_ns)];
    if let Some(dropped) = dropped {
        let signal = format!("dropped at {} in the last seconds", listener.local);
        evidence.push(number(Tier::Listeners, signal, dropped as f64, "SYNs", since_ns));
    }
    evidence.push(accepted);
    if let Some(overflows) = overflows.filter(|overflows| *overflows > 0) {
        let signal = "accept queue overflows in its network namespace";
        evidence.push(number(Tier::Counters, signal, overflows as f64, "SYNs", None));
    }
    evidence.extend(before);
    Account {
        confidence,
        summary: format!(
            "Connections to {} come faster than they are accepted: its queue is full ({most} waited), and {}.",
            listener.local,
            if dropped.is_some() {
                "further ones are dropped and try again after a second and more"
            } else {
                "there is no room for further ones"
            }
        ),
        evidence,
    }
}

fn not_full(queue: &Queue<'_>) -> String {
    let Queue { listener, most, dropped, .. } = *queue;
    let limit = listener.limit.map_or_else(|| String::from("unknown"), |limit| limit.to_string());
    match dropped {
        Some(dropped @ 1..) => format!(
            "{dropped} SYNs were dropped at {}, but its queue held {most} at most (limit {limit}): not for want of room there.",
            listener.local
        ),
        _ => format!(
            "The accept queue of {} held {most} at most (limit {limit}), and nothing was dropped.",
            listener.local
        ),
    }
}

/// A sign that connections are accepted on this socket: the server's count, a census that sees new
/// ones, or misses some that waited, a queue that shrinks.
pub(super) fn accepts_go_on(ticks: &[Arc<Model>], listener: &ListenerModel) -> Option<Evidence> {
    let port = listener.local.port();
    let by_page = |model: &Model| {
        let page = &model.app.got()?.raw;
        (page.listen_port == Some(port)).then_some(page.accepted)
    };
    let by_census = |model: &Model| {
        let served = model.all_served().iter().find(|served| served.raw.port == port)?;
        Some(served.raw.accepted_seen)
    };
    let left = |model: &Model| {
        let served = model.all_served().iter().find(|served| served.raw.port == port)?;
        let queued = find(model, listener.inode)?.queued;
        // One that was reset by its client leaves too, but goes on counting in the queue's length.
        (served.raw.queued >= queued).then_some(served.raw.left_queue_seen)
    };
    let more = |ends: Option<(u64, u64)>| {
        ends.and_then(|(then, now)| now.checked_sub(then)).filter(|more| *more > 0)
    };
    let signal = "accepted in the last seconds all the same";
    if let Some(more) = more(ends(ticks, by_page)) {
        return Some(number(Tier::Heartbeat, signal, more as f64, "connections", None));
    }
    if let Some(more) = more(ends(ticks, by_census)) {
        return Some(number(Tier::Connections, signal, more as f64, "connections", None));
    }
    if let Some(more) = more(ends(ticks, left)) {
        let signal = "left the queue in the last seconds";
        return Some(number(Tier::Connections, signal, more as f64, "connections", None));
    }
    shrank(&queue_of(ticks, listener.inode))
        .then(|| word(Tier::Listeners, "the queue gets shorter now and then", "yes", None))
}

/// The first tick of which it held, with no longer break since than [`GAP_MAX_NS`]: a queue that is
/// emptied now and then is full now and then.
fn first_in_row(case: &Case<'_>, holds: impl Fn(&Model) -> Option<bool>) -> Option<u64> {
    let held = case.history.iter().rev().filter(|model| holds(model) == Some(true));
    let mut first_ns: Option<u64> = None;
    for model in held {
        if first_ns.is_some_and(|first_ns| first_ns.saturating_sub(model.at_ns) > GAP_MAX_NS) {
            break;
        }
        first_ns = Some(model.at_ns);
    }
    first_ns
}

/// Clients whose SYN was dropped try again after one second, then two: within that a queue that
/// overflows does so again.
const GAP_MAX_NS: u64 = 2_000_000_000;

#[cfg(test)]
mod tests {
    use stallscope_probes::sample::Holder;

    use super::super::fixtures::{
        Expect, INODE, ONSET, Story, absent, census, hold, keep_page, listener, queue,
        requests_wait, tcp, with_kafka,
    };
    use super::*;
    use crate::detect::StallKind;
    use Confidence::{Certain, Likely, Possible};
    use Expect::{Excluded, Fits, Missing};
    use Reading::Got;

    /// A queue of the given length that drops as many SYNs at each tick.
    fn overflowing(queued: u32, drops: u32) -> Story {
        Story::new(StallKind::Full).stalled(move |_, model| {
            let mut listener = listener(INODE, Holder::Target, queued);
            listener.drops_new = Got(drops);
            model.listeners = Got([listener].into());
            tcp(model, |tcp| tcp.listen_overflows_new = Some(drops.into()));
        })
    }

    fn accepting(story: Story) -> Story {
        story.stalled(|since, model| {
            census(model, |raw| raw.accepted_seen = 12 + 5 * since as u64);
        })
    }

    #[test]
    fn a_full_queue_is_the_cause_only_while_accepts_go_on() {
        hold(
            examine,
            vec![
                ("full, drops", accepting(overflowing(129, 3)), Fits(Certain, "129 waited")),
                ("and since when", accepting(overflowing(129, 3)), Fits(Certain, "90 SYNs")),
                ("full, no drops", accepting(overflowing(128, 0)), Fits(Likely, "128 waited")),
                (
                    "short, but it drops for want of room",
                    accepting(overflowing(3, 2)),
                    Fits(Certain, "dropped at 0.0.0.0:8080"),
                ),
                (
                    "the page says that it accepts",
                    overflowing(129, 3).stalled(|since, model| {
                        keep_page(model, |page| page.accepted = since as u64);
                    }),
                    Fits(Certain, "all the same: 29 connections"),
                ),
                (
                    "a queue that shrinks",
                    overflowing(129, 3).stalled(|since, model| {
                        if since % 7 == 0 {
                            queue(model, 100);
                        }
                    }),
                    Fits(Certain, "gets shorter"),
                ),
                (
                    "requests had begun to wait for Kafka before",
                    accepting(overflowing(129, 3).after(ONSET - 10, |since, model| {
                        if since < 10 {
                            queue(model, 0);
                        }
                        with_kafka(model);
                        requests_wait(model, 30);
                        model.peers = Got([].into());
                    })),
                    Fits(Possible, "connections to brokers that get on: 0"),
                ),
                ("nothing accepted", overflowing(129, 3), Excluded("Nothing was accepted")),
                (
                    "drops for another reason",
                    accepting(overflowing(3, 2))
                        .stalled(|_, model| tcp(model, |tcp| tcp.listen_overflows_new = Some(0))),
                    Excluded("not for want of room"),
                ),
                (
                    "drops, and no counters",
                    accepting(overflowing(3, 2)).throughout(|_, model| model.tcp = absent()),
                    Missing("for want of room in its accept queue was not read"),
                ),
                ("room", accepting(overflowing(100, 0)), Excluded("held 100 at most (limit 128)")),
                (
                    "procfs only",
                    accepting(overflowing(129, 0)).throughout(|_, model| {
                        let mut listener = listener(INODE, Holder::Target, 129);
                        (listener.limit, listener.drops) = (None, None);
                        listener.drops_new = absent();
                        model.listeners = Got([listener].into());
                    }),
                    Missing("neither the limit"),
                ),
                (
                    "unreadable",
                    overflowing(129, 3).throughout(|_, model| model.listeners = absent()),
                    Missing("permission denied"),
                ),
            ],
        );
    }
}
