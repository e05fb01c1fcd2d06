//! `kafka-queue-full`: the producer's queue is full, and requests wait for room in it.
//!
//! librdkafka holds a message until its delivery report was served
//! (`queue.buffering.max.messages`, 100,000 by default). `BaseProducer::send` then fails with
//! `QUEUE_FULL`; `FutureProducer::send` sleeps 100 ms and tries again until its queue timeout, which
//! with `Timeout::Never` is for ever. Nothing outside the process tells how full that queue is: it
//! takes the server's own page.

use stallscope_probes::sample::HeartbeatRaw;

use super::case::{Case, number};
use super::kafka::{self, beat_age_ms, is_beat_stale, is_held_back, is_silent, owed_ms, scene};
use super::outside::{counted, ends};
use super::verdict::Confidence;
use super::{Account, Finding};
use crate::model::tiers::Tier;
use crate::model::{Model, PeerModel};

pub(super) const NEXT: &[&str] = &[
    "Treat a full queue as overload: answer 503 at once (a queue timeout of zero), instead of letting requests wait for room.",
    "Find why it does not drain: brokers that cannot be reached or are slow, or deliveries that nobody polls for.",
    "A longer queue (queue.buffering.max.messages, .kbytes) only buys time; a shorter message.timeout.ms frees it sooner.",
];

pub(super) fn examine(case: &Case<'_>) -> Finding {
    examined(case).unwrap_or_else(|finding| finding)
}

fn page(model: &Model) -> Option<&HeartbeatRaw> {
    model.app.got().map(|app| &app.raw)
}

fn is_full(page: &HeartbeatRaw) -> bool {
    page.producer_queue_max.is_some_and(|max| max > 0 && page.producer_queue >= max)
}

fn examined(case: &Case<'_>) -> Result<Finding, Finding> {
    let Some(page_now) = case.last().and_then(page) else {
        // Only a process that has a producer misses anything.
        kafka::scene(case)?;
        return Err(Finding::Missing(String::from(
            "how full the producer's queue is, only the process itself knows, and it keeps no heartbeat page.",
        )));
    };
    let refusals = ends(counted(case), |model| Some(page(model)?.queue_full));
    // With one reading there is nothing to compare: none is known of.
    let refused = refusals.and_then(|(then, now)| now.checked_sub(then)).unwrap_or(0);
    let held = page_now.producer_queue;
    let max = page_now.producer_queue_max;
    if !is_full(page_now) && refused == 0 {
        let at_most = max.map_or_else(String::new, |max| format!(" of {max}"));
        return Err(Finding::Excluded(format!(
            "The producer's queue holds {held}{at_most} messages, and refused none."
        )));
    }
    // One that refuses at once answers, so no request waits.
    let scene = match scene(case) {
        Ok(scene) => Some(scene),
        Err(finding @ Finding::Excluded(_)) if refused == 0 => return Err(finding),
        Err(_) => None,
    };
    let unpolled =
        beat_age_ms_of(case).is_some_and(|ms| is_beat_stale(case, ms)) && brokers_are_well(case);
    let sure = if unpolled { Confidence::Possible } else { Confidence::Certain };
    let grew = |model: &Model| Some(page(model)?.queue_full);
    let first_refused = case.history.windows(2).find(
        |pair| matches!((grew(&pair[0]), grew(&pair[1])), (Some(then), Some(now)) if now > then),
    );
    let since_ns = case
        .since(|model| page(model).map(is_full))
        .or_else(|| first_refused.map(|pair| pair[1].at_ns));
    let signal = max.map_or_else(
        || String::from("messages in the producer's queue"),
        |max| format!("messages in the producer's queue (limit {max})"),
    );
    let mut evidence = vec![number(Tier::Heartbeat, signal, held as f64, "messages", since_ns)];
    if refused > 0 {
        let signal = "messages refused in the last seconds because it was full";
        evidence.push(number(Tier::Heartbeat, signal, refused as f64, "messages", None));
    }
    let delivered = ends(counted(case), |model| Some(page(model)?.delivered));
    if let Some(delivered) = delivered.and_then(|(then, now)| now.checked_sub(then)) {
        let signal = "events delivered in the last seconds";
        evidence.push(number(Tier::Heartbeat, signal, delivered as f64, "events", None));
    }
    evidence.extend(scene.as_ref().map(|scene| scene.waiting_evidence(case)));
    let limit = max.map_or_else(String::new, |max| format!(" of {max}"));
    Ok(Finding::Fits(Account {
        confidence: scene.map_or(sure, |scene| scene.capped(sure)),
        summary: format!(
            "The Kafka producer's queue is full ({held}{limit} messages): requests wait for room in it, or are refused."
        ),
        evidence,
    }))
}

