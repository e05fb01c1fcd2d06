//! `listener-gone`: the listening socket is closed, and the process lives.
//!
//! The accept task has panicked or returned, or the listener was dropped with something else. The
//! kernel answers each SYN with a reset (`tcp_v4_send_reset`, `net/ipv4/tcp_ipv4.c`), so clients
//! see ECONNREFUSED; connections accepted before live on. Looks at the LISTEN sockets that the
//! process holds, then and now (`sock_diag(7)`).
//!
//! A watcher that came too late never saw the socket. What is left of it are its connections:
//! several of them share one local port, that is no ephemeral one, and nobody listens there.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use stallscope_probes::Reading;
use stallscope_probes::sample::{Holder, TaskState};

use super::case::{Case, number, word};
use super::outside::{TICKS_MIN, find, sum};
use super::verdict::{Confidence, Evidence};
use super::{Account, Finding};
use crate::detect::StallKind;
use crate::model::peers::shared_ports;
use crate::model::tiers::Tier;
use crate::model::{ListenerModel, Model};

pub(super) const NEXT: &[&str] = &[
    "Look for a panic or an error of the accept task in the server's log: the listener was dropped with it.",
    "Restart the server: nothing opens the socket again by itself.",
    "Let the process end when its accept loop does, or supervise the loop; never `?` out of it.",
];

/// A listening socket that is no more, or must have been there.
struct Gone {
    what: String,
    port: u16,
    since_ns: Option<u64>,
    tier: Tier,
    confidence: Confidence,
}

pub(super) fn examine(case: &Case<'_>) -> Finding {
    let Some(last) = case.last() else {
        return Finding::Missing(String::from("no sample was taken."));
    };
    if let Reading::Absent(absence) = &last.listeners {
        return Finding::Missing(format!(
            "the listening sockets could not be read ({}).",
            absence.detail
        ));
    }
    match &last.process {
        Reading::Absent(absence) => {
            return Finding::Missing(format!(
                "whether the process lives could not be read ({}).",
                absence.detail
            ));
        }
        Reading::Got(process) if matches!(process.state, TaskState::Zombie | TaskState::Dead) => {
            return Finding::Excluded(format!(
                "The process has ended (state {}).",
                process.state.letter()
            ));
        }
        Reading::Got(_) => {}
    }
    let gone = match closed(case, last) {
        Some(Ok(gone)) => gone,
        Some(Err(finding)) => return finding,
        None => match told_by_page(case, last).or_else(|| left_over(last)) {
            Some(gone) => gone,
            None => return Finding::Excluded(still_there(last)),
        },
    };
    Finding::Fits(account(case, last, gone))
}

/// A listener of its own that was seen, and has been gone for some samples.
fn closed(case: &Case<'_>, last: &Model) -> Option<Result<Gone, Finding>> {
    let was = case
        .history
        .iter()
        .rev()
        .flat_map(|model| model.own_listeners())
        .find(|was| !listens(last, was.local))?;
    if let Some(now) = find(last, was.inode).filter(|now| now.holder == Holder::Other) {
        return Some(Err(Finding::Excluded(format!(
            "The process has closed its fd of the socket on {}, but another process still holds and listens on it.",
            now.local
        ))));
    }
    if let Some(other) = taken_over(last, was.local.port()) {
        return Some(Err(Finding::Excluded(format!(
            "The process has closed its socket on {}, and another process listens on {} now.",
            was.local, other.local
        ))));
    }
    let gone = |model: &Model| model.listeners.got().map(|_| !listens(model, was.local));
    let since_ns = case.since(gone);
    let agreeing = case.history.iter().rev().take_while(|model| gone(model) != Some(false));
    if agreeing.filter(|model| gone(model).is_some()).count() < TICKS_MIN {
        return Some(Err(Finding::Missing(format!(
            "the listening socket on {} is not seen any more, but in too few samples ({TICKS_MIN} must agree).",
            was.local
        ))));
    }
    Some(Ok(Gone {
        what: format!("listening socket on {}", was.local),
        port: was.local.port(),
        since_ns,
        tier: Tier::Listeners,
        confidence: confidence(case, last, was),
    }))
}

/// Another process's listener on a port that was the target's, as after a deploy.
fn taken_over(last: &Model, port: u16) -> Option<&ListenerModel> {
    let all = last.listeners.got()?;
    all.iter().find(|other| other.holder == Holder::Other && other.local.port() == port)
}

/// Of several listeners one may be closed on purpose: that is the stall only if it is what stopped,
/// or if none is left.
fn confidence(case: &Case<'_>, last: &Model, was: &ListenerModel) -> Confidence {
    // A census that did not look at every fd may have missed the one that was opened again.
    let unseen = last.fd_kinds.got().is_some_and(|kinds| kinds.truncated);
    let none_left = last.own_listeners().next().is_none();
    if case.onset.kind != StallKind::Listener && !none_left {
        Confidence::Possible
    } else if unseen || was.holder == Holder::Unknown {
        Confidence::Likely
    } else {
        Confidence::Certain
    }
}

