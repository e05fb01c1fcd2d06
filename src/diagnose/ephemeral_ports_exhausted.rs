//! `ephemeral-ports-exhausted`: no local port is left for another connection to one destination.
//!
//! connect(2) takes a port of `net.ipv4.ip_local_port_range` that no connection to the same
//! destination uses, `TIME_WAIT` included, and else fails with EADDRNOTAVAIL (ip(7);
//! `__inet_hash_connect`, `net/ipv4/inet_hashtables.c`). No counter tells of the failure. The
//! server sees nothing: clients of the same host cannot connect to it, or it cannot connect to a
//! backend of its own.

use std::net::SocketAddr;

use stallscope_probes::Reading;
use stallscope_probes::sample::ActiveOutcome;

use super::case::{Case, number, word};
use super::outside::{Turning, tcp_count, turning};
use super::verdict::Confidence;
use super::{Account, Finding};
use crate::detect::thresholds::REQUEST_YOUNG_MS;
use crate::model::answers::all_wait_ms;
use crate::model::tiers::Tier;
use crate::model::{Model, PortsModel};

pub(super) const NEXT: &[&str] = &[
    "Let clients keep connections alive instead of opening one per request: who closes first keeps the port in TIME_WAIT for a minute.",
    "Widen net.ipv4.ip_local_port_range, and allow net.ipv4.tcp_tw_reuse=1 on the side that connects.",
    "Use more addresses: the range counts once for each pair of source and destination.",
    "A restart of the server does not help: the ports belong to those who connect.",
];

/// EADDRNOTAVAIL of errno(3).
const EADDRNOTAVAIL: i32 = 99;

/// Whose connections use the range up.
#[derive(Clone, Copy)]
enum Side {
    /// Clients on this host, to the target.
    Clients,
    /// The target itself, to another.
    Target,
    /// Presumably the target: nobody saw it connect there, but its clients wait, every one. A socket
    /// in `TIME_WAIT` belongs to nobody.
    Presumed,
}

pub(super) fn examine(case: &Case<'_>) -> Finding {
    let Some(last) = case.last() else {
        return Finding::Missing(String::from("no sample was taken."));
    };
    let ports = match &last.ports {
        Reading::Got(ports) => ports,
        Reading::Absent(absence) => {
            return Finding::Missing(format!(
                "the ephemeral ports could not be counted ({}).",
                absence.detail
            ));
        }
    };
    let full = |(_, used): &&(SocketAddr, u32)| is_full(case, *used, ports.size);
    let Some((to, used, side)) = ports
        .top
        .iter()
        .filter(full)
        .find_map(|(to, used)| Some((*to, *used, concerns(case, *to)?)))
    else {
        return Finding::Excluded(room(case, ports));
    };
    if let (Side::Clients, Some(waiting @ 1..)) = (side, last.queued()) {
        return Finding::Excluded(format!(
            "{used} of {} ephemeral ports lead to {to}, but {waiting} connections wait in the server's accept queue: clients do get through to it.",
            ports.size
        ));
    }
    let loop_turns = match turning(case) {
        Turning::Stuck(because) => return Finding::Excluded(because),
        Turning::Turns => true,
        Turning::Unclear(_) => false,
    };
    Finding::Fits(account(case, &Range { ports, to, used, side }, loop_turns))
}

/// A range that is used up.
struct Range<'a> {
    ports: &'a PortsModel,
    to: SocketAddr,
    used: u32,
    side: Side,
}

