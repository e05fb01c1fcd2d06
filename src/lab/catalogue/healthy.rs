//! Healthy servers that look ill: the twins of the faults.

use std::time::Duration;

use super::{Expected, Load, Place, Scenario, Victim};

const fn twin(
    name: &'static str,
    what: &'static str,
    victim: Victim,
    loads: &'static [Load],
) -> Scenario {
    Scenario {
        name,
        what,
        expected: Expected::Healthy,
        victim,
        loads,
        place: Place::Host,
        needs: &[],
        definition: Duration::ZERO,
    }
}

const SATURATING: &[Load] = &[Load::Http { connections: 64, rate: None, close: false }];

/// By name.
pub(super) const SCENARIOS: &[Scenario] = &[
    twin(
        "twin-idle-4000",
        "4,000 connections are open, and none says anything.",
        Victim::Lab("twin-server"),
        &[Load::Client("client-holds-4000")],
    ),
    twin(
        "twin-saturated-tokio",
        "64 connections ask without pause, on tokio.",
        Victim::Lab("twin-server"),
        SATURATING,
    ),
    twin(
        "twin-saturated-uring",
        "64 connections ask without pause, on tokio-uring.",
        Victim::Lab("twin-server-uring"),
        SATURATING,
    ),
    twin(
        "twin-saturated-page",
        "64 connections ask without pause, each answer waits for Kafka, and the server keeps a page.",
        Victim::Serve(&["tokio", "--ack", "delivery"]),
        SATURATING,
    ),
    twin(
        "twin-bursts",
        "200 requests at once, then nothing for 1 to 2 s.",
        Victim::Lab("twin-server"),
        &[Load::Client("client-bursts")],
    ),
    twin(
        "twin-drips-among-others",
        "20 clients send a byte every 200 ms and never a whole request; others are served.",
        Victim::Lab("twin-server"),
        &[
            Load::Client("client-drips"),
            Load::Http { connections: 16, rate: Some(200), close: false },
        ],
    ),
    twin(
        "twin-only-drips",
        "20 clients send a byte every 200 ms and never a whole request; there are no others.",
        Victim::Lab("twin-server"),
        &[Load::Client("client-drips")],
    ),
    twin(
        "twin-long-requests-staggered",
        "Every request takes 3 s; 50 connections have begun at different times.",
        Victim::Lab("twin-server-3s"),
        &[Load::Client("client-staggers-50")],
    ),
    twin(
        "twin-long-requests-together",
        "Every request takes 3 s; 50 connections begin all at once, and so are answered at once.",
        Victim::Lab("twin-server-3s"),
        &[Load::Http { connections: 50, rate: None, close: false }],
    ),
    twin(
        "twin-kafka-copes",
        "Kafka takes 300 ms for each answer, and keeps up.",
        Victim::Lab("twin-server-kafka"),
        &[Load::Http { connections: 32, rate: None, close: false }],
    ),
    twin(
        "twin-pauses",
        "The runtime's thread pauses for 100 ms every second, as for a garbage collection.",
        Victim::Lab("twin-server-pauses"),
        &[Load::Http { connections: 32, rate: Some(500), close: false }],
    ),
    twin(
        "twin-push",
        "20 clients wait for what the server says 20 s later; others are served.",
        Victim::Lab("twin-server"),
        &[
            Load::Client("client-awaits-push"),
            Load::Http { connections: 8, rate: Some(100), close: false },
        ],
    ),
    twin(
        "twin-one-long-answer",
        "The only client gets each answer after 4 s.",
        Victim::Lab("twin-server"),
        &[Load::Client("client-waits-4s")],
    ),
    twin(
        "twin-cpu-heavy",
        "Each request takes 30 ms of CPU time, and 16 connections ask without pause.",
        Victim::Lab("twin-server-cpu"),
        &[Load::Http { connections: 16, rate: None, close: false }],
    ),
    twin(
        "twin-upgraded",
        "200 connections were upgraded and are idle since; a few others are served.",
        Victim::Lab("twin-server"),
        &[
            Load::Client("client-upgrades"),
            Load::Http { connections: 8, rate: Some(50), close: false },
        ],
    ),
];
