//! Servers whose Kafka is the trouble.

use std::time::Duration;

use super::{Expected, Load, Place, Scenario, Victim};
use crate::diagnose::verdict::Cause;

/// Requests that go unanswered must do so for this long before that is a stall: a slow request
/// looks the same until then.
const UNANSWERED: Duration = Duration::from_secs(3);
/// A thread that does not come back must stay away for this long: a slow handler does too.
const AWAY: Duration = Duration::from_secs(1);

/// As many requests as get answered, on connections that are kept.
const CLOSED_LOOP: &[Load] = &[Load::Http { connections: 32, rate: None, close: false }];
/// More connections than a small queue has room for, few of them busy while all is well.
const MANY_CONNECTIONS: &[Load] = &[Load::Http { connections: 200, rate: Some(300), close: false }];
/// A connection for each request: while nothing is answered, each holds an fd.
const NEW_CONNECTIONS: &[Load] = &[Load::Http { connections: 400, rate: Some(60), close: true }];
/// Large records, enough of them at once to fill a connection.
const LARGE_RECORDS: &[Load] = &[Load::Http { connections: 128, rate: Some(60), close: false }];
/// Requests that each hold up the runtime's thread for 100 ms.
const FEW_REQUESTS: &[Load] = &[Load::Http { connections: 3, rate: None, close: false }];
/// Requests that fill a small queue in a second.
const STEADY: &[Load] = &[Load::Http { connections: 32, rate: Some(150), close: false }];

const fn stall(
    name: &'static str,
    what: &'static str,
    cause: Cause,
    victim: Victim,
    loads: &'static [Load],
) -> Scenario {
    Scenario {
        name,
        what,
        expected: Expected::Stall(cause),
        victim,
        loads,
        place: Place::Host,
        needs: &[],
        definition: if matches!(cause, Cause::RuntimeBlocked) { AWAY } else { UNANSWERED },
    }
}

/// By name.
pub(super) const SCENARIOS: &[Scenario] = &[
    stall(
        "kafka-unreachable-killed",
        "The broker is killed: its connections are closed, and others refused.",
        Cause::KafkaUnreachable,
        Victim::Lab("kafka-killed"),
        CLOSED_LOOP,
    ),
    stall(
        "kafka-unreachable-vanished",
        "The broker vanishes from the network: nothing is acknowledged, nothing refused.",
        Cause::KafkaUnreachable,
        Victim::Lab("kafka-vanished"),
        CLOSED_LOOP,
    ),
    stall(
        "kafka-unreachable-from-start",
        "There never was a broker: no request is ever answered.",
        Cause::KafkaUnreachable,
        Victim::Lab("kafka-never-there"),
        CLOSED_LOOP,
    ),
    stall(
        "kafka-unreachable-small-queue",
        "The broker is killed, and the producer's queue of 100 records fills up.",
        Cause::KafkaUnreachable,
        Victim::Lab("kafka-small-queue"),
        MANY_CONNECTIONS,
    ),
    stall(
        "kafka-unreachable-chain",
        "The broker is killed, handlers wait, fds run out, and accepting stops.",
        Cause::KafkaUnreachable,
        Victim::Lab("kafka-chain"),
        NEW_CONNECTIONS,
    ),
    stall(
        "kafka-unreachable-page",
        "The broker goes down; the server keeps a page.",
        Cause::KafkaUnreachable,
        Victim::Serve(&["tokio-uring", "--ack", "delivery", "--fault", "kafka-unreachable"]),
        CLOSED_LOOP,
    ),
    stall(
        "kafka-slow-answers",
        "The broker takes 20 s for each answer.",
        Cause::KafkaSlow,
        Victim::Lab("kafka-late"),
        CLOSED_LOOP,
    ),
    stall(
        "kafka-slow-stopped",
        "The broker's process is stopped: its connections stay, fill up, and bring no answer.",
        Cause::KafkaSlow,
        Victim::Lab("kafka-broker-stopped"),
        LARGE_RECORDS,
    ),
    stall(
        "kafka-slow-page",
        "The broker takes 20 s for each answer; the server keeps a page.",
        Cause::KafkaSlow,
        Victim::Serve(&["tokio", "--ack", "delivery", "--fault", "kafka-slow"]),
        CLOSED_LOOP,
    ),
    stall(
        "kafka-queue-full-tokio",
        "The broker goes down, the producer's queue of 100 records fills up, and requests wait for room.",
        Cause::KafkaQueueFull,
        Victim::Serve(&["tokio", "--fault", "kafka-queue-full"]),
        STEADY,
    ),
    stall(
        "kafka-queue-full-uring",
        "The same on tokio-uring.",
        Cause::KafkaQueueFull,
        Victim::Serve(&["tokio-uring", "--fault", "kafka-queue-full"]),
        STEADY,
    ),
    stall(
        "kafka-not-polled-task",
        "The task that polls the producer ends: deliveries are never reported.",
        Cause::KafkaNotPolled,
        Victim::Lab("kafka-not-polled"),
        CLOSED_LOOP,
    ),
    stall(
        "kafka-not-polled-page",
        "The thread that polls the producer pauses; the server keeps a page.",
        Cause::KafkaNotPolled,
        Victim::Serve(&["tokio-uring", "--ack", "delivery", "--fault", "kafka-not-polled"]),
        CLOSED_LOOP,
    ),
    stall(
        "kafka-flush-on-runtime",
        "The broker is killed, and a handler flushes the producer on the runtime's thread.",
        Cause::RuntimeBlocked,
        Victim::Lab("kafka-flush"),
        FEW_REQUESTS,
    ),
    stall(
        "kafka-poll-on-runtime",
        "The broker is killed, and handlers that hear of it poll the producer for 10 s on tokio-uring's thread.",
        Cause::RuntimeBlocked,
        Victim::Lab("kafka-poll-uring"),
        CLOSED_LOOP,
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::victims;
    use crate::servers::{Ack, FaultPlan, Kafka, Stack};

    fn check(arguments: &[&str]) {
        let stack = if arguments[0] == "tokio" { Stack::Tokio } else { Stack::TokioUring };
        assert_eq!(arguments[0], stack.name());
        let ack = if arguments.contains(&"delivery") { Ack::Delivery } else { Ack::Queue };
        let at = arguments.iter().position(|argument| *argument == "--fault");
        let fault = at.map(|at| arguments[at + 1].parse::<FaultPlan>().unwrap());
        let checked = fault.map(|plan| plan.check(stack, &Kafka::Embedded, ack));
        assert_eq!(checked.unwrap_or(Ok(())), Ok(()), "{arguments:?}");
    }

    #[test]
    fn every_victim_and_client_there_is_named_can_be_started() {
        for scenario in SCENARIOS.iter().chain(super::super::healthy::SCENARIOS) {
            match scenario.victim {
                Victim::Lab(name) => assert!(victims::find(name).is_some(), "{name}"),
                Victim::Serve(arguments) => check(arguments),
            }
            for load in scenario.loads {
                if let Load::Client(name) = load {
                    assert!(victims::find(name).is_some(), "{name}");
                }
            }
            let same = super::super::all().filter(|other| other.name == scenario.name);
            assert_eq!(same.count(), 1, "{}", scenario.name);
        }
    }
}
