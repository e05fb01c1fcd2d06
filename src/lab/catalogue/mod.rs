//! Every scenario of the lab: which victim, which load, where, and what must be found.

mod healthy;
mod kafka;
mod network;
mod runtime;
mod served;

use std::time::Duration;

use crate::diagnose::verdict::Cause;

/// One scenario.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    /// Its name, as on the command line.
    pub name: &'static str,
    /// What happens in it, one sentence.
    pub what: &'static str,
    /// What must be found.
    pub expected: Expected,
    /// What runs.
    pub victim: Victim,
    /// What is put on it; all begin once the victim listens.
    pub loads: &'static [Load],
    /// Where it all runs.
    pub place: Place,
    /// What it takes that not every machine has.
    pub needs: &'static [Need],
    /// What the definition of the cause itself needs before it can be told, beyond 500 ms: "none
    /// answered for 3 s" needs 3 s.
    pub definition: Duration,
}

/// What must be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// This cause.
    Stall(Cause),
    /// No alarm at all.
    Healthy,
}

/// What runs.
#[derive(Debug, Clone, Copy)]
pub enum Victim {
    /// `stallscope lab-victim NAME`: keeps no page, and writes its truth to a file.
    Lab(&'static str),
    /// `stallscope serve …` with these arguments (the embedded broker, `--json` and the fault's
    /// time are added): keeps a page, its truth is on it.
    Serve(&'static [&'static str]),
}

/// What is put on a victim.
#[derive(Debug, Clone, Copy)]
pub enum Load {
    /// `stallscope load`.
    Http {
        /// Connections at once.
        connections: u32,
        /// Requests a second in all; `None`: as many as get answered.
        rate: Option<u32>,
        /// Whether each request takes a connection of its own.
        close: bool,
    },
    /// `stallscope lab-victim NAME --connect ADDRESS`: a client of the lab's own.
    Client(&'static str),
}

/// Where it all runs.
#[derive(Debug, Clone, Copy)]
pub enum Place {
    /// On the host, on loopback.
    Host,
    /// In a network namespace of its own, with loopback up and these sysctls (`KEY=VALUE`).
    Netns(&'static [&'static str]),
}

/// What a scenario takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Root.
    Root,
    /// A cgroup it may make, of this controller (`cpu`, `freezer`), v1 or v2.
    Cgroup(&'static str),
    /// Changes a limit of the whole host for some seconds: only with `--allow-host-changes`.
    HostChange(&'static str),
    /// A program, from this Debian package.
    Program(&'static str, &'static str),
    /// Connection tracking in the kernel.
    Conntrack,
}

impl Scenario {
    /// What the definition of its cause needs before it can be told, beyond 500 ms.
    pub fn takes(&self) -> Duration {
        match self.expected {
            Expected::Stall(cause) => self.definition.max(takes(cause)),
            Expected::Healthy => self.definition,
        }
    }
}

/// What the definition of a cause needs before it can be told, beyond 500 ms: how long the demand
/// must go unmet (`detect::thresholds`), and how often it is looked at.
const fn takes(cause: Cause) -> Duration {
    let ms = match cause {
        Cause::ProcessStopped => 300,
        // Entries and completions that nobody moves for half a second.
        Cause::SqNotFlushed | Cause::SubmitErrorDropped | Cause::CompletionsNotReaped => 500,
        // Connections or bytes that wait for a second, beside a thread that is seen at every tick;
        // a full table for as long.
        Cause::RuntimeBlocked
        | Cause::RuntimeBusy
        | Cause::WorkersBlocked
        | Cause::AcceptNotArmed
        | Cause::TaskrunDeferred
        | Cause::AcceptEagainStorm
        | Cause::FdExhausted
        | Cause::FileTableFull
        | Cause::SynBacklogFull
        | Cause::ConntrackFull => 1_000,
        // The same, after refusals that are counted every half second, or a census of the
        // connections of every 400 ms, or half a second in which nobody looked at a connection.
        Cause::ListenerGone | Cause::EphemeralPortsExhausted | Cause::AcceptLeaked => 1_500,
        // A second in which nobody is answered, and a broker that owes an answer for 750 ms. Clients
        // try again a second after a drop: two waves. Shares of periods are taken over a second or
        // two. Of a sibling nothing is seen but its queue.
        Cause::KafkaUnreachable
        | Cause::KafkaSlow
        | Cause::KafkaQueueFull
        | Cause::AcceptQueueOverflow
        | Cause::CpuThrottled
        | Cause::ReuseportSibling => 2_000,
        // Nothing but that nobody is answered for three seconds.
        Cause::KafkaNotPolled => 3_000,
        Cause::HealthyIdle | Cause::HealthyBusy | Cause::Unknown => 0,
    };
    Duration::from_millis(ms)
}

/// All of them.
pub fn all() -> impl Iterator<Item = &'static Scenario> {
    [
        runtime::SCENARIOS,
        network::SCENARIOS,
        kafka::SCENARIOS,
        healthy::SCENARIOS,
        served::SCENARIOS,
    ]
    .into_iter()
    .flatten()
}

/// The scenario of this name.
pub fn find(name: &str) -> Option<&'static Scenario> {
    all().find(|scenario| scenario.name == name)
}
