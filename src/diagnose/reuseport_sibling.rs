//! `reuseport-sibling`: a second socket listens on the same port, takes part of the connections,
//! and does not serve them.
//!
//! With `SO_REUSEPORT` (tokio-uring 0.5.0 always sets it) a second bind does not fail, and the
//! kernel spreads new connections over the sockets by a hash of their addresses
//! (`reuseport_select_sock`, `net/core/sock_reuseport.c`). A client of the idle one is connected
//! and never answered. A socket bound to one address takes the connections to it from one bound to
//! the wildcard. Looks at each socket's own queue.

use stallscope_probes::Reading;
use stallscope_probes::sample::Holder;

use super::case::{Case, number, word};
use super::loops::turned_before;
use super::outside::{TICKS_MIN, Turning, overlap, queue_of, shrank, turning};
use super::verdict::{Confidence, Evidence};
use super::{Account, Finding};
use crate::model::tiers::Tier;
use crate::model::{ListenerModel, Model};

pub(super) const NEXT: &[&str] = &[
    "Find who holds the other socket (`ss -ltnpe 'sport = :PORT'`) and end it if it is a left-over: an old process, or a second bind that nobody accepts on.",
    "Bind without SO_REUSEPORT where one process is meant to serve the port: a second one then fails with EADDRINUSE instead of taking connections.",
    "Clients that are queued there stay unanswered until that socket is closed; they are then reset.",
];

/// One socket of the port over the judged ticks.
struct Socket<'a> {
    last: &'a ListenerModel,
    /// Connections waited in every sample and the queue never got shorter.
    stuck: bool,
    /// It was empty at some time, or got shorter.
    moves: bool,
}

pub(super) fn examine(case: &Case<'_>) -> Finding {
    let Some(last) = case.last() else {
        return Finding::Missing(String::from("no sample was taken."));
    };
    let listeners = match &last.listeners {
        Reading::Got(listeners) => listeners,
        Reading::Absent(absence) => {
            return Finding::Missing(format!(
                "the listening sockets could not be read ({}).",
                absence.detail
            ));
        }
    };
    let sockets: Vec<Socket<'_>> =
        listeners.iter().filter_map(|listener| socket(case, listener)).collect();
    let pairs = || {
        let all = sockets.iter().enumerate();
        all.flat_map(|(at, one)| sockets[at + 1..].iter().map(move |other| (one, other)))
            .filter(|(one, other)| shared(one.last, other.last))
    };
    let Some((first, _)) = pairs().next() else {
        return Finding::Excluded(alone(last));
    };
    let pair = pairs()
        .flat_map(|(one, other)| [(one, other), (other, one)])
        .filter(|(stuck, moving)| stuck.stuck && moving.moves)
        .max_by_key(|(stuck, _)| stuck.last.queued);
    match pair {
        Some((stuck, moving)) => Finding::Fits(account(case, stuck.last, moving.last)),
        None => Finding::Excluded(format!(
            "{} sockets listen on port {}, but none of them keeps a queue that stands still beside one that moves.",
            listeners.iter().filter(|other| other.local.port() == first.last.local.port()).count(),
            first.last.local.port()
        )),
    }
}

fn socket<'a>(case: &Case<'_>, last: &'a ListenerModel) -> Option<Socket<'a>> {
    let queued = queue_of(case.judged(), last.inode);
    (queued.len() >= TICKS_MIN).then(|| Socket {
        last,
        stuck: queued.iter().all(|queued| *queued > 0) && !shrank(&queued),
        moves: queued.contains(&0) || shrank(&queued),
    })
}

/// Whether two sockets share the connections of a port. Two of the target's own with different
/// addresses are two services.
fn shared(one: &ListenerModel, other: &ListenerModel) -> bool {
    let foreign = one.holder == Holder::Other || other.holder == Holder::Other;
    if foreign { overlap(one.local, other.local) } else { one.local == other.local }
}

fn alone(last: &Model) -> String {
    match last.own_listeners().next() {
        Some(own) => {
            format!("Only one socket listens on port {}: inode {}.", own.local.port(), own.inode)
        }
        None => String::from("The process has no listening socket."),
    }
}

/// The sockets' own queues prove it, unless a thread that is stuck is why one of them stands.
fn confidence(case: &Case<'_>, stuck: &ListenerModel, moving: &ListenerModel) -> Confidence {
    if stuck_thread(case) {
        return Confidence::Possible;
    }
    match (stuck.holder, moving.holder) {
        // The target's queue stands and another process serves: the target never took part, or it
        // has stopped to, and then its own reason is the cause.
        (_, Holder::Other) if stuck.holder != Holder::Other => {
            if never_accepted(case, stuck.local.port()) {
                Confidence::Likely
            } else {
                Confidence::Possible
            }
        }
        (Holder::Unknown, _) | (_, Holder::Unknown) => Confidence::Likely,
        _ => Confidence::Certain,
    }
}

/// Whether a thread that once waited for events does so no longer, as in a server with one runtime
/// and one listener for each thread; or none of them waits.
fn stuck_thread(case: &Case<'_>) -> bool {
    let lost = case.runtime().iter().any(|thread| {
        thread.ticks >= TICKS_MIN && thread.waiting == 0 && turned_before(case, thread.last.tid)
    });
    lost || matches!(turning(case), Turning::Stuck(_))
}

fn never_accepted(case: &Case<'_>, port: u16) -> bool {
    let Some(last) = case.last() else { return false };
    let by_page = last.app.got().map(|app| app.raw.accepted == 0);
    let by_census = || {
        let served = last.all_served().iter().find(|served| served.raw.port == port);
        served.is_some_and(|served| served.raw.accepted_open == 0 && served.raw.accepted_seen == 0)
    };
    by_page.unwrap_or_else(by_census)
}

