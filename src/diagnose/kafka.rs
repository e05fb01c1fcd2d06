//! What the four causes with Kafka share: whether there is a producer, whether requests wait, and
//! how the connections to the brokers stand.
//!
//! A handler that waits for a delivery holds its connection and its fd. The event loop goes on, so
//! what is wrong shows outside of it: on the brokers' sockets (`struct tcp_info`), in librdkafka's
//! threads, and, where the server keeps one, on its page.

use std::collections::BTreeSet;

use stallscope_probes::Reading;
use stallscope_probes::sample::{PEERS_MAX, PeerInfoRaw, TcpState};

use super::case::{Case, number};
use super::outside::{TICKS_MIN, Turning, turning};
use super::thresholds::Thresholds;
use super::verdict::{Confidence, Evidence};
use super::{Finding, fd_exhausted, kafka_not_polled, kafka_queue_full};
use super::{kafka_slow, kafka_unreachable, listener_gone};
use crate::model::tiers::Tier;
use crate::model::{Model, PeerModel, ServedModel, ThreadRole};

/// Retransmissions of one segment, in a row, without an answer: the second comes 0.6 s after the
/// first send at the earliest (`TCP_RTO_MIN` 200 ms, doubled; RFC 6298; measured on 6.18: 0.8 s), so
/// no single loss looks like it.
const RETRANSMITS_MIN: u8 = 2;

/// A process with a Kafka producer, in which requests wait and the event loop goes on.
pub struct Scene<'a> {
    /// The last tick.
    pub last: &'a Model,
    /// Requests taken in and not answered.
    pub waiting: u64,
    /// Whether librdkafka's threads were seen.
    pub librdkafka: bool,
    /// Local ports of connections that were accepted and not made.
    accepted_on: BTreeSet<u16>,
    /// From where on a reading counts.
    pub weights: &'a Thresholds,
    /// Why no more than this can be said.
    pub at_most: Confidence,
    waits_by: Tier,
}

/// What the four causes ask first; the finding where the answer settles it.
pub fn scene<'a>(case: &Case<'a>) -> Result<Scene<'a>, Finding> {
    let Some(last) = case.last() else {
        return Err(Finding::Missing(String::from("no sample was taken.")));
    };
    let librdkafka = case.history.iter().any(|model| has_librdkafka(model));
    // Of a listener that was closed, the clients are listed as connections of the target's own.
    let accepted_on = listener_gone::accepted_on(case);
    let seen = case.history.iter().any(|model| brokers(model, &accepted_on).next().is_some());
    let page = last.app.got().map(|app| &app.raw);
    let told = page.is_some_and(|page| page.queued > 0 || page.producer_queue > 0);
    if !librdkafka && !seen && !told {
        return Err(no_producer(last));
    }
    let (waiting, waits_by) = requests_waiting(last, case.weights)?;
    let unsure = match turning(case) {
        Turning::Turns => false,
        // A loop without a free fd may spin on accept(2): that does not speak against Kafka.
        Turning::Stuck(because) if fd_exhausted::is_full(last) != Some(true) => {
            return Err(Finding::Excluded(because));
        }
        Turning::Stuck(_) | Turning::Unclear(_) => true,
    };
    let weights = case.weights;
    let at_most = Confidence::Certain;
    let mut scene = Scene { last, waiting, librdkafka, accepted_on, weights, at_most, waits_by };
    // Requests may as well wait for another that owes an answer.
    if unsure || scene.others_owe() {
        scene.at_most = Confidence::Likely;
    }
    Ok(scene)
}