fn account(case: &Case<'_>, range: &Range<'_>, loop_turns: bool) -> Account {
    let Range { ports, to, used, side } = *range;
    let refused = case.last().is_some_and(refused);
    let opened = tcp_count(case, |tcp| tcp.active_opens_new);
    // While connections are still begun, ports in TIME_WAIT are taken again (`tcp_tw_reuse`).
    let confidence = match opened {
        _ if matches!(side, Side::Presumed) => Confidence::Likely,
        _ if refused && loop_turns => Confidence::Certain,
        Some(0) if loop_turns && used >= ports.size => Confidence::Certain,
        Some(1..) => Confidence::Possible,
        _ => Confidence::Likely,
    };
    let since_ns = case.since(|model| {
        let ports = model.ports.got()?;
        let used = ports.top.iter().find(|(other, _)| *other == to).map_or(0, |(_, used)| *used);
        Some(is_full(case, used, ports.size))
    });
    let (low, high) = ports.range;
    let signal = format!("ephemeral ports in use to {to} (range {low} to {high}, {})", ports.size);
    let mut evidence = vec![number(Tier::Connections, signal, f64::from(used), "ports", since_ns)];
    if refused {
        let signal = "the watcher's own attempt to connect";
        evidence.push(word(Tier::ActiveProbe, signal, "EADDRNOTAVAIL", None));
    }
    if let Some(opened) = opened {
        let signal = "connections begun in its network namespace in the last seconds";
        evidence.push(number(Tier::Counters, signal, opened as f64, "connections", None));
    }
    let (signal, time_wait) = ("of the ports in use, in TIME_WAIT", f64::from(ports.time_wait));
    evidence.push(number(Tier::Connections, signal, time_wait, "sockets", None));
    if let Some(waiting) = case.last().and_then(Model::queued) {
        let queued = waiting as f64;
        evidence.push(number(Tier::Listeners, "accept queues", queued, "connections", None));
    }
    let who = match side {
        Side::Clients => {
            "further clients on this host cannot connect to the server, which is idle and healthy"
        }
        Side::Target => "the process cannot open another connection to it",
        Side::Presumed => {
            "nothing here can open another; every client of the process waits for an answer, as they do when it has to connect there first"
        }
    };
    Account {
        confidence,
        summary: format!(
            "{used} of {} ephemeral ports are in use for connections to {to}, so {who}.",
            ports.size
        ),
        evidence,
    }
}

/// Some ports of the range may be reserved (`ip_local_reserved_ports`) or taken for good by
/// listeners: connect(2) fails a little before the last one.
fn is_full(case: &Case<'_>, used: u32, size: u32) -> bool {
    f64::from(used) >= f64::from(size.max(1)) * case.thresholds.ports_full_ratio
}

/// Whether connections to `to` are the target's clients', or its own.
fn concerns(case: &Case<'_>, to: SocketAddr) -> Option<Side> {
    let last = case.last()?;
    let listens = |local: SocketAddr| {
        let ip = local.ip().to_canonical();
        local.port() == to.port() && (ip.is_unspecified() || ip == to.ip().to_canonical())
    };
    let connected = |model: &Model| model.all_peers().iter().any(|peer| peer.raw.remote == to);
    // With no port left, what was connected before may be all that ever shows.
    if connected(last) {
        return Some(Side::Target);
    }
    if last.own_listeners().any(|listener| listens(listener.local)) {
        return Some(Side::Clients);
    }
    if case.history.iter().any(|model| connected(model)) {
        return Some(Side::Target);
    }
    let answers = last.all_served().iter().filter_map(|served| served.raw.answers);
    let mut wait_ms = answers.filter_map(|answers| all_wait_ms(&answers));
    wait_ms.any(|oldest_ms| oldest_ms >= REQUEST_YOUNG_MS).then_some(Side::Presumed)
}

fn room(case: &Case<'_>, ports: &PortsModel) -> String {
    match ports.top.first() {
        Some((to, used)) if is_full(case, *used, ports.size) => format!(
            "{used} of {} ephemeral ports lead to {to}, which is neither this server nor one that it calls.",
            ports.size
        ),
        Some((to, used)) => format!(
            "{used} of {} ephemeral ports are in use to {to}, and fewer to any other: there is room.",
            ports.size
        ),
        None => format!("None of {} ephemeral ports is in use.", ports.size),
    }
}

fn refused(last: &Model) -> bool {
    let outcome = last.active.got().map(|active| active.outcome);
    matches!(outcome, Some(ActiveOutcome::NotMade { errno: EADDRNOTAVAIL }))
}