fn account(case: &Case<'_>, stuck: &ListenerModel, moving: &ListenerModel) -> Account {
    let stands = |model: &Model| {
        let now = super::outside::find(model, stuck.inode)?;
        Some(now.queued > 0)
    };
    let since_ns = case.since(stands);
    let whose = |listener: &ListenerModel| match listener.holder {
        Holder::Target => "its own",
        Holder::Other => "another process's",
        Holder::Unknown => "somebody's",
    };
    let evidence: Vec<Evidence> = vec![
        number(
            Tier::Listeners,
            format!("accept queue of {} (inode {}, {})", stuck.local, stuck.inode, whose(stuck)),
            f64::from(stuck.queued),
            "connections",
            since_ns,
        ),
        number(
            Tier::Listeners,
            format!("accept queue of {} (inode {}, {})", moving.local, moving.inode, whose(moving)),
            f64::from(moving.queued),
            "connections",
            None,
        ),
        word(
            Tier::Listeners,
            format!("socket that nobody accepts on, of those on port {}", stuck.local.port()),
            format!("inode {}, {}", stuck.inode, whose(stuck)),
            since_ns,
        ),
    ];
    Account {
        confidence: confidence(case, stuck, moving),
        summary: format!(
            "Two sockets listen on port {}, and nobody accepts on {} one (inode {}): {} connections wait there, while the other is served.",
            stuck.local.port(),
            whose(stuck),
            stuck.inode,
            stuck.queued
        ),
        evidence,
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{
        Expect, INODE, Story, absent, add_thread, block, census, change_thread, hold, keep_page,
        listener, thread,
    };
    use super::*;
    use crate::detect::StallKind;
    use crate::model::ThreadRole;
    use Confidence::{Certain, Likely, Possible};
    use Expect::{Excluded, Fits, Missing};
    use Reading::Got;

    /// Two sockets with queues that grow (or not) by the tick.
    fn two(own: Holder, own_queue: fn(u32) -> u32, other: Holder, queue: fn(u32) -> u32) -> Story {
        Story::new(StallKind::Answers).stalled(move |since, model| {
            let since = since as u32;
            let one = listener(INODE, own, own_queue(since));
            let two = listener(INODE + 1, other, queue(since));
            model.listeners = Got([one, two].into());
        })
    }

    fn sibling() -> Story {
        two(Holder::Target, |_| 0, Holder::Other, |since| 1 + since)
    }

    #[test]
    fn the_sockets_own_queues_tell() {
        let moved = |since: u32| 5 - since % 3;
        hold(
            examine,
            vec![
                ("an old process holds it", sibling(), Fits(Certain, "another process's one")),
                ("and how many wait", sibling(), Fits(Certain, "30 connections wait")),
                (
                    "both its own",
                    two(Holder::Target, |_| 0, Holder::Target, |_| 4),
                    Fits(Certain, "its own one (inode 101)"),
                ),
                (
                    "its own is busy",
                    two(Holder::Target, moved, Holder::Other, |_| 4),
                    Fits(Certain, "(inode 101)"),
                ),
                (
                    "both are served",
                    two(Holder::Target, |_| 0, Holder::Other, moved),
                    Excluded("2 sockets listen on port 8080"),
                ),
                (
                    "neither is",
                    two(Holder::Target, |_| 3, Holder::Other, |_| 4),
                    Excluded("none of them keeps"),
                ),
                ("alone", Story::new(StallKind::Accept), Excluded("Only one socket")),
                (
                    "on another address",
                    sibling().stalled(|_, model| {
                        let Got(listeners) = &mut model.listeners else { return };
                        let mut all = listeners.to_vec();
                        all[0].local = "10.0.0.1:8080".parse().unwrap();
                        all[1].local = "10.0.0.2:8080".parse().unwrap();
                        *listeners = all.into();
                    }),
                    Excluded("Only one socket"),
                ),
                (
                    "unreadable",
                    sibling().throughout(|_, model| model.listeners = absent()),
                    Missing("permission denied"),
                ),
            ],
        );
    }

    #[test]
    fn a_thread_that_is_stuck_explains_its_own_queue() {
        let own_stands = || two(Holder::Target, |_| 4, Holder::Other, |_| 0);
        let shards = || two(Holder::Target, |_| 0, Holder::Target, |_| 4);
        hold(
            examine,
            vec![
                ("blocked", sibling().stalled(|_, model| block(model)), Fits(Possible, "wait")),
                (
                    "one of two runtimes blocked",
                    shards()
                        .throughout(|_, model| {
                            add_thread(model, thread(7, "shard", ThreadRole::Runtime));
                        })
                        .stalled(|_, model| {
                            change_thread(model, 7, |thread| thread.wchan = absent());
                            change_thread(model, 7, |thread| thread.syscall = absent());
                        }),
                    Fits(Possible, "its own one"),
                ),
                ("it accepted before", own_stands(), Fits(Possible, "its own one")),
                (
                    "it never accepted",
                    own_stands().throughout(|_, model| {
                        census(model, |raw| (raw.accepted_open, raw.accepted_seen) = (0, 0));
                    }),
                    Fits(Likely, "its own one"),
                ),
                (
                    "it never accepted, it says",
                    own_stands().throughout(|_, model| keep_page(model, |page| page.accepted = 0)),
                    Fits(Likely, "its own one"),
                ),
            ],
        );
    }
}
