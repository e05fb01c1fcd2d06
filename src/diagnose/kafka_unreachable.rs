//! `kafka-unreachable`: no broker can be reached, and requests wait for it.
//!
//! librdkafka's broker threads connect again and again, and keep what is to be sent for
//! `message.timeout.ms` (five minutes by default); handlers wait for as long. A broker that is down
//! refuses (no connection at all), a host that is gone does not answer (`SYN_SENT`, or data sent
//! again and again). A closed window is none of this: that broker is there and does not read.

use super::case::{Case, number, word};
use super::kafka::{
    Scene, after_fds_ran_out, held, is_connecting, is_established, is_held_back, is_silent, scene,
};
use super::verdict::{Confidence, Evidence};
use super::{Account, Finding};
use crate::model::tiers::Tier;
use crate::model::{Model, PeerModel};

pub(super) const NEXT: &[&str] = &[
    "Try the brokers from this host and this network namespace: `nc -vz BROKER 9092`; then look at the broker's own log.",
    "Compare the addresses that the brokers advertise (advertised.listeners) with those this host can reach.",
    "Do not let requests wait for minutes: message.timeout.ms of 5 to 30 s, a bounded wait in the handler, and 503 beyond it.",
    "A restart of this server does not help: it would find the same brokers.",
];

/// How the brokers stand at one tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// No connection, not even one that is being made.
    None,
    /// Only connections that are being made.
    Connecting,
    /// Every connection that stands sends again and again without an answer.
    Silent,
    /// One stands and gets on.
    Up,
}

fn reach(scene: &Scene<'_>, model: &Model) -> Option<Reach> {
    let brokers: Vec<&PeerModel> = scene.brokers_at(model)?.collect();
    let mut established = brokers.iter().filter(|peer| is_established(peer)).peekable();
    Some(if established.peek().is_some() {
        if established.all(|peer| is_silent(peer)) { Reach::Silent } else { Reach::Up }
    } else if brokers.iter().any(|peer| is_connecting(peer)) {
        Reach::Connecting
    } else {
        Reach::None
    })
}

pub(super) fn examine(case: &Case<'_>) -> Finding {
    examined(case).unwrap_or_else(|finding| finding)
}

fn examined(case: &Case<'_>) -> Result<Finding, Finding> {
    let scene = scene(case)?;
    let brokers = scene.brokers()?;
    let now = reach(&scene, scene.last);
    if now == Some(Reach::Up) {
        return Ok(one_of_several(case, &scene, &brokers));
    }
    let down = |model: &Model| reach(&scene, model).map(|reach| reach != Reach::Up);
    let Some(since_ns) = held(case, down) else {
        return Err(Finding::Missing(String::from(
            "no broker is connected, but not for long enough to say so.",
        )));
    };
    let mut once = case.history.iter().filter_map(|model| reach(&scene, model));
    let connected_once = once.any(|reach| reach == Reach::Up);
    if !scene.librdkafka && !connected_once && now == Some(Reach::None) {
        return Err(Finding::Missing(String::from(
            "no connection to a broker was ever seen, nor a thread of librdkafka that would make one.",
        )));
    }
    let sure = match now {
        Some(Reach::None) if scene.brokers_may_hide() => Confidence::Possible,
        Some(Reach::None) if !connected_once => Confidence::Likely,
        _ => Confidence::Certain,
    };
    let consequence = now != Some(Reach::Silent) && after_fds_ran_out(case, Some(since_ns));
    let sure = if consequence { Confidence::Possible } else { sure };
    let mut evidence = vec![number(
        Tier::Peers,
        "connections to brokers that get on",
        0.0,
        "connections",
        Some(since_ns),
    )];
    evidence.extend(brokers.iter().map(|peer| stands(peer, since_ns)));
    evidence.push(scene.waiting_evidence(case));
    evidence.extend(threads(&scene));
    let how = match now {
        Some(Reach::Silent) => "what is sent to it is not acknowledged",
        Some(Reach::Connecting) => "its SYNs get no answer",
        _ => "there is no connection to one",
    };
    Ok(Finding::Fits(Account {
        confidence: scene.capped(sure),
        summary: format!(
            "No Kafka broker can be reached ({how}), and {} requests wait for it while the event loop goes on.",
            scene.waiting
        ),
        evidence,
    }))
}

