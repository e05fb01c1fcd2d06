//! `kafka-slow`: a broker is connected and owes an answer, or takes no more bytes, and requests
//! wait for it.
//!
//! Kafka's protocol answers each request (with `acks=0` none is awaited). Data sent later than the
//! last data received means that an answer is owed (`tcpi_last_data_sent`, `tcpi_last_data_recv`);
//! bytes held back with none under way mean that the broker's window is closed: it does not read.

use super::case::{Case, number};
use super::kafka::{Scene, held, is_established, is_held_back, is_silent, owed_ms, scene};
use super::outside::counted;
use super::thresholds::Thresholds;
use super::verdict::{Confidence, Evidence};
use super::{Account, Finding};
use crate::model::tiers::Tier;
use crate::model::{Model, PeerModel};

pub(super) const NEXT: &[&str] = &[
    "Look at the broker: disk, garbage collection, under-replicated partitions (with acks=all it waits for the slowest replica), quotas that throttle this client.",
    "Send less and larger: more partitions, linger.ms and larger batches, compression.",
    "Bound what waits: a limit of requests in flight and of the time each may wait, and 503 beyond it; message.timeout.ms of 5 to 30 s.",
    "A restart of this server does not help: it would find the same broker.",
];

/// Whether the broker's kernel has what was sent: until then it may as well be out of reach, which
/// only the second retransmission tells.
fn has_it(peer: &PeerModel, set: &Thresholds) -> bool {
    let far_rtt_us_min = set.kafka_far_rtt_ms_min.saturating_mul(1_000);
    peer.raw.info.is_some_and(|info| {
        info.unacked == 0 || (info.retransmits == 0 && info.rtt_us >= far_rtt_us_min)
    })
}

/// For how long at least some broker has owed an answer at this tick, ms, and which.
fn longest<'m>(scene: &Scene<'_>, model: &'m Model) -> Option<(u32, &'m PeerModel)> {
    let owing = scene.brokers_at(model)?.filter(|peer| has_it(peer, scene.weights));
    owing.filter_map(|peer| Some((owed_ms(peer)?, peer))).max_by_key(|(ms, _)| *ms)
}

pub(super) fn examine(case: &Case<'_>) -> Finding {
    examined(case).unwrap_or_else(|finding| finding)
}

fn examined(case: &Case<'_>) -> Result<Finding, Finding> {
    let scene = scene(case)?;
    let brokers = scene.brokers()?;
    if !brokers.iter().any(|peer| is_established(peer)) {
        return Err(Finding::Excluded(String::from(
            "No connection to a broker stands: it is not slow, but gone.",
        )));
    }
    if let Some(silent) = brokers.iter().find(|peer| is_silent(peer)) {
        let retransmits = silent.raw.info.map_or_else(String::new, |info| {
            format!(" ({} retransmissions in a row)", info.retransmits)
        });
        return Err(Finding::Excluded(format!(
            "What is sent to the broker at {} is not acknowledged{retransmits}: it is not slow, but gone.",
            silent.raw.remote
        )));
    }
    let Some((first, sure)) = owing(case, &scene).or_else(|| not_reading(case, &scene, &brokers))
    else {
        return Err(Finding::Excluded(answered(case, &scene, &brokers)));
    };
    let whom = first.1;
    let mut evidence = vec![first.0, scene.waiting_evidence(case)];
    if let Some(info) = whom.raw.info {
        let signal = format!("round trip to {}", whom.raw.remote);
        evidence.push(number(Tier::Peers, signal, f64::from(info.rtt_us) / 1e3, "ms", None));
    }
    Ok(Finding::Fits(Account {
        confidence: scene.capped(sure),
        summary: format!(
            "The Kafka broker at {} is connected but {}, and {} requests wait for it while the event loop goes on.",
            whom.raw.remote,
            if is_held_back(whom) {
                "does not read what is sent to it"
            } else {
                "does not answer in time"
            },
            scene.waiting
        ),
        evidence,
    }))
}

/// The longest that this connection was owed an answer while all was well, ms.
fn usual_debt_ms(case: &Case<'_>, scene: &Scene<'_>, peer: &PeerModel) -> Option<u32> {
    let before = case.history.iter().filter(|model| model.at_ns < case.onset.at_ns);
    let debts = before.filter_map(|model| {
        let mut brokers = scene.brokers_at(model)?;
        owed_ms(brokers.find(|other| other.raw.inode == peer.raw.inode)?)
    });
    debts.max()
}

