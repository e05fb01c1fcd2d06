//! `accept-queue-overflow`: connections come faster than they are accepted.
//!
//! A queue is full at its limit + 1 (`sk_acceptq_is_full`, `include/net/sock.h`); the kernel then
//! drops each SYN (`tcp_conn_request`, `net/ipv4/tcp_input.c`), and the client sends it again after
//! a second and more. The server works all the while. Where nothing is accepted, a full queue is a
//! consequence and not this cause. Looks at the socket's own queue and drops; `ListenOverflows` is
//! of the whole namespace and only supports.

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
    let drops = |listener: &ListenerModel| {
        let new = |model: &Model| find(model, listener.inode)?.drops_new.got().copied();
        sum(counted(case), |model| new(model).map(u64::from))
    };
    let Some((listener, drops)) = last
        .own_listeners()
        .map(|listener| (listener, drops(listener)))
        .max_by_key(|(listener, drops)| (drops.unwrap_or(0), listener.queued))
    else {
        return Finding::Excluded(String::from("The process has no listening socket."));
    };
    let most = queue_of(counted(case), listener.inode).into_iter().max().unwrap_or(0);
    let overflows = tcp_count(case, |tcp| tcp.listen_overflows_new);
    let full = match listener.limit {
        Some(limit) => most >= limit.max(1),
        None if drops.is_none() && overflows.is_none_or(|overflows| overflows == 0) => {
            return Finding::Missing(format!(
                "neither the limit of the accept queue of {} nor its drops are known (/proc/net/tcp does not tell them).",
                listener.local
            ));
        }
        None => false,
    };
    let dropped = drops.is_some_and(|drops| drops > 0);
    // Between two samples a short queue may fill and empty: the namespace counts it all the same.
    let overflowed = overflows.is_some_and(|overflows| overflows > 0);
    if !full && !(dropped && overflowed) {
        return Finding::Excluded(not_full(listener, most, drops));
    }
    let Some(accepted) = accepts_go_on(case, listener) else {
        return Finding::Excluded(format!(
            "Nothing was accepted on {} in the last seconds ({} connections wait): a full queue is a consequence of that.",
            listener.local, listener.queued
        ));
    };
    let full_at = |model: &Model| {
        let now = find(model, listener.inode)?;
        Some(now.queued >= now.limit?.max(1) || now.drops_new.got().is_some_and(|new| *new > 0))
    };
    let since_ns = first_in_row(case, full_at);
    let sure = if dropped { Confidence::Certain } else { Confidence::Likely };
    let before = kafka::trouble_before(case, since_ns.unwrap_or(case.onset.at_ns));
    let confidence = if before.is_some() { Confidence::Possible } else { sure };
    let mut evidence = vec![number(
        Tier::Listeners,
        match listener.limit {
            Some(limit) => {
                format!("most in the accept queue of {} (limit {limit})", listener.local)
            }
            None => format!("most in the accept queue of {}", listener.local),
        },
        f64::from(most),
        "connections",
        since_ns,
    )];
    if let Some(drops) = drops.filter(|drops| *drops > 0) {
        let signal = format!("dropped at {} in the last seconds", listener.local);
        evidence.push(number(Tier::Listeners, signal, drops as f64, "SYNs", since_ns));
    }
    evidence.push(accepted);
    if let Some(overflows) = overflows.filter(|overflows| *overflows > 0) {
        let signal = "accept queue overflows in its network namespace";
        evidence.push(number(Tier::Counters, signal, overflows as f64, "SYNs", None));
    }
    evidence.extend(before);
    Finding::Fits(Account {
        confidence,
        summary: format!(
            "Connections to {} come faster than they are accepted: its queue is full ({most} waited), and {}.",
            listener.local,
            if dropped {
                "further ones are dropped and try again after a second and more"
            } else {
                "there is no room for further ones"
            }
        ),
        evidence,
    })
}

fn not_full(listener: &ListenerModel, most: u32, drops: Option<u64>) -> String {
    let limit = listener.limit.map_or_else(|| String::from("unknown"), |limit| limit.to_string());
    match drops {
        Some(drops) if drops > 0 => format!(
            "{drops} SYNs were dropped at {}, but its queue held {most} at most (limit {limit}): not for want of room there.",
            listener.local
        ),
        _ => format!(
            "The accept queue of {} held {most} at most (limit {limit}), and nothing was dropped.",
            listener.local
        ),
    }
}

/// A sign that connections are accepted on this socket: the server's count, a census that sees new
/// ones, a queue that shrinks.
fn accepts_go_on(case: &Case<'_>, listener: &ListenerModel) -> Option<Evidence> {
    let ticks = counted(case);
    let port = listener.local.port();
    let by_page = |model: &Model| {
        let page = &model.app.got()?.raw;
        (page.listen_port == Some(port)).then_some(page.accepted)
    };
    let by_census = |model: &Model| {
        let served = model.all_served().iter().find(|served| served.raw.port == port)?;
        Some(served.raw.accepted_seen)
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
        Expect, INODE, Story, absent, census, hold, keep_page, listener, queue, tcp,
    };
    use super::*;
    use crate::detect::StallKind;
    use Confidence::{Certain, Likely};
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
                ("nothing accepted", overflowing(129, 3), Excluded("Nothing was accepted")),
                (
                    "drops for another reason",
                    accepting(overflowing(3, 2))
                        .stalled(|_, model| tcp(model, |tcp| tcp.listen_overflows_new = Some(0))),
                    Excluded("not for want of room"),
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
