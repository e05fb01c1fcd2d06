//! `syn-backlog-full`: too many handshakes are under way, and further SYNs are dropped.
//!
//! A listener holds as many half-open connections as its backlog (`inet_csk_reqsk_queue_is_full`,
//! `include/net/inet_connection_sock.h`). Beyond, the kernel drops SYNs (`TCPReqQFullDrop`) or
//! answers with cookies (`TCPReqQFullDoCookies`; tcp(7), `tcp_syncookies`). Handshakes pile up
//! where clients do not finish them: a flood of SYNs, or SYN-ACKs that get lost.

use stallscope_probes::Reading;

use super::case::{Case, number};
use super::outside::{counted, ends, find, queue_of, sum, tcp_count};
use super::thresholds::Thresholds;
use super::verdict::Confidence;
use super::{Account, Finding};
use crate::model::tiers::Tier;
use crate::model::{ListenerModel, Model};

pub(super) const NEXT: &[&str] = &[
    "See who does not finish the handshake: `ss -tn state syn-recv 'sport = :PORT'`. Many addresses that never answer are a flood; one network is a route or firewall that loses SYN-ACKs.",
    "Turn SYN cookies on (net.ipv4.tcp_syncookies=1), and raise the backlog of listen(2), net.core.somaxconn and net.ipv4.tcp_max_syn_backlog.",
    "Limit SYNs per source in front of the server; lower net.ipv4.tcp_synack_retries so that dead handshakes go sooner.",
];

/// What is known of one served port.
struct Port<'a> {
    number: u16,
    half_open: u32,
    listener: Option<&'a ListenerModel>,
    /// More handshakes are under way than some seconds ago.
    rises: bool,
    /// SYNs dropped at its own socket, while its accept queue had room. Without cookies the kernel
    /// drops from three quarters of `net.ipv4.tcp_max_syn_backlog` on, and no other counter tells.
    dropped: Option<u64>,
    /// SYNs dropped in the namespace because a socket's handshakes were at their limit.
    refused: Option<u64>,
    /// The same, answered with a cookie.
    cookies: Option<u64>,
}

pub(super) fn examine(case: &Case<'_>) -> Finding {
    let Some(last) = case.last() else {
        return Finding::Missing(String::from("no sample was taken."));
    };
    if let Reading::Absent(absence) = &last.served {
        return Finding::Missing(format!(
            "the handshakes under way could not be counted ({}).",
            absence.detail
        ));
    }
    let Some(served) = last.all_served().iter().max_by_key(|served| served.raw.syn_recv) else {
        return Finding::Excluded(String::from("The process serves no port."));
    };
    let number = served.raw.port;
    let own = last.own_listeners().filter(|listener| listener.local.port() == number);
    let listener = own.max_by_key(|listener| listener.queued);
    if let Some((full, most)) = listener.and_then(|listener| was_full(case, listener)) {
        return Finding::Excluded(format!(
            "The accept queue of {} was full ({most} waited): handshakes cannot be finished because of that.",
            full.local
        ));
    }
    let ticks = counted(case);
    let overflows = tcp_count(case, |tcp| tcp.listen_overflows_new);
    if let Some(overflows @ 1..) = overflows {
        return Finding::Excluded(format!(
            "An accept queue of the namespace was found full {overflows} times in the last seconds: what is dropped is dropped for that."
        ));
    }
    let dropped = listener.and_then(|listener| {
        let new = |model: &Model| find(model, listener.inode)?.drops_new.got().copied();
        sum(ticks, |model| new(model).map(u64::from))
    });
    let port = Port {
        number,
        half_open: served.raw.syn_recv,
        listener,
        rises: ends(ticks, |model| half_open(model, number)).is_some_and(|(then, now)| now > then),
        dropped,
        refused: tcp_count(case, |tcp| tcp.req_q_full_drops_new),
        cookies: tcp_count(case, |tcp| tcp.req_q_full_cookies_new),
    };
    match confidence(&port, case.weights) {
        Ok(confidence) => Finding::Fits(account(case, &port, confidence)),
        Err(because) => Finding::Excluded(because),
    }
}

fn half_open(model: &Model, port: u16) -> Option<u32> {
    let served = model.all_served().iter().find(|served| served.raw.port == port)?;
    Some(served.raw.syn_recv)
}

/// Whether the accept queue was full within the last seconds, and with how many.
fn was_full<'a>(case: &Case<'_>, listener: &'a ListenerModel) -> Option<(&'a ListenerModel, u32)> {
    let most = queue_of(counted(case), listener.inode).into_iter().max()?;
    (most > listener.limit?).then_some((listener, most))
}

/// How sure, or why not at all.
fn confidence(port: &Port<'_>, set: &Thresholds) -> Result<Confidence, String> {
    let limit = port.listener.and_then(|listener| listener.limit);
    let at_limit = limit.is_some_and(|limit| port.half_open >= limit.max(1));
    let dropped = port.dropped.is_some_and(|dropped| dropped > 0);
    let known = port.refused.is_some() || port.cookies.is_some() || port.dropped.is_some();
    let some = |count: Option<u64>| count.is_some_and(|count| count > 0);
    let refused = some(port.refused) || some(port.cookies);
    let many = port.half_open >= set.half_open_many_min;
    match () {
        () if at_limit && refused => Ok(Confidence::Certain),
        () if (at_limit || many) && dropped => Ok(Confidence::Certain),
        () if many && port.rises && refused => Ok(Confidence::Likely),
        () if dropped && port.half_open >= set.half_open_few_min => Ok(Confidence::Likely),
        () if at_limit && !known => Ok(Confidence::Possible),
        () => Err(format!(
            "{} handshakes are under way on port {}{}{}.",
            port.half_open,
            port.number,
            limit.map_or_else(String::new, |limit| format!(", of {limit} that may be")),
            match () {
                () if dropped || refused => "",
                () if known => ", and no SYN was turned away",
                () => ", and whether SYNs were turned away could not be read",
            }
        )),
    }
}

