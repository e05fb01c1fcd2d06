//! `kafka-not-polled`: nobody polls the producer, so deliveries are never reported, and requests
//! wait for them.
//!
//! librdkafka's own threads send and get their answers; the reports wait in a queue until the
//! application calls `rd_kafka_poll`. Outside, the connections to the brokers look healthy and
//! idle. A `FutureProducer` or `ThreadedProducer` of rust-rdkafka polls on a thread of its own
//! ("producer polling thread"), ten times a second; a `BaseProducer` leaves it to the application.

use stallscope_probes::Reading;

use super::case::{Case, number, syscall_words, word};
use super::kafka::{
    Scene, beat_age_ms, is_beat_stale, is_established, is_held_back, is_silent, owed_ms, poller,
    scene,
};
use super::outside::{counted, ends};
use super::verdict::{Confidence, Evidence};
use super::{Account, Finding};
use crate::model::tiers::Tier;
use crate::model::{Model, PeerModel};

pub(super) const NEXT: &[&str] = &[
    "Look what the thread that should poll the producer does: blocked in a delivery callback, ended by a panic, or never started.",
    "Use FutureProducer or ThreadedProducer, which poll on a thread of their own; with BaseProducer call poll() at least ten times a second, and never from a task of the runtime that serves requests.",
    "Delivery callbacks must return at once: whatever they wait for holds up all the reports behind them.",
    "A restart clears it if the polling thread had ended, and it comes back with its reason.",
];

/// How it is known that nobody polls.
struct Unpolled {
    first: Evidence,
    confidence: Confidence,
}

pub(super) fn examine(case: &Case<'_>) -> Finding {
    examined(case).unwrap_or_else(|finding| finding)
}

fn examined(case: &Case<'_>) -> Result<Finding, Finding> {
    let scene = scene(case)?;
    let brokers = scene.brokers()?;
    if let Some(because) = unwell(&brokers) {
        return Err(Finding::Excluded(because));
    }
    let Unpolled { first, confidence } = match by_page(case, &scene)? {
        Some(unpolled) => unpolled,
        None => by_threads(case, &scene)?,
    };
    let mut evidence = vec![first, scene.waiting_evidence(case)];
    evidence.extend(brokers.iter().filter_map(|peer| idle(peer)));
    // Requests may wait for another one instead, unless the page has settled it.
    let guessed = confidence < Confidence::Certain && scene.others_owe();
    let confidence = if guessed { Confidence::Possible } else { scene.capped(confidence) };
    Ok(Finding::Fits(Account {
        confidence,
        summary: format!(
            "Nobody polls the Kafka producer: the brokers are connected and have answered everything, but {} requests wait for deliveries that are never reported.",
            scene.waiting
        ),
        evidence,
    }))
}

/// What is wrong with the brokers, if anything.
fn unwell(brokers: &[&PeerModel]) -> Option<String> {
    if !brokers.iter().any(|peer| is_established(peer)) {
        return Some(String::from("No connection to a broker stands: nothing is delivered."));
    }
    brokers.iter().find_map(|peer| {
        let remote = peer.raw.remote;
        let unsent = peer.raw.unsent_bytes;
        if is_silent(peer) || is_held_back(peer) || unsent > 0 {
            return Some(format!("The broker at {remote} has not acknowledged {unsent} bytes."));
        }
        let ms = owed_ms(peer)?;
        Some(format!("The broker at {remote} owes an answer since {ms} ms at least."))
    })
}