/// The server says itself on which port it serves.
fn told_by_page(case: &Case<'_>, last: &Model) -> Option<Gone> {
    let port = last.app.got()?.raw.listen_port?;
    let gone = |model: &Model| {
        model.listeners.got()?;
        Some(own_on(model, port).next().is_none())
    };
    (gone(last) == Some(true)).then(|| Gone {
        what: format!("listening socket on port {port}"),
        port,
        since_ns: case.since(gone),
        tier: Tier::Heartbeat,
        confidence: Confidence::Likely,
    })
}

/// Connections that must have been accepted on a port that nobody of the process listens on.
fn left_over(last: &Model) -> Option<Gone> {
    let of_census = last
        .all_served()
        .iter()
        .filter(|served| served.raw.accepted_open > 0)
        .map(|served| (served.raw.port, served.raw.accepted_open as usize));
    let (port, _) = of_census
        .chain(shared_ports(last))
        .filter(|(port, _)| {
            own_on(last, *port).next().is_none() && taken_over(last, *port).is_none()
        })
        .max_by_key(|(_, count)| *count)?;
    Some(Gone {
        what: format!("listening socket on port {port}"),
        port,
        since_ns: None,
        tier: Tier::Peers,
        confidence: Confidence::Likely,
    })
}

/// Local ports of connections that the target accepted rather than made: those it listens on or
/// did, and those that several connections share. Once it no longer listens there, they are listed
/// among those of its own making.
pub(super) fn accepted_on(case: &Case<'_>) -> BTreeSet<u16> {
    let listened = case.history.iter().flat_map(|model| model.own_listeners());
    let mut ports: BTreeSet<u16> = listened.map(|listener| listener.local.port()).collect();
    let shared = case.last().map(shared_ports).unwrap_or_default();
    ports.extend(shared.into_keys());
    ports
}

fn own_on(model: &Model, port: u16) -> impl Iterator<Item = &ListenerModel> {
    model.own_listeners().filter(move |listener| listener.local.port() == port)
}

/// Whether the target listens where `local` did: on the same port, whatever the address, so that a
/// listener that was opened again counts.
fn listens(model: &Model, local: SocketAddr) -> bool {
    own_on(model, local.port()).next().is_some()
}

fn still_there(last: &Model) -> String {
    match last.own_listeners().next() {
        Some(listener) => format!(
            "Its socket listens on {}, with {} connections in its queue.",
            listener.local, listener.queued
        ),
        None => String::from(
            "The process has no listening socket, and no connection that it could have accepted on one.",
        ),
    }
}

fn account(case: &Case<'_>, last: &Model, gone: Gone) -> Account {
    let Gone { what, port, since_ns, tier, confidence } = gone;
    let mut evidence = vec![word(tier, what.clone(), "closed", since_ns)];
    if tier != Tier::Listeners {
        let own = last.own_listeners().count() as f64;
        let signal = format!("its sockets that listen, none of them on port {port}");
        evidence.push(number(Tier::Listeners, signal, own, "sockets", since_ns));
    }
    evidence.extend(refused(case, since_ns));
    evidence.extend(live_on(last, port));
    if let Some(kinds) = last.fd_kinds.got() {
        let sockets = f64::from(kinds.sockets);
        evidence.push(number(Tier::FdCensus, "sockets it holds", sockets, "fds", None));
    }
    Account {
        confidence,
        summary: format!(
            "The {what} is closed while the process lives: connections to it are refused, and only those accepted before go on."
        ),
        evidence,
    }
}

/// Resets sent since: one for each client that tried (of the namespace, so others' count too).
fn refused(case: &Case<'_>, since_ns: Option<u64>) -> Option<Evidence> {
    let from_ns = since_ns.unwrap_or(case.onset.at_ns);
    let first = case.history.partition_point(|model| model.at_ns < from_ns);
    let resets = sum(&case.history[first..], |model| model.tcp.got()?.out_rsts_new)?;
    (resets > 0).then(|| {
        let signal = "resets sent in its network namespace since then";
        number(Tier::Counters, signal, resets as f64, "segments", Some(from_ns))
    })
}

/// What was accepted before.
fn live_on(last: &Model, port: u16) -> Option<Evidence> {
    let peers = last.all_peers().iter().filter(|peer| peer.raw.local_port == port).count();
    (peers > 0).then(|| {
        let signal = format!("connections accepted before on port {port}, still open");
        number(Tier::Peers, signal, peers as f64, "connections", None)
    })
}

#[cfg(test)]
mod tests {
    use stallscope_probes::sample::TcpState;