impl Scene<'_> {
    /// Connections to brokers at one tick; `None` when they were not read.
    pub fn brokers_at<'m>(
        &self,
        model: &'m Model,
    ) -> Option<impl Iterator<Item = &'m PeerModel> + use<'m, '_>> {
        model.peers.got()?;
        Some(brokers(model, &self.accepted_on))
    }

    /// Connections to brokers at the last tick, or the finding that they could not be read.
    pub fn brokers(&self) -> Result<Vec<&PeerModel>, Finding> {
        match &self.last.peers {
            Reading::Got(_) => Ok(brokers(self.last, &self.accepted_on).collect()),
            Reading::Absent(absence) => Err(Finding::Missing(format!(
                "the connections to the brokers could not be read ({}).",
                absence.detail
            ))),
        }
    }

    /// Whether more connections were there than are followed: a broker's may be among the others.
    pub fn brokers_may_hide(&self) -> bool {
        self.last.all_peers().len() >= PEERS_MAX
    }

    /// Whether one that is no broker owes an answer as well.
    pub fn others_owe(&self) -> bool {
        let owed_ms_min = self.weights.kafka_owed_ms_min;
        let mut all = self.last.all_peers().iter();
        all.any(|peer| {
            let is_other = !peer.kafka && !self.accepted_on.contains(&peer.raw.local_port);
            is_other && (owed_ms(peer) >= Some(owed_ms_min) || is_connecting(peer))
        })
    }

    /// The requests that wait, as evidence.
    pub fn waiting_evidence(&self, case: &Case<'_>) -> Evidence {
        let waits = |model: &Model| match requests_waiting(model, self.weights) {
            Ok(_) => Some(true),
            Err(Finding::Excluded(_)) => Some(false),
            Err(_) => None,
        };
        let signal = "requests taken in and not answered";
        number(self.waits_by, signal, self.waiting as f64, "requests", case.since(waits))
    }

    /// How sure, after all that speaks against being so sure.
    pub fn capped(&self, confidence: Confidence) -> Confidence {
        confidence.min(self.at_most)
    }
}

fn has_librdkafka(model: &Model) -> bool {
    model.all_threads().any(|thread| thread.comm.starts_with("rdk:"))
}

fn brokers<'m, 'p>(
    model: &'m Model,
    accepted_on: &'p BTreeSet<u16>,
) -> impl Iterator<Item = &'m PeerModel> + use<'m, 'p> {
    let all = model.all_peers().iter();
    all.filter(|peer| peer.kafka && !accepted_on.contains(&peer.raw.local_port))
}

fn no_producer(last: &Model) -> Finding {
    match (last.threads.absence(), last.peers.absence()) {
        (Some(absence), Some(_)) => Finding::Missing(format!(
            "whether there is a Kafka producer could not be read ({}).",
            absence.detail
        )),
        _ => Finding::Excluded(String::from(
            "There is no Kafka producer in this process: no librdkafka thread, and no connection to a broker.",
        )),
    }
}

/// Requests that the server has read and not answered, and how that is known.
fn requests_waiting(model: &Model, set: &Thresholds) -> Result<(u64, Tier), Finding> {
    let page = model.app.got().map(|app| &app.raw);
    let by_page = page.map(|page| page.requests.saturating_sub(page.responses));
    if let Some(waiting) = by_page.filter(|waiting| *waiting > 0) {
        return Ok((waiting, Tier::Heartbeat));
    }
    // A broker inside the process (a mock of one) has connections of its own that wait.
    let is_broker = |served: &&ServedModel| {
        model.all_peers().iter().any(|peer| {
            let remote = peer.raw.remote;
            peer.kafka && remote.port() == served.raw.port && remote.ip().is_loopback()
        })
    };
    let answers = model.all_served().iter().filter(|served| !is_broker(served));
    let mut by_answers = None;
    for answers in answers.filter_map(|served| served.raw.answers) {
        let (waiting, oldest_ms) = crate::model::answers::waiting(&answers);
        let waits_long = oldest_ms.is_none_or(|ms| ms >= set.request_waits_ms_min);
        let read = waiting.saturating_sub(answers.awaiting_unread);
        let waiting = if waits_long { u64::from(read) } else { 0 };
        by_answers = Some(by_answers.unwrap_or(0_u64).saturating_add(waiting));
    }
    match (by_answers, by_page) {
        (Some(waiting @ 1..), _) => Ok((waiting, Tier::Connections)),
        (None, None) => {
            Err(Finding::Missing(String::from("whether requests wait for an answer was not read.")))
        }
        (Some(_), _) | (None, Some(_)) => Err(Finding::Excluded(String::from(
            "No request that was taken in waits for its answer.",
        ))),
    }
}

/// Whether the connection stands.
pub const fn is_established(peer: &PeerModel) -> bool {
    matches!(peer.raw.state, TcpState::Established)
}

/// Whether a SYN has got no answer yet.
pub const fn is_connecting(peer: &PeerModel) -> bool {
    matches!(peer.raw.state, TcpState::SynSent)
}

/// Whether what is sent is not acknowledged, again and again: the other host does not answer.
pub fn is_silent(peer: &PeerModel) -> bool {
    let unanswered = |info: PeerInfoRaw| info.retransmits >= RETRANSMITS_MIN && info.unacked > 0;
    is_established(peer) && peer.raw.info.is_some_and(unanswered)
}