/// The server's own word: the beat of the thread that polls, or reports that do not come.
fn by_page(case: &Case<'_>, scene: &Scene<'_>) -> Result<Option<Unpolled>, Finding> {
    let Some(app) = scene.last.app.got() else { return Ok(None) };
    if let Some(age_ms) = beat_age_ms(scene.last) {
        if !is_beat_stale(case, age_ms) {
            return Err(Finding::Excluded(format!(
                "The thread that polls the producer does so: its last beat is {age_ms:.0} ms old."
            )));
        }
        let signal = "age of the last beat of the thread that polls the producer";
        let since_ns = app.raw.kafka_beat_ns;
        return Ok(Some(Unpolled {
            first: number(Tier::Heartbeat, signal, age_ms, "ms", since_ns),
            confidence: Confidence::Certain,
        }));
    }
    let queue = ends(counted(case), |model| Some(model.app.got()?.raw.producer_queue));
    let delivered = ends(counted(case), |model| Some(model.app.got()?.raw.delivered));
    let (Some((queued_then, queued)), Some((then, now))) = (queue, delivered) else {
        return Ok(None);
    };
    Ok((queued > queued_then && now == then).then(|| {
        let signal =
            "messages in the producer's queue, which grows while none is reported delivered";
        let since_ns = case.since(|model| Some(model.app.got()?.raw.delivered == now));
        Unpolled {
            first: number(Tier::Heartbeat, signal, queued as f64, "messages", since_ns),
            confidence: Confidence::Certain,
        }
    }))
}

/// By the threads: whether one is known to poll, and does.
fn by_threads(case: &Case<'_>, scene: &Scene<'_>) -> Result<Unpolled, Finding> {
    if !scene.librdkafka {
        return match scene.last.threads.absence() {
            Some(absence) => Err(Finding::Missing(format!(
                "the threads could not be read ({}).",
                absence.detail
            ))),
            None => Err(Finding::Excluded(String::from(
                "The process has no thread of librdkafka: whatever talks to the broker, nobody needs to poll it.",
            ))),
        };
    }
    let Some((tid, switches)) = poller(scene.last) else {
        let signal = "threads that poll the producer";
        let since_ns = Some(case.onset.at_ns);
        // Only rust-rdkafka's own threads have a name to know them by.
        let was_there = case.history.iter().any(|model| poller(model).is_some());
        return Ok(Unpolled {
            first: number(Tier::Threads, signal, 0.0, "threads", since_ns),
            confidence: if was_there { Confidence::Likely } else { Confidence::Possible },
        });
    };
    let per_s_min = case.weights.kafka_polls_per_s_min;
    match switches {
        Reading::Got(per_s) if per_s >= per_s_min => Err(Finding::Excluded(format!(
            "Thread {tid} polls the producer: it wakes {per_s:.0} times a second."
        ))),
        Reading::Got(_) => {
            let thread = scene.last.thread(tid);
            let call = thread.and_then(syscall_words).unwrap_or_else(|| String::from("asleep"));
            let still = |model: &Model| Some(*model.thread(tid)?.switches_per_s.got()? < per_s_min);
            Ok(Unpolled {
                first: word(
                    Tier::Threads,
                    format!("thread {tid} should poll the producer, and does not wake; it is in"),
                    call,
                    case.since(still),
                ),
                confidence: Confidence::Likely,
            })
        }
        Reading::Absent(absence) => Err(Finding::Missing(format!(
            "whether thread {tid} polls the producer could not be read ({}).",
            absence.detail
        ))),
    }
}

/// A broker that has answered everything.
fn idle(peer: &PeerModel) -> Option<Evidence> {
    let info = peer.raw.info.filter(|_| is_established(peer))?;
    let signal = format!("since Kafka at {} was last heard of, owing nothing", peer.raw.remote);
    Some(number(Tier::Peers, signal, f64::from(info.last_received_ms), "ms", None))
}

#[cfg(test)]
mod tests {
    use stallscope_probes::Reading::Got;
    use stallscope_probes::sample::HeartbeatRaw;

    use super::super::fixtures::{
        Expect, PID, Story, absent, block, change_thread, hold, keep_page, peers, requests_wait,
        with_kafka,
    };
    use super::*;
    use crate::detect::StallKind;
    use Confidence::{Certain, Likely, Possible};
    use Expect::{Excluded, Fits, Missing};