/// A broker is there: all the same the one that leads the partition may not be.
fn one_of_several(case: &Case<'_>, scene: &Scene<'_>, brokers: &[&PeerModel]) -> Finding {
    let stands_to = |peer: &PeerModel| {
        brokers.iter().any(|other| {
            other.raw.remote == peer.raw.remote && is_established(other) && !is_silent(other)
        })
    };
    let lost =
        brokers.iter().find(|peer| (is_silent(peer) || is_connecting(peer)) && !stands_to(peer));
    let Some(lost) = lost else {
        return Finding::Excluded(reached(brokers));
    };
    let remote = lost.raw.remote;
    let gone = |model: &Model| {
        let mut brokers = scene.brokers_at(model)?;
        let up = |peer: &PeerModel| {
            peer.raw.remote == remote && is_established(peer) && !is_silent(peer)
        };
        Some(!brokers.any(up))
    };
    let Some(since_ns) = held(case, gone) else {
        return Finding::Excluded(reached(brokers));
    };
    let was_there = case.history.iter().any(|model| gone(model) == Some(false));
    let sure = if was_there { Confidence::Likely } else { Confidence::Possible };
    let mut evidence = vec![stands(lost, since_ns), scene.waiting_evidence(case)];
    evidence.extend(threads(scene));
    Finding::Fits(Account {
        confidence: scene.capped(sure),
        summary: format!(
            "The Kafka broker at {remote} cannot be reached, though another is, and {} requests wait while the event loop goes on.",
            scene.waiting
        ),
        evidence,
    })
}

fn reached(brokers: &[&PeerModel]) -> String {
    let stands = brokers.iter().find(|peer| is_established(peer) && !is_silent(peer));
    match stands {
        Some(peer) if is_held_back(peer) => format!(
            "The broker at {} is connected; it does not read ({} bytes are held back), so it is there.",
            peer.raw.remote, peer.raw.unsent_bytes
        ),
        Some(peer) => {
            let heard = peer.raw.info.map(|info| info.last_received_ms);
            let heard = heard.map_or_else(String::new, |ms| format!(", heard of {ms} ms ago"));
            format!("The broker at {} is connected{heard}.", peer.raw.remote)
        }
        None => String::from("A broker is connected."),
    }
}

fn stands(peer: &PeerModel, since_ns: u64) -> Evidence {
    let remote = peer.raw.remote;
    if is_connecting(peer) {
        let signal = format!("connection to Kafka at {remote}");
        return word(Tier::Peers, signal, "SYN sent, no answer", Some(since_ns));
    }
    let again = peer.raw.info.map_or_else(String::new, |info| {
        format!(", sent again {} times in a row", info.retransmits)
    });
    let signal = format!("not acknowledged by Kafka at {remote}{again}");
    number(Tier::Peers, signal, f64::from(peer.raw.unsent_bytes), "bytes", Some(since_ns))
}

fn threads(scene: &Scene<'_>) -> Option<Evidence> {
    let brokers = |comm: &str| comm.starts_with("rdk:broker");
    let count = scene.last.all_threads().filter(|thread| brokers(&thread.comm)).count();
    (count > 0).then(|| {
        number(Tier::Threads, "librdkafka's broker threads", count as f64, "threads", None)
    })
}

#[cfg(test)]
mod tests {
    use stallscope_probes::Reading::Got;
    use stallscope_probes::sample::{FdLimitRaw, TcpState};

    use super::super::fixtures::{
        Expect, ONSET, PORT, Story, absent, block, hold, kafka_peer, peers, queue, requests_wait,
        with_kafka,
    };
    use super::*;
    use crate::detect::StallKind;
    use crate::model::FdsModel;
    use Confidence::{Certain, Likely, Possible};
    use Expect::{Excluded, Fits, Missing};

    /// Requests wait, and the broker's connection is changed like this.
    fn waiting(change: impl Fn(&mut PeerModel)) -> Story {
        Story::new(StallKind::Answers).throughout(|_, model| with_kafka(model)).stalled(
            move |_, model| {
                requests_wait(model, 7);
                peers(model, &change);
            },
        )
    }

    fn down() -> Story {
        waiting(|_| {}).stalled(|_, model| model.peers = Got([].into()))
    }

    fn syn_sent(peer: &mut PeerModel) {
        peer.raw.state = TcpState::SynSent;
        peer.raw.info = None;
    }

    fn silent(peer: &mut PeerModel) {
        peer.raw.unsent_bytes = 900;
        let Some(info) = &mut peer.raw.info else { return };
        (info.retransmits, info.unacked) = (4, 2);
    }

    fn held_back(peer: &mut PeerModel) {
        silent(peer);
        let Some(info) = &mut peer.raw.info else { return };
        info.unacked = 0;
    }

