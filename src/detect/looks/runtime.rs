//! The event loop, and what it owes its clients.

use stallscope_probes::sample::{AnswersRaw, TcpState};

use super::{any_waiting, condition};
use crate::detect::thresholds::{REQUEST_YOUNG_MS, Thresholds};
use crate::detect::track::{Look, Progress};
use crate::model::answers::waiting;
use crate::model::{AppModel, Model, PeerModel, ServedModel};

/// The event loop, told by the server's own page.
///
/// A beat is one timer among a loop's tasks: a saturated loop can be late with it by half a second
/// and answer thousands all the while. So an answer or an accept shows as well that it turns.
pub fn beat(before: Option<&AppModel>, now: &Model, thresholds: &Thresholds) -> Option<Look> {
    let app = now.app.got()?;
    let age_ms = app.beat_age_ms?;
    let alive_ns = last_sign_of_life(app)?;
    let progress = if before.is_none_or(|before| last_sign_of_life(before) != Some(alive_ns)) {
        Progress::Made { at_ns: alive_ns, within_ns: 0 }
    } else if age_ms > thresholds.beat_missing_ms as f64 {
        Progress::None
    } else {
        Progress::Unknown
    };
    Some(Look { at_ns: now.at_ns, demand: clients_waiting(now, app), progress, since_ns: None })
}

fn last_sign_of_life(app: &AppModel) -> Option<u64> {
    app.raw.beat_ns.max(app.raw.last_response_ns).max(app.raw.last_accept_ns)
}

fn clients_waiting(now: &Model, app: &AppModel) -> Option<String> {
    let ours = |port: u16| app.raw.listen_port.is_none_or(|ours| ours == port);
    let queued: u64 = now
        .own_listeners()
        .filter(|listener| ours(listener.local.port()))
        .map(|listener| u64::from(listener.queued))
        .sum();
    let queued = Some(queued).filter(|queued| *queued > 0);
    let in_flight = app.raw.requests.saturating_sub(app.raw.responses);
    let served = now.all_served().iter();
    let unread: u64 = served
        .filter(|served| ours(served.raw.port))
        .map(|served| served.raw.unread_bytes)
        .fold(0, u64::saturating_add);
    if let Some(queued) = queued {
        Some(format!("{queued} connections in the accept queue"))
    } else if in_flight > 0 {
        Some(format!("{in_flight} requests without a response"))
    } else if unread > 0 {
        Some(format!("{unread} bytes from clients unread"))
    } else {
        None
    }
}

/// The event loop of a server that keeps no page: bytes from clients lie unread, nothing changes
/// on any of its connections, and no thread that could take them waits for events; or none has come
/// back to some loop of the process for a while (`one_left`). `None` when there was no new census.
pub fn unread(
    before: Option<&ServedModel>,
    served: &ServedModel,
    one_left: bool,
    now: &Model,
) -> Option<Look> {
    let before = before.filter(|before| before.at_ns < served.at_ns);
    // Two looks at a server with a few clients may show the same, and much between them.
    let moved = before.map(|before| {
        before.raw.fingerprint != served.raw.fingerprint || has_answered_since(before, served)
    });
    let turning = now.threads.got().is_none() || (any_waiting(now) && !one_left);
    let progress = match (before, moved) {
        _ if turning => Progress::Made { at_ns: served.at_ns, within_ns: 0 },
        (Some(before), Some(true)) => Progress::between(before.at_ns, served.at_ns),
        (Some(_), _) => Progress::None,
        (None, _) => return None,
    };
    let demand = (served.raw.unread_bytes > 0).then(|| {
        format!(
            "{} bytes unread on {} connections to port {}",
            served.raw.unread_bytes, served.raw.unread_sockets, served.raw.port
        )
    });
    Some(Look { at_ns: served.at_ns, demand, progress, since_ns: None })
}

/// When data last went out on some connection of the port, ns; `None` when that was not asked, or never.
pub fn last_answer_ns(served: &ServedModel) -> Option<u64> {
    last_sent_ns(served, &served.raw.answers?)
}

/// Whether data went out on some connection since the census before, as far as both asked.
fn has_answered_since(before: &ServedModel, served: &ServedModel) -> bool {
    let (Some(then), Some(now)) = (before.raw.answers, served.raw.answers) else { return false };
    let then_ns = last_sent_ns(before, &then);
    last_sent_ns(served, &now)
        .is_some_and(|at_ns| then_ns.is_none_or(|then| at_ns > then + JIFFIES_NS))
}

/// Requests that were taken and not answered, on the connections to one port. `None` when there
/// was no new census, or it did not ask.
///
/// Progress is an answer: data that went out on any of them.
pub fn answers(before: Option<&ServedModel>, served: &ServedModel) -> Option<Look> {
    let now = served.raw.answers?;
    let before = before.filter(|before| before.at_ns < served.at_ns);
    let progress = match before.filter(|before| before.raw.answers.is_some()) {
        None => Progress::Unknown,
        Some(before) => match last_sent_ns(served, &now) {
            Some(at_ns) if has_answered_since(before, served) => {
                Progress::Made { at_ns, within_ns: JIFFIES_NS }
            }
            _ => Progress::None,
        },
    };
    let (waiting, oldest_ms) = waiting(&now);
    let waits = waiting > 0 && oldest_ms.is_some_and(|ms| ms >= REQUEST_YOUNG_MS);
    let demand = waits
        .then(|| format!("{waiting} connections to port {} wait for an answer", served.raw.port));
    Some(Look { at_ns: served.at_ns, demand, progress, since_ns: oldest_request_ns(served) })
}

/// Instants in `struct tcp_info` are in milliseconds and made from jiffies (10 ms at worst), each
/// read a moment apart.
const JIFFIES_NS: u64 = 12_000_000;
const MS: u64 = 1_000_000;