type Found<'a> = ((Evidence, &'a PeerModel), Confidence);

/// The answer that has been owed longest within the last seconds: of a broker that answers late,
/// the last one may just have come.
fn owing<'a>(case: &Case<'a>, scene: &Scene<'_>) -> Option<Found<'a>> {
    let ticks = counted(case);
    let of_tick = ticks.iter().filter_map(|model| longest(scene, model));
    let (ms, peer) = of_tick.max_by_key(|(ms, _)| *ms)?;
    let owes = |model: &Model| {
        let mut brokers = scene.brokers_at(model)?;
        let other = brokers.find(|other| other.raw.inode == peer.raw.inode)?;
        has_it(other, case.weights).then(|| owed_ms(other).is_some())
    };
    let held_ns = held(case, owes);
    let last_ns = case.last()?.at_ns;
    let held_ms = held_ns.map(|since_ns| last_ns.saturating_sub(since_ns) / 1_000_000);
    let held_ms = held_ms.map(|held_ms| u32::try_from(held_ms).unwrap_or(u32::MAX));
    let ms = held_ms.map_or(ms, |held_ms| held_ms.max(ms));
    let set = case.weights;
    if ms < set.kafka_owed_ms_min {
        return None;
    }
    let sent_ns = peer.at_ns.saturating_sub(u64::from(owed_ms(peer)?) * 1_000_000);
    let since_ns = held_ns.map_or(sent_ns, |held_ns| held_ns.min(sent_ns));
    let signal = format!("answer owed by Kafka at {}, at least", peer.raw.remote);
    let evidence = number(Tier::Peers, signal, f64::from(ms), "ms", Some(since_ns));
    // Consumers ask for what there is none of yet, and wait by design (`fetch.max.wait.ms`).
    let is_usual = usual_debt_ms(case, scene, peer).is_some_and(|usual| {
        usual >= set.kafka_owed_ms_min / 2 && ms <= usual.saturating_mul(set.kafka_usual_times_max)
    });
    let sure = if is_usual {
        Confidence::Possible
    } else if ms >= set.kafka_owed_certain_ms_min {
        Confidence::Certain
    } else {
        Confidence::Likely
    };
    Some(((evidence, peer), sure))
}

/// A broker that takes no more bytes.
fn not_reading<'a>(
    case: &Case<'a>,
    scene: &Scene<'_>,
    brokers: &[&PeerModel],
) -> Option<Found<'a>> {
    let inode = brokers.iter().find(|peer| is_held_back(peer))?.raw.inode;
    let since_ns = held(case, |model| {
        let mut brokers = scene.brokers_at(model)?;
        Some(brokers.any(|peer| peer.raw.inode == inode && is_held_back(peer)))
    })?;
    let peer = case.last()?.all_peers().iter().find(|peer| peer.raw.inode == inode)?;
    let signal = format!("held back, not taken by Kafka at {}", peer.raw.remote);
    let unsent = f64::from(peer.raw.unsent_bytes);
    let evidence = number(Tier::Peers, signal, unsent, "bytes", Some(since_ns));
    Some(((evidence, peer), Confidence::Certain))
}

fn answered(case: &Case<'_>, scene: &Scene<'_>, brokers: &[&PeerModel]) -> String {
    let of_tick = counted(case).iter().filter_map(|model| longest(scene, model));
    if let Some((ms, peer)) = of_tick.max_by_key(|(ms, _)| *ms) {
        return format!(
            "The broker at {} owed an answer for {ms} ms at most in the last seconds: that is ordinary.",
            peer.raw.remote
        );
    }
    let latest = brokers.iter().filter_map(|peer| Some((peer.raw.info?, peer.raw.remote)));
    match latest.min_by_key(|(info, _)| info.last_received_ms) {
        Some((info, remote)) => format!(
            "The brokers owe no answer: {remote} was sent to {} ms ago, and heard of {} ms ago.",
            info.last_sent_ms, info.last_received_ms
        ),
        None => String::from("The brokers owe no answer."),
    }
}

#[cfg(test)]
mod tests {
    use stallscope_probes::Reading::Got;

    use super::super::fixtures::{
        Expect, Story, absent, block, hold, keep_page, peers, requests_wait, with_kafka,
    };
    use super::*;
    use crate::detect::StallKind;
    use Confidence::{Certain, Likely};
    use Expect::{Excluded, Fits, Missing};

