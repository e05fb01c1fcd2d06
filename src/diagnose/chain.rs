//! What happened in which order: the first link is what to look at, the others are what came of it.

use stallscope_probes::sample::TcpState;

use super::case::Case;
use super::verdict::{Cause, Link, Part};
use crate::detect::StallKind;
use crate::model::Model;
use crate::model::threads::{Doing, doing};

/// What an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Topic {
    Broker,
    Answers,
    Fds,
    Queue,
    QueueFull,
    Drops,
    Submissions,
    Completions,
    Overflow,
    Threads,
    Throttling,
    Stopped,
    Listener,
    Table,
    Ports,
}

/// The topics that are a cause itself, and not what comes of it.
const fn topics(cause: Cause) -> &'static [Topic] {
    match cause {
        Cause::SqNotFlushed | Cause::SubmitErrorDropped => &[Topic::Submissions],
        Cause::CompletionsNotReaped => &[Topic::Completions],
        Cause::RuntimeBlocked | Cause::RuntimeBusy | Cause::WorkersBlocked => &[Topic::Threads],
        Cause::FdExhausted | Cause::FileTableFull => &[Topic::Fds],
        Cause::KafkaUnreachable | Cause::KafkaSlow | Cause::KafkaQueueFull => &[Topic::Broker],
        Cause::KafkaNotPolled => &[Topic::Answers],
        Cause::AcceptQueueOverflow => &[Topic::QueueFull, Topic::Drops],
        // What shows of these first is the queue that nobody takes from.
        Cause::AcceptNotArmed
        | Cause::TaskrunDeferred
        | Cause::ReuseportSibling
        | Cause::AcceptEagainStorm => &[Topic::Queue],
        Cause::ProcessStopped => &[Topic::Stopped],
        Cause::CpuThrottled => &[Topic::Throttling],
        Cause::ListenerGone => &[Topic::Listener],
        Cause::ConntrackFull => &[Topic::Table],
        Cause::EphemeralPortsExhausted => &[Topic::Ports],
        _ => &[],
    }
}

/// Instants closer than this to the cause's own are no later: they are read at different paces.
const TOGETHER_NS: u64 = 100_000_000;

/// The chain of a stall, oldest first.
pub(super) fn of(case: &Case<'_>, cause: Cause) -> Vec<Link> {
    let mut events = events(case);
    events.sort_by_key(|(_, at_ns, _)| *at_ns);
    let own = topics(cause);
    let took_hold_ns = events
        .iter()
        .filter(|(topic, ..)| own.contains(topic))
        .map(|(_, at_ns, _)| *at_ns)
        .min()
        .unwrap_or(case.onset.at_ns);
    let first_ns = case.history.first().map(|model| model.at_ns);
    events
        .into_iter()
        .map(|(topic, at_ns, what)| {
            let later = at_ns > took_hold_ns.saturating_add(TOGETHER_NS);
            // What came before led to it; of what is as old as the watch the order is unknown.
            let came_of_it = !own.contains(&topic) && (later || consequence_by_nature(topic));
            let part = if came_of_it { Part::Consequence } else { Part::Cause };
            let before = first_ns.is_some_and(|first_ns| at_ns <= first_ns);
            let what = if before { format!("{what} (already when watching began)") } else { what };
            Link { at_ns, what, part }
        })
        .collect()
}

/// What never is the cause of anything that stalls a server.
const fn consequence_by_nature(topic: Topic) -> bool {
    matches!(topic, Topic::Queue | Topic::QueueFull | Topic::Drops | Topic::Overflow)
}

type Dated = (Topic, u64, String);