fn last_sent_ns(served: &ServedModel, answers: &AnswersRaw) -> Option<u64> {
    Some(served.at_ns.saturating_sub(u64::from(answers.last_sent_ms?) * MS))
}

/// Since when nobody was answered, by the last census of the port: the last answer, or the oldest
/// request if that came later.
pub fn oldest_request_ns(served: &ServedModel) -> Option<u64> {
    let answers = served.raw.answers?;
    let oldest_ns = served.at_ns.saturating_sub(u64::from(waiting(&answers).1?) * MS);
    Some(last_sent_ns(served, &answers).map_or(oldest_ns, |sent_ns| sent_ns.max(oldest_ns)))
}

/// The same by the server's own page.
pub fn answers_by_page(before: Option<&AppModel>, now: &Model) -> Option<Look> {
    let app = now.app.got()?;
    let progress = match before {
        None => Progress::Unknown,
        Some(before) if before.raw.responses != app.raw.responses => {
            let at_ns = app.raw.last_response_ns.unwrap_or(now.at_ns);
            Progress::Made { at_ns, within_ns: 0 }
        }
        Some(_) => Progress::None,
    };
    let waiting = app.raw.requests.saturating_sub(app.raw.responses);
    let demand = (waiting > 0).then(|| format!("{waiting} requests without a response"));
    Some(Look { at_ns: now.at_ns, demand, progress, since_ns: None })
}

/// Since when the oldest connection in the accept queues of a port has waited, by its last census.
pub fn oldest_queued_ns(served: &ServedModel) -> Option<u64> {
    let oldest_ms = served.raw.answers?.queued_oldest_ms?;
    Some(served.at_ns.saturating_sub(u64::from(oldest_ms) * MS))
}

/// Connections that were accepted and never looked at, while the loop has nothing to do.
///
/// A saturated loop is left out: it comes to them in time.
///
/// Where the one that waits longest is another than at the census before, they are served in turn.
pub fn neglected(before: Option<&ServedModel>, served: &ServedModel, now: &Model) -> Option<Look> {
    let answers = served.raw.answers?;
    let oldest = |served: &ServedModel| oldest_neglected_ns(served);
    if let Some((then_ns, now_ns)) = before.and_then(oldest).zip(oldest(served))
        && now_ns > then_ns.saturating_add(2 * JIFFIES_NS)
    {
        let progress = Progress::Made { at_ns: served.at_ns, within_ns: 0 };
        return Some(Look { at_ns: served.at_ns, demand: None, progress, since_ns: None });
    }
    let old = answers.neglected_oldest_ms.is_some_and(|ms| ms >= NEGLECTED_MS);
    let demand = (answers.neglected > 0 && old).then(|| {
        format!(
            "{} connections to port {} were accepted and never served",
            answers.neglected, served.raw.port
        )
    });
    let idle = any_waiting(now) && now.runtime_threads().all(|thread| !wants_cpu(thread));
    if demand.is_some() && !idle {
        return Some(Look {
            at_ns: served.at_ns,
            demand,
            progress: Progress::Unknown,
            since_ns: None,
        });
    }
    Some(Look { since_ns: oldest_neglected_ns(served), ..condition(served.at_ns, demand) })
}

/// Since when the oldest of them has waited, by the last census of the port.
pub fn oldest_neglected_ns(served: &ServedModel) -> Option<u64> {
    let oldest_ms = served.raw.answers?.neglected_oldest_ms?;
    Some(served.at_ns.saturating_sub(u64::from(oldest_ms) * MS))
}

/// A connection that has been ready for so long is not just about to be served.
const NEGLECTED_MS: u32 = 500;

fn wants_cpu(thread: &crate::model::ThreadModel) -> bool {
    let share = |reading: &stallscope_probes::Reading<f64>| reading.got().copied();
    share(&thread.cpu_ratio)
        .is_some_and(|cpu| cpu + share(&thread.delay_ratio).unwrap_or(0.0) > 0.5)
}

/// Whether the process produces to Kafka, and how that stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Producer {
    /// Nothing says that it does.
    None,
    /// It does, and its broker answers.
    Fine,
    /// It does, and its broker is not connected, or owes an answer.
    Trouble,
}

/// An answer of the broker that is late by so much is owed: round trips are milliseconds, and
/// `linger.ms` waits before sending, not after.
const BROKER_OWES_MS: u32 = 500;
/// Retransmissions in a row that mean that nobody is there: one is a lost segment.
const RETRANSMITS_IN_A_ROW: u8 = 2;

/// How Kafka stands, as far as it shows from outside.
pub fn producer(now: &Model) -> Producer {
    let librdkafka = now.all_threads().any(|thread| thread.comm.starts_with("rdk:"));
    let brokers = || now.all_peers().iter().filter(|peer| peer.kafka);
    if !librdkafka && brokers().next().is_none() {
        return Producer::None;
    }
    if now.peers.got().is_none() {
        return Producer::Fine;
    }
    let connected = brokers().any(|peer| peer.raw.state == TcpState::Established);
    if !connected || brokers().any(owes) { Producer::Trouble } else { Producer::Fine }
}

fn owes(peer: &PeerModel) -> bool {
    let Some(info) = peer.raw.info else { return peer.raw.state == TcpState::SynSent };
    // Sent after what came last, and nothing has come since.
    let unanswered =
        info.last_received_ms > info.last_sent_ms && info.last_sent_ms >= BROKER_OWES_MS;
    let stuck = peer.raw.unsent_bytes > 0 && info.last_received_ms > 2 * BROKER_OWES_MS;
    unanswered || stuck || info.retransmits >= RETRANSMITS_IN_A_ROW
}