    /// Requests wait, and the broker was sent to and heard of so long ago, by the tick.
    fn heard(times_ms: fn(u32) -> (u32, u32)) -> Story {
        Story::new(StallKind::Answers).throughout(|_, model| with_kafka(model)).stalled(
            move |since, model| {
                requests_wait(model, 7);
                peers(model, |peer| {
                    let Some(info) = &mut peer.raw.info else { return };
                    (info.last_sent_ms, info.last_received_ms) = times_ms(since as u32);
                });
            },
        )
    }

    /// A segment is under way, on a connection with such a round trip.
    fn unacknowledged(model: &mut Model, rtt_us: u32) {
        peers(model, |peer| {
            let Some(info) = &mut peer.raw.info else { return };
            (info.unacked, info.rtt_us) = (1, rtt_us);
        });
    }

    #[test]
    fn an_answer_that_is_owed_or_a_window_that_is_closed() {
        let silent = |_: usize, model: &mut Model| {
            peers(model, |peer| {
                let Some(info) = &mut peer.raw.info else { return };
                (info.retransmits, info.unacked) = (3, 1);
            });
        };
        let held_back = |_: usize, model: &mut Model| {
            peers(model, |peer| peer.raw.unsent_bytes = 80_000);
        };
        hold(
            examine,
            vec![
                (
                    "owed since it was sent",
                    heard(|since| (50 + 100 * since, 90 + 100 * since)),
                    Fits(Certain, "owed by Kafka at 10.0.0.7:9092, at least: 2950 ms"),
                ),
                (
                    "sent to again and again",
                    heard(|since| (20, 40 + 100 * since)),
                    Fits(Certain, "does not answer in time"),
                ),
                (
                    "late each time",
                    heard(|since| match since % 10 {
                        9 => (900, 1),
                        at => (10 + 100 * at, 60 + 100 * at),
                    }),
                    Fits(Likely, "at least: 810 ms"),
                ),
                (
                    "a consumer's fetch",
                    heard(|since| match since % 6 {
                        5 => (501, 0),
                        at => (1 + 100 * at, 60 + 100 * at),
                    }),
                    Excluded("for 401 ms at most"),
                ),
                ("answered", heard(|_| (2_000, 1_999)), Excluded("heard of 1999 ms ago")),
                (
                    "does not read",
                    heard(|_| (41, 40)).stalled(held_back),
                    Fits(Certain, "held back, not taken by Kafka at 10.0.0.7:9092: 80000 bytes"),
                ),
                (
                    "bytes for a moment",
                    heard(|_| (41, 40)).after(58, held_back),
                    Excluded("owe no answer"),
                ),
                (
                    "not acknowledged yet",
                    heard(|since| (50 + 100 * since, 90 + 100 * since))
                        .stalled(|_, model| unacknowledged(model, 300)),
                    Excluded("was sent to 2950 ms ago"),
                ),
                (
                    "far away",
                    heard(|since| (50 + 100 * since, 90 + 100 * since))
                        .stalled(|_, model| unacknowledged(model, 2_000_000)),
                    Fits(Certain, "at least: 2950 ms"),
                ),
                (
                    "host gone",
                    heard(|since| (20, 40 + 100 * since)).stalled(silent),
                    Excluded("3 retransmissions in a row"),
                ),
                (
                    "gone",
                    heard(|_| (41, 40)).stalled(|_, model| model.peers = Got([].into())),
                    Excluded("not slow, but gone"),
                ),
            ],
        );
    }

    #[test]
    fn only_where_requests_wait_for_it() {
        let slow = || heard(|since| (50 + 100 * since, 90 + 100 * since));
        hold(
            examine,
            vec![
                (
                    "by the page",
                    slow().stalled(|_, model| {
                        requests_wait(model, 0);
                        keep_page(model, |page| page.requests = 509);
                    }),
                    Fits(Certain, "9 requests wait"),
                ),
                (
                    "nothing waits",
                    slow().stalled(|_, model| requests_wait(model, 0)),
                    Excluded("No request"),
                ),
                ("blocked", slow().stalled(|_, model| block(model)), Excluded("is blocked")),
                (
                    "threads unreadable",
                    slow().throughout(|_, model| model.threads = absent()),
                    Fits(Likely, "7 requests"),
                ),
                ("came late", slow().attached_late(), Fits(Certain, "7 requests")),
                (
                    "unreadable",
                    slow().stalled(|_, model| model.peers = absent()),
                    Missing("permission denied"),
                ),
            ],
        );
    }
}