fn beat_age_ms_of(case: &Case<'_>) -> Option<f64> {
    beat_age_ms(case.last()?)
}

/// Whether nothing is wrong with a broker that would fill the queue.
fn brokers_are_well(case: &Case<'_>) -> bool {
    let Some(last) = case.last() else { return false };
    let well = |peer: &PeerModel| {
        kafka::is_established(peer)
            && !is_silent(peer)
            && !is_held_back(peer)
            && owed_ms(peer).is_none()
    };
    let mut brokers = last.all_peers().iter().filter(|peer| peer.kafka).peekable();
    brokers.peek().is_some() && brokers.all(well)
}

#[cfg(test)]
mod tests {
    use stallscope_probes::Reading::Got;

    use super::super::fixtures::{
        Expect, Story, block, hold, keep_page, requests_wait, with_kafka,
    };
    use super::*;
    use crate::detect::StallKind;
    use Confidence::{Certain, Possible};
    use Expect::{Excluded, Fits, Missing};

    fn paged(change: impl Fn(usize, &mut HeartbeatRaw)) -> Story {
        Story::new(StallKind::Answers)
            .throughout(|_, model| {
                with_kafka(model);
                keep_page(model, |_| {});
            })
            .stalled(move |since, model| {
                keep_page(model, |page| {
                    page.requests = 520;
                    change(since, page);
                });
            })
    }

    fn full() -> Story {
        paged(|_, page| page.producer_queue = 1_000)
    }

    #[test]
    fn only_the_page_tells_of_a_full_queue() {
        hold(
            examine,
            vec![
                ("full", full(), Fits(Certain, "1000 of 1000 messages")),
                ("room", paged(|_, page| page.producer_queue = 999), Excluded("holds 999 of 1000")),
                (
                    "refuses",
                    paged(|since, page| page.queue_full = since as u64),
                    Fits(Certain, "because it was full: 29"),
                ),
                (
                    "refuses, and answers so",
                    paged(|since, page| {
                        page.queue_full = since as u64;
                        page.responses = page.requests;
                    }),
                    Fits(Certain, "because it was full: 29"),
                ),
                (
                    "full, nobody waits",
                    paged(|_, page| {
                        page.producer_queue = 1_000;
                        page.responses = page.requests;
                    }),
                    Excluded("No request"),
                ),
                (
                    "full because the broker is down",
                    full().stalled(|_, model| model.peers = Got([].into())),
                    Fits(Certain, "1000 of 1000"),
                ),
                (
                    "full because nobody polls",
                    paged(|_, page| {
                        page.producer_queue = 1_000;
                        page.kafka_beat_ns = Some(1);
                    }),
                    Fits(Possible, "1000 of 1000"),
                ),
                (
                    "nobody polls, and the broker is down",
                    paged(|_, page| {
                        page.producer_queue = 1_000;
                        page.kafka_beat_ns = Some(1);
                    })
                    .stalled(|_, model| model.peers = Got([].into())),
                    Fits(Certain, "1000 of 1000"),
                ),
                (
                    "blocked",
                    full().stalled(|_, model| {
                        block(model);
                        let Got(app) = &mut model.app else { return };
                        app.beat_age_ms = Some(2_000.0);
                    }),
                    Excluded("is blocked"),
                ),
                (
                    "no page",
                    Story::new(StallKind::Answers)
                        .throughout(|_, model| with_kafka(model))
                        .stalled(|_, model| requests_wait(model, 7)),
                    Missing("keeps no heartbeat page"),
                ),
                (
                    "no page and no producer",
                    Story::new(StallKind::Answers).stalled(|_, model| requests_wait(model, 7)),
                    Excluded("no Kafka producer"),
                ),
            ],
        );
    }
}