/// Whether bytes are held back without any under way (measured on 6.18 with a receiver that does not
/// read: 2.8 MB held back, 0 unacknowledged, 0 retransmissions, for as long as it lasted): the other side takes no more (its window is
/// closed, RFC 9293 section 3.8.6), because it does not read.
pub fn is_held_back(peer: &PeerModel) -> bool {
    let none_under_way = |info: PeerInfoRaw| info.unacked == 0;
    let raw = &peer.raw;
    is_established(peer) && raw.unsent_bytes > 0 && raw.info.is_some_and(none_under_way)
}

/// For how long at least the other side has owed an answer, ms: since the last data was sent to it,
/// if nothing came back since, or ever. `None` when it owes none.
///
/// The first request is often sent within the jiffy in which the connection was made, from which both
/// times are counted before there is data: so the bytes are asked as well.
pub fn owed_ms(peer: &PeerModel) -> Option<u32> {
    let info = peer.raw.info.filter(|_| is_established(peer))?;
    let never = info.received_bytes == Some(0) && info.sent_bytes.is_some_and(|bytes| bytes > 0);
    (never || info.last_sent_ms < info.last_received_ms).then_some(info.last_sent_ms)
}

/// The thread that polls the producer, as far as one is known: rust-rdkafka's own, or the one that
/// the page names. Returns the thread's id and how often a second it wakes.
pub fn poller(last: &Model) -> Option<(i32, Reading<f64>)> {
    let is_poller = |comm: &str| !comm.starts_with("rdk:");
    let named = |comm: &str| comm.starts_with("producer pollin") || comm.starts_with("kafka-poll");
    let thread = last.all_threads().find(|thread| {
        (thread.role == ThreadRole::Kafka && is_poller(&thread.comm)) || named(&thread.comm)
    })?;
    Some((thread.tid, thread.switches_per_s.clone()))
}

/// The age of the last beat of the thread that polls the producer, ms, by the page.
pub fn beat_age_ms(model: &Model) -> Option<f64> {
    let beat_ns = model.app.got()?.raw.kafka_beat_ns?;
    Some(model.at_ns.saturating_sub(beat_ns) as f64 / 1e6)
}

/// Whether the thread that polls has not beaten for longer than handing over deliveries takes.
pub fn is_beat_stale(case: &Case<'_>, age_ms: f64) -> bool {
    age_ms >= case.weights.kafka_beat_stale_ms as f64
}

/// The Kafka trouble that was there before `at_ns`, as evidence: then what began at that instant (no
/// fd left, a full accept queue) came of it.
pub fn trouble_before(case: &Case<'_>, at_ns: u64) -> Option<Evidence> {
    let causes = [
        kafka_queue_full::examine,
        kafka_unreachable::examine,
        kafka_slow::examine,
        kafka_not_polled::examine,
    ];
    let evidence = causes.into_iter().filter_map(|examine| match examine(case) {
        Finding::Fits(account) if account.confidence >= Confidence::Likely => {
            account.evidence.into_iter().next()
        }
        _ => None,
    });
    evidence
        .filter(|evidence| evidence.since_ns.is_some_and(|since_ns| since_ns < at_ns))
        .min_by_key(|evidence| evidence.since_ns)
}

/// Whether fds ran out before `since_ns`: then a broker that cannot be reached is a consequence,
/// since a new connection needs an fd.
pub fn after_fds_ran_out(case: &Case<'_>, since_ns: Option<u64>) -> bool {
    let full_ns = case.since(fd_exhausted::is_full);
    matches!((full_ns, since_ns), (Some(full_ns), Some(since_ns)) if full_ns < since_ns)
}

/// Since when `holds` has held, if that is long enough.
pub fn held(case: &Case<'_>, holds: impl Fn(&Model) -> Option<bool>) -> Option<u64> {
    let since_ns = case.since(&holds)?;
    let last_ns = case.last()?.at_ns;
    let since = case.history.iter().filter(|model| model.at_ns >= since_ns);
    let ticks = since.filter(|model| holds(model) == Some(true)).count();
    let held_ms = last_ns.saturating_sub(since_ns) / 1_000_000;
    (held_ms >= case.weights.kafka_held_ms && ticks >= TICKS_MIN).then_some(since_ns)
}
