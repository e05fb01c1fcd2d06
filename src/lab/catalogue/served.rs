//! The instrumented servers: they keep a page, so these are the easy ones, and must never fail.

use std::time::Duration;

use super::{Expected, Load, Place, Scenario, Victim};
use crate::diagnose::verdict::Cause;

/// Well below the 256 entries of the submission queue, beyond which a stalled tokio-uring runtime
/// would submit after all; half as many again still are.
const CROWD: &[Load] = &[Load::Http { connections: 64, rate: None, close: false }];
/// fds run out only when connections keep coming.
const COMERS: &[Load] = &[Load::Http { connections: 64, rate: None, close: true }];

/// `definition_ms`: how long a ring must stand still (500), a thread (200), a queue (1,000), before that
/// is more than a pause.
const fn stall(
    name: &'static str,
    what: &'static str,
    cause: Cause,
    arguments: &'static [&'static str],
    loads: &'static [Load],
    definition_ms: u64,
) -> Scenario {
    Scenario {
        name,
        what,
        expected: Expected::Stall(cause),
        victim: Victim::Serve(arguments),
        loads,
        place: Place::Host,
        needs: &[],
        definition: Duration::from_millis(definition_ms),
    }
}

/// By name.
pub(super) const SCENARIOS: &[Scenario] = &[
    stall(
        "serve-sq-not-flushed",
        "A task of the instrumented tokio-uring server is always ready, so that nothing is submitted.",
        Cause::SqNotFlushed,
        &["tokio-uring", "--fault", "sq-not-flushed"],
        CROWD,
        500,
    ),
    stall(
        "serve-runtime-blocked",
        "The instrumented tokio server sleeps on its runtime's thread.",
        Cause::RuntimeBlocked,
        &["tokio", "--fault", "runtime-blocked"],
        CROWD,
        200,
    ),
    stall(
        "serve-fd-exhausted",
        "The instrumented tokio-uring server never closes a connection and runs out of fds.",
        Cause::FdExhausted,
        &["tokio-uring", "--fault", "fd-exhausted"],
        COMERS,
        1_000,
    ),
    stall(
        "serve-process-stopped",
        "The instrumented tokio-uring server is stopped by a signal.",
        Cause::ProcessStopped,
        &["tokio-uring", "--fault", "process-stopped"],
        CROWD,
        0,
    ),
    Scenario {
        expected: Expected::Healthy,
        ..stall(
            "serve-tokio-healthy",
            "The instrumented tokio server, as busy as it can be.",
            Cause::HealthyBusy,
            &["tokio"],
            CROWD,
            0,
        )
    },
    Scenario {
        expected: Expected::Healthy,
        ..stall(
            "serve-tokio-uring-healthy",
            "The instrumented tokio-uring server, as busy as it can be.",
            Cause::HealthyBusy,
            &["tokio-uring"],
            CROWD,
            0,
        )
    },
];
