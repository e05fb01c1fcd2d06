//! Servers whose runtime, ring or accept loop is the trouble.

use std::time::Duration;

use super::{Expected, Load, Place, Scenario, Victim};
use crate::diagnose::verdict::Cause;

/// Clients that stay, at a rate any of the servers can answer, and clients that come and go: with
/// these there is always somebody in the accept queue of a server that has ceased to accept.
const CROWD: &[Load] = &[
    Load::Http { connections: 32, rate: Some(1000), close: false },
    Load::Http { connections: 8, rate: Some(50), close: true },
];

/// Each request takes a connection of its own, from more clients than hang: a connection that
/// nobody serves keeps its client until the client gives up.
const NEWCOMERS: &[Load] = &[Load::Http { connections: 256, rate: Some(50), close: true }];

/// Of connections that are taken and not served, one must have waited this long for an answer.
const UNANSWERED: Duration = Duration::from_secs(3);

/// Workers that compute want more CPUs than there are: what waits a second by itself is given up to four
/// of them then (`detect::signs`, `stretched`).
const WANT_OF_CPU: Duration = Duration::from_secs(4);

const fn stall(name: &'static str, cause: Cause, what: &'static str) -> Scenario {
    Scenario {
        name,
        what,
        expected: Expected::Stall(cause),
        victim: Victim::Lab(name),
        loads: CROWD,
        place: Place::Host,
        needs: &[],
        definition: Duration::ZERO,
    }
}

/// Newcomers are taken and not served; whoever was there before is served on.
const fn partial(name: &'static str, cause: Cause, what: &'static str) -> Scenario {
    Scenario { loads: NEWCOMERS, definition: UNANSWERED, ..stall(name, cause, what) }
}

/// By name.
pub(super) const SCENARIOS: &[Scenario] = &[
    stall(
        "uring-yields",
        Cause::SqNotFlushed,
        "a task of a tokio-uring server loops on yield_now: the runtime never parks, never submits",
    ),
    stall(
        "uring-wakes-itself",
        Cause::SqNotFlushed,
        "a future of a tokio-uring server wakes itself at every poll: the runtime never parks",
    ),
    stall(
        "uring-full-channel",
        Cause::SqNotFlushed,
        "a task of a tokio-uring server drains a channel that is filled faster: it never parks",
    ),
    stall(
        "uring-submit-error",
        Cause::SubmitErrorDropped,
        "io_uring_enter fails with EAGAIN, tokio-uring ignores it and goes to sleep",
    ),
    stall(
        "uring-dead-reaper",
        Cause::CompletionsNotReaped,
        "a waker panics in the task of tokio-uring that reaps completions",
    ),
    stall(
        "uring-accept-ends",
        Cause::AcceptNotArmed,
        "the accept loop of a tokio-uring server returns, and the listener lives on",
    ),
    stall(
        "uring-deferred",
        Cause::TaskrunDeferred,
        "a tokio-uring server on a ring with DEFER_TASKRUN: no completion is ever made",
    ),
    stall(
        "uring-listener-gone",
        Cause::ListenerGone,
        "the accept loop of a tokio-uring server returns, and closes the listener",
    ),
    partial(
        "uring-accept-leaked",
        Cause::AcceptLeaked,
        "each accept of a tokio-uring server gets 5 ms, and goes on taking connections after that",
    ),
    Scenario {
        definition: Duration::from_secs(1),
        ..stall(
            "uring-storm",
            Cause::AcceptEagainStorm,
            "accepts through a ring fail with EAGAIN instead of waiting; the loop tries again at once",
        )
    },
    stall(
        "uring-sleeps",
        Cause::RuntimeBlocked,
        "a handler of a tokio-uring server calls thread::sleep",
    ),
    stall(
        "uring-locks",
        Cause::RuntimeBlocked,
        "a task of a tokio-uring server locks a mutex that another thread keeps",
    ),
    stall(
        "uring-stderr-full",
        Cause::RuntimeBlocked,
        "a tokio-uring server logs to a stderr that is a full pipe without a reader",
    ),
    stall(
        "uring-reads-pipe",
        Cause::RuntimeBlocked,
        "a task of a tokio-uring server reads an empty pipe",
    ),
    stall(
        "uring-reads-socket",
        Cause::RuntimeBlocked,
        "a task of a tokio-uring server waits, in a blocking read, for a server that is silent",
    ),
    stall(
        "uring-computes",
        Cause::RuntimeBusy,
        "one poll of a tokio-uring server computes for ever",
    ),
    stall("tokio-sleeps", Cause::RuntimeBlocked, "a task of a tokio server calls thread::sleep"),
    stall(
        "tokio-locks",
        Cause::RuntimeBlocked,
        "a task of a tokio server locks a mutex that another thread keeps",
    ),
    stall("tokio-computes", Cause::RuntimeBusy, "one poll of a tokio server computes for ever"),
    stall(
        "tokio-accept-ends",
        Cause::AcceptNotArmed,
        "the accept loop of a tokio server returns, and the listener lives on",
    ),
    stall(
        "tokio-accept-waits",
        Cause::AcceptNotArmed,
        "the accept loop of a tokio server waits for a permit that nobody gives back",
    ),
    stall(
        "tokio-listener-gone",
        Cause::ListenerGone,
        "the accept loop of a tokio server returns, and closes the listener",
    ),
    stall("tokio-stops", Cause::ProcessStopped, "a tokio server gets a SIGSTOP"),
    stall("mt2-sleep", Cause::WorkersBlocked, "both workers of a tokio runtime call thread::sleep"),
    stall(
        "mt2-lock",
        Cause::WorkersBlocked,
        "both workers of a tokio runtime lock a mutex that another thread keeps",
    ),
    Scenario {
        definition: WANT_OF_CPU,
        ..stall(
            "mt2-compute",
            Cause::WorkersBlocked,
            "both workers of a tokio runtime compute for ever",
        )
    },
    stall(
        "mt4-sleep",
        Cause::WorkersBlocked,
        "all four workers of a tokio runtime call thread::sleep",
    ),
    stall(
        "mt4-lock",
        Cause::WorkersBlocked,
        "all four workers of a tokio runtime lock a mutex that another thread keeps",
    ),
    Scenario {
        definition: WANT_OF_CPU,
        ..stall(
            "mt4-compute",
            Cause::WorkersBlocked,
            "all four workers of a tokio runtime compute for ever",
        )
    },
    stall(
        "monoio-sleeps",
        Cause::RuntimeBlocked,
        "a task of a monoio server, which waits in io_uring_enter, calls thread::sleep",
    ),
    stall("monoio-computes", Cause::RuntimeBusy, "one poll of a monoio server computes for ever"),
    stall(
        "monoio-accept-ends",
        Cause::AcceptNotArmed,
        "the accept loop of a monoio server returns, and the listener lives on",
    ),
    Scenario {
        expected: Expected::Healthy,
        ..stall(
            "monoio-healthy",
            Cause::HealthyBusy,
            "a monoio server serves: its thread waits in io_uring_enter, not in epoll",
        )
    },
    partial(
        "reuseport-sibling",
        Cause::ReuseportSibling,
        "a second process listens on the port of a tokio server, and serves nobody",
    ),
    partial(
        "reuseport-own",
        Cause::ReuseportSibling,
        "a tokio-uring server listens twice on its port, and serves only the first socket",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::victims;

    #[test]
    fn every_scenario_has_its_victim() {
        for scenario in SCENARIOS {
            let Victim::Lab(name) = scenario.victim else { panic!("{} has none", scenario.name) };
            assert!(victims::find(name).is_some(), "there is no victim {name}");
        }
    }
}