fn events(case: &Case<'_>) -> Vec<Dated> {
    let mut events: Vec<Dated> = Vec::new();
    let mut since = |topic, what: &str, holds: &dyn Fn(&Model) -> Option<bool>| {
        if let Some(at_ns) = case.since(holds) {
            events.push((topic, at_ns, what.to_owned()));
        }
    };
    since(Topic::Stopped, "the process was stopped", &super::process_stopped::held);
    since(Topic::Throttling, "its cgroup's CPU quota was used up in most periods", &|model| {
        Some(model.cgroup.got()?.throttled_ratio? >= MOSTLY)
    });
    since(Topic::Broker, "no connection to a Kafka broker was established any more", &no_broker);
    since(Topic::Fds, "the limit of open fds was reached", &super::fd_exhausted::is_full);
    since(Topic::Queue, "connections began to wait in the accept queue", &|model| {
        Some(model.queued()? > 0)
    });
    since(Topic::QueueFull, "the accept queue was full", &queue_full);
    since(Topic::Threads, "no thread of the runtime came back to its event loop", &|model| {
        let mut threads = model.runtime_threads().peekable();
        threads.peek()?;
        Some(threads.all(|thread| matches!(doing(thread), Doing::Blocked | Doing::Running)))
    });
    since(Topic::Overflow, "completions went beyond the queue of the ring (overflow)", &|model| {
        let mut states = model.all_rings().iter().filter_map(|ring| ring.state.got()).peekable();
        states.peek()?;
        Some(states.any(|state| state.overflowing))
    });
    events.extend(ring_events(case));
    let from_ns = case.onset.at_ns;
    let dropped = case.history.iter().filter(|model| model.at_ns >= from_ns).find(|model| {
        model.own_listeners().any(|listener| listener.drops_new.got().is_some_and(|new| *new > 0))
    });
    if let Some(model) = dropped {
        let what = String::from("the first connection was dropped at the accept queue");
        events.push((Topic::Drops, model.at_ns, what));
    }
    events.push(onset(case));
    events
}

/// In most of its periods.
const MOSTLY: f64 = 0.8;

/// A connection to Kafka was seen in this history, and there is none now.
fn no_broker(model: &Model) -> Option<bool> {
    model.peers.got()?;
    let producer = model.all_threads().any(|thread| thread.comm.starts_with("rdk:"));
    let connected =
        model.all_peers().iter().any(|peer| peer.kafka && peer.raw.state == TcpState::Established);
    Some(producer && !connected)
}

fn queue_full(model: &Model) -> Option<bool> {
    model.listeners.got()?;
    Some(
        model.own_listeners().any(|listener| {
            listener.limit.is_some_and(|limit| limit > 0 && listener.queued > limit)
        }),
    )
}

fn ring_events(case: &Case<'_>) -> Vec<Dated> {
    let mut events = Vec::new();
    for ring in case.rings() {
        let (sq_head, cq_head) = (ring.last.sq_head, ring.last.cq_head);
        let state = |model: &Model| model.ring(ring.fd)?.state.got().cloned();
        if ring.sq_frozen
            && let Some(at_ns) = case.since(|model| {
                let state = state(model)?;
                Some(state.sq_pending() > 0 && state.sq_head == sq_head)
            })
        {
            let what = format!("ring {} took no more entries (head {sq_head})", ring.fd);
            events.push((Topic::Submissions, at_ns, what));
        }
        if ring.cq_frozen
            && let Some(at_ns) = case.since(|model| {
                let state = state(model)?;
                Some(state.cq_pending() > 0 && state.cq_head == cq_head)
            })
        {
            let what = format!("completions of ring {} were not reaped any more", ring.fd);
            events.push((Topic::Completions, at_ns, what));
        }
    }
    events
}

fn onset(case: &Case<'_>) -> Dated {
    let topic = match case.onset.kind {
        StallKind::Stopped => Topic::Stopped,
        StallKind::Ring => Topic::Submissions,
        StallKind::Runtime => Topic::Threads,
        StallKind::Accept => Topic::Queue,
        StallKind::Answers => Topic::Answers,
        StallKind::Listener => Topic::Listener,
        StallKind::Full => Topic::Table,
        StallKind::Throttled => Topic::Throttling,
    };
    let what = format!("progress stopped: {}", case.onset.demand);
    (topic, case.onset.at_ns, what)
}