    /// A second broker, which does not answer.
    fn two(model: &mut Model, lost: bool) {
        let mut other = kafka_peer(model.at_ns);
        other.raw.remote = ([10, 0, 0, 8], 9092).into();
        if lost {
            syn_sent(&mut other);
        }
        model.peers = Got([kafka_peer(model.at_ns), other].into());
    }

    fn no_fds(model: &mut Model) {
        let limit = Got(FdLimitRaw { soft: Some(64), hard: Some(64) });
        model.fds = Got(FdsModel { open: 64, limit });
    }

    #[test]
    fn a_broker_that_is_gone_is_told_from_one_that_is_slow() {
        hold(
            examine,
            vec![
                ("refuses", down(), Fits(Certain, "there is no connection to one")),
                ("requests", down(), Fits(Certain, "7 requests wait")),
                ("no answer to SYNs", waiting(syn_sent), Fits(Certain, "SYNs get no answer")),
                ("its host is gone", waiting(silent), Fits(Certain, "sent again 4 times")),
                ("does not read", waiting(held_back), Excluded("900 bytes are held back")),
                ("answers", waiting(|_| {}), Excluded("heard of 40 ms ago")),
                ("came late", down().attached_late(), Fits(Likely, "no connection to one")),
                (
                    "no thread of librdkafka",
                    down().throughout(|_, model| {
                        model.threads =
                            Got(super::super::fixtures::calm(0).threads.got().unwrap().clone());
                    }),
                    Fits(Certain, "no connection"),
                ),
                (
                    "one of two brokers",
                    waiting(|_| {}).throughout(|tick, model| two(model, tick >= ONSET)),
                    Fits(Likely, "10.0.0.8:9092 cannot be reached"),
                ),
                (
                    "one of two that was never there",
                    waiting(|_| {}).throughout(|_, model| two(model, true)),
                    Fits(Possible, "10.0.0.8:9092 cannot be reached"),
                ),
                (
                    "just now",
                    waiting(|_| {}).after(57, |_, model| model.peers = Got([].into())),
                    Missing("not for long enough"),
                ),
            ],
        );
    }

    #[test]
    fn only_where_requests_wait_for_it_and_nothing_else_explains_that() {
        let calm = || Story::new(StallKind::Answers);
        hold(
            examine,
            vec![
                (
                    "no producer",
                    calm().stalled(|_, model| requests_wait(model, 7)),
                    Excluded("no Kafka producer"),
                ),
                (
                    "nothing waits",
                    down().stalled(|_, model| requests_wait(model, 0)),
                    Excluded("No request"),
                ),
                (
                    "the loop is blocked",
                    down().stalled(|_, model| block(model)),
                    Excluded("is blocked"),
                ),
                (
                    "a database owes an answer too",
                    down().stalled(|_, model| {
                        let mut other = kafka_peer(model.at_ns);
                        other.kafka = false;
                        other.raw.remote = ([10, 0, 0, 9], 5432).into();
                        if let Some(info) = &mut other.raw.info {
                            (info.last_sent_ms, info.last_received_ms) = (900, 9_000);
                        }
                        model.peers = Got([other].into());
                    }),
                    Fits(Likely, "no connection"),
                ),
                (
                    "fds ran out first",
                    down().after(ONSET - 5, |_, model| {
                        no_fds(model);
                        queue(model, 3);
                    }),
                    Fits(Possible, "no connection"),
                ),
                (
                    "fds ran out after it",
                    down().after(ONSET + 5, |_, model| {
                        no_fds(model);
                        queue(model, 3);
                        block(model);
                    }),
                    Fits(Likely, "no connection"),
                ),
                (
                    "clients of a listener that was closed are no brokers",
                    waiting(|_| {}).stalled(|_, model| {
                        let client = |at: u16| {
                            let mut peer = kafka_peer(model.at_ns);
                            peer.raw.remote = ([10, 0, 0, 99], 50_000 + at).into();
                            peer.raw.local_port = PORT;
                            peer
                        };
                        model.peers = Got((0..5).map(client).collect());
                    }),
                    Fits(Certain, "no connection"),
                ),
                (
                    "answers unread",
                    down().stalled(|_, model| {
                        super::super::fixtures::census(model, |raw| raw.answers = None);
                    }),
                    Missing("was not read"),
                ),
                (
                    "unreadable",
                    down().stalled(|_, model| model.peers = absent()),
                    Missing("permission denied"),
                ),
            ],
        );
    }
}