fn account(case: &Case<'_>, port: &Port<'_>, confidence: Confidence) -> Account {
    let Port { number: on, half_open: now, .. } = *port;
    let least = now.min(case.weights.half_open_many_min);
    let since_ns = case.since(|model| half_open(model, on).map(|then| then >= least));
    let limit = port.listener.and_then(|listener| listener.limit);
    let mut evidence = vec![number(
        Tier::Connections,
        match limit {
            Some(limit) => format!("handshakes under way on port {on} (limit {limit})"),
            None => format!("handshakes under way on port {on}"),
        },
        f64::from(now),
        "connections",
        since_ns,
    )];
    for (tier, count, signal) in [
        (Tier::Listeners, port.dropped, "SYNs dropped at its socket in the last seconds"),
        (
            Tier::Counters,
            port.refused,
            "SYNs dropped in its namespace because too many handshakes were under way",
        ),
        (Tier::Counters, port.cookies, "SYNs answered with a cookie because of that"),
    ] {
        if let Some(count) = count.filter(|count| *count > 0) {
            evidence.push(number(tier, signal, count as f64, "SYNs", None));
        }
    }
    if let Some(listener) = port.listener {
        let signal = format!("accept queue of {}", listener.local);
        let queued = f64::from(listener.queued);
        evidence.push(number(Tier::Listeners, signal, queued, "connections", None));
    }
    let turned_away = match (port.cookies, port.refused, port.dropped) {
        (Some(1..), Some(0), Some(0)) => "answered with cookies",
        (Some(1..), ..) => "dropped, or answered with cookies",
        _ => "dropped",
    };
    Account {
        confidence,
        summary: format!(
            "{now} handshakes on port {on} are not finished by their clients, and further SYNs are {turned_away}."
        ),
        evidence,
    }
}

#[cfg(test)]
mod tests {
    use stallscope_probes::sample::Holder;

    use super::super::fixtures::{
        Expect, INODE, Story, absent, census, hold, listener, queue, tcp,
    };
    use super::*;
    use crate::detect::StallKind;
    use Confidence::{Certain, Likely, Possible};
    use Expect::{Excluded, Fits, Missing};
    use Reading::Got;

    /// Two SYNs are dropped at the socket at each tick.
    fn dropping(story: Story) -> Story {
        story.stalled(|_, model| {
            let mut listener = listener(INODE, Holder::Target, 0);
            listener.drops_new = Got(2);
            model.listeners = Got([listener].into());
        })
    }

    fn flood(half_open: fn(u32) -> u32, drops: u64, cookies: u64) -> Story {
        Story::new(StallKind::Full).stalled(move |since, model| {
            census(model, |raw| raw.syn_recv = half_open(since as u32));
            tcp(model, |tcp| {
                tcp.req_q_full_drops_new = Some(drops);
                tcp.req_q_full_cookies_new = Some(cookies);
            });
        })
    }

    #[test]
    fn half_open_connections_count_when_syns_are_turned_away() {
        let limit: fn(u32) -> u32 = |_| 128;
        let rising: fn(u32) -> u32 = |since| 50 + since;
        hold(
            examine,
            vec![
                ("at the limit", flood(limit, 2, 0), Fits(Certain, "128 handshakes")),
                ("drops", flood(limit, 2, 0), Fits(Certain, "are dropped")),
                ("cookies", flood(limit, 0, 2), Fits(Certain, "with cookies")),
                ("rising", flood(rising, 1, 0), Fits(Likely, "79 handshakes")),
                (
                    "rising, but few",
                    flood(|since| since / 10, 1, 0),
                    Excluded("2 handshakes are under way on port 8080, of 128 that may be"),
                ),
                (
                    "many, as ever",
                    flood(|_| 100, 1, 0)
                        .throughout(|_, model| census(model, |raw| raw.syn_recv = 100)),
                    Excluded("100 handshakes"),
                ),
                (
                    "below the limit, but dropped at the socket",
                    dropping(flood(|_| 96, 0, 0)),
                    Fits(Certain, "dropped at its socket in the last seconds: 60 SYNs"),
                ),
                ("few, and dropped", dropping(flood(|_| 12, 0, 0)), Fits(Likely, "12 handshakes")),
                (
                    "dropped for another reason",
                    dropping(flood(|_| 7, 0, 0)),
                    Excluded("7 handshakes are under way"),
                ),
                ("nobody turned away", flood(limit, 0, 0), Excluded("no SYN was turned away")),
                (
                    "the accept queue is full",
                    flood(limit, 2, 0).stalled(|_, model| queue(model, 129)),
                    Excluded("accept queue of 0.0.0.0:8080 was full (129 waited)"),
                ),
                (
                    "no counters",
                    flood(limit, 2, 0).throughout(|_, model| {
                        model.tcp = absent();
                        let mut listener = listener(INODE, Holder::Target, 0);
                        listener.drops_new = absent();
                        model.listeners = Got([listener].into());
                    }),
                    Fits(Possible, "128"),
                ),
                (
                    "unreadable",
                    flood(limit, 2, 0).throughout(|_, model| model.served = absent()),
                    Missing("permission denied"),
                ),
            ],
        );
    }
}