    /// Requests wait; the thread that polls the producer wakes so often, or is not there.
    fn blind(wakes_per_s: Option<f64>) -> Story {
        Story::new(StallKind::Answers).throughout(|_, model| with_kafka(model)).stalled(
            move |_, model| {
                requests_wait(model, 7);
                if let Some(wakes) = wakes_per_s {
                    change_thread(model, PID + 3, |thread| thread.switches_per_s = Got(wakes));
                    return;
                }
                let Got(threads) = &mut model.threads else { return };
                *threads = threads.iter().filter(|one| one.tid != PID + 3).cloned().collect();
            },
        )
    }

    fn paged(change: impl Fn(usize, &mut HeartbeatRaw)) -> Story {
        blind(Some(10.0)).stalled(move |since, model| {
            keep_page(model, |page| {
                page.requests = 507;
                change(since, page);
            });
        })
    }

    #[test]
    fn nobody_polls_while_the_brokers_are_well() {
        let owing = |_: usize, model: &mut Model| {
            peers(model, |peer| {
                let Some(info) = &mut peer.raw.info else { return };
                (info.last_sent_ms, info.last_received_ms) = (5, 900);
            });
        };
        hold(
            examine,
            vec![
                ("no thread", blind(None), Fits(Likely, "threads that poll the producer: 0")),
                ("asleep", blind(Some(0.0)), Fits(Likely, "it is in: epoll_pwait2")),
                ("polled", blind(Some(10.0)), Excluded("wakes 10 times a second")),
                (
                    "cannot be told",
                    blind(Some(0.0)).stalled(|_, model| {
                        change_thread(model, PID + 3, |thread| thread.switches_per_s = absent());
                    }),
                    Missing("permission denied"),
                ),
                ("an answer is owed", blind(None).stalled(owing), Excluded("owes an answer")),
                (
                    "bytes are under way",
                    blind(None).stalled(|_, model| peers(model, |peer| peer.raw.unsent_bytes = 9)),
                    Excluded("not acknowledged 9 bytes"),
                ),
                (
                    "down",
                    blind(None).stalled(|_, model| model.peers = Got([].into())),
                    Excluded("No connection to a broker"),
                ),
                (
                    "a database owes an answer",
                    blind(None).stalled(|since, model| {
                        let Got(brokers) = model.peers.clone() else { return };
                        owing(since, model);
                        peers(model, |peer| {
                            peer.kafka = false;
                            peer.raw.remote = ([10, 0, 0, 9], 5432).into();
                            let Some(info) = &mut peer.raw.info else { return };
                            info.last_sent_ms = 800;
                        });
                        let Got(others) = &mut model.peers else { return };
                        *others = brokers.iter().chain(others.iter()).cloned().collect();
                    }),
                    Fits(Possible, "7 requests"),
                ),
                ("blocked", blind(None).stalled(|_, model| block(model)), Excluded("is blocked")),
                (
                    "no thread of librdkafka",
                    blind(None).throughout(|_, model| {
                        model.threads = super::super::fixtures::calm(0).threads;
                    }),
                    Excluded("no thread of librdkafka"),
                ),
            ],
        );
    }

    #[test]
    fn the_page_settles_it() {
        hold(
            examine,
            vec![
                (
                    "the beat is old",
                    paged(|_, page| page.kafka_beat_ns = Some(1)),
                    Fits(Certain, "age of the last beat"),
                ),
                ("the beat is fresh", paged(|_, _| {}), Excluded("last beat is 0 ms old")),
                (
                    "no beat, and the queue grows",
                    paged(|since, page| {
                        page.kafka_beat_ns = None;
                        page.producer_queue = since as u64;
                    }),
                    Fits(Certain, "grows while none is reported delivered: 29"),
                ),
                (
                    "no beat, and deliveries are reported",
                    paged(|since, page| {
                        page.kafka_beat_ns = None;
                        page.producer_queue = since as u64;
                        page.delivered = since as u64;
                    }),
                    Excluded("wakes 10 times"),
                ),
                (
                    "the broker is down",
                    paged(|_, page| page.kafka_beat_ns = Some(1))
                        .stalled(|_, model| model.peers = Got([].into())),
                    Excluded("No connection to a broker"),
                ),
            ],
        );
    }
}