    use super::super::fixtures::{
        Expect, INODE, ONSET, PORT, Story, absent, hold, kafka_peer, keep_page, listener, peers,
        tcp,
    };
    use super::*;
    use Confidence::{Certain, Likely, Possible};
    use Expect::{Excluded, Fits, Missing};
    use Reading::Got;

    fn closed() -> Story {
        Story::new(StallKind::Listener).stalled(|_, model| {
            model.listeners = Got([].into());
            model.served = Got([].into());
            tcp(model, |tcp| tcp.out_rsts_new = Some(2));
        })
    }

    /// Connections that the server accepted before its listener was closed.
    fn accepted(model: &mut Model, port: u16, connections: u16) {
        let one = |at: u16| {
            let mut peer = kafka_peer(model.at_ns);
            peer.raw.local_port = port;
            peer.raw.remote = ([10, 0, 0, 99], 50_000 + at).into();
            peer.raw.state = TcpState::Established;
            peer
        };
        model.peers = Got((0..connections).map(one).collect());
    }

    fn with_others(inode: u32, holder: Holder, port: u16) -> impl Fn(usize, &mut Model) {
        move |_, model| {
            let mut other = listener(inode, holder, 0);
            other.local.set_port(port);
            let Got(listeners) = &mut model.listeners else { return };
            *listeners = listeners.iter().cloned().chain([other]).collect();
        }
    }

    #[test]
    fn a_closed_listener_is_told_from_one_that_was_opened_again() {
        hold(
            examine,
            vec![
                ("seen, then gone", closed(), Fits(Certain, "0.0.0.0:8080 is closed")),
                ("resets", closed(), Fits(Certain, "since then: 60 segments")),
                ("there", Story::new(StallKind::Listener), Excluded("listens on 0.0.0.0:8080")),
                (
                    "opened again",
                    closed().after(ONSET + 5, |_, model| {
                        model.listeners = Got([listener(7, Holder::Target, 0)].into());
                    }),
                    Excluded("listens on 0.0.0.0:8080"),
                ),
                (
                    "gone a moment ago",
                    Story::new(StallKind::Accept).after(58, |_, model| {
                        model.listeners = Got([].into());
                    }),
                    Missing("too few samples"),
                ),
                (
                    "held on by another process",
                    closed().stalled(with_others(INODE, Holder::Other, PORT)),
                    Excluded("another process still holds"),
                ),
                (
                    "another socket of its own was closed, and something else stopped",
                    Story::new(StallKind::Accept).after(0, |since, model| {
                        if since < 20 {
                            with_others(9, Holder::Target, 9000)(since, model);
                        }
                    }),
                    Fits(Possible, "0.0.0.0:9000"),
                ),
                (
                    "not every fd was looked at",
                    closed().throughout(|_, model| {
                        let Got(kinds) = &mut model.fd_kinds else { return };
                        kinds.truncated = true;
                    }),
                    Fits(Likely, "closed"),
                ),
                (
                    "unreadable",
                    closed().throughout(|_, model| model.listeners = absent()),
                    Missing("permission denied"),
                ),
                (
                    "ended",
                    closed().stalled(|_, model| {
                        let Got(process) = &mut model.process else { return };
                        process.state = TaskState::Zombie;
                    }),
                    Excluded("has ended (state Z)"),
                ),
            ],
        );
    }

    #[test]
    fn a_watcher_that_came_late_goes_by_what_is_left() {
        let late = || closed().attached_late();
        hold(
            examine,
            vec![
                (
                    "the page says the port",
                    late().throughout(|_, model| keep_page(model, |_| {})),
                    Fits(Likely, "port 8080"),
                ),
                (
                    "connections share a port",
                    late().throughout(|_, model| accepted(model, PORT, 2)),
                    Fits(Likely, "still open: 2 connections"),
                ),
                (
                    "one may be bound by hand",
                    late().throughout(|_, model| accepted(model, PORT, 1)),
                    Excluded("no listening socket"),
                ),
                (
                    "a server on an ephemeral port",
                    late().throughout(|_, model| accepted(model, 40_000, 3)),
                    Fits(Likely, "port 40000"),
                ),
                (
                    "two connections of its own making may share an ephemeral port",
                    late().throughout(|_, model| accepted(model, 40_000, 2)),
                    Excluded("no listening socket"),
                ),
                (
                    "services are no clients",
                    late().throughout(|_, model| {
                        accepted(model, 40_000, 3);
                        peers(model, |peer| peer.raw.remote.set_port(9092));
                    }),
                    Excluded("no listening socket"),
                ),
                ("nothing is left", late(), Excluded("no listening socket")),
                (
                    "the port is listened on",
                    Story::new(StallKind::Listener)
                        .attached_late()
                        .throughout(|_, model| accepted(model, PORT, 9)),
                    Excluded("listens on"),
                ),
            ],
        );
    }
}