#[cfg(test)]
mod tests {
    use stallscope_probes::sample::{ActiveHow, ActivePlan, ActiveRaw};

    use super::super::fixtures::{
        Expect, PORT, Story, absent, block, broker, census, hold, peers, queue, requests_wait, tcp,
        with_kafka,
    };
    use super::*;
    use crate::detect::StallKind;
    use Confidence::{Certain, Likely, Possible};
    use Expect::{Excluded, Fits, Missing};
    use Reading::Got;

    fn server() -> SocketAddr {
        ([127, 0, 0, 1], PORT).into()
    }

    fn used_to(to: SocketAddr, used: u32, begun: u64) -> Story {
        Story::new(StallKind::Full).stalled(move |_, model| {
            model.ports = Got(PortsModel {
                size: 100,
                in_use: used,
                time_wait: used,
                range: (40_000, 40_099),
                top: vec![(to, used)],
            });
            tcp(model, |tcp| tcp.active_opens_new = Some(begun));
        })
    }

    #[test]
    fn ports_count_by_destination_and_only_where_it_concerns_the_server() {
        let other: SocketAddr = ([10, 0, 0, 8], 6379).into();
        hold(
            examine,
            vec![
                ("all to the server", used_to(server(), 100, 0), Fits(Certain, "100 of 100")),
                ("nearly all", used_to(server(), 98, 0), Fits(Likely, "further clients")),
                ("room", used_to(server(), 97, 0), Excluded("97 of 100")),
                ("still begun", used_to(server(), 100, 3), Fits(Possible, "90 connections")),
                (
                    "the watcher was refused",
                    used_to(server(), 98, 3).stalled(|_, model| {
                        model.active = Got(ActiveRaw {
                            plan: ActivePlan { how: ActiveHow::Tcp, every_ms: 500 },
                            target: server(),
                            began_ns: model.at_ns,
                            outcome: ActiveOutcome::NotMade { errno: 99 },
                            attempts: 9,
                            failures_in_a_row: 3,
                            last_success_ns: None,
                        });
                    }),
                    Fits(Certain, "EADDRNOTAVAIL"),
                ),
                (
                    "its own connections",
                    used_to(broker(), 100, 0).throughout(|_, model| with_kafka(model)),
                    Fits(Certain, "the process cannot open another"),
                ),
                (
                    "its own connections, of which none is left",
                    used_to(other, 100, 0).throughout(move |tick, model| {
                        with_kafka(model);
                        peers(model, |peer| peer.raw.remote = other);
                        if tick > 20 {
                            model.peers = Got([].into());
                        }
                    }),
                    Fits(Certain, "the process cannot open another"),
                ),
                (
                    "nobody saw it connect, and its clients wait",
                    used_to(other, 100, 0).stalled(|_, model| requests_wait(model, 8)),
                    Fits(Likely, "every client of the process waits"),
                ),
                (
                    "nobody saw it connect, and some are answered",
                    used_to(other, 100, 0).stalled(|_, model| {
                        requests_wait(model, 8);
                        census(model, |served| {
                            served.answers.as_mut().unwrap().answered = 2;
                        });
                    }),
                    Excluded("neither this server"),
                ),
                ("another's", used_to(other, 100, 0), Excluded("neither this server")),
                (
                    "connections wait",
                    used_to(server(), 100, 0).stalled(|_, model| queue(model, 4)),
                    Excluded("4 connections wait"),
                ),
                (
                    "blocked",
                    used_to(server(), 100, 0).stalled(|_, model| block(model)),
                    Excluded("4242 is blocked (futex_wait)"),
                ),
                (
                    "threads unreadable",
                    used_to(server(), 100, 0).throughout(|_, model| model.threads = absent()),
                    Fits(Likely, "100 of 100"),
                ),
                (
                    "unreadable",
                    used_to(server(), 100, 0).throughout(|_, model| model.ports = absent()),
                    Missing("permission denied"),
                ),
            ],
        );
    }
}
